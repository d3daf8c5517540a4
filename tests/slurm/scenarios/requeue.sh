# `scontrol requeue` of a running job: Slurm sends SIGTERM, for which there is a checkpoint, and starts the job again by itself.
submit --
reaches 30
scontrol requeue "$job"
within 30 "a second attempt" is Restarts 1
within 30 "its start" is JobState RUNNING
at=$(checkpoint)
[ $((at % 20)) != 0 ] || [ "$at" -gt 30 ] || fail "no checkpoint at the signal, but $at"
ends COMPLETED
resumed "$at"
finished
