# Sourced by single_node.sh and multi_node.sh: finds what the ranks are, and starts them.
#
#   repository=...; source launch/setup_venv.sh; source launch/ranks.sh
#   prepare_ranks
#   start_ranks --bind-to none -n 4 -- --data data --run run
#
# Nothing is installed here.
# shellcheck shell=bash

: "${repository:?the script that sources this file sets it}"

# Sets $bin, where distrain is, $python and $mpirun, and what mpirun shall find in its environment. An environment in
# .venv comes before what is on PATH.
prepare_ranks() {
  local version
  bin=$repository/.venv/bin
  if [ ! -x "$bin/distrain" ]; then
    bin=$(command -v distrain || true)
    bin=${bin%/*}
    [ -n "$bin" ] || fail 2 "distrain is not installed: it is neither in $repository/.venv nor on PATH. Run \
./launch/quickstart.sh, which makes .venv, or: pip install 'distrain[cpu,mpi]'"
  fi
  python=$bin/python3 # must have distrain; a link on PATH leads to the environment that does
  [ -x "$python" ] || python=$(dirname "$(readlink -f "$bin/distrain")")/python3
  [ -x "$python" ] || python=$(command -v python3) || fail 2 "there is no python3 beside $bin/distrain or on PATH."
  mpirun=$bin/mpirun
  [ -x "$mpirun" ] || mpirun=$(command -v mpirun) || fail 2 "mpirun is neither in $bin nor on PATH; it starts the \
processes, for Horovod too. Install it for this Python: $python -m pip install 'distrain[mpi]'"
  version=$("$mpirun" --version 2>&1) || true
  [[ $version == *"Open MPI"* ]] || fail 2 "$mpirun is not Open MPI's, but says \"${version%%$'\n'*}\". The ranks need \
the mpirun of the MPI that they use: $python -m pip install 'distrain[mpi]'"
  # mpirun gives the ranks a terminal of its own making; they shall draw a live bar only where there is a real one.
  [ -t 1 ] || export TTY_COMPATIBLE=0
  if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
}

# Runs `distrain train` as many ranks; replaces this shell.
start_ranks() { # arguments of mpirun, --, arguments of distrain train
  local options=()
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  # The first rank to end with an error or a request to stop makes
  # mpirun end the others: after 2 s by SIGTERM, after 4 s by SIGKILL. The chief may need them to write its last word.
  exec "$python" -P -m distrain.launchers.mpirun "$mpirun" --mca odls_base_sigkill_timeout 2 \
    "${options[@]}" "$bin/distrain" train "$@"
}
