# The time limit with a warning: SIGUSR1 before it, and the script queues the job again.  Slurm looks at limits every 30 s, and
# warns up to that much too early, so that the warning comes 10 to 40 s after the start.
submit -t 1 --signal=USR1@20 --
reaches 30
halt
again
ends COMPLETED
expect Restarts 1
finished
