# The same, where Slurm sends the signal that the job asked for (preempt_send_user_signal), and SIGTERM only when its grace is over.
submit -p patient --signal=USR1@60 --
reaches 30
submit_urgent
again
! says "STEP $job.0 ON n2 CANCELLED" || fail "SIGTERM came, too"
ends COMPLETED "$urgent"
ends COMPLETED
expect Restarts 1
finished
