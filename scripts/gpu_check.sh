#!/usr/bin/env bash
# Everything that needs a machine with a GPU, in one run and one report: the kernel and model tests on the GPU, the
# same under compute-sanitizer, training compared with the CPU, a step of every preset op by op compared with
# `rodimus plan`, generation, and several GPUs if there are.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/gpu_check.sh [--quick] [--out DIR]

  --quick     no compute-sanitizer, and only the presets small and 125m
  --out DIR   where report.txt and the JSON of every benchmark go (default: gpu_check)

Example: scripts/gpu_check.sh --out /scratch/h100
TEXT
}

quick=
out=$ROOT/gpu_check
while (($# > 0)); do
  case $1 in
    --quick) quick=1 ;;
    --out)
      (($# > 1)) || die "gpu_check.sh: --out needs a value"
      out=$2
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "gpu_check.sh: unknown option '$1'" ;;
  esac
  shift
done
command -v nvidia-smi >/dev/null || die "gpu_check.sh: no nvidia-smi: this machine has no GPU, or its driver is not installed"
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)
((gpus > 0)) || die "gpu_check.sh: the driver shows no GPU"

build=$ROOT/build-gpu
"$ROOT/scripts/setup.sh" --cuda
"$ROOT/scripts/build.sh" --dir "$build" -DRODIMUS_CUDA=ON -DRODIMUS_TEST_GPU=ON -DRODIMUS_TEST_GPUS="$gpus"
export_mpi_defaults
mkdir -p "$out"
out=$(cd "$out" && pwd)
report=$out/report.txt
rodimus=$build/train/rodimus
cd "$ROOT"

failed=0
# section NAME COMMAND...: runs the command, puts its output into the report and counts a failure.
section() {
  local name=$1 begin=$SECONDS status=passed
  shift
  say "$name"
  printf '\n== %s\n' "$name" >>"$report"
  "$@" >>"$report" 2>&1 || { status="FAILED (exit code $?)"; failed=$((failed + 1)); }
  printf -- '-- %s: %s, %d s\n' "$name" "$status" $((SECONDS - begin)) | tee -a "$report" >&2
}

{
  echo "rodimus.cpp $(git rev-parse --short HEAD 2>/dev/null || echo '(no git)'), $(date -u +%F)"
  nvidia-smi --query-gpu=index,name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
} >"$report"

section "kernels, models and NCCL on the GPU" ctest --test-dir "$build" -R '_gpu$' --output-on-failure --no-tests=error
if [[ -z $quick ]]; then
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do
      for test in "$build"/tests/kernels/kernels_*_test_gpu; do
        section "$tool of $(basename "$test")" compute-sanitizer --tool "$tool" --error-exitcode 1 "$test" --gtest_brief=1
      done
    done
  else
    echo "compute-sanitizer is not on the PATH: not run" | tee -a "$report" >&2
  fi
fi

# The end-to-end test that CI also runs, on the emulator.
trajectory() {
  RODIMUS=$rodimus EMULATED=$rodimus MPIRUN=mpirun python3 "$ROOT/tests/e2e/gpu_test.py" "$@"
}
section "training, resuming and scores against the CPU" trajectory \
  Gpu.test_twelve_steps_equal_those_on_the_cpu Gpu.test_checkpoints_and_scores_cross_devices
if ((gpus > 1)); then
  section "two ranks over NCCL against the CPU" trajectory Gpu.test_two_ranks_under_every_policy
fi

presets=(tiny small base 125m 1.4b)
[[ -z $quick ]] || presets=(small 125m)
gpu=h100
nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | grep -q A100 && gpu=a100
nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | grep -q H200 && gpu=h200
# bench NAME RANKS ARGUMENT...: puts the table into the report and the JSON next to it.
bench() {
  local name=$1 ranks=$2
  shift 2
  mpirun -n "$ranks" "$rodimus" bench "$@" --set run.device=cuda --json >"$out/$name.json" &&
    mpirun -n "$ranks" "$rodimus" bench "$@" --set run.device=cuda
}
for preset in "${presets[@]}"; do
  config=configs/$preset.toml
  batch=(--set run.micro_batch=8 --set run.global_batch=8)
  section "bench $preset" bench "$preset" 1 "$config" "${batch[@]}" --steps 10
  section "model of the same step" "$rodimus" plan "$config" "${batch[@]}" --gpus 1 --gpu "$gpu"
  section "decode $preset" bench "decode_$preset" 1 "$config" --decode
  if ((gpus > 1)); then
    section "bench $preset on $gpus GPUs" bench "${preset}_$gpus" "$gpus" "$config" --set run.micro_batch=8 \
      --set run.global_batch=$((8 * gpus)) --steps 10
  fi
done

if ((failed > 0)); then die "gpu_check.sh: $failed parts failed; see $report"; fi
say "all passed; $report holds the figures for docs/benchmarks.md"
