# `scontrol requeue` of a job on two nodes.
needs mounts
make_token
submit -N 2 -n 2 -- $(shared 2)
reaches 30
scontrol requeue "$job"
within 30 "a second attempt" is Restarts 1
at=$(checkpoint)
ends COMPLETED
resumed "$at"
finished "$work/out" 2
