#!/usr/bin/env bash
# Trains on this machine as several processes, one for each GPU.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/single_node.sh [-n N] [--restarts R] [ARGUMENT ...]

  -n N          processes (default: one for each GPU, respecting CUDA_VISIBLE_DEVICES; 2 without GPUs)
  --restarts R  starts again from the last checkpoint, at most R times, after a process was lost or crashed (default 0)

All other arguments go to `distrain train`, for example:

  launch/single_node.sh -n 4 --data data --run runs/1 --epochs 10

The processes use Horovod if it is installed, else MPI. On SIGTERM, SIGINT (Ctrl-C), SIGHUP or SIGUSR1 they save a
checkpoint of the current step, and exit with code 42: the same command goes on from that checkpoint. A second Ctrl-C
kills them at once. `distrain --help` lists the exit codes.
TEXT
}

num_ranks=auto
restarts=0
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    -n)
      num_ranks=${2:-}
      shift
      ;;
    --restarts)
      restarts=${2:-}
      shift
      ;;
    *) arguments+=("$1") ;;
  esac
  shift || true
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$repository/launch/setup_venv.sh"
source "$repository/launch/ranks.sh"

if [ "$num_ranks" = auto ]; then
  num_ranks=$(count_visible_gpus)
  [ "$num_ranks" -gt 0 ] || num_ranks=2
elif ! [[ $num_ranks =~ ^[1-9][0-9]{0,2}$ ]]; then
  printf 'error: -n is "%s", but it must be a number of processes from 1 to 999\n\n' "$num_ranks" >&2
  usage >&2
  exit 2
fi

if ! [[ $restarts =~ ^[0-9]{1,6}$ ]]; then
  printf 'error: --restarts is "%s", but it must be a number of restarts from 0 to 999999\n\n' "$restarts" >&2
  usage >&2
  exit 2
fi

# Sets `binding`: each rank on CPUs gets an equal number of cores to itself, which makes most steps shorter
# (benchmarks/LOG.md has figures). Ranks stay unbound if there are more ranks than cores, or if this script may use only
# some cores: mpirun does not know which cores other jobs use.
choose_binding() {
  local cores=0
  binding=(--bind-to none)
  [ "$(count_visible_gpus)" -eq 0 ] || return 0
  [ "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)" -eq "$(nproc --all)" ] || return 0
  cores=$(cat /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list 2>/dev/null | sort -u | wc -l) ||
    cores=0 # a sandbox may have no /sys
  if [ "$num_ranks" -le "$cores" ]; then
    binding=(--bind-to core --map-by "slot:PE=$((cores / num_ranks))" --mca hwloc_base_mem_bind_failure_action silent)
  fi
}

prepare_ranks
choose_binding
# On one host nothing must listen on the network: ranks share memory, and mpirun gets bound to the loopback interface.
export OMPI_MCA_btl=${OMPI_MCA_btl:-self,vader} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
export HOROVOD_GLOO_IFACE=${HOROVOD_GLOO_IFACE:-lo}
supervisor=(--one-host --restarts "$restarts")
# Without `plm isolated` mpirun would look for ssh, which one host does not need. There may be more ranks than cores.
start_ranks "${binding[@]}" --mca plm isolated --oversubscribe -n "$num_ranks" -- ${arguments[@]+"${arguments[@]}"}
