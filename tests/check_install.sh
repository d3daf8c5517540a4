#!/bin/sh
# Installs a build into a folder of its own and uses it there.  check_install.sh BUILD PLUGIN_FOLDER
set -eu
build=$1 plugins=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
fail() {
    echo "install: $*"
    exit 1
}

cmake --install "$build" --prefix "$root" >/dev/null
for file in bin/cudpo include/cudpo/train.h share/man/man1/cudpo.1 share/bash-completion/completions/cudpo; do
    [ -s "$root/$file" ] || fail "$file is missing"
done
[ -z "$(find "$root" -name '*.so' ! -path "$root/$plugins/*")" ] || fail "a library outside of $plugins"
"$root/bin/cudpo" --version | grep -q '^cudpo [0-9]' || fail "the installed program does not run"
for command in train eval score generate tokenize demo launch "launch slurm" flight doctor; do
    grep -q "^.SH cudpo $command\$" "$root/share/man/man1/cudpo.1" || fail "the man page lacks $command"
done
if command -v man >/dev/null && man -l "$root/share/man/man1/cudpo.1" 2>/dev/null >"$root/page"; then
    grep -q -- '--learning_rate' "$root/page" || fail "man(1) shows no option"
fi

# Completion knows the commands and an option.
if command -v bash >/dev/null; then
    PATH="$root/bin:$PATH" bash -c '
        . "$1"
        COMP_WORDS=(cudpo tr) COMP_CWORD=1; _cudpo; [ "${COMPREPLY[*]}" = train ] || exit 1
        COMP_WORDS=(cudpo train --learning) COMP_CWORD=2; _cudpo; [ "${COMPREPLY[*]}" = --learning_rate ] || exit 1
        COMP_WORDS=(cudpo launch sl) COMP_CWORD=2; _cudpo; [ "${COMPREPLY[*]}" = slurm ] || exit 1
        COMP_WORDS=(cudpo launch slurm --gp) COMP_CWORD=3; _cudpo; [ "${COMPREPLY[*]}" = --gpus_per_node ] || exit 1
        COMP_WORDS=(cudpo launch train --learning) COMP_CWORD=3; _cudpo; [ "${COMPREPLY[*]}" = --learning_rate ]' \
        bash "$root/share/bash-completion/completions/cudpo" || fail "completion"
fi

# The plugin in its place is found; without one, the program says so.
emulated=$build/tests/libcudpo_cuda_emulated.so
if [ ! -e "$root/$plugins/libcudpo_cuda.so" ]; then
    env -u CUDPO_PLUGIN "$root/bin/cudpo" doctor | grep -q 'no CUDA backend' || fail "doctor does not miss the plugin"
    if [ -e "$emulated" ]; then
        mkdir -p "$root/$plugins"
        cp "$emulated" "$root/$plugins/libcudpo_cuda.so"
    fi
fi
if [ -e "$root/$plugins/libcudpo_cuda.so" ]; then
    env -u CUDPO_PLUGIN "$root/bin/cudpo" doctor | grep -q "$plugins/libcudpo_cuda.so" || fail "the plugin is not found"
    if [ -e "$emulated" ]; then # which has one GPU
        env -u CUDPO_PLUGIN RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=h MASTER_PORT=1 "$root/bin/cudpo" doctor |
            grep -q 'GPU 0 of 1: local rank 1' || fail "a second rank on the GPU does not count round"
    fi
fi
if [ -e "$build/libcudpo_mpi.so" ]; then
    env -u CUDPO_MPI_PLUGIN "$root/bin/cudpo" doctor | grep -q "^MPI .*$plugins/libcudpo_mpi.so" || fail "MPI's plugin is not found"
else
    env -u CUDPO_MPI_PLUGIN "$root/bin/cudpo" doctor | grep -q '^MPI .*without MPI' || fail "doctor does not miss MPI's plugin"
fi
ldd "$root/bin/cudpo" | grep -q libmpi && fail "the program wants MPI"
echo "installed, and used from there"
