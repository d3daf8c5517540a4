#!/usr/bin/env bash
# job.sh CONFIG [--key value ...] - the batch script of the scenarios: one step of `cudpo train`, and the job queued again where the
# step saved and wants to go on, which exit status 75 says.  STEP: options of srun.  AFTER_75: "linger", and the job waits for
# Slurm to take it off its nodes; "end", and it only ends.  OUTPUT: what the output_dir of an array's element begins with.
#SBATCH --requeue
#SBATCH --open-mode=append
# The step gets the same signals; to the shell they only say that it may have to end soon.
trap : USR1 USR2 TERM
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
[ -z "$job" ] || set -- "$@" --output_dir "$OUTPUT-$SLURM_ARRAY_TASK_ID"
echo "attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
srun --kill-on-bad-exit=1 $STEP "$CUDPO_PROGRAM" train "$@" &
step=$!
while :; do
    wait $step
    status=$?
    kill -0 $step 2>/dev/null || break # else a trapped signal ended the wait
done
echo "the step ended with $status"
case $status-${AFTER_75:-requeue} in
75-requeue) scontrol requeue "${job:-$SLURM_JOB_ID}" ;;
75-linger)
    sleep 60 &
    wait
    wait
    ;;
esac
exit $status
