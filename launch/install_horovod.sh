#!/usr/bin/env bash
# Builds Horovod for the TensorFlow in .venv, installs it there, and keeps the wheel for the next time.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/install_horovod.sh [--cpu | --gpu]

Builds Horovod 0.28.1 for the TensorFlow in .venv, installs it there, and tries it with two processes. The script makes
.venv if it is missing. Only the C++ compiler must be installed; the Python package index has everything else. The first
build takes some minutes. The script keeps the wheel in ~/.cache/distrain/horovod (or below $XDG_CACHE_HOME), so that
another .venv needs no compiler.

  --cpu  build with Gloo and MPI
  --gpu  build with Gloo, MPI and NCCL, on the CUDA runtime that TensorFlow brings; needs neither CUDA nor its compiler

Without --cpu and --gpu: the kind that .venv has already; else --gpu if there is a GPU; else --cpu.
Other environments: distrain install-horovod does the same in the environment that it runs in.
TEXT
}

kind=""
for argument in "$@"; do
  case $argument in
    -h | --help)
      usage
      exit 0
      ;;
    --cpu | --gpu)
      if [ -n "$kind" ] && [ "$kind" != "${argument#--}" ]; then
        printf 'error: --cpu and --gpu exclude each other\n\n' >&2
        usage >&2
        exit 2
      fi
      kind=${argument#--}
      ;;
    *)
      printf 'error: unknown argument %s\n\n' "$argument" >&2
      usage >&2
      exit 2
      ;;
  esac
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$repository/launch/setup_venv.sh"

if [ "$(uname -s)" != Linux ]; then
  fail 2 "this script builds Horovod on Linux only. Elsewhere distrain runs on many processes with --strategy mpi."
fi
if [ "$kind" = gpu ]; then
  [ ! -e "$venv/installed-cpu" ] || fail 2 "--gpu needs TensorFlow's build for GPUs, but .venv has the build for \
CPUs. To make .venv anew: rm -r .venv; launch/install_horovod.sh --gpu"
  tensorflow_build=gpu # a login node may have no GPU
fi

# Check the compiler before minutes of downloads, unless a cached wheel may make it unnecessary.
cache=${XDG_CACHE_HOME:-${HOME:-}/.cache}/distrain/horovod
compgen -G "$cache/*/horovod-*.whl" >/dev/null || run_installer compilers
setup_venv horovod
cd "$repository"
exec "$venv/bin/python" -m distrain.install ${kind:+"$kind"}
