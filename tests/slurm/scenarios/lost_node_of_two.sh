# One of two nodes dies with all that ran on it.  The other rank ends by itself before Slurm notices, and the job starts again with
# both ranks on the node that is left.
needs mounts
make_token
SLURMD_TIMEOUT=10 own_cluster
submit -N 1-2 --ntasks 2 --distribution cyclic -- $(shared 2)
reaches 50
expect NodeList 'n[0-1]'
survivor=$(rank 0)
lose_node 1
within 10 "the end of the other rank" is_gone "$survivor"
expect JobState RUNNING
at=$(checkpoint)
within 100 "a second attempt" is Restarts 1
ends COMPLETED
expect NodeList n0
resumed "$at"
finished "$work/out" 2
