#!/bin/sh
# The registers, static shared memory and spills of every kernel on every architecture against tests/kernel_resources.txt.
# (What a launch asks for on top is in its launcher.)  A kernel of a header has a line for each different figure.
#     check_resources.sh OBJECTS TABLE            compare; exit 1 where a line differs, or a kernel uses local memory
#     check_resources.sh OBJECTS TABLE --update   write the table
# OBJECTS is the folder where the build left ptxas's reports (kernels/keep_report.sh).  The figures are nvcc's: with
# another nvcc than the table's they are not compared, and only local memory is a failure.
set -eu
objects=$1 table=$2
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
now=$(mktemp)
trap 'rm -f "$now"' EXIT
{
    echo "# What each kernel takes on each architecture, by $("$nvcc" --version | sed -n 's/.*release .*, V/nvcc /p'); tests/check_resources.sh writes this"
    echo "# architecture registers static_shared_bytes stack_bytes spill_stores kernel"
    find "$objects" -name '*.ptxas' -exec cat {} + | awk '
        /Compiling entry function/ {split($0, q, "\047"); name = q[2]; arch = q[4]}
        /bytes stack frame/ {stack = $1; spills = $5}
        /Used [0-9]+ registers/ {
            shared = 0
            for (i = 1; i < NF; i++) {
                if ($i == "Used") registers = $(i + 1)
                if ($(i + 2) ~ /^smem/ && $(i + 1) == "bytes") shared = $i
            }
            print arch, registers, shared, stack, spills, name
        }' | c++filt -p | sort -u | sort -s -k6 -k1,1V
} >"$now"
kernels=$(grep -vc '^#' "$now" || true)
[ "$kernels" -gt 0 ] || { echo "no report of ptxas in $objects"; exit 1; }
if [ "${3:-}" = --update ]; then
    cp "$now" "$table"
    echo "$kernels lines written"
    exit 0
fi
bad=$(awk '!/^#/ && ($4 > 0 || $5 > 0)' "$now")
if [ -n "$bad" ]; then
    echo "local memory is used by:"
    echo "$bad"
    exit 1
fi
if [ "$(head -n 1 "$now")" = "$(head -n 1 "$table")" ]; then
    diff -u "$table" "$now" || { echo "resources have changed: look, then run with --update"; exit 1; }
else
    echo "another nvcc than the table's: not compared"
fi
echo "$kernels kernels and architectures, none uses local memory"
