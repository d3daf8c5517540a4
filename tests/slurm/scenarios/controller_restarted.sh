# slurmctld is stopped and started again: the job does not notice, and later obeys the signal that comes through the new one.
own_cluster
submit --
reaches 20
kill -TERM "$(daemon slurmctld)"
before=$(last_step)
reaches $((before + 10))
start_controller
within 20 "slurmctld" answers_controller
expect JobState RUNNING
expect Restarts 0
scancel --signal=USR1 "$job"
again
ends COMPLETED
expect Restarts 1
finished
