# The same on two nodes, with an interruption: SIGUSR1 to both, at whatever steps they are.
needs_pmix
needs mounts
STEP=--mpi=pmix submit -N 2 -n 2 -- $(shared 2)
reaches 30
scancel --signal=USR1 "$job"
again
ends COMPLETED
expect Restarts 1
expect NodeList 'n[0-1]'
finished "$work/out" 2
