# The time limit without a warning: Slurm sends SIGTERM, for which there is a checkpoint.  A script that asks for another attempt
# gets it; one that doesn't leaves a job that ended in TIMEOUT, and the same command goes on.
AFTER_75=end submit -t 1 --
reaches 30
halt
first=$job at=
submit -t 1 -- --output_dir "$work/out-again"
reaches 30 "$work/out-again"
halt
within 110 "the time limit" ended "$first"
expect JobState TIMEOUT "$first"
expect Restarts 0 "$first"
within 110 "a second attempt" is Restarts 1
again=$(checkpoint "$work/out-again")
ends COMPLETED
said "going on from $work/out-again/checkpoint-$again"
finished "$work/out-again"
at=$(checkpoint)
submit --
ends COMPLETED
resumed "$at"
finished
