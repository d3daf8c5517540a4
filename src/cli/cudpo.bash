# Completion of cudpo's commands and options for bash; what there is, the program itself says.
_cudpo() {
    local word=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p') --help --version" -- "$word")
    elif [[ $word == --* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "${COMP_WORDS[1]}" --help 2>/dev/null | grep -oE '^ +--[a-z0-9_]+') --help" -- "$word")
    else
        compopt -o default
    fi
}
complete -F _cudpo cudpo
