# The same as an array, whose index is the seed: 42 is what a run takes that says nothing of it.  The other element is cancelled,
# for which there is a checkpoint, but no other attempt.
submit_launched --array 42,43
other=${job}_43 job=${job}_42
reaches 30 "$work/out/42"
scancel --signal=USR1 "$job"
reaches 30 "$work/out/43"
scancel "$other"
ends CANCELLED "$other"
within 20 "a checkpoint of what is cancelled" says "$work/out/43: stopped by a signal at step"
again "$work/out/42"
ends COMPLETED
expect Restarts 1
expect Restarts 0 "$other"
finished "$work/out/42"
