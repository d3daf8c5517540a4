#!/usr/bin/env bash
# down.sh FOLDER - ends what up.sh FOLDER started, jobs first, and nothing else: a process is told by its number and by FOLDER or
# the folder of sockets in its command line or environment.  It is no error if there is nothing to end.
# Those of scenarios in FOLDER are ended, too.
set -u
for own in "$1"/scenarios/*/slurm; do [ ! -f "$own/slurm.conf" ] || "$0" "$own"; done
export PATH=$PATH:/usr/sbin:/sbin
[ -f "$1/slurm.conf" ] || exit 0
cluster=$(cd "$1" && pwd)
sockets=$(cat "$cluster/sockets")
export SLURM_CONF=$cluster/slurm.conf

# The daemons that still run, by number.
daemons() {
    local file number
    for file in "$cluster"/*.pid "$cluster"/*.daemon; do
        number=$(cat "$file" 2>/dev/null) || continue
        tr '\0' ' ' 2>/dev/null <"/proc/$number/cmdline" | grep -q -F -e "$cluster/" -e "$sockets/" && echo "$number"
    done
}
# Processes of jobs.
left() {
    local found
    found=$(grep -l -z -x -s -F -e "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ)
    [ -z "$found" ] || grep -l -z -s -e '^SLURM_JOB_ID=' $found | tr -dc '0-9\n'
}
# ends LIST SECONDS: does what LIST names end in time?
ends() {
    for _ in $(seq $(($2 * 10))); do [ -n "$($1)" ] || return 0; sleep 0.1; done
    return 1
}
jobs_left() { timeout 5 squeue -h -o %A 2>/dev/null; }

if timeout 5 scontrol ping 2>/dev/null | grep -q UP && [ -n "$(jobs_left)" ]; then
    timeout 5 scancel $(jobs_left) 2>/dev/null
    ends jobs_left 10
fi
kill -TERM $(daemons) 2>/dev/null
ends daemons 10 || kill -KILL $(daemons) 2>/dev/null
[ -z "$(left)" ] || kill -KILL $(left) 2>/dev/null
ends daemons 5 && ends left 5 || { echo "down.sh: still there: $(daemons) $(left)" >&2; exit 1; }
rm -rf "$sockets"
rm -f "$cluster"/*.pid "$cluster"/*.daemon "$cluster"/gpu[01] "$cluster/slurm.conf"
