#!/usr/bin/env bash
# up.sh FOLDER - a Slurm of its own on loopback, for tests: slurmctld, three virtual nodes and a munged with its own key and
# socket, as root, without systemd, control groups or accounting.  All that belongs to it is in FOLDER, which must not exist or
# hold what an earlier up.sh left: SLURM_CONF=FOLDER/slurm.conf is all that its clients need.  down.sh ends it.
# A node counts as lost after SLURMD_TIMEOUT seconds (60).
#
# n0 and n1 make the partition common; n2 is there to be fought over: jobs of the partition urgent take it from those of patient.
# Each node claims 8 processors, whatever there are, and two GPUs, which are null devices: enough for CUDA_VISIBLE_DEVICES.
# FOLDER/lacks names what this machine does not allow, a line each.  77: there is no Slurm here, or this is not root.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
case $1 in *[![:alnum:]/._-]*) echo "up.sh: Slurm's configuration can't hold the path $1" >&2; exit 1 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
. "$here/daemons.sh"
. "$here/../launch/run.sh"
"$here/down.sh" "$1"
rm -rf "$1"
mkdir -p "$1"
cluster=$(cd "$1" && pwd)

without() { echo "skipped: $*" | tee "$cluster/skipped"; exit 77; }
[ "$(id -u)" = 0 ] || without "a Slurm of its own takes root"
for program in munged munge unmunge slurmctld slurmd srun sbatch scontrol sinfo setsid timeout; do
    command -v $program >/dev/null || without "no $program here (Debian's packages: slurmctld slurmd slurm-client munge)"
done
mkdir "$cluster/state" "$cluster/log" "$cluster/spool" "$cluster/pmix"
: >"$cluster/lacks"
host=$(uname -n)
case $(getent ahosts "$host") in
127.*) host=${host%%.*} ;;
*)
    unshare -u hostname localhost 2>/dev/null ||
        without "Slurm would not keep to loopback: $host is not 127.0.0.1, and unshare -u is not allowed here"
    host=localhost
    : >"$cluster/renamed"
    ;;
esac
cat /etc/hosts >"$cluster/hosts"
echo "127.0.0.1 n0 n1 n2" >>"$cluster/hosts"
unshare -m mount --bind "$cluster/hosts" /etc/hosts 2>/dev/null ||
    echo "mounts of its own for each node: unshare -m is not allowed here" >>"$cluster/lacks"

# A socket's path may have 107 bytes, which that of a build folder can exceed.
sockets=$(mktemp -d /tmp/cudpo-slurm-XXXXXX)
chmod 755 "$sockets"
echo "$sockets" >"$cluster/sockets"

port=$(free_port "$cluster")
cat >"$cluster/slurm.conf" <<END
ClusterName=cudpo
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for as long as a credential lives: two minutes unless said otherwise, and 5 s at least.
AuthInfo=socket=$sockets/munge,cred_expire=5
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool/%n
SlurmctldPidFile=$cluster/slurmctld.daemon
SlurmdPidFile=$cluster/slurmd.%n.daemon
SlurmctldLogFile=$cluster/log/slurmctld
SlurmdLogFile=$cluster/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=${SLURMD_TIMEOUT:-60}
KillWait=5
MinJobAge=300
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
GresTypes=gpu
NodeName=n[0-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 3))] CPUs=8 RealMemory=4000 Gres=gpu:test:2 State=UNKNOWN
PartitionName=common Nodes=n[0-1] Default=YES MaxTime=INFINITE State=UP
PartitionName=patient Nodes=n2 MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END
for i in 0 1; do ln -s /dev/null "$cluster/gpu$i"; done
echo "NodeName=n[0-2] Name=gpu Type=test File=$cluster/gpu[0-1] Flags=nvidia_gpu_env" >"$cluster/gres.conf"
echo "PMIxCliTmpDirBase=$cluster/pmix" >"$cluster/mpi.conf"
unset "${!SLURM_@}" "${!SBATCH_@}" "${!SRUN_@}"
export SLURM_CONF=$cluster/slurm.conf

# until_true WHAT COMMAND ...: within 20 s
until_true() {
    local what=$1
    shift
    for _ in $(seq 200); do "$@" 2>/dev/null && return; sleep 0.1; done
    echo "up.sh: never: $what" >&2
    tail -n 30 "$cluster"/log/* >&2
    "$here/down.sh" "$cluster"
    exit 1
}
(umask 077 && head -c 1024 /dev/urandom >"$cluster/munge.key")
start_munged
until_true "munged answers" answers_munge
start_controller
until_true "slurmctld answers" answers_controller
for i in 0 1 2; do start_node $i; done
until_true "three nodes are idle" are_idle
