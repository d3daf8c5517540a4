#!/usr/bin/env bash
# bench/gpu.sh - everything that is worth knowing of cudpo on this machine's GPU, in under nine minutes.
#
#     bench/gpu.sh [--out FOLDER] [--total SECONDS] [--only NAME ...] [--dry-run]
#
# Builds, tests, looks for errors of memory and races, measures kernels, whole steps and the peers that are installed, in
# the order of what matters most, and writes FOLDER/<gpu>-<date>-<commit>.json and .md (bench/results where no FOLDER is
# given), again after every stage: a run that is cut short leaves what it had.  --dry-run prints stages, budgets and
# commands, and does nothing.  Ends with status 1 where a stage failed.
#
# It needs no network: an NVIDIA driver, a CUDA toolkit (nvcc on PATH or in /usr/local/cuda), gcc, CMake 3.25, Ninja,
# pkg-config, python3, and the headers of cJSON, OpenBLAS, PCRE2, utf8proc, zlib, xxHash, libsodium and cmocka.  Where those
# cannot be installed:
#     DEPS=FOLDER     .deb files that are unpacked into build-deps/ and found there
#     WHEELS=FOLDER   wheels of bench/peers/requirements-gpu.txt, installed beside this Python's PyTorch
#     PYTHON=PROGRAM  the Python that has PyTorch; python3 where not given
#     CUDPO_COMMIT    what to call this tree where it came without git
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "bench/gpu.sh: no $python here" >&2; exit 2; }
for argument in "$@"; do
    if [ "$argument" = --dry-run ] || [ "$argument" = --stages ]; then exec "$python" bench/gpu_stages.py "$@"; fi
done
command -v nvcc >/dev/null || export PATH=$PATH:/usr/local/cuda/bin

unpacked=$PWD/build-deps
if [ -n "${DEPS:-}" ] && [ ! -e "$unpacked/done" ]; then
    rm -rf "$unpacked"
    mkdir -p "$unpacked"
    for package in "$DEPS"/*.deb; do dpkg -x "$package" "$unpacked"; done
    # What these files say of themselves: that they are in /usr.
    find "$unpacked" -name '*.pc' -type f -exec sed -i "s|=/usr|=$unpacked/usr|" {} +
    find "$unpacked" -type l -lname '/*' | while read -r link; do # those that point to where this would be installed
        target=$unpacked$(readlink "$link")
        if [ -e "$target" ]; then ln -sfn "$target" "$link"; fi
    done
    touch "$unpacked/done"
fi
if [ -e "$unpacked/done" ]; then
    folders=$(find "$unpacked" -name '*.pc' -printf '%h\n' | sort -u | paste -sd:)
    libraries=$(find "$unpacked" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
    export PKG_CONFIG_PATH=$folders${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LIBRARY_PATH=$libraries${LIBRARY_PATH:+:$LIBRARY_PATH}
    export C_INCLUDE_PATH=$unpacked/usr/include CPLUS_INCLUDE_PATH=$unpacked/usr/include CMAKE_PREFIX_PATH=$unpacked/usr
fi

lacking=()
for tool in nvcc gcc g++ cmake ninja pkg-config nvidia-smi; do
    command -v $tool >/dev/null || lacking+=("$tool")
done
for library in libcjson:libcjson-dev openblas:libopenblas-dev libpcre2-8:libpcre2-dev libutf8proc:libutf8proc-dev \
    zlib:zlib1g-dev libxxhash:libxxhash-dev libsodium:libsodium-dev cmocka:libcmocka-dev; do
    pkg-config --exists "${library%:*}" 2>/dev/null || lacking+=("${library#*:}")
done
if [ ${#lacking[@]} -gt 0 ]; then
    echo "bench/gpu.sh: lacking here: ${lacking[*]}.  Install them, or give DEPS=FOLDER of .deb files" >&2
    case " ${lacking[*]} " in *" nvidia-smi "* | *" nvcc "* | *" cmake "* | *" gcc "*) exit 2 ;; esac
fi

if [ -n "${WHEELS:-}" ] && [ ! -e build-peers/done ]; then
    "$python" -m venv --system-site-packages build-peers
    # Each on its own, without what it says it needs: PyTorch stays the one that is here.
    for wheel in "$WHEELS"/*.whl; do
        build-peers/bin/pip install --quiet --no-index --no-deps "$wheel" || echo "bench/gpu.sh: $wheel can't be installed" >&2
    done
    touch build-peers/done
fi
if [ -e build-peers/done ]; then python=$PWD/build-peers/bin/python; fi
exec "$python" bench/gpu_stages.py --spent "$SECONDS" "$@" # since this script began
