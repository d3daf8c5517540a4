#!/bin/sh
# Fails if a header does not compile alone as C11, or a public one as C++ (where the compiler knows that).
# Usage: check_headers.sh ROOT CC
cd "$1" || exit 1
cc=$2 bad=0 files=0
flags="-fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Werror -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc -I. -isystem tests/simt/cuda" # the last: where no CUDA toolkit is
try() { # LANGUAGE STANDARD HEADER
    printf '#include "%s"\n' "$3" | "$cc" $flags -x "$1" -std="$2" - || bad=1
}
plus=no
echo | "$cc" -fsyntax-only -x c++ - 2>/dev/null && plus=yes
for header in $(cd include && find . -name '*.h') $(cd src && find . -name '*.h') \
    kernels/kernels.h kernels/types.h; do
    files=$((files + 1))
    try c c11 "${header#./}"
    case $header in ./cudpo/*) [ $plus = yes ] && try c++ c++11 "${header#./}" ;; esac
done
echo "$files headers checked; as C++, too: $plus"
[ "$files" -gt 0 ] && [ "$bad" -eq 0 ]
