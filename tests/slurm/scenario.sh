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

# submit_launched [OPTION of cudpo launch slurm ...]: queues the script that it makes, of ranks on CPUs; sets job.
submit_launched() {
    timeout 20 "$cudpo" launch slurm "$runs/train.json" --gpus-per-node 0 --output_dir "$work/out" "$@" >"$work/script" || fail "cudpo launch"
    job=$(timeout 20 sbatch --parsable -J "$scenario" -o "$work/job.%A_%a" "$work/script") || fail "sbatch"
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
    within 120 "the end of job ${2:-$job}" ended "${2:-$job}"
    expect JobState "$1" "${2:-$job}"
}

# processes VARIABLE=VALUE ...: the numbers of those of this Slurm with all of this in their environment.
processes() {
    local found="/proc/[0-9]*/environ" variable
    for variable in "SLURM_CONF=$SLURM_CONF" "$@"; do
        found=$(grep -l -z -x -s -F -e "$variable" $found) || [ -n "$found" ] || return 0 # 2: some have just ended
    done
    tr -dc '0-9\n' <<<"$found"
}

# tasks [JOB]: processes of `cudpo` of a job's steps.  rank N: the one of this rank.
tasks() { programs $(processes "SLURM_JOB_ID=${1:-$job}"); }
rank() { programs $(processes "SLURM_JOB_ID=$job" "SLURM_PROCID=$1" "SLURM_STEP_ID=0"); }

# programs PROCESS ...: those that run cudpo.
programs() {
    local process
    for process in "$@"; do [ "$(cat "/proc/$process/comm" 2>/dev/null)" != cudpo ] || echo "$process"; done
}

# halt: the tasks stand still, as in a long step, until Slurm sends a signal: it wakes them.
halt() { kill -STOP $(tasks "$@"); }

# says TEXT: is this in what the job printed?  said TEXT: it must be.
says() { grep -q -s -F -e "$1" "$work"/job.*; }
said() { says "$1" || fail "the job did not say \"$1\""; }

# again [FOLDER]: waits for the second attempt, after the first was told to save; it must go on from just that step.
again() {
    local out=${1:-$work/out} at
    within 60 "a second attempt" is Restarts 1
    within 60 "going on" says "going on from $out/checkpoint-"
    at=$(cat "$work"/job.* | sed -n "s|.*$out: stopped by a signal at step \([0-9]*\) of.*|\1|p")
    [ -n "$at" ] || fail "the first attempt did not stop at a signal"
    says "going on from $out/checkpoint-$at" || fail "did not go on from step $at"
}

# resumed STEP: an attempt went on from this checkpoint; or from the next, which was whole when all was killed, but had no name yet.
resumed() { says "going on from $work/out/checkpoint-$1" || said "going on from $work/out/checkpoint-$(($1 + 20))"; }

# lose_node NUMBER: kills slurmd of a node and all that runs there.
lose_node() {
    local process parent lost
    lost=("$(daemon "slurmd.n$1")")
    for process in $(processes "SLURMD_NODENAME=n$1"); do
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status" 2>/dev/null) || continue
        lost+=("$process")
        [ "$(cat "/proc/$parent/comm")" != slurmstepd ] || lost+=("$parent")
    done
    kill -STOP "${lost[@]}"
    kill -KILL "${lost[@]}"
}
