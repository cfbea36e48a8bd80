#!/usr/bin/env bash
# Builds the fuzz targets with clang in build-fuzz/ and runs as many at a time as there are cores: scripts/fuzz.sh [SECONDS]
# (default 600 each). The corpus of a run stays in build-fuzz/corpus/ and seeds the next one; an input that breaks
# something is left in build-fuzz/crashes/ and makes the script fail.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seconds=${1:-600}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "usage: scripts/fuzz.sh [SECONDS of each target]"

compiler=$(command -v clang++ || command -v clang++-14) ||
  die "clang++ not found: run scripts/setup.sh --dev"
"$ROOT/scripts/build.sh" --dir build-fuzz --target fuzz -DCMAKE_CXX_COMPILER="$compiler" -DRODIMUS_FUZZ=ON \
  -DRODIMUS_CUDA=OFF

# One target: prints how many inputs it took, or the end of its log.
fuzz_one() {
  local target=$1 name corpus log seeds
  name=$(basename "$target")
  corpus=$ROOT/build-fuzz/corpus/$name
  log=$ROOT/build-fuzz/$name.log
  mkdir -p "$corpus"
  if [[ $name = config_fuzz ]]; then seeds=$ROOT/configs; else seeds=$ROOT/tests/fuzz/seeds/$name; fi
  # 4096 bytes are enough for every header and description in the seeds.
  if "$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="$ROOT/build-fuzz/crashes/$name-" "$corpus" "$seeds" >"$log" 2>&1; then
    sed -n "s/^stat::number_of_executed_units: */  $name: inputs tried: /p" "$log"
  else
    tail -n 40 "$log" >&2
    printf 'rodimus: error: %s failed (inputs in build-fuzz/crashes/, log in build-fuzz/)\n' "$name" >&2
    return 1
  fi
}
export -f fuzz_one
export ROOT seconds

mkdir -p "$ROOT/build-fuzz/crashes"
targets=("$ROOT"/build-fuzz/tests/fuzz/*_fuzz)
say "${#targets[@]} targets for $seconds s each, $(nproc) at a time"
# shellcheck disable=SC2016 # the inner shell expands it
printf '%s\0' "${targets[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'fuzz_one "$0"' ||
  die "fuzzing found a fault, see above"
