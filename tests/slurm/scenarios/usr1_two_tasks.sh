# SIGUSR1 to one of two tasks alone: both save at the same step and end with 75.
submit -N 1 -n 2 -- $(shared 2)
reaches 30
kill -USR1 $(rank 1)
again
said "tasks 0-1: Exited with exit code 75"
ends COMPLETED
expect Restarts 1
finished "$work/out" 2
