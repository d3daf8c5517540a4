# The time limit without a warning: Slurm sends SIGTERM, for which there is a checkpoint.  A script that only ends leaves a job in
# TIMEOUT, and the same command goes on; one that asks for another attempt gets it.
AFTER_75=end submit -t 1 -- --output_dir "$work/out-ended"
reaches 30 "$work/out-ended"
halt
first=$job
submit -t 1 --
reaches 30
halt
within 120 "the time limit" ended "$first"
expect JobState TIMEOUT "$first"
expect Restarts 0 "$first"
again
ends COMPLETED
finished
at=$(checkpoint "$work/out-ended")
submit -- --output_dir "$work/out-ended"
ends COMPLETED
said "going on from $work/out-ended/checkpoint-$at"
finished "$work/out-ended"
