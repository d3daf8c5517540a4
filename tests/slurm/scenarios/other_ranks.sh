# The same run by two tasks, then one, then two: each goes on where the other was killed.
submit -N 1 -n 2 -- $(shared 2)
reaches 45
kill -KILL $(tasks)
ends FAILED
first=$(checkpoint)
submit --
reaches 95
kill -KILL $(tasks)
ends FAILED
second=$(checkpoint)
[ "$second" -gt "$first" ] || fail "one task made no checkpoint"
submit -N 1 -n 2 -- $(shared 2)
ends COMPLETED
resumed "$first"
resumed "$second"
whole
near_one_rank
