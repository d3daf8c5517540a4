#!/bin/sh
# Runs a compiler and keeps what ptxas says of its kernels beside the object, as <object>.ptxas: a CUDA_COMPILER_LAUNCHER.
object= previous=
for argument; do
    [ "$previous" = -o ] && object=$argument
    previous=$argument
done
report=$(mktemp)
"$@" 2>"$report"
status=$?
grep -v '^ptxas info' "$report" | grep -vE '^    [0-9]+ bytes (stack frame|gmem)' >&2
[ -n "$object" ] && cp "$report" "$object.ptxas"
rm -f "$report"
exit $status
