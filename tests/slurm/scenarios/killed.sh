# SIGKILL to the only task: the job fails with the signal's number, and the same command goes on from the last checkpoint.
submit --
reaches 50
kill -KILL $(tasks)
ends FAILED
expect ExitCode 137:0
expect Restarts 0
at=$(checkpoint)
submit --
ends COMPLETED
resumed "$at"
finished
