# A node dies with all that ran on it: Slurm notices after a while and starts the job again on the other node, where it goes on
# from its last checkpoint.
SLURMD_TIMEOUT=10 own_cluster
scontrol update nodename=n0 state=drain reason=test
submit --
reaches 50
expect NodeList n1
lose_node 1
at=$(checkpoint)
scontrol update nodename=n0 state=resume
within 100 "a second attempt" is Restarts 1
ends COMPLETED
expect NodeList n0
resumed "$at"
finished
