#!/usr/bin/env bash
# Installs the Debian packages that the build, the tests and the demo need.
# As root it installs what is missing; as another user it prints the command to run and stops.
# If nothing is missing it returns at once.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/setup.sh [--dev] [--test] [--cuda]

  --dev   also what only developers and CI need: clang 14 (fuzzing) and its clang-format and clang-tidy, lld, Google Benchmark, shellcheck
  --test  also TensorBoard and tokenizers, with which tests read our files: 10 MB from PyPI, unpacked into .python/ in
          this folder. Needs pip, no root
  --cuda  also a CUDA toolkit, if there is none: NVIDIA's packages from PyPI, 0.7 GB, unpacked into .cuda/ in
          this folder (1.1 GB). Needs pip, no root, no GPU

Example: sudo scripts/setup.sh
TEXT
}

packages=(
  build-essential cmake ninja-build ccache pkg-config
  openmpi-bin libopenmpi-dev        # launcher, collectives on CPUs
  libdnnl-dev                       # CPU GEMM
  libhdf5-dev                       # checkpoints
  libsentencepiece-dev              # tokenizer
  libarchive-dev zlib1g-dev         # compressed text
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libxxhash-dev
  libgtest-dev python3-h5py         # tests: checkpoints must be readable from h5py
)

# Searches the same places as cmake/Cuda.cmake. Prints the compiler's path; fails if there is none.
find_nvcc() {
  local root
  for root in "${CUDAToolkit_ROOT:-}" "${CUDA_HOME:-}"; do
    if [[ -n $root && -x $root/bin/nvcc ]]; then echo "$root/bin/nvcc"; return; fi
  done
  if command -v nvcc; then return; fi
  for root in "$ROOT/.cuda" /usr/local/cuda; do
    if [[ -x $root/bin/nvcc ]]; then echo "$root/bin/nvcc"; return; fi
  done
  return 1
}

# .cuda.new becomes .cuda only when complete, so a failed download leaves nothing behind.
install_toolkit() {
  local new=$ROOT/.cuda.new top library
  python3 -m pip --version >/dev/null 2>&1 || die "--cuda needs pip: apt-get install python3-pip"
  say "fetching the CUDA toolkit from PyPI (0.7 GB)"
  rm -rf "$new" "$ROOT/.cuda"
  python3 -m pip install -q --no-deps --only-binary=:all: --require-hashes --no-warn-script-location \
    --disable-pip-version-check --root-user-action=ignore --target "$new" -r "$ROOT/scripts/cuda-requirements.txt" ||
    die "pip could not fetch the CUDA toolkit (see above); with another toolkit set CUDAToolkit_ROOT"
  # The layout that nvcc and CMake expect: one root, lib64, and library names without a version.
  top=$new/nvidia/cu13
  cp -r "$new"/nvidia/nccl/include "$new"/nvidia/nccl/lib "$top"
  ln -s lib "$top/lib64"
  for library in "$top"/lib/lib*.so.*; do
    ln -s "$(basename "$library")" "${library%%.so.*}.so"
  done
  mv "$top" "$ROOT/.cuda"
  rm -rf "$new"
}

# The same for Python packages of the tests. The stamp records the list that they were made from.
install_python() {
  local list=$ROOT/scripts/test-requirements.txt new=$ROOT/.python.new
  ! cmp -s "$list" "$ROOT/.python/requirements.txt" || return 0
  say "fetching TensorBoard and tokenizers from PyPI (10 MB)"
  rm -rf "$new" "$ROOT/.python"
  # Debian's Python, because it has NumPy.
  /usr/bin/python3 -m pip install -q --no-deps --only-binary=:all: --require-hashes --no-warn-script-location \
    --disable-pip-version-check --root-user-action=ignore --no-compile --target "$new" -r "$list" ||
    die "pip could not fetch the packages (see above)"
  cp "$list" "$new/requirements.txt"
  mv "$new" "$ROOT/.python"
}

cuda=
tests=
while (($# > 0)); do
  case $1 in
    --cuda) cuda=1 ;;
    --test) tests=1 ;;
    --dev) packages+=(clang-14 libclang-rt-14-dev clang-format-14 clang-tidy-14 lld libbenchmark-dev shellcheck) ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "setup.sh: unknown option '$1'" ;;
  esac
  shift
done

if nvcc=$(find_nvcc); then
  [[ -z $cuda ]] || say "CUDA toolkit: $nvcc"
  cuda=
elif [[ -n $cuda ]] && ! python3 -m pip --version >/dev/null 2>&1; then
  packages+=(python3-pip)
fi
if [[ -n $tests ]] && ! /usr/bin/python3 -m pip --version >/dev/null 2>&1; then packages+=(python3-pip); fi
# If there is a toolkit, CMake builds the CUDA backend, whose tests need this for the emulator.
if [[ -n $nvcc$cuda ]]; then packages+=(libboost-context-dev); fi

install_packages() {
  local installed package missing=() log
  if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system: nothing installed. The build needs the equivalents of: ${packages[*]}"
    return
  fi
  # dpkg-query fails if a package was never known here, but its list of installed ones is still right.
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
    sed -n 's/^installed //p' || true)
  for package in "${packages[@]}"; do
    grep -qxF "$package" <<<"$installed" || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0

  if [[ $(id -u) -ne 0 ]]; then
    die "missing packages; as root run: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  fi

  say "installing ${missing[*]}"
  log=$(mktemp)
  # A fresh container has no package lists, an old one has lists that name versions long gone.
  if ! apt_install "${missing[@]}" >"$log" 2>&1; then
    apt-get update -q >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "apt-get update failed"; }
    apt_install "${missing[@]}" >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; die "apt-get could not install: ${missing[*]}"; }
  fi
  rm -f "$log"
}
apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }

install_packages
if [[ -n $tests ]]; then install_python; fi
if [[ -n $cuda ]]; then install_toolkit; fi
