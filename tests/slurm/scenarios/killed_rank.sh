# One of two tasks is killed and Slurm leaves the other alone: it ends by itself and says why, and the same command goes on.
STEP=--kill-on-bad-exit=0 submit -N 1 -n 2 -- $(shared 2)
reaches 50
kill -KILL $(rank 1)
within 20 "the end of the other" ended
expect JobState FAILED
expect Restarts 0
said "rank 1"
said "with exit code 69"
at=$(checkpoint)
submit -N 1 -n 2 -- $(shared 2)
ends COMPLETED
resumed "$at"
finished "$work/out" 2
