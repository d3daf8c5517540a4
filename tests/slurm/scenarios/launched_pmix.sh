# The same without a secret: by PMIx, which only the step's own tasks can reach.
needs_pmix
needs mounts
submit_launched --nodes 2 --mpi pmix $(shared 2)
ends COMPLETED
expect Restarts 0
finished "$work/out" 2
