# scenario.sh - what the scenarios are written in.  Sourced by run.sh, which sets cudpo (the program), sources (the checkout), runs
# (the folder of reference.sh), cluster (of up.sh), scenario (its name) and work (a folder of its own).
. "$sources/tests/launch/run.sh"

# own_cluster: a Slurm for this scenario alone, which may break it.
own_cluster() {
    cluster=$work/slurm
    timeout 60 "$sources/tests/slurm/up.sh" "$cluster" || fail "no Slurm of its own"
    export SLURM_CONF=$cluster/slurm.conf
}
# needs WORD: skips the scenario where up.sh found that this machine does not allow it.
needs() { ! grep -q "^$1" "$cluster/lacks" || skip "$(grep "^$1" "$cluster/lacks")"; }
needs_pmix() { timeout 10 srun --mpi=list 2>&1 | grep -q pmix || skip "this Slurm has no PMIx (Debian's packages: libpmix2)"; }

# make_token: a secret that the ranks of this scenario's jobs know.
make_token() {
    export CUDPO_RDZV_TOKEN_FILE=$work/token
    (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$CUDPO_RDZV_TOKEN_FILE")
}
daemon() { cat "$cluster/$1.daemon"; }

# submit [OPTION of sbatch ...] -- [--key value ...]: queues job.sh, which trains into $work/out; sets job.  Variables of job.sh go
# before it: STEP=--mpi=pmix submit ...
submit() {
    local options=()
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    job=$(OUTPUT=$work/out timeout 20 sbatch --parsable -J "$scenario" -o "$work/job.%A_%a" "${options[@]}" "$sources/tests/slurm/job.sh" \
        "$runs/train.json" --output_dir "$work/out" "$@") || fail "sbatch"
    jobs+=("$job")
}

# submit_urgent: queues another job that takes the whole of n2; sets urgent.
submit_urgent() {
    urgent=$(timeout 20 sbatch --parsable -p urgent --exclusive -J urgent -o /dev/null --wrap 'sleep 1') || fail "sbatch"
    jobs+=("$urgent")
}

# field NAME [JOB]: what `scontrol show job` says of it, such as JobState, Restarts, ExitCode.
field() { timeout 10 scontrol -o show job "${2:-$job}" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$1=//p" | head -1; }
is() { [ "$(field "$1" "${3:-$job}")" = "$2" ]; }
ended() {
    case $(field JobState "${1:-$job}") in COMPLETED | FAILED | TIMEOUT | CANCELLED | NODE_FAIL | PREEMPTED) return 0 ;; esac
    return 1
}

# expect NAME VALUE [JOB]: so it must be.
expect() { is "$@" || fail "job ${3:-$job}: $1 is $(field "$1" "${3:-$job}"), not $2"; }

# ends STATE [JOB]: waits for the job's end, which must be of this kind.
ends() {
    within 60 "the end of job ${2:-$job}" ended "${2:-$job}"
    expect JobState "$1" "${2:-$job}"
}

# has PROCESS VARIABLE=VALUE: of this Slurm and with this in its environment.
has() {
    local environment
    environment=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/environ") || return 1
    grep -q -x -F "SLURM_CONF=$SLURM_CONF" <<<"$environment" && grep -q -x -F "$2" <<<"$environment"
}
processes() { (cd /proc && echo [0-9]*); }

# tasks [JOB]: processes of `cudpo` of a job's steps.  rank N [JOB]: the one of this rank.
tasks() {
    local process
    for process in $(processes); do
        [ "$(cat "/proc/$process/comm" 2>/dev/null)" = cudpo ] || continue
        ! has "$process" "SLURM_JOB_ID=${1:-$job}" || echo "$process"
    done
}
rank() {
    local process
    for process in $(tasks "${2:-$job}"); do ! has "$process" "SLURM_PROCID=$1" || echo "$process"; done
}

# halt: the tasks stand still, as in a long step, until Slurm sends a signal: it wakes them.
halt() { kill -STOP $(tasks "$@"); }

# said TEXT: in what the job printed.
said() { cat "$work"/job.* | grep -q -F -e "$1" || fail "the job did not say \"$1\""; }

# resumed STEP: an attempt went on from this checkpoint.
resumed() { said "going on from $work/out/checkpoint-$1"; }

# lose_node NUMBER: kills slurmd of a node and all that runs there.
lose_node() {
    local process parent lost
    lost=("$(daemon "slurmd.n$1")")
    for process in $(processes); do
        has "$process" "SLURMD_NODENAME=n$1" || continue
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status" 2>/dev/null) || continue
        lost+=("$process")
        [ "$(cat "/proc/$parent/comm")" != slurmstepd ] || lost+=("$parent")
    done
    kill -STOP "${lost[@]}"
    kill -KILL "${lost[@]}"
}
