#!/usr/bin/env bash
# Trains on this machine as several processes, one for each GPU.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/single_node.sh [-n N] [ARGUMENT ...]

  -n N  processes (default: one for each GPU, respecting CUDA_VISIBLE_DEVICES; 2 without GPUs)

All other arguments go to `distrain train`, for example:

  launch/single_node.sh -n 4 --data data --run runs/1 --epochs 10

The processes use Horovod where it is built, else MPI. SIGTERM, SIGINT (Ctrl-C), SIGHUP and SIGUSR1 make them save a
checkpoint of the step that they are in, and leave with exit code 42: the same command goes on from there. A second
Ctrl-C ends them at once. The exit codes are those of distrain: see `distrain --help`.
TEXT
}

num_ranks=auto
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
    *) arguments+=("$1") ;;
  esac
  shift || true
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$repository/launch/setup_venv.sh"
source "$repository/launch/ranks.sh"

# GPUs that TensorFlow will see.
count_visible_gpus() {
  local gpus number named
  gpus=$(count_gpus)
  if [ "$gpus" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES+is set}" ]; then
    gpus=0
    IFS=, read -r -a named <<<"$CUDA_VISIBLE_DEVICES"
    for number in ${named[@]+"${named[@]}"}; do
      [ "$number" != -1 ] || break # CUDA stops there
      gpus=$((gpus + 1))
    done
  fi
  echo "$gpus"
}

if [ "$num_ranks" = auto ]; then
  num_ranks=$(count_visible_gpus)
  [ "$num_ranks" -gt 0 ] || num_ranks=2
elif ! [[ $num_ranks =~ ^[1-9][0-9]{0,2}$ ]]; then
  printf 'error: -n is "%s", but it must be a number of processes from 1 to 999\n\n' "$num_ranks" >&2
  usage >&2
  exit 2
fi

# Sets `binding`: ranks on CPUs get cores of their own, an equal share of all: most steps are 5 to 15% shorter.
# Where there are more ranks than cores, or this script was given a part of the cores, they stay free: mpirun does not
# know who uses the others.
choose_binding() {
  local cores=0
  binding=(--bind-to none)
  [ "$(count_visible_gpus)" -eq 0 ] || return 0
  [ "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)" -eq "$(nproc --all)" ] || return 0
  cores=$(cat /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list 2>/dev/null | sort -u | wc -l)
  if [ "$num_ranks" -le "$cores" ]; then
    binding=(--bind-to core --map-by "slot:PE=$((cores / num_ranks))" --mca hwloc_base_mem_bind_failure_action silent)
  fi
}

prepare_ranks
choose_binding
# mpirun would look for ssh, which one host does without.
start_ranks "${binding[@]}" --mca plm isolated --oversubscribe -n "$num_ranks" -- ${arguments[@]+"${arguments[@]}"} # more than cores are allowed
