# Two tasks on one node.
submit -N 1 -n 2 -- $(shared 2)
ends COMPLETED
expect ExitCode 0:0
expect Restarts 0
said "slurm step $job.0"
finished "$work/out" 2
near_one_rank
