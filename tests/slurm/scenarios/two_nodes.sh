# Two nodes with a task each, which a secret lets in.
needs mounts
make_token
submit -N 2 -n 2 -- $(shared 2)
ends COMPLETED
expect ExitCode 0:0
expect NodeList 'n[0-1]'
said "slurm step $job.0"
finished "$work/out" 2
