#!/usr/bin/env bash
# launcher.sh SOURCES CUDPO RUNS WORK LAUNCHER RANKS - `cudpo train` under mpirun, torchrun ($CUDPO_TORCHRUN, else the one in $PATH)
# or `cudpo launch`: a run as it is, and one that is told to save, goes on, loses a rank and goes on again.  Both must end in the
# bits of RUNS, which reference.sh left.  77, a skipped test, where there is no such launcher.
set -euo pipefail
sources=$1 cudpo=$2 runs=$3 work=$4 launcher=$5 ranks=$6
scenario=$launcher-$ranks
. "$sources/tests/launch/run.sh"
torchrun=${CUDPO_TORCHRUN:-torchrun}
case $launcher in mpirun) command=mpirun ;; torchrun) command=$torchrun ;; cudpo) command=$cudpo ;; esac
command -v "$command" >/dev/null || skip "no $command here"
export CUDPO_CACHE=$runs/cache OMP_NUM_THREADS=1
rm -rf "$work"
mkdir -p "$work"

# start FOLDER: launches the ranks, in the background; sets launched.
start() {
    local train=(train "$runs/train.json" --output_dir "$1" $(shared "$ranks"))
    case $launcher in
    mpirun) set -- mpirun --allow-run-as-root --oversubscribe --bind-to none --mca oob_tcp_if_include lo -n "$ranks" "$cudpo" ;;
    torchrun) set -- "$torchrun" --nnodes 1 --nproc_per_node "$ranks" --max_restarts "${restarts:-0}" --rdzv_backend c10d \
        --rdzv_endpoint "localhost:0" --local_addr localhost --no_python "$cudpo" ;;
    cudpo) set -- "$cudpo" launch --nproc "$ranks" --max_restarts "${restarts:-0}" -- ;;
    esac
    "$@" "${train[@]}" >>"$work/log" 2>&1 &
    launched=$!
}

# workers: the processes of `cudpo` of the run in $work/again.
workers() {
    local process
    for process in $(grep -l -z -x -s -F -e "$work/again" /proc/[0-9]*/cmdline | tr -dc '0-9\n'); do
        [ "$(cat "/proc/$process/comm" 2>/dev/null)" != cudpo ] || echo "$process"
    done
}

leave() {
    local status=$?
    trap - EXIT
    set +e
    kill $(jobs -p) $(workers) 2>/dev/null
    [ $status = 0 ] || [ $status = 77 ] || tail -n 40 "$work/log"
    exit $status
}
trap leave EXIT
trap 'exit 1' INT TERM

start "$work/out"
wait $launched || fail "the launcher ended with $?"
finished "$work/out" "$ranks"
near_one_rank

# A signal for the launcher, which it passes on: SIGTERM, but for mpirun, which gives ranks too little time after that.
start "$work/again"
reaches 30 "$work/again"
case $launcher in mpirun) signal=USR1 ;; *) signal=TERM ;; esac
kill -$signal $launched
within 30 "the end of the launcher" is_gone $launched
! wait $launched || fail "$launcher ended as if the run were over"
at=$(checkpoint "$work/again")
grep -q "stopped by a signal at step $at of" "$work/log" || fail "no checkpoint at the signal, but $at"

restarts=1 start "$work/again"
reaches $((at + 25)) "$work/again"
kill -KILL "$(workers | grep -v -x $launched | tail -n 1)"
if [ $launcher = mpirun ]; then
    ! wait $launched || fail "mpirun ended as if the run were over"
    start "$work/again"
fi
wait $launched || fail "the launcher ended with $?"
grep -q "going on from $work/again/checkpoint-$at" "$work/log" || fail "did not go on from checkpoint-$at"
finished "$work/again" "$ranks"
