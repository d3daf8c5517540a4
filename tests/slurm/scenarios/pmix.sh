# Two tasks on one node, which find one another by PMIx.
needs_pmix
STEP=--mpi=pmix submit -N 1 -n 2 -- $(shared 2)
ends COMPLETED
expect ExitCode 0:0
finished "$work/out" 2
