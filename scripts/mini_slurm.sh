#!/usr/bin/env bash
# A throw-away SLURM cluster on one machine: several slurmd on loopback, each on a port of its own. For tests alone: it
# has no authentication. Needs the packages slurmctld, slurmd and slurm-client.
#
#   bash scripts/mini_slurm.sh up          # start it; does nothing if it is up
#   eval "$(bash scripts/mini_slurm.sh env)"  # what SLURM's commands need to find it
#   bash scripts/mini_slurm.sh kill n2     # a node fails: its slurmd and all of its jobs' processes are killed
#   bash scripts/mini_slurm.sh start n2    # it is back
#   bash scripts/mini_slurm.sh down        # cancel all jobs, end all daemons
#
# BASE (a folder), NODES=4, CPUS=2 and PORT=16817 may be set.
set -euo pipefail
BASE=${BASE:-${TMPDIR:-/tmp}/mini-slurm} NODES=${NODES:-4} CPUS=${CPUS:-2} PORT=${PORT:-16817}
export SLURM_CONF=$BASE/etc/slurm.conf
USER_NAME=$(id -un)
TAG="# mini-slurm $PORT"

names() { seq -f "n%g" 1 "$NODES"; }
is_alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

stop_daemon() { # stop_daemon PIDFILE: TERM, KILL after three seconds
  if is_alive "$1"; then
    local pid
    pid=$(cat "$1")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 30); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$1"
}

write_config() {
  mkdir -p "$BASE"/{etc,run,log,state,dev}
  cat >"$BASE/etc/slurm.conf" <<CONF
ClusterName=mini
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$USER_NAME
SlurmdUser=$USER_NAME
StateSaveLocation=$BASE/state
SlurmdSpoolDir=$BASE/state/spool.%n
SlurmctldPidFile=$BASE/run/slurmctld.pid
SlurmdPidFile=$BASE/run/slurmd.%n.pid
SlurmctldLogFile=$BASE/log/slurmctld.log
SlurmdLogFile=$BASE/log/slurmd.%n.log
AuthType=auth/none
CredType=cred/none
# A requeued job waits until its credential has expired: 120 s by default.
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MinJobAge=600
KillWait=3
CompleteWait=0
InactiveLimit=0
OverTimeLimit=0
SlurmdTimeout=10
MessageTimeout=10
GresTypes=gpu
CONF
  local number=0
  for name in $(names); do
    number=$((number + 1))
    echo "NodeName=$name NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + number)) CPUs=$CPUS RealMemory=4000 Gres=gpu:fake:2 State=UNKNOWN"
  done >>"$BASE/etc/slurm.conf"
  cat >>"$BASE/etc/slurm.conf" <<CONF
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=10 State=UP
PartitionName=low Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=100 PreemptMode=OFF State=UP
CONF
  echo 'CgroupPlugin=disabled' >"$BASE/etc/cgroup.conf"
  # A GPU needs a device file: these stand in for it.
  for number in 0 1; do [ -e "$BASE/dev/gpu$number" ] || touch "$BASE/dev/gpu$number"; done
  for name in $(names); do echo "NodeName=$name Name=gpu Type=fake File=$BASE/dev/gpu[0-1]"; done >"$BASE/etc/gres.conf"
}

set_host_names() { # ranks find each other by the names of nodes
  local kept
  kept=$(mktemp)
  grep -v "$TAG" /etc/hosts >"$kept" || true
  [ "$1" = remove ] || for name in $(names); do echo "127.0.0.1 $name $TAG"; done >>"$kept"
  # Not renamed: in a container the file is a mount.
  cat "$kept" >/etc/hosts
  rm -f "$kept"
}

start_node() { is_alive "$BASE/run/slurmd.$1.pid" || slurmd -N "$1"; }

list_processes() { # of a node's jobs: they have its name and this cluster in their environment
  { grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true; } |
    { xargs -r grep -lszxF "SLURMD_NODENAME=$1" || true; } | cut -d/ -f3
}

kill_node() {
  local pids
  if is_alive "$BASE/run/slurmd.$1.pid"; then kill -9 "$(cat "$BASE/run/slurmd.$1.pid")"; fi
  rm -f "$BASE/run/slurmd.$1.pid"
  pids=$(list_processes "$1")
  for pid in $pids; do
    # slurmstepd, which has started them, is its parent; it would report their end.
    local parent
    parent=$(awk '/^PPid:/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)
    case $(tr '\0' ' ' <"/proc/${parent:-0}/cmdline" 2>/dev/null || true) in
      slurmstepd*) kill -9 "$parent" 2>/dev/null || true ;;
    esac
    kill -9 "$pid" 2>/dev/null || true
  done
}

up() {
  write_config
  set_host_names add
  is_alive "$BASE/run/slurmctld.pid" || slurmctld
  for name in $(names); do start_node "$name"; done
  for _ in $(seq 300); do
    [ "$(timeout 3 sinfo -h -N -p main -t idle,mix,alloc -o %N 2>/dev/null | sort -u | wc -l)" = "$NODES" ] && return 0
    sleep 0.1
  done
  sinfo -N -l || true
  tail -n 5 "$BASE"/log/*.log
  return 1
}

down() {
  [ ! -s "$SLURM_CONF" ] || timeout 5 scancel --state=RUNNING,PENDING -u "$USER_NAME" 2>/dev/null || true
  sleep 0.3
  for name in $(names); do kill_node "$name"; done
  stop_daemon "$BASE/run/slurmctld.pid"
  set_host_names remove
  rm -rf "$BASE/state" "$BASE/run"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  kill) kill_node "$2" ;;
  start) start_node "$2" ;;
  *) sed -n 2,11p "$0"; exit 2 ;;
esac
