# `scontrol requeue` of a running job: Slurm sends SIGTERM, for which there is a checkpoint, and starts the job again by itself.
submit --
reaches 30
scontrol requeue "$job"
again
ends COMPLETED
expect Restarts 1
finished
