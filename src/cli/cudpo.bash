# Completion of cudpo's commands and options for bash; what there is, the program itself says.
_cudpo() {
    local word=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} typed
    local -a page=("${COMP_WORDS[1]}") # whose options
    COMPREPLY=()
    for typed in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
        case "${page[*]} $typed" in
        "bench step" | "launch slurm" | "launch kubernetes" | "launch torchrun") page+=("$typed") ;;
        "launch train") page=(train) ;;
        esac
    done
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p') --help --version" -- "$word")
    elif [[ $word == --* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "${page[@]}" --help 2>/dev/null | grep -oE '^ +--[a-z0-9_]+') --help" -- "$word")
    elif [ "${page[*]}" = launch ]; then
        mapfile -t COMPREPLY < <(compgen -W "train slurm kubernetes torchrun" -- "$word")
        compopt -o default 2>/dev/null
    else
        compopt -o default
    fi
}
complete -F _cudpo cudpo
