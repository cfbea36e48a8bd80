#!/usr/bin/env bash
# Sets up, builds and runs all tests. CMake options come first; everything else goes to ctest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [--dir DIR] [--preset NAME] [--type TYPE] [--target NAME]... [-DNAME=VALUE]... [CTEST OPTION]...

  --dir DIR       build folder, relative to the project (default: build)
  --preset, --type, --target, -DNAME=VALUE   passed to scripts/build.sh
  others          passed to ctest: -R REGEX picks tests, -V shows their output

Example: scripts/test.sh -R kernels/
TEXT
}

dir=build
build_options=()
ctest_options=()
while (($# > 0)); do
  case $1 in
    --dir)
      (($# > 1)) || die "test.sh: --dir needs a value"
      dir=$2
      shift
      ;;
    --preset | --type | --target)
      (($# > 1)) || die "test.sh: $1 needs a value"
      build_options+=("$1" "$2")
      shift
      ;;
    -D*) build_options+=("$1") ;;
    -h | --help) usage; exit 0 ;;
    *) ctest_options+=("$1") ;;
  esac
  shift
done
[[ $dir = /* ]] || dir=$ROOT/$dir

"$ROOT/scripts/setup.sh" --test
"$ROOT/scripts/build.sh" --dir "$dir" "${build_options[@]}"

export_mpi_defaults
# Two threads cover every parallel path, and multi-rank tests share the cores with others.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
# One more test than cores, because tests that start or kill ranks mostly wait.
ctest --test-dir "$dir" --output-on-failure --no-tests=error -j $(($(nproc) + 1)) "${ctest_options[@]}"
