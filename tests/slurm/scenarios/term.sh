# SIGTERM to the step alone, as from somebody who wants the node: the same as SIGUSR1.
submit --
reaches 30
scancel --signal=TERM "$job"
again
ends COMPLETED
expect Restarts 1
finished
