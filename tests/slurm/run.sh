#!/usr/bin/env bash
# run.sh SOURCES CUDPO RUNS CLUSTER SCENARIO - a scenario of scenarios/, on the cluster that up.sh CLUSTER started, with what
# reference.sh left in RUNS.  77, a skipped test, where there is no Slurm or the scenario needs what is not here.
set -euo pipefail
sources=$1 cudpo=$2 runs=$3 cluster=$4 scenario=$5
work=$cluster/scenarios/$scenario common=$cluster jobs=()
. "$sources/tests/slurm/daemons.sh"
. "$sources/tests/slurm/scenario.sh"
[ -f "$cluster/slurm.conf" ] || skip "$(sed 's/^skipped: //' "$cluster/skipped" 2>/dev/null || echo "up.sh has not run")"
"$sources/tests/slurm/down.sh" "$work/slurm"
rm -rf "$work"
mkdir -p "$work"
cd "$work"
unset "${!SLURM_@}" "${!SBATCH_@}" "${!SRUN_@}"
export SLURM_CONF=$cluster/slurm.conf CUDPO_PROGRAM=$cudpo CUDPO_CACHE=$runs/cache OMP_NUM_THREADS=1 PATH=$PATH:/usr/sbin:/sbin

leave() {
    local status=$? job
    trap - EXIT
    set +e
    if [ $status != 0 ] && [ $status != 77 ]; then
        for job in "${jobs[@]}"; do timeout 10 scontrol show job "$job"; done
        tail -n 15 "$work"/job.* "$cluster"/log/slurmctld "$cluster"/log/slurmd.n?
    fi
    [ ${#jobs[@]} = 0 ] || timeout 10 scancel "${jobs[@]}" 2>/dev/null
    [ "$cluster" = "$common" ] || "$sources/tests/slurm/down.sh" "$cluster"
    exit $status
}
trap leave EXIT
trap 'exit 1' INT TERM
. "$sources/tests/slurm/scenarios/$scenario.sh"
