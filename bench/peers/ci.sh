#!/usr/bin/env bash
# bench/peers/ci.sh [FOLDER] - the peers' table in its short form, from nothing: the peers that compute on a CPU into a virtual
# environment in FOLDER (build-peers where none is given; kept, and taken as it is by the next run that wants the same), then
# bench/peers/step.py --short, which fails where a peer is absent, a row is zero or two losses are not equal.  No speed is
# demanded of anybody.  build/cudpo must be there.  Says so and ends with 0 where PyPI cannot be reached.
#
# PyPI's PyTorch for x86-64 Linux brings 2.5 GB of CUDA's libraries; of those only the runtime is fetched, 4 MB, and
# cuda_stubs.py stands in for the others, which a CPU never calls.  In all 0.7 GB are fetched and 1.8 GB written.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-build-peers}
pip=("$folder/bin/pip" --disable-pip-version-check --quiet --no-input --no-cache-dir)
probe=nvidia-cuda-runtime==13.2.86
# The first import of a module leaves it compiled for the processes that follow.
unset PYTHONDONTWRITEBYTECODE
step() { printf '== peers: %s (%s s)\n' "$*" "$SECONDS"; }
reachable() { "${pip[@]}" download --no-deps --dest "$folder/probe" --retries 1 --timeout 30 "$probe" >"$folder/probe.log" 2>&1; }

skipped() {
    tail -2 "$folder/probe.log"
    echo "skipped: the peers can't be fetched from PyPI here"
    exit 0
}

# fetch ARGUMENT ...: pip install; what fails while PyPI is out of reach is no fault of the peers.
fetch() {
    "${pip[@]}" install --no-deps --no-compile --retries 3 --timeout 30 "$@" && return
    rm -rf "$folder/probe"
    reachable || skipped
    echo "ci.sh: pip install $* failed, and PyPI can be reached" >&2
    exit 1
}

wanted=$(cat tests/golden/requirements.txt bench/peers/requirements*.txt bench/peers/cuda_stubs.py | sha256sum)
if [ "$(cat "$folder/done" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$folder"
    step "virtual environment"
    python3 -m venv "$folder"
    reachable || skipped
    step "PyTorch"
    fetch "$(grep '^torch==' tests/golden/requirements.txt)" "$folder"/probe/*.whl
    python3 bench/peers/cuda_stubs.py "$folder"
    step "peers"
    fetch -r bench/peers/requirements-cpu.txt
    echo "$wanted" >"$folder/done"
fi
step "table"
# The two threads of cudpo and of its peers must not wait for each other's turn where other jobs run; a run that hangs is ended.
OMP_WAIT_POLICY=passive "$folder/bin/python" bench/peers/step.py --short --seconds 300 --require trl-default trl-tuned trl-precomputed torchtune
step "done, $(du -sh "$folder" | cut -f1) in $folder"
