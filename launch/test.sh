#!/usr/bin/env bash
# Checks everything: lint, format, types, tests. Sets up what that needs in .venv first, Horovod too.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/test.sh [--fast | --gpu-build] [PYTEST ARGUMENT ...]
       launch/test.sh --gpu [--minutes M] [--out FILE] [--stand-in]

  --fast       lint, types, prose, documentation, docstrings and unit tests only; does not build Horovod
  --gpu-build  the tests of tests/gpu_build only, which need no GPU, with TensorFlow's build for
               GPUs in .venv-gpu-build (downloads 600 MB)
  --gpu        the checks that only GPUs can show, on one GPU or several of this machine: doctor, weights against the
               CPU, two logical GPUs, NCCL, several models, half precision, speed. Takes 10 minutes at most after the
               set-up, and writes gpu-report.md for benchmarks/RESULTS.md. --stand-in tries the checks on CPU devices.

All other arguments go to pytest, for example: launch/test.sh --fast tests/unit/data -k shards
TEXT
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"

source "$repository/launch/setup_venv.sh"

# Makes .venv with TensorFlow's build for GPUs and Horovod with NCCL, then runs the checks that need GPUs.
check_gpus() {
  if [[ " $* " == *" --stand-in "* ]]; then
    setup_venv horovod
  else
    [ "$(count_gpus)" -gt 0 ] ||
      fail 2 "this machine shows no NVIDIA GPU (nvidia-smi -L); to try the checks on CPU devices: --stand-in"
    [ ! -e "$venv/installed-cpu" ] || fail 2 "there is a GPU, but .venv was made without one: rm -r .venv, and run again"
    tensorflow_build=gpu
    setup_venv horovod
    launch/install_horovod.sh --gpu || say "Horovod was not built; the checks that need it will fail."
  fi
  exec "$venv/bin/python" tests/gpu/gpu_checks.py "$@"
}
if [ "${1:-}" = --gpu ]; then
  shift
  check_gpus "$@"
fi

fast="" chosen="" gpu_build=""
arguments=()
for argument in "$@"; do
  case $argument in
    -h | --help)
      usage
      exit 0
      ;;
    --fast) fast=yes ;;
    --gpu-build) gpu_build=yes ;;
    *)
      [ ! -e "${argument%%::*}" ] || chosen=yes # a path, which stands in place of all tests
      arguments+=("$argument")
      ;;
  esac
done

if [ ${#arguments[@]} -eq 0 ] && [ -z "$gpu_build" ]; then # in the order of the folders: the long tests first
  arguments=(--numprocesses 3 --dist loadscope --no-loadscope-reorder)
fi
[ -z "$fast" ] || [ -n "$chosen" ] || arguments+=(tests/unit tests/system/test_doctests.py)
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2} # TensorFlow's own notes would drown a failure
unset PYTHONDONTWRITEBYTECODE # to compile all tests takes each test process 6 s; the next run reads them compiled
export PIP_COMPILE=0 # of all installed modules a third is ever imported; the first import compiles each

# What checks k8s/, in an environment of its own: it pins packages of which .venv has other versions.
setup_manifest_checks() {
  local checks=$repository/.venv-manifests requirements=$repository/k8s/checks/requirements.txt wanted
  wanted=$(cksum <"$requirements")
  if [ -e "$checks/installed" ] && [ "$(cat "$checks/installed")" = "$wanted" ]; then
    return
  fi
  make_venv "$(find_python)" "$checks" || fail 2 "making .venv-manifests failed; the message above says why."
  install_packages "$checks" "Installing what checks the Kubernetes manifests into .venv-manifests" \
    --requirement "$requirements"
  printf '%s\n' "$wanted" >"$checks/installed"
}

# TensorFlow's build for GPUs names its kernels on any machine. It cannot stand beside the build for CPUs.
if [ -n "$gpu_build" ]; then
  gpu_build_venv=$repository/.venv-gpu-build
  python=$(find_python)
  "$gpu_build_venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv "$python" "$gpu_build_venv" ||
    fail 2 "making .venv-gpu-build failed; the message above says why."
  install_packages "$gpu_build_venv" "Installing TensorFlow's build for GPUs into .venv-gpu-build" \
    "tensorflow>=2.21,<2.22" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" --editable "$repository"
  exec "$gpu_build_venv/bin/python" -m pytest tests/gpu_build ${arguments[@]+"${arguments[@]}"}
fi

# Lint, format, types, prose and documentation; types take half of the time.
check_text() {
  local imports
  say "ruff check"
  "$python" -m ruff check --quiet .
  say "ruff format --check"
  "$python" -m ruff format --quiet --check . ||
    fail 1 "some files are not formatted; run .venv/bin/ruff format"
  say "mypy"
  "$python" -m mypy --no-error-summary
  say "lint-imports"
  imports=$("$venv/bin/lint-imports" --no-cache) ||
    { printf '%s\n' "$imports" >&2; fail 1 "an import breaks a contract in pyproject.toml"; }
  say "prose"
  "$python" .ci/prose.py
  say "mkdocs build --strict"
  NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --quiet --strict --site-dir "$venv/site"
}

# Numba keeps what it compiles. Without this, each test process would compile the kernels of `prepare` for itself.
compile_kernels() {
  local folder kind
  folder=$(mktemp -d)
  "$python" -m distrain synth --out "$folder" --rows 100
  for kind in ngram sequence; do
    "$python" -m distrain prepare --train "$folder/train.csv" --test "$folder/test.csv" --vectorizer "$kind" \
      --out "$folder/$kind"
  done
  rm -r "$folder"
}

# Starts a function beside the next steps, as process $!. The end of this script ends all its processes.
start_beside() { # function, file for its output
  set -m # a process group of its own
  "$1" >"$2" 2>&1 </dev/null &
  set +m
  groups_beside+=("-$!")
  trap 'kill -- "${groups_beside[@]}" 2>/dev/null || true' EXIT
}

python=$venv/bin/python
if [ -n "$fast" ]; then
  setup_venv dev
  check_text
else
  groups_beside=()
  start_beside setup_manifest_checks "$repository/.venv-manifests.log"
  manifest_checks=$!
  setup_venv dev
  start_beside check_text "$venv/check-text.log"
  text_checks=$!
  start_beside compile_kernels "$venv/compile-kernels.log"
  kernels=$!
  "$repository/launch/install_horovod.sh"
  status=0
  wait "$text_checks" || status=$?
  cat "$venv/check-text.log"
  [ "$status" -eq 0 ] || exit "$status"
  wait "$kernels" || { cat "$venv/compile-kernels.log"; exit 1; }
  wait "$manifest_checks" || { cat "$repository/.venv-manifests.log" >&2; exit 2; }
fi
say "pytest"
# The odd form: an empty array is an unset variable to bash 3.2, which macOS ships.
exec "$python" -m pytest ${arguments[@]+"${arguments[@]}"}
