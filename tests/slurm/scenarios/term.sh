# SIGTERM to the step alone, as from somebody who wants the node: the same as SIGUSR1.
submit --
reaches 30
scancel --signal=TERM "$job"
within 30 "a second attempt" is Restarts 1
at=$(checkpoint)
ends COMPLETED
expect Restarts 1
resumed "$at"
finished
