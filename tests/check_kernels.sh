#!/bin/sh
# Fails if a kernel leaves the dialect that both nvcc and the emulator understand (kernels/device.h), or adds floats by
# atomics, whose order, and so the sum's last bits, differ from run to run.  Usage: check_kernels.sh ROOT
cd "$1" || exit 1
bad=0 files=0

# Text of a file without comments and strings, line numbers kept: a word in a sentence is no code.
code() {
    awk '{
        line = $0
        if (!inside && line ~ /\/\* integers \*\//) gsub(/atomic(Add|Sub)/, "", line)
        out = ""
        while (line != "") {
            if (inside) {
                end = index(line, "*/")
                if (!end) { line = ""; break }
                line = substr(line, end + 2)
                inside = 0
            } else if (match(line, /"([^"\\]|\\.)*"|\/\/.*|\/\*/)) {
                out = out substr(line, 1, RSTART - 1) " "
                inside = substr(line, RSTART, 2) == "/*"
                line = substr(line, RSTART + RLENGTH)
            } else {
                out = out line
                line = ""
            }
        }
        print out
    }' "$1"
}

# refuse FILE PATTERN REASON
refuse() {
    lines=$(code "$1" | grep -nE "$2") || return 0
    echo "$lines" | sed "s|^|$1:|; s|\$|    <- $3|"
    bad=1
}

for file in $(find kernels -type f \( -name '*.h' -o -name '*.cu' -o -name '*.cuh' \)); do
    files=$((files + 1))
    case $file in kernels/device.h | kernels/ptx.h) continue ;; esac
    refuse "$file" '<<<' 'launch with LAUNCH'
    refuse "$file" '__shared__' 'declare with SHARED or DYN_SHARED'
    refuse "$file" '(^|[^A-Za-z0-9_])(__)?asm(__)?([^A-Za-z0-9_]|$)' 'inline PTX belongs in ptx.h'
    refuse "$file" '__activemask' 'what it returns is not defined by the program'
    refuse "$file" 'atomic(Add|Sub)' 'the order of a float sum must be fixed; else write /* integers */ in the line'
    refuse "$file" '__CUDACC__|__CUDA_ARCH__' 'one source for both compilers'
done
# Every launcher is called by a test, itself or as the op of its name.
for launcher in $(grep -oE 'cudpo_status cuda_[a-z0-9_]+' kernels/kernels.h | cut -d ' ' -f 2); do
    grep -qrE "(^|[^a-z0-9_])$launcher\(|->${launcher#cuda_}\(" --include='*.[ch]' tests && continue
    echo "kernels/kernels.h: $launcher is called by no test    <- nothing shows that it works"
    bad=1
done
echo "$files files checked"
[ "$files" -gt 0 ] && [ "$bad" -eq 0 ]
