#!/usr/bin/env bash
# Trains on several machines as many processes, over ssh.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/multi_node.sh -H HOST:N[,HOST:N ...] [--interface IFACE] [ARGUMENT ...]
       launch/multi_node.sh --hostfile FILE [--interface IFACE] [ARGUMENT ...]

  -H HOST:N,...      hosts, and processes on each (one where :N is left out): as many as it has GPUs
  --hostfile FILE    the same from a file, a host a line: HOST slots=N
  --interface IFACE  the network interface that joins the hosts, where they have several: eth0

All other arguments go to `distrain train`, for example:

  launch/multi_node.sh -H node1:4,node2:4 --data /shared/data --run runs/1

Each host needs distrain and this directory at the same paths, the data, and a key by which ssh logs in without a
password; ssh follows ~/.ssh/config and checks host keys as ever. DISTRAIN_SSH names another command, with its arguments
(no quotes or colons in them): DISTRAIN_SSH="ssh -p 2222". Only the first host writes the run directory.

Of the environment the processes get PATH, LD_LIBRARY_PATH, PYTHON*, OMP_NUM_THREADS, and what begins with TF_, KERAS_,
XLA_, HOROVOD_, NCCL_, DISTRAIN_ or OMPI_MCA_. Signals and exit codes are as with launch/single_node.sh.
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
    -H) # a missing value is caught below
      list=${2:-}
      shift
      ;;
    --hostfile)
      [ -r "${2:-}" ] || refuse "--hostfile is \"${2:-}\", but it must be a file that can be read"
      # "HOST slots=N" -> "HOST:N", comments left out
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
  # A host that began with a dash would be an option to ssh.
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
  *[!A-Za-z0-9/._+@~-]*) fail 2 "mpirun cannot start processes on other hosts from $repository or with $python: there \
is a space or another special sign in it. Move the checkout or the environment." ;;
esac
ssh=${DISTRAIN_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}

# An address that can be bound is one of this machine.
is_this_host() {
  "$python" -c 'import socket, sys; socket.socket().bind((sys.argv[1], 0))' "$1" 2>/dev/null
}

# Says what is wrong with a host, and returns 1. stdout and stderr are ssh's own words.
check_host() { # host
  local host=$1 words code=0 script command
  script="test -x $bin/distrain && test -x ${mpirun%/*}/orted || exit 101;"
  script+=" $python -P -c 'import distrain.launchers.mpirun' || exit 102;"
  script+=" cd $(printf %q "$PWD") || exit 103"
  read -r -a command <<<"$ssh"
  words=$(timeout 30 "${command[@]}" "$host" "$script" </dev/null 2>&1) || code=$?
  case $code in
    0) return ;;
    101) words="it has no $bin/distrain, or no ${mpirun%/*}/orted. Install distrain and Open MPI there at the same \
paths as here, or share the directory." ;;
    102) words="its $python has no distrain of this version: ${words##*$'\n'}. Install distrain there as here." ;;
    103) words="it has no directory $PWD, from where this was started. Start from one that all hosts have." ;;
    124) words="it did not answer to $ssh within 30 s. Is it up, and is its name right?" ;;
    *) words="\"$ssh $host\" failed: ${words:-exit code $code}. It must log in without asking: try it by hand, where \
it asks about the host key; and see ssh-copy-id for the key." ;;
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
[ "$failed" -eq 0 ] || fail 2 "nothing was started, as $failed of ${#hosts[@]} hosts cannot be used (see above)."

# The first ssh to each host comes from here, so hosts need no keys for each other. The keepalive ends a job that a lost
# host keeps from starting or ending: after 45 s, later than the ranks' own heartbeat, which can say more.
options=(--bind-to none --map-by slot -H "$list" -n "$num_ranks" -wdir "$PWD"
  --mca plm_rsh_agent "$ssh" --mca plm_rsh_no_tree_spawn 1 --mca plm_rsh_num_concurrent "${#hosts[@]}"
  --mca orte_launch_agent "$python -P -m distrain.launchers.mpirun orted"
  --mca oob_tcp_keepalive_time 30 --mca oob_tcp_keepalive_intvl 5 --mca oob_tcp_keepalive_probes 3)
if [ -n "$interface" ]; then
  export HOROVOD_GLOO_IFACE=$interface NCCL_SOCKET_IFNAME=$interface
  options+=(--mca btl_tcp_if_include "$interface" --mca oob_tcp_if_include "$interface")
fi
for name in $(compgen -e); do
  case $name in # Open MPI itself passes on what begins with OMPI_
    PATH | LD_LIBRARY_PATH | PYTHON* | OMP_NUM_THREADS | TTY_COMPATIBLE) options+=(-x "$name") ;;
    TF_* | KERAS_* | XLA_* | HOROVOD_* | NCCL_* | DISTRAIN_*) options+=(-x "$name") ;;
  esac
done
start_ranks "${options[@]}" -- ${arguments[@]+"${arguments[@]}"}
