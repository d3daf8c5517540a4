# A more urgent job takes the node: SIGTERM, a checkpoint, 75, and the script queues the job again before its grace is over.
submit -p patient --
reaches 30
submit_urgent
again
said "STEP $job.0 ON n2 CANCELLED"
ends COMPLETED "$urgent"
ends COMPLETED
expect Restarts 1
finished
