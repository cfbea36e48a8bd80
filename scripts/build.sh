#!/usr/bin/env bash
# Configures and builds into build/ (or --dir). Safe to repeat: it takes a second if there is nothing to do.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/build.sh [--preset NAME] [--type TYPE] [--dir DIR] [--target NAME]... [-DNAME=VALUE]...

  --preset NAME   of CMakePresets.json: release (default), debug, asan, cuda or ci. Later options override it
  --type TYPE     RelWithDebInfo, Release or Debug
  --dir DIR       build folder, relative to the project (default: build)
  --target NAME   build only this target, for example rodimus
  -DNAME=VALUE    passed to CMake: -DRODIMUS_ARCH=x86-64-v3 for a binary that runs on other machines,
                  -DRODIMUS_WERROR=ON as in CI, -DRODIMUS_SANITIZE=ON

Example: scripts/build.sh --target rodimus
TEXT
}

preset=release
dir=build
targets=()
options=()
while (($# > 0)); do
  case $1 in
    --preset | --type | --dir | --target)
      (($# > 1)) || die "build.sh: $1 needs a value"
      case $1 in
        --preset) preset=$2 ;;
        --type) options+=("-DCMAKE_BUILD_TYPE=$2") ;;
        --dir) dir=$2 ;;
        --target) targets+=("$2") ;;
      esac
      shift
      ;;
    -D*) options+=("$1") ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "build.sh: unknown option '$1'" ;;
  esac
  shift
done
[[ $dir = /* ]] || dir=$ROOT/$dir

mkdir -p "$dir"
# CMake rejects a cache made at another path, for example before the project was moved or copied.
if [[ -f $dir/CMakeCache.txt ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$ROOT" "$dir/CMakeCache.txt"; then
  options+=(--fresh)
fi
if ! (cd "$ROOT" && cmake --preset "$preset" -B "$dir" "${options[@]}") >"$dir/configure.log" 2>&1; then
  cat "$dir/configure.log" >&2
  die "CMake failed; missing packages are installed by scripts/setup.sh (full log: $dir/configure.log)"
fi

jobs=$(compile_jobs)
say "building ${targets[*]:-everything} in ${dir#"$ROOT"/} (preset $preset, $jobs jobs)"
# On a terminal ninja keeps a single progress line; elsewhere only warnings and errors are worth printing.
quiet=()
[[ -t 1 ]] || quiet=(--quiet)
ninja -C "$dir" -j "$jobs" "${quiet[@]}" "${targets[@]}"
