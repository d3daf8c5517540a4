# One of two tasks is killed and Slurm ends the step: nothing is lost but what came after the last checkpoint.
submit -N 1 -n 2 -- $(shared 2)
reaches 50
kill -KILL $(rank 0)
within 20 "the end of the other" ended
expect JobState FAILED
expect Restarts 0
at=$(checkpoint)
submit -N 1 -n 2 -- $(shared 2)
ends COMPLETED
resumed "$at"
finished "$work/out" 2
