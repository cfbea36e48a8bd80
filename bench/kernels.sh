#!/usr/bin/env bash
# Builds the kernel suites of this folder, runs them in turn and prints one table.
#   bench/kernels.sh [SUITE...] [-- --benchmark_filter=f32/125m ...]
# SUITE is a name such as short_conv; default: all. Arguments after -- go to every program. BUILD names the build
# folder (default: build).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n 's/^# \?//p' "$0" | tail -n +2; exit 0; }

suites=()
while (($#)) && [[ $1 != -- ]]; do suites+=("$1"); shift; done
(($#)) && shift
if ((${#suites[@]} == 0)); then
  for source in "$ROOT"/bench/*_bench.cpp; do suites+=("$(basename "$source" _bench.cpp)"); done
fi
for suite in "${suites[@]}"; do
  [[ -f $ROOT/bench/${suite}_bench.cpp ]] || die "kernels.sh: no suite '$suite' in bench/"
done
build=${BUILD:-$ROOT/build}
cmake -S "$ROOT" -B "$build" -DRODIMUS_BUILD_BENCH=ON >/dev/null || die "kernels.sh: cmake failed"
cmake --build "$build" --target "${suites[@]/%/_bench}" >&2 || die "kernels.sh: the build failed"

# Columns of the CSV after the name: iterations, real time, ...; the counters are the last three, in
# alphabetical order.
printf '%-52s %10s %10s %10s %8s\n' benchmark ms rate limit percent
for suite in "${suites[@]}"; do
  "$build/bench/${suite}_bench" --benchmark_format=csv "$@" 2>/dev/null |
    awk -F, '/^"/ { gsub(/"|\/manual_time|\/min_time:[0-9.]*/, "", $1)
      printf "%-52s %10.3f %10.2f %10.2f %8.0f\n", $1, $3, $(NF - 0), $(NF - 2), $(NF - 1) }'
done
