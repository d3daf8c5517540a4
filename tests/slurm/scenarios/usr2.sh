# SIGUSR2 to the step: it saves and goes on.  What it saved is good: the step is killed, and another job goes on from there.
submit -- --save_steps 1000
reaches 30
scancel --signal=USR2 "$job"
within 10 "a checkpoint" has_checkpoint
at=$(checkpoint)
reaches $((at + 5))
kill -KILL $(tasks)
ends FAILED
expect Restarts 0
submit -- --save_steps 1000
ends COMPLETED
resumed "$at"
finished
