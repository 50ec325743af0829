#!/usr/bin/env bash
# From a fresh checkout to a trained text classifier and its report. A second run reuses the results of the first.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/quickstart.sh [-n N]

Installs distrain into .venv, writes a demo corpus, prepares it, and trains a text classifier on it with N replicas.
With GPUs, N is by default their number, and CUDA_VISIBLE_DEVICES selects GPUs. The replicas are processes if
./launch/install_horovod.sh --gpu has built Horovod, else one process holds all of them.
Without N GPUs the replicas are processes on the CPU, 2 by default. They use Horovod if it is built, else MPI.
The option --np N means the same as -n N. The script writes to quickstart/. It needs Python >= 3.11 and, the first
time, access to the Python package index.
TEXT
}

processes=auto # as many as GPUs, else 2
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    -n | --np) # the check below refuses a missing number, like a wrong one
      processes=${2:-}
      shift
      ;;
    --np=*) processes=${1#--np=} ;;
    *)
      printf 'error: unknown argument %s\n\n' "$1" >&2
      usage >&2
      exit 2
      ;;
  esac
  shift || true
done
if [ "$processes" != auto ] && ! [[ $processes =~ ^[1-9][0-9]{0,2}$ ]]; then
  printf 'error: -n is "%s", but it must be a number of processes from 1 to 999\n\n' "$processes" >&2
  usage >&2
  exit 2
fi

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$repository/launch/setup_venv.sh"
cd "$repository"
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2} # TensorFlow's own notes would hide the messages of this script

setup_venv mpi
distrain=$venv/bin/distrain

text=quickstart/text
if [ -e "$text/test.csv" ]; then # written last
  say "1/3  The demo corpus is there: $text"
else
  say "1/3  Writing a demo corpus: $text"
  "$distrain" synth --out "$text" --rows 20000
fi

data=quickstart/data
if [ -e "$data/dataset.json" ]; then # written last
  say "2/3  The prepared data is there: $data"
else
  say "2/3  Preparing it: $data"
  "$distrain" prepare --train "$text/train.csv" --test "$text/test.csv" --out "$data"
fi

# The environment keeps the build of TensorFlow that it was made with, and one build uses no GPU.
gpus=0
[ ! -e "$venv/installed-gpu" ] || gpus=$(count_visible_gpus)
devices=cpu
where="the CPU"
if [ "$gpus" -gt 0 ] && { [ "$processes" = auto ] || [ "$processes" -le "$gpus" ]; }; then
  [ "$processes" != auto ] || processes=$gpus
  devices=gpu:$(seq -s , 0 $((processes - 1)))
  where="$processes of $gpus GPU(s)"
fi
[ "$processes" != auto ] || processes=2

has_nccl() {
  "$venv/bin/python" -c 'import sys, horovod.tensorflow as hvd; sys.exit(not hvd.nccl_built())' >/dev/null 2>&1
}

run=quickstart/run-$processes
if [ -e "$run/summary.json" ]; then # written last
  say "3/3  The model is trained: $run (rm -r $run, to train it again)"
else
  arguments=(--data "$data" --run "$run" --devices "$devices" --epochs 20)
  # Without NCCL one process for all GPUs is faster than processes, because MPI sums on the host.
  if [ "$devices" != cpu ] && { [ "$processes" -eq 1 ] || ! has_nccl; }; then
    say "3/3  Training with -n $processes on $where, in one process: $run"
    "$distrain" train "${arguments[@]}"
  else
    say "3/3  Training with -n $processes on $where, in $processes processes: $run"
    launch/single_node.sh -n "$processes" "${arguments[@]}"
  fi
fi

[ -e "$run/report.html" ] || "$distrain" report "$run" # training writes it, unless training was killed just then
"$venv/bin/python" - "$run" <<'PYTHON'
import json, pathlib, sys

run = pathlib.Path(sys.argv[1])
summary = json.loads((run / "summary.json").read_text())
print()
print(
    f"Accuracy {summary['validation_accuracy']:.4f} on rows not trained on, after {summary['epochs']} epochs "
    f"with -n {summary['num_replicas']}, strategy {summary['strategy']}, "
    f"at {summary['samples_per_second']:,.0f} samples/s."
)
print(f"Report:   {(run / 'report.html').resolve()}")
print(f"Try it:   echo 'some text' | .venv/bin/distrain predict --run {run}")
PYTHON
