# SIGUSR1 to one of two tasks alone: both save at the same step and end with 75.
submit -N 1 -n 2 -- $(shared 2)
reaches 30
kill -USR1 "$(rank 1)"
within 30 "a second attempt" is Restarts 1
at=$(checkpoint)
ends COMPLETED
expect Restarts 1
said "the step ended with 75"
resumed "$at"
finished "$work/out" 2
