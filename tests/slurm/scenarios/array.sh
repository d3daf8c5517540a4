# An array of two jobs: SIGUSR1 to one of them, which alone is queued again, by the array's id.
submit --array=0-1 --
first=${job}_0 second=${job}_1 job=${job}_1
reaches 30 "$work/out-1"
scancel --signal=USR1 "$second"
again "$work/out-1"
ends COMPLETED "$first"
ends COMPLETED "$second"
expect Restarts 0 "$first"
expect Restarts 1 "$second"
finished "$work/out-0"
finished "$work/out-1"
