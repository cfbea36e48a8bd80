#!/usr/bin/env bash
# Installs the Debian packages that the build, the tests and the demo need.
# As root it installs what is missing; as another user it prints the command to run and stops.
# With nothing missing it returns at once.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/setup.sh [--dev]

  --dev   also what only developers and CI need: clang 14 (fuzzing) and its clang-format, Google Benchmark, shellcheck

Example: sudo scripts/setup.sh
TEXT
}

packages=(
  build-essential cmake ninja-build ccache pkg-config
  openmpi-bin libopenmpi-dev        # start, collectives on CPUs
  libdnnl-dev                       # CPU GEMM
  libhdf5-dev                       # checkpoints
  libsentencepiece-dev              # tokenizer
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libxxhash-dev
  libgtest-dev python3-h5py         # tests: checkpoints must be readable from h5py
  libboost-context-dev              # tests: the emulator of CUDA kernels
)

while (($# > 0)); do
  case $1 in
    --dev) packages+=(clang-14 libclang-rt-14-dev clang-format-14 libbenchmark-dev shellcheck) ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "setup.sh: unknown option '$1'" ;;
  esac
  shift
done

if ! command -v dpkg-query >/dev/null; then
  say "not a Debian system: nothing installed. The build needs the equivalents of: ${packages[*]}"
  exit 0
fi

# dpkg-query fails when a package was never known here; the list of installed ones is still right.
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
  sed -n 's/^installed //p' || true)
missing=()
for package in "${packages[@]}"; do
  grep -qxF "$package" <<<"$installed" || missing+=("$package")
done
((${#missing[@]} > 0)) || exit 0

if [[ $(id -u) -ne 0 ]]; then
  die "missing packages; as root run: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
fi

say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt-get install -y -q --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
# A fresh container has no package lists, an old one has lists that name versions long gone.
if ! install; then
  apt-get update -q >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "apt-get update failed"; }
  install || { tail -n 20 "$log" >&2; die "apt-get could not install: ${missing[*]}"; }
fi
