# An array of two jobs: SIGUSR1 to one of them, which alone is queued again, by the array's id.
submit --array=0-1 --
array=$job first=${job}_0 second=${job}_1
reaches 30 "$work/out-1"
scancel --signal=USR1 "$second"
within 30 "a second attempt" is Restarts 1 "$second"
at=$(checkpoint "$work/out-1")
for job in "$first" "$second"; do ends COMPLETED; done
expect Restarts 0 "$first"
expect Restarts 1 "$second"
said "going on from $work/out-1/checkpoint-$at"
finished "$work/out-0"
finished "$work/out-1"
job=$array
