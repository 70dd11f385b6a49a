#!/usr/bin/env bash
# A throw-away SLURM cluster on one machine: several slurmd on loopback, each on a port of its own. For tests alone: it
# has no authentication. Needs the packages slurmctld, slurmd and slurm-client.
#
#   bash scripts/mini_slurm.sh up          # start it; does nothing if it is up
#   eval "$(bash scripts/mini_slurm.sh env)"  # what SLURM's commands need to find it
#   bash scripts/mini_slurm.sh kill n2     # a node fails: its slurmd and all of its jobs' processes are killed
#   bash scripts/mini_slurm.sh lose n2     # SLURM loses a node: its slurmd is killed, and its jobs' processes go on
#   bash scripts/mini_slurm.sh start n2    # it is back: waits until it takes jobs again
#   bash scripts/mini_slurm.sh down        # cancel all jobs, end all daemons
#
# BASE (a folder), NODES=4 and CPUS=2 may be set. Several clusters can be up at once: each takes free ports.
set -euo pipefail
BASE=${BASE:-${TMPDIR:-/tmp}/mini-slurm} NODES=${NODES:-4} CPUS=${CPUS:-2}
if [ ${#BASE} -gt 70 ]; then # sockets of jobs are below it, and Linux has 108 bytes for a socket's path
  echo "the path of BASE has ${#BASE} characters, and jobs start in at most 70: BASE=<a shorter one>" >&2
  exit 2
fi
export SLURM_CONF=$BASE/etc/slurm.conf
USER_NAME=$(id -un)
# Below the ports that systems give to connections (32768 on Linux, 16000 in gVisor): while a node is down, one of these
# could take its port, and its slurmd would never come back.
FIRST_PORT=7817 LAST_PORT=14817 PORT_STEP=50
PORT=$(cat "$BASE/etc/port" 2>/dev/null || echo $FIRST_PORT)

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

is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

choose_port() { # the first block of ports that no other cluster has: a slurmctld listens at the first of its block
  local number
  for PORT in $(seq $FIRST_PORT $PORT_STEP $LAST_PORT); do
    for number in $(seq 0 "$NODES"); do is_listening $((PORT + number)) && continue 2; done
    return 0
  done
  echo "no free ports from $FIRST_PORT to $LAST_PORT" >&2
  return 1
}

write_config() {
  mkdir -p "$BASE"/{etc,run,log,state,dev}
  echo "$PORT" >"$BASE/etc/port"
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
  local kept tag="# mini-slurm $PORT"
  kept=$(mktemp)
  grep -v "$tag\$" /etc/hosts >"$kept" || true
  [ "$1" = remove ] || for name in $(names); do echo "127.0.0.1 $name $tag"; done >>"$kept"
  # Not renamed: in a container the file is a mount.
  cat "$kept" >/etc/hosts
  rm -f "$kept"
}

start_node() { is_alive "$BASE/run/slurmd.$1.pid" || slurmd -N "$1"; }

count_ready() { # count_ready NODES: those that take jobs
  local name
  # A node that has just ended is idle for SLURM until it has not answered for a while.
  for name in ${1//,/ }; do is_alive "$BASE/run/slurmd.$name.pid" || return 0; done
  timeout 5 sinfo -h -N -n "$1" -p main -t idle,mix,alloc -o %N 2>/dev/null | sort -u | wc -l
}

wait_for_nodes() { # wait_for_nodes NAME...: until they take jobs; on a machine that is busy each try may take long
  local nodes name end=$((SECONDS + 180))
  nodes=$(IFS=, && echo "$*")
  while [ "$(count_ready "$nodes")" != $# ]; do
    if [ $SECONDS -gt $end ]; then
      timeout 5 scontrol show node "$nodes" >&2 || true
      for name in "$@"; do tail -n 5 "$BASE/log/slurmd.$name.log" >&2 || true; done
      tail -n 5 "$BASE/log/slurmctld.log" >&2
      return 1
    fi
    sleep 0.2
    # A slurmd that could not listen has ended. A node that SLURM has set down or drained meanwhile, as it answered too
    # late or a step could not be ended, comes back by the administrator's word alone.
    for name in "$@"; do
      start_node "$name"
      case $(timeout 5 sinfo -h -N -n "$name" -p main -o %T 2>/dev/null) in
        down | drained) timeout 5 scontrol update NodeName="$name" State=RESUME 2>/dev/null || true ;;
      esac
    done
  done
}

list_processes() { # of a node's jobs: they have its name and this cluster in their environment
  { grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true; } |
    { xargs -r grep -lszxF "SLURMD_NODENAME=$1" || true; } | cut -d/ -f3
}

kill_node() { # at once: what is killed a moment later could still report the end of what was killed before
  local pids pid parent daemons=
  if is_alive "$BASE/run/slurmd.$1.pid"; then daemons=$(cat "$BASE/run/slurmd.$1.pid"); fi
  pids=$(list_processes "$1")
  for pid in $pids; do
    # slurmstepd, which has started them, is its parent.
    parent=$(awk '/^PPid:/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)
    case $({ tr '\0' ' ' <"/proc/${parent:-0}/cmdline"; } 2>/dev/null || true) in
      slurmstepd*) daemons="$daemons $parent" ;;
    esac
  done
  # Daemons first: a slurmstepd that outlives its job by a moment reports it as killed, and SLURM does not requeue it.
  # shellcheck disable=SC2086 # a list
  [ -z "$daemons$pids" ] || kill -9 $daemons $pids 2>/dev/null || true
  # Started since they were listed.
  pids=$(list_processes "$1")
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -9 $pids 2>/dev/null || true
  rm -f "$BASE/run/slurmd.$1.pid"
}

lose_node() { # as where its network fails: SLURM requeues its jobs, while they go on
  kill -9 "$(cat "$BASE/run/slurmd.$1.pid")"
  rm -f "$BASE/run/slurmd.$1.pid"
}

up() {
  ! is_alive "$BASE/run/slurmctld.pid" || return 0
  exec 9</etc/hosts # one cluster at a time takes ports and changes the names of hosts
  flock -w 120 9
  choose_port
  write_config
  set_host_names add
  slurmctld 9<&-
  for _ in $(seq 300); do is_listening "$PORT" && break; sleep 0.1; done
  flock -u 9
  # shellcheck disable=SC2046
  wait_for_nodes $(names)
}

down() {
  [ ! -s "$SLURM_CONF" ] || timeout 5 scancel --state=RUNNING,PENDING -u "$USER_NAME" 2>/dev/null || true
  sleep 0.3
  for name in $(names); do kill_node "$name"; done
  stop_daemon "$BASE/run/slurmctld.pid"
  exec 9</etc/hosts
  flock -w 120 9
  set_host_names remove
  rm -rf "$BASE/state" "$BASE/run"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  kill) kill_node "$2" ;;
  lose) lose_node "$2" ;;
  start) wait_for_nodes "$2" ;;
  *) sed -n 2,13p "$0"; exit 2 ;;
esac
