# SIGUSR1 to the step: it saves and ends with 75, the script queues the job again, which goes on and comes to its end.
submit --
reaches 30
scancel --signal=USR1 "$job"
again
ends COMPLETED
expect Restarts 1
finished
