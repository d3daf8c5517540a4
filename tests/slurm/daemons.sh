# daemons.sh - how the daemons of a Slurm of its own are started.  Sourced by up.sh and by scenarios that end some and start them
# again; cluster is the folder of up.sh.

# start NAME COMMAND ...: a daemon in a session of its own, which ends by itself after 15 minutes.  NAME.pid names its process.
# Slurm's daemons listen where the machine's name leads to: where that is not loopback, they have a name of their own (up.sh).
start() {
    local name=$1 alias=()
    shift
    [ ! -f "$cluster/renamed" ] || alias=(unshare -u sh -c 'hostname localhost && exec "$@"' sh)
    setsid timeout -k 5 900 "${alias[@]}" "$@" >>"$cluster/log/$name.out" 2>&1 </dev/null &
    echo $! >"$cluster/$name.pid"
}
start_munged() {
    local sockets
    sockets=$(cat "$cluster/sockets")
    start munged munged --foreground --socket="$sockets/munge" --key-file="$cluster/munge.key" --origin=127.0.0.1 \
        --pid-file="$cluster/munged.daemon" --seed-file="$cluster/munge.seed" --log-file="$cluster/log/munged"
}
start_controller() { start slurmctld slurmctld -D -i -f "$cluster/slurm.conf"; }

# start_node NUMBER.  Its jobs can look up the nodes' names, and PMIx of two nodes of one host needs a folder of the same name for
# each: so a node has mounts of its own where that is allowed.
start_node() {
    if grep -q '^mounts' "$cluster/lacks"; then
        start "slurmd.n$1" slurmd -D -f "$cluster/slurm.conf" -N "n$1"
    else
        mkdir -p "$cluster/pmix.n$1"
        start "slurmd.n$1" unshare -m sh -c 'mount --bind "$0/pmix.$1" "$0/pmix" && mount --bind "$0/hosts" /etc/hosts &&
            exec slurmd -D -f "$0/slurm.conf" -N "$1"' "$cluster" "n$1"
    fi
}

answers_munge() { munge -n -S "$(cat "$cluster/sockets")/munge" | unmunge -S "$(cat "$cluster/sockets")/munge" >/dev/null; }
answers_controller() { scontrol ping | grep -q 'UP'; }
are_idle() { [ "$(sinfo -h -N -p common,patient -o %T | grep -c '^idle$')" = 3 ]; }
