# The same, but the script only waits after 75: at the end of its grace Slurm ends the job and queues it again by itself.
AFTER_75=linger submit -p patient --
reaches 30
submit_urgent
again
said "DUE TO PREEMPTION"
ends COMPLETED "$urgent"
ends COMPLETED
expect Restarts 1
finished
