# slurmd of the job's node is killed and started again: the job's step is no child of it and goes on.
own_cluster
submit --
reaches 20
kill -KILL "$(daemon slurmd.n0)"
before=$(last_step)
reaches $((before + 10))
start_node 0
ends COMPLETED
expect Restarts 0
finished
