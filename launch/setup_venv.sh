# Sourced by the other scripts: makes an environment in .venv that holds distrain and its dependencies.
#
#   repository=...; source launch/setup_venv.sh; setup_venv dev
#
# Afterwards `$venv/bin/python` has distrain installed from this checkout. These functions change nothing outside the
# repository. pip's own settings (PIP_INDEX_URL, PIP_CACHE_DIR, pip.conf, ...) apply. PYTHON=/path/to/python names the
# Python to use.
# shellcheck shell=bash

: "${repository:?the script that sources this file sets it}"
venv=$repository/.venv

say() { printf '%s\n' "$*"; }

fail() { # status, message
  printf 'error: %s\n' "$2" >&2
  exit "$1"
}

# Prints the first Python that is new enough and can make virtual environments.
find_python() {
  local candidate without_venv=""
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
    without_venv=${without_venv:-$candidate}
  done
  if [ -n "$without_venv" ]; then
    fail 2 "$without_venv cannot make virtual environments: its venv module is missing. Install it (on Debian and \
Ubuntu: sudo apt-get install $("$without_venv" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-venv) and \
run this script again."
  fi
  fail 2 "no Python 3.11 or newer was found. Install one (on Debian and Ubuntu: sudo apt-get install python3 \
python3-venv; elsewhere: https://www.python.org/downloads), or name it: PYTHON=/path/to/python3.12 $0"
}

# Runs a module of distrain/install, which needs only Python's own library.
run_installer() { # module, argument ...
  local python=$venv/bin/python module=$1
  shift
  [ -x "$python" ] || python=$(find_python)
  (cd "$repository" && exec "$python" -m "distrain.install.$module" "$@")
}

# Makes an environment with a new pip. The one that Python 3.11 brings takes twice as long to choose versions.
make_venv() { # Python, folder
  "$1" -m venv --clear --without-pip "$2" || return
  # Python's own pip installs a new one 3 s sooner than the environment would get the old one. Else the old one serves.
  "$1" -m pip --python "$2/bin/python" install --disable-pip-version-check --quiet 'pip>=25' >/dev/null 2>&1 ||
    "$2/bin/python" -m ensurepip >/dev/null
}

# Installs packages into an environment, with a line every 20 seconds that says how far pip is.
install_packages() { # folder of the environment, sentence, argument of pip ...
  local folder=$1 what=$2
  shift 2
  run_installer progress "$folder/install.log" "$what" \
    "$folder/bin/python" -m pip install --disable-pip-version-check "$@" ||
    fail 2 "installing failed; pip's message above says why. If it was the network, run this script again: pip keeps \
finished downloads."
}

# Prints the number of NVIDIA GPUs; 0 without a driver.
count_gpus() {
  if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true
  else
    echo 0
  fi
}

# Prints the number of GPUs that TensorFlow will see.
count_visible_gpus() {
  local gpus number named
  gpus=$(count_gpus)
  if [ "$gpus" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES+is set}" ]; then
    gpus=0
    IFS=, read -r -a named <<<"$CUDA_VISIBLE_DEVICES"
    for number in ${named[@]+"${named[@]}"}; do
      [ "$number" != -1 ] || break # CUDA ignores all GPUs after -1
      gpus=$((gpus + 1))
    done
  fi
  echo "$gpus"
}

# Makes .venv and installs distrain with its extras, unless both were done for exactly this pyproject.toml.
# TensorFlow is the build for GPUs if the machine has a GPU, or if the caller sets tensorflow_build=gpu.
setup_venv() { # extras with commas between them, or ""
  local python build=${tensorflow_build:-cpu} extras stamp wanted
  [ "$(count_gpus)" -eq 0 ] || build=gpu
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "Making a virtual environment in .venv with $python ..."
    make_venv "$python" "$venv" ||
      fail 2 "making .venv failed; the message above says why. Check free space and write permission in $repository."
  fi
  # The two builds of TensorFlow must not be mixed: an environment keeps the build that it was made with.
  if [ "$build" = gpu ] && [ -e "$venv/installed-cpu" ]; then
    say "There is a GPU, but .venv was made without one; keeping it. To use the GPU: rm -r .venv, and run again."
    build=cpu
  elif [ "$build" = cpu ] && [ -e "$venv/installed-gpu" ]; then
    build=gpu
  fi
  extras=$build${1:+,$1}
  stamp=$venv/installed-${extras//,/-}
  wanted=$(cksum <"$repository/pyproject.toml")
  if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  install_packages "$venv" "Installing distrain[$extras] into .venv, the first time with some minutes of downloads" \
    --editable "${repository}[$extras]"
  printf '%s\n' "$wanted" | tee "$venv/installed-$build" >"$stamp"
  if [ "$1" = dev ]; then # dev holds horovod, which holds mpi
    printf '%s\n' "$wanted" | tee "$venv/installed-$build-horovod" >"$venv/installed-$build-mpi"
  fi
}
