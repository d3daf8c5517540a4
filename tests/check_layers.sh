#!/bin/sh
# Fails if a source file includes a room that its own room may not see.  Usage: check_layers.sh ROOT
sees() { # what each room may include, besides itself and include/cudpo
    case $1 in
    base) echo "" ;;
    tensor | text | launch) echo "base" ;;
    backend) echo "base tensor kernels" ;;
    data) echo "base text" ;;
    model | preference | dist | optim) echo "base tensor backend" ;;
    train) echo "base tensor backend text data model preference dist optim" ;;
    plan) echo "base tensor backend text data model preference optim dist train" ;;
    bench) echo "base tensor backend text data model preference optim dist train plan kernels" ;;
    cli) echo "base" ;;
    kernels) echo "preference tensor" ;;
    esac
}

cd "$1" || exit 1
bad=0 files=0
for file in $(find src kernels bench -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null); do
    files=$((files + 1))
    case $file in kernels/*) room=kernels ;; *) room=${file#src/} room=${room%%/*} ;; esac
    allowed=" $(sees "$room") $room cudpo "
    for path in $(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file"); do
        case $path in */*) used=${path%%/*} ;; *) used=kernels ;; esac # a bare name is in kernels/
        # The maths of the losses is one definition for the rooms above and for the op's twins below.
        case $path in preference/loss.h) case $room in backend | kernels) continue ;; esac ;; esac
        case $allowed in *" $used "*) ;; *) echo "$file: may not include \"$path\""; bad=1 ;; esac
    done
done
echo "$files files checked"
[ "$files" -gt 0 ] && [ "$bad" -eq 0 ]
