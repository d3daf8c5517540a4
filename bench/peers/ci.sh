#!/usr/bin/env bash
# bench/peers/ci.sh [FOLDER] - the peers' table in its short form, from nothing: the peers that compute on a CPU into a virtual
# environment in FOLDER (build-peers where none is given; kept, and taken as it is by the next run), then
# bench/peers/step.py --short, which fails where a peer is absent, a row is zero or two losses are not equal.
# build/cudpo must be there.  Says so and ends with 0 where PyPI cannot be reached.
#
# PyPI's PyTorch for x86-64 Linux brings 2.5 GB of CUDA's libraries; of those only the runtime is fetched, 4 MB, and
# cuda_stubs.py stands in for the others, which a CPU never calls.  In all 0.7 GB are fetched and 1.8 GB written.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-build-peers}
step() { printf '== peers: %s (%s s)\n' "$*" "$SECONDS"; }

if [ ! -e "$folder/done" ]; then
    rm -rf "$folder"
    step "virtual environment"
    python3 -m venv "$folder"
    pip=("$folder/bin/pip" --disable-pip-version-check --quiet)
    if ! "${pip[@]}" download --no-deps --dest "$folder/probe" --retries 1 --timeout 30 nvidia-cuda-runtime==13.2.86 >"$folder/probe.log" 2>&1; then
        tail -2 "$folder/probe.log"
        echo "skipped: the peers can't be fetched from PyPI here"
        exit 0
    fi
    step "PyTorch"
    "${pip[@]}" install --no-deps --no-compile --no-cache-dir "$(grep '^torch==' tests/golden/requirements.txt)" "$folder"/probe/*.whl
    python3 bench/peers/cuda_stubs.py "$folder"
    step "peers"
    "${pip[@]}" install --no-deps --no-compile --no-cache-dir -r bench/peers/requirements-cpu.txt
    touch "$folder/done"
fi
step "table"
# The two threads of cudpo and of its peers must not wait for each other's turn where other jobs run.
OMP_WAIT_POLICY=passive "$folder/bin/python" bench/peers/step.py --short --require trl-default trl-tuned trl-precomputed torchtune
step "done, $(du -sh "$folder" | cut -f1) in $folder"
