# The same, where Slurm sends the signal that the job asked for (preempt_send_user_signal).
submit -p patient --signal=USR1@60 --
reaches 30
submit_urgent
within 30 "a second attempt" is Restarts 1
at=$(checkpoint)
ends COMPLETED "$urgent"
ends COMPLETED
expect Restarts 1
resumed "$at"
finished
