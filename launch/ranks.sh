# Sourced by single_node.sh and multi_node.sh: finds distrain, its Python and mpirun, and starts the ranks.
#
#   repository=...; source launch/setup_venv.sh; source launch/ranks.sh
#   prepare_ranks
#   start_ranks --bind-to none -n 4 -- --data data --run run
#
# These functions install nothing.
# shellcheck shell=bash

: "${repository:?the script that sources this file sets it}"

# Sets $bin (the folder of distrain), $python and $mpirun, and exports variables for mpirun. Programs in .venv come
# before programs on PATH.
prepare_ranks() {
  local version
  bin=$repository/.venv/bin
  if [ ! -x "$bin/distrain" ]; then
    bin=$(command -v distrain || true)
    bin=${bin%/*}
    [ -n "$bin" ] || fail 2 "distrain is not installed: it is neither in $repository/.venv nor on PATH. Run \
./launch/quickstart.sh, which makes .venv, or: pip install 'distrain[cpu,mpi]'"
  fi
  python=$bin/python3 # the Python that has distrain; `distrain` on PATH may be a link into its environment
  [ -x "$python" ] || python=$(dirname "$(readlink -f "$bin/distrain")")/python3
  [ -x "$python" ] || python=$(command -v python3) || fail 2 "there is no python3 in $bin or on PATH."
  mpirun=$bin/mpirun
  [ -x "$mpirun" ] || mpirun=$(command -v mpirun) || fail 2 "mpirun is neither in $bin nor on PATH; it starts the \
processes, for Horovod too. Install it for this Python: $python -m pip install 'distrain[mpi]'"
  version=$("$mpirun" --version 2>&1) || true
  [[ $version == *"Open MPI"* ]] || fail 2 "$mpirun is not Open MPI's, but prints \"${version%%$'\n'*}\". The ranks \
need the mpirun of their own MPI: $python -m pip install 'distrain[mpi]'"
  # mpirun gives the ranks a pseudo-terminal; they should draw a live bar only if this script has a terminal.
  [ -t 1 ] || export TTY_COMPATIBLE=0
  if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
}

# Runs `distrain train` on all ranks, in place of this shell. The array $supervisor holds options of the supervisor.
start_ranks() { # arguments of mpirun, --, arguments of distrain train
  local options=()
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  # When the first rank exits with an error or a request to stop, mpirun ends the other ranks: after 2 s by SIGTERM, and
  # after 4 s by SIGKILL. Within that time the chief writes its final message.
  export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-2}
  exec "$python" -P -m distrain.launchers.mpirun ${supervisor[@]+"${supervisor[@]}"} \
    "$mpirun" "${options[@]}" "$bin/distrain" train "$@"
}
