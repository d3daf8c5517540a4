# The time limit of what `cudpo launch slurm` makes, where no warning came before it.  Ranks that save when Slurm says that they
# end, and ranks that do nothing then and are killed, as in a long step: both jobs go on from their last checkpoint.  One that is
# where it was when it began stays ended.
export STUCK_AT
cat >"$work/stuck" <<'END'
#!/bin/bash
# cudpo, but the first attempt does nothing any more once there is that checkpoint.
[ -z "$SLURM_RESTART_COUNT" ] || exec "$CUDPO_PROGRAM" "$@"
trap '' TERM
if [ ! -d "$STUCK_AT" ]; then
    "$CUDPO_PROGRAM" "$@" &
    until [ -d "$STUCK_AT" ]; do sleep 0.05; done
    kill -KILL $!
fi
: >"stuck.$SLURM_JOB_ID"
while :; do sleep 1; done
END
chmod +x "$work/stuck"
# The warning is one (SIGWINCH) to the script, which does not mind: any to the ranks would wake them.
limited() { SBATCH_SIGNAL=B:28@1 submit_launched --time 1 "$@"; }

STUCK_AT=$work/out-stuck/checkpoint-40
limited --program "$work/stuck" --output_dir "$work/out-stuck"
stuck=$job
STUCK_AT=$work/out-nowhere/checkpoint-40
mkdir -p "$STUCK_AT"
limited --program "$work/stuck" --output_dir "$work/out-nowhere"
nowhere=$job
limited
reaches 10
halt
within 30 "one that is stuck" test -e "$work/stuck.$stuck"
at=$(checkpoint "$work/out-stuck")

ends TIMEOUT "$nowhere"
expect Restarts 0 "$nowhere"
again
[ "$at" -gt 0 ] || fail "no checkpoint"
within 60 "a second attempt" is Restarts 1 "$stuck"
ends COMPLETED "$stuck"
said "STEP $stuck.0 ON " # n0 CANCELLED ... DUE TO TIME LIMIT
says "going on from $work/out-stuck/checkpoint-$at" || said "going on from $work/out-stuck/checkpoint-$((at + 20))"
finished "$work/out-stuck"
ends COMPLETED
finished
