# `scontrol requeue` of a job on two nodes.
needs mounts
make_token
submit -N 2 -n 2 -- $(shared 2)
reaches 30
scontrol requeue "$job"
again
ends COMPLETED
expect Restarts 1
finished "$work/out" 2
