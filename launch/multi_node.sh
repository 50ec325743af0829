#!/usr/bin/env bash
# Trains on several machines as many processes, over ssh.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/multi_node.sh -H HOST:N[,HOST:N ...] [--interface IFACE] [ARGUMENT ...]
       launch/multi_node.sh --hostfile FILE [--interface IFACE] [ARGUMENT ...]

  -H HOST:N,...      hosts, each with its number of processes (default 1), which should be its number of GPUs
  --hostfile FILE    file of hosts, one per line: HOST slots=N
  --interface IFACE  network interface that connects the hosts, if they have several: eth0

All other arguments go to `distrain train`, for example:

  launch/multi_node.sh -H node1:4,node2:4 --data /shared/data --run runs/1

Each host needs distrain and the current directory at the same paths as here, the data, and a key by which ssh logs in
without a password. ssh reads ~/.ssh/config and checks host keys as usual. DISTRAIN_SSH names another command with its
arguments, which may hold no quotes or colons: DISTRAIN_SSH="ssh -p 2222". Only the first host writes the run directory.

The processes get these variables of the environment: PATH, LD_LIBRARY_PATH, PYTHON*, OMP_NUM_THREADS, TF_*, KERAS_*,
XLA_*, HOROVOD_*, NCCL_*, DISTRAIN_*, KUBEFLOW_TRAINER_* and OMPI_MCA_*. Signals and exit codes are those of
launch/single_node.sh.
TEXT
}

refuse() { # message
  printf 'error: %s\n\n' "$1" >&2
  usage >&2
  exit 2
}

list=""
interface=""
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    -H) # the check below refuses a missing value
      list=${2:-}
      shift
      ;;
    --hostfile)
      [ -r "${2:-}" ] || refuse "--hostfile is \"${2:-}\", but it must be a file that can be read"
      # "HOST slots=N" becomes "HOST:N"; comments are dropped
      list=$(sed -E 's/#.*//; s/^ +//; s/ +slots *= */:/; s/ +$//; /^$/d' <(tr -s '\t\r' ' ' <"$2") | paste -sd, -)
      shift
      ;;
    --interface)
      interface=${2:-}
      [[ $interface =~ ^[A-Za-z0-9_.-]+$ ]] || refuse "--interface is \"$interface\", but it must be a name like eth0"
      shift
      ;;
    *) arguments+=("$1") ;;
  esac
  shift || true
done
[ -n "$list" ] || refuse "no host is named; use -H HOST:N,HOST:N or --hostfile FILE"

hosts=()
num_ranks=0
IFS=, read -r -a entries <<<"$list"
for entry in "${entries[@]}"; do
  # ssh would take a host with a leading dash for an option.
  [[ $entry =~ ^[A-Za-z0-9][A-Za-z0-9._-]*(:[1-9][0-9]{0,2})?$ ]] ||
    refuse "\"$entry\" among the hosts is not HOST:N, with N processes from 1 to 999"
  hosts+=("${entry%:*}")
  if [[ $entry == *:* ]]; then num_ranks=$((num_ranks + ${entry#*:})); else num_ranks=$((num_ranks + 1)); fi
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$repository/launch/setup_venv.sh"
source "$repository/launch/ranks.sh"
prepare_ranks
case $python$mpirun$repository in
  *[!A-Za-z0-9/._+@~-]*) fail 2 "mpirun cannot start processes on other hosts from $repository or with $python: the \
path holds a space or another special character. Move the checkout or the environment." ;;
esac
ssh=${DISTRAIN_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}

# Returns whether a host is this machine: only own addresses can be bound.
is_this_host() {
  "$python" -c 'import socket, sys; socket.socket().bind((sys.argv[1], 0))' "$1" 2>/dev/null
}

# Returns 0 if a host can be used, else prints what is wrong with the host and returns 1.
check_host() { # host
  local host=$1 words code=0 script command
  script="test -x $bin/distrain && test -x ${mpirun%/*}/orted || exit 101;"
  script+=" $python -P -c 'import distrain.launchers.mpi_agent' || exit 102;"
  script+=" cd $(printf %q "$PWD") || exit 103"
  read -r -a command <<<"$ssh"
  words=$(timeout 30 "${command[@]}" "$host" "$script" </dev/null 2>&1) || code=$?
  case $code in
    0) return ;;
    101) words="it has no $bin/distrain, or no ${mpirun%/*}/orted. Install distrain and Open MPI there at the same \
paths as here, or share the directory." ;;
    102) words="its $python has no distrain of this version: ${words##*$'\n'}. Install distrain there as here." ;;
    103) words="it has no directory $PWD, the current directory here. Start from a directory that all hosts have." ;;
    124) words="it did not answer to $ssh within 30 s. Check that it runs, and its name." ;;
    *) words="\"$ssh $host\" failed: ${words:-exit code $code}. ssh must log in without a question. Run this \
command by hand once to accept the host key, and copy your key by ssh-copy-id." ;;
  esac
  printf 'error: %s cannot be used: %s\n' "$host" "$words" >&2
  return 1
}

checks=()
for host in "${hosts[@]}"; do
  is_this_host "$host" && continue
  check_host "$host" &
  checks+=($!)
done
failed=0
for check in ${checks[@]+"${checks[@]}"}; do
  wait "$check" || failed=$((failed + 1))
done
[ "$failed" -eq 0 ] || fail 2 "no rank was started, because $failed of ${#hosts[@]} hosts cannot be used (see above)."

# This machine starts all ssh connections (no_tree_spawn), so hosts need no keys for each other. The keepalive ends a
# job that a lost host keeps from starting or ending. It acts after 45 s, later than the ranks' heartbeat, which knows
# more.
options=(--bind-to none --map-by slot -H "$list" -n "$num_ranks" -wdir "$PWD"
  --mca plm_rsh_agent "$ssh" --mca plm_rsh_no_tree_spawn 1 --mca plm_rsh_num_concurrent "${#hosts[@]}"
  --mca orte_launch_agent "$python -P -m distrain.launchers.mpi_agent orted"
  --mca oob_tcp_keepalive_time 30 --mca oob_tcp_keepalive_intvl 5 --mca oob_tcp_keepalive_probes 3)
if [ -n "$interface" ]; then
  export HOROVOD_GLOO_IFACE=$interface NCCL_SOCKET_IFNAME=$interface
  options+=(--mca btl_tcp_if_include "$interface" --mca oob_tcp_if_include "$interface")
fi
for name in $(compgen -e); do
  case $name in # Open MPI itself passes on OMPI_*
    PATH | LD_LIBRARY_PATH | PYTHON* | OMP_NUM_THREADS | TTY_COMPATIBLE) options+=(-x "$name") ;;
    TF_* | KERAS_* | XLA_* | HOROVOD_* | NCCL_* | DISTRAIN_* | KUBEFLOW_TRAINER_*) options+=(-x "$name") ;;
  esac
done
start_ranks "${options[@]}" -- ${arguments[@]+"${arguments[@]}"}
