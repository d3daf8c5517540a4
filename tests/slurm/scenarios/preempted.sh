# A more urgent job takes the node: SIGTERM, a checkpoint, 75, and the script queues the job again before its grace is over.
submit -p patient --
reaches 30
submit_urgent
within 30 "a second attempt" is Restarts 1
at=$(checkpoint)
ends COMPLETED "$urgent"
ends COMPLETED
expect Restarts 1
resumed "$at"
finished
