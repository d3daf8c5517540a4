# The script that `cudpo launch slurm` makes, of two ranks on two nodes: a secret that it makes itself, SIGUSR1, another attempt.
needs mounts
submit_launched --nodes 2 $(shared 2)
reaches 30
scancel --signal=USR1 "$job"
again
ends COMPLETED
expect Restarts 1
expect NodeList 'n[0-1]'
finished "$work/out" 2
[ -z "$(find "$runs" -name ".cudpo-token-$job*")" ] || fail "a token was left behind"
