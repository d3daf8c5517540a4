# The same on one node, which a more urgent job takes.
submit_launched --ranks-per-node 2 --partition patient $(shared 2)
reaches 30
submit_urgent
again
ends COMPLETED "$urgent"
ends COMPLETED
expect Restarts 1
finished "$work/out" 2
