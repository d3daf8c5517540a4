# Steps of two tasks that are killed at random moments, in a job that does nothing else: tests/test_ranks_kills.c.
kills=$(dirname "$cudpo")/tests/test_ranks_kills
[ -x "$kills" ] || skip "no $kills"
needs mounts
make_token
limit=${CUDPO_TEST_LONG:+7200}
job=$(timeout 20 sbatch --parsable -J "$scenario" -N 1 -n 2 -o "$work/job" --wrap "sleep ${limit:-280}") || fail "sbatch"
jobs+=("$job")
within 30 "the job's start" is JobState RUNNING
cd "$sources"
SLURM_JOB_ID=$job timeout "${limit:-270}" "$kills" srun || fail "$kills srun"
