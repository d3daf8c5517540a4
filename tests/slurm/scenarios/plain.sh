# One task, from its start to its end.
submit --
ends COMPLETED
expect ExitCode 0:0
expect Restarts 0
finished
