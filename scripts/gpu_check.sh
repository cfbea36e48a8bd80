#!/usr/bin/env bash
# Everything that needs a machine with a GPU, in parts, those from which most is learnt first, and one report. What
# fails is counted and the rest goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/gpu_check.sh [--bundle] [--part NAME]... [--seconds N] [--out DIR]

  --bundle      the programs of this folder, which scripts/gpu_bundle.sh made: nothing is installed or built, and there
                is one rank. Without it the programs are built in build-gpu/
  --part NAME   only this part (may be repeated); default: all, in this order
                  tests      every test on the GPU, a step of every preset; NCCL on all GPUs
                  speed      steps and decoding of the presets op by op, and the ten slowest kernels under ncu
                  memory     DDTS and SW-SKA under compute-sanitizer; without --bundle then all kernels
                  training   the demo on the GPU against the CPU; without --bundle also resuming and scores
  --seconds N   time limit of a part (default: 540 with --bundle, otherwise 14400). What there is no time for is a failure
  --out DIR     report.txt, report.json and the JSON of every benchmark (default: gpu_check). Parts run one after the
                other into the same folder share the report

Example: scripts/gpu_check.sh --bundle --part tests --out /scratch/h100
TEXT
}

bundle=
parts=()
seconds=
out=$ROOT/gpu_check
all_parts=(tests speed memory training)
while (($# > 0)); do
  case $1 in
    --bundle) bundle=1 ;;
    --part | --seconds | --out)
      (($# > 1)) || die "gpu_check.sh: $1 needs a value"
      case $1 in
        --part)
          [[ " ${all_parts[*]} " = *" $2 "* ]] || die "gpu_check.sh: no part '$2'; there are ${all_parts[*]}"
          parts+=("$2")
          ;;
        --seconds)
          [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || die "gpu_check.sh: --seconds is '$2', expected a number from 1 to 999999"
          seconds=$2
          ;;
        --out) out=$2 ;;
      esac
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "gpu_check.sh: unknown option '$1'" ;;
  esac
  shift
done
((${#parts[@]} > 0)) || parts=("${all_parts[@]}")
if [[ -z $seconds ]]; then if [[ -n $bundle ]]; then seconds=540; else seconds=14400; fi; fi

# Without nvidia-smi the program still finds the GPU; it also says why there is none.
gpu_names=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || true)
gpus=1
if [[ -n $gpu_names ]]; then gpus=$(wc -l <<<"$gpu_names"); fi
if [[ -n $bundle ]]; then
  gpus=1
  rodimus=$ROOT/bin/rodimus
  gpu_tests=$ROOT/bin/gpu_tests
  [[ -x $rodimus && -x $gpu_tests ]] || die "gpu_check.sh: no bin/rodimus and bin/gpu_tests in $ROOT: --bundle is for folders made by scripts/gpu_bundle.sh"
else
  [[ -n $gpu_names ]] || die "gpu_check.sh: nvidia-smi shows no GPU: this machine has none, or its driver is not installed"
  if ((gpus > 1)) && ! command -v mpirun >/dev/null; then
    say "there is no mpirun: the $gpus GPUs are not tested together"
    gpus=1
  fi
  build=$ROOT/build-gpu
  options=(-DRODIMUS_CUDA=ON -DRODIMUS_TEST_GPU=ON -DRODIMUS_TEST_GPUS="$gpus")
  # Without a network nothing can be installed, but often all is there.
  (cd "$ROOT" && cmake --preset release -B "$build" "${options[@]}") >/dev/null 2>&1 || "$ROOT/scripts/setup.sh" --cuda
  "$ROOT/scripts/build.sh" --dir "$build" --target rodimus --target gpu_tests "${options[@]}"
  rodimus=$build/train/rodimus
  gpu_tests=$build/tests/gpu_tests
fi
export_mpi_defaults
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$ROOT" # the paths in configs/demo.toml are relative
on_gpu=(--set run.device=cuda)

# A fault of a kernel is for the tests to find; here only the lack of a GPU counts.
reason=$(timeout 60 "$rodimus" bench configs/tiny.toml "${on_gpu[@]}" --steps 1 --warmup 0 2>&1 >/dev/null || true)
if [[ $reason = *"there is no GPU"* ]]; then die "gpu_check.sh: ${reason##*error: }"; fi

# section NAME LIMIT COMMAND...: runs a program for at most LIMIT seconds and no longer than the part may take; puts its output
# into the report (standard output into the file $into, if that is set) and records the result. Returns 0 always.
section() {
  local name=$1 limit=$2 begin=$SECONDS left=$((deadline - SECONDS)) code=0 status=passed
  shift 2
  say "$name"
  printf '\n== %s\n%s\n' "$name" "$*" >>"$text"
  ((limit <= left)) || limit=$left
  if ((limit < 1)); then
    record "$name" "not run: the time of this part is over" -1 0
    failed=$((failed + 1))
    return
  fi
  [[ -z ${into:-} ]] || : >"$into"
  timeout --kill-after=5 "$limit" "$@" >>"${into:-$text}" 2>>"$text" </dev/null || code=$?
  case $code in
    0) passed=$((passed + 1)) ;;
    124) status="FAILED: not finished after $limit s" ;;
    137) status="FAILED: killed after $((SECONDS - begin)) s (limit $limit s, or memory)" ;;
    *) status="FAILED: exit code $code" ;;
  esac
  ((code == 0)) || failed=$((failed + 1))
  record "$name" "$status" "$code" $((SECONDS - begin))
}
# record NAME STATUS CODE SECONDS: names and texts contain no quotation marks and no backslashes.
record() {
  printf -- '-- %s: %s, %d s\n' "$1" "$2" "$4" | tee -a "$text" >&2
  printf '{"part": "%s", "name": "%s", "status": "%s", "exit_code": %d, "seconds": %d}\n' "$part" "$1" "$2" "$3" "$4" >>"$lines"
}
# not_run NAME REASON: what this machine has no tool for; neither passed nor failed.
not_run() {
  skipped=$((skipped + 1))
  record "$1" "not run: $2" -1 0
}
# report: one text and one JSON file of all parts that have run into this folder.
report() {
  local one
  {
    "$rodimus" --version
    date -u '+%F %T UTC'
    nvidia-smi --query-gpu=index,name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv 2>/dev/null ||
      echo "nvidia-smi does not work here"
    for one in "${all_parts[@]}"; do
      [[ ! -f $out/$one.txt ]] || { printf '\n==== %s\n' "$one" && cat "$out/$one.txt"; }
    done
  } >"$out/report.txt"
  {
    printf '{"program": "%s", "gpu": "%s", "sections": [\n' "$("$rodimus" --version | head -n 1)" "${gpu_names%%$'\n'*}"
    for one in "${all_parts[@]}"; do
      [[ ! -f $out/$one.jsonl ]] || cat "$out/$one.jsonl"
    done | sed '$!s/$/,/'
    printf ']}\n'
  } >"$out/report.json"
}

# Prints the path of a tool of the CUDA toolkit; fails if there is none.
tool() {
  local file
  for file in "$(command -v "$1")" /usr/local/cuda*/bin/"$1" /opt/nvidia/nsight-compute/*/"$1"; do
    if [[ -x $file ]]; then echo "$file"; return; fi
  done
  return 1
}

# Each suite is a process, because after a fault of a kernel a process can use the GPU no more.
list_suites() {
  # shellcheck disable=SC2016  # the inner shell and awk expand these
  section "list of the tests" 60 bash -c 'set -o pipefail
    "$1" --gtest_list_tests | awk "\$1 ~ /[.]\$/ && /^[^ ]/ { print \$1 }" | tee "$2" | grep .' bash "$gpu_tests" "$out/suites.txt"
  suites=$(cat "$out/suites.txt" || true)
}

run_tests() {
  local suite config suites
  list_suites
  for suite in $suites; do
    section "test ${suite%.}" 120 "$gpu_tests" --gtest_brief=1 --gtest_filter="$suite*"
  done
  for config in configs/*.toml; do
    section "one step of $(basename "$config" .toml)" 120 "$rodimus" bench "$config" "${on_gpu[@]}" \
      --set run.micro_batch=1 --set run.global_batch=1 --steps 1 --warmup 0
  done
  if ((gpus > 1)); then
    section "NCCL on $gpus GPUs" 300 mpirun -n "$gpus" "$gpu_tests" --gtest_brief=1 --gtest_filter='*NcclTest*'
  fi
}

# bench NAME ARGUMENT...: the table into the report, and the JSON next to it.
bench() {
  local name=$1
  shift
  into=$out/$name.json section "$name, as JSON" 120 "$@" "${on_gpu[@]}" --json
  section "$name" 120 "$@" "${on_gpu[@]}"
}
run_speed() {
  local preset batch gpu="" size
  case $gpu_names in *A100*) gpu=a100 ;; *H100*) gpu=h100 ;; *H200*) gpu=h200 ;; esac
  for preset in 125m 1.4b base small tiny 4b; do
    [[ -f configs/$preset.toml ]] || continue
    size=8
    [[ $preset != 4b ]] || size=1 # as much as fits
    batch=(--set run.micro_batch="$size" --set run.global_batch="$size")
    bench "bench_$preset" "$rodimus" bench "configs/$preset.toml" "${batch[@]}" --steps 10
    if [[ -n $gpu ]]; then
      section "model of the same step" 30 "$rodimus" plan "configs/$preset.toml" "${batch[@]}" --gpus 1 --gpu "$gpu"
    else
      not_run "model of the same step" "rodimus plan has no data sheet of this GPU"
    fi
    if ((gpus > 1)); then
      bench "bench_${preset}_on_$gpus" mpirun -n "$gpus" "$rodimus" bench "configs/$preset.toml" \
        --set run.micro_batch="$size" --set run.global_batch=$((size * gpus)) --steps 10
    fi
    [[ $preset != 125m ]] || slowest_kernels "$preset"
  done
  for preset in 125m 1.4b small; do
    [[ ! -f configs/$preset.toml ]] || bench "decode_$preset" "$rodimus" bench "configs/$preset.toml" --decode
  done
}

# The clocks stay as they are: this machine may be shared.
slowest_kernels() {
  local ncu step name
  ncu=$(tool ncu) || { not_run "the ten slowest kernels" "ncu was not found"; return; }
  step=("$rodimus" bench "configs/$1.toml" "${on_gpu[@]}" --set run.micro_batch=8 --set run.global_batch=8 --steps 1 --warmup 0)
  rm -f "$out"/{kernels.csv,slowest.txt} # of an earlier check
  section "time of every kernel of $1 (ncu)" 150 "$ncu" --clock-control none --target-processes all \
    --print-kernel-base function --print-units base --metrics gpu__time_duration.sum --csv --log-file "$out/kernels.csv" "${step[@]}"
  # Columns are quoted: the name is the fifth, the value in ns the last. Fails if there is no line.
  # shellcheck disable=SC2016  # the inner shell and awk expand these
  section "the ten slowest kernels: ns in all, name" 10 bash -c 'set -o pipefail
    awk -F"\",\"" "/gpu__time_duration/ { t = \$NF; gsub(/[\",]/, \"\", t); time[\$5] += t }
      END { for (name in time) printf \"%.0f %s\\n\", time[name], name }" "$1" | sort -rn | sed -n 1,10p | tee "$2" | grep .' \
    bash "$out/kernels.csv" "$out/slowest.txt"
  [[ -s $out/slowest.txt ]] || return 0 # that section has failed
  while read -r _ name; do
    section "ncu of $name" 60 "$ncu" --clock-control none --target-processes all --kernel-name-base function \
      --kernel-name "$name" --launch-skip 1 --launch-count 1 --section SpeedOfLight --section ComputeWorkloadAnalysis \
      --section MemoryWorkloadAnalysis --section WarpStateStats --section Occupancy --section LaunchStats "${step[@]}"
  done <"$out/slowest.txt"
}

run_memory() {
  local sanitizer suites check suite
  sanitizer=$(tool compute-sanitizer) || { not_run "memcheck and racecheck" "compute-sanitizer was not found"; return; }
  list_suites
  into=$out/first_suites.txt section "the tests of DDTS and SW-SKA" 10 grep -E '(^|/)(Ddts|Ska)' "$out/suites.txt"
  check_with() {
    for suite in $2; do
      section "$1 of ${suite%.}" $((seconds / 4)) "$sanitizer" --tool "$1" --target-processes all --error-exitcode 1 \
        "$gpu_tests" --gtest_brief=1 --gtest_filter="$suite*"
    done
  }
  for check in memcheck racecheck; do check_with "$check" "$(cat "$out/first_suites.txt")"; done
  [[ -z $bundle ]] || return 0
  for check in memcheck racecheck; do check_with "$check" "$(grep -vxFf "$out/first_suites.txt" <<<"$suites" || true)"; done
  for check in synccheck initcheck; do check_with "$check" "$suites"; done
}

# The first steps show the kernels, the means of 100 steps the training: rounding lets the runs drift apart.
# shellcheck disable=SC2016  # awk's, not the shell's
compare='
  function value(key) {
    return match($0, "\"" key "\": *[-+0-9.eE]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : "nan"
  }
  !/"kind": *"train"/ { next }
  FNR == NR { cpu[value("step")] = value("loss"); next }
  value("step") in cpu { n = value("step"); gpu[n] = value("loss"); if (n > last) last = n }
  END {
    for (n = 1; n <= last; ++n) {
      d = gpu[n] / cpu[n] - 1
      if (n <= 12 && !(d <= first && d >= -first)) { print "step " n ": " gpu[n] " on the GPU, " cpu[n] " on the CPU"; bad = 1 }
      a += cpu[n]; b += gpu[n]
      if (n % 100 == 0) {
        d = b / a - 1
        printf "steps to %5d: CPU %.4f, GPU %.4f, %+.2f %%\n", n, a / 100, b / 100, 100 * d
        if (!(d <= mean && d >= -mean)) bad = 1
        a = b = 0
      }
    }
    if (last < 200) { print "only " last + 0 " steps on both"; bad = 1 }
    exit bad
  }'
run_training() {
  local run demo=(train configs/demo.toml --resume none --set checkpoint.every=0)
  if [[ ! -d demo/data && -z $bundle ]]; then
    # shellcheck disable=SC2016  # the inner shell expands these
    section "data of the demo" 600 bash -c 'set -euo pipefail
      source scripts/common.sh
      source scripts/demo_data.sh
      fetch_corpus
      tokenize_corpus "$1"' bash "$rodimus"
  fi
  rm -rf "$out"/demo_{f32,bf16,cpu} # of an earlier check
  for run in f32 bf16; do
    section "the demo on the GPU in $run" 150 "$rodimus" "${demo[@]}" "${on_gpu[@]}" --set run.compute="$run" --set run.output="$out/demo_$run"
  done
  # As far as it comes in the time that is left.
  # shellcheck disable=SC2016  # the inner shell expands these
  section "the demo on the CPU in f32" "$seconds" bash -c 'timeout "$@"; code=$?; exit $((code == 124 ? 0 : code))' bash \
    $((deadline - SECONDS > 40 ? deadline - SECONDS - 30 : 1)) "$rodimus" "${demo[@]}" \
    --set run.device=cpu --set run.compute=f32 --set run.output="$out/demo_cpu"
  # The bounds of the first steps are those of the golden trajectories. Those of the means leave room for rounding: two CPU
  # runs differed by 4e-7 after 31 steps in f32, one in bf16 by 4e-4, and differences grow until they are the noise of a batch.
  section "the demo in f32 against the CPU" 10 awk -v first=1e-4 -v mean=0.01 "$compare" "$out"/demo_{cpu,f32}/metrics.jsonl
  section "the demo in bf16 against the CPU" 10 awk -v first=2e-2 -v mean=0.02 "$compare" "$out"/demo_{cpu,bf16}/metrics.jsonl
  [[ -z $bundle ]] || return 0
  # The end-to-end test that CI also runs, on the emulator.
  trajectory=(env RODIMUS="$rodimus" EMULATED="$rodimus" MPIRUN=mpirun python3 tests/e2e/gpu_test.py)
  section "twelve steps, resuming and scores against the CPU" 1200 "${trajectory[@]}" \
    Gpu.test_twelve_steps_equal_those_on_the_cpu Gpu.test_checkpoints_and_scores_cross_devices
  if ((gpus > 1)); then section "two ranks over NCCL against the CPU" 1200 "${trajectory[@]}" Gpu.test_two_ranks_under_every_policy; fi
}

passed=0 failed=0 skipped=0
begin=0 # the look for a GPU counts, a build does not
[[ -n $bundle ]] || begin=$SECONDS
for part in "${parts[@]}"; do
  text=$out/$part.txt
  lines=$out/$part.jsonl
  : >"$text"
  : >"$lines"
  deadline=$((begin + seconds - 10)) # a program that ignores the limit is killed 5 s later
  "run_$part"
  report
  begin=$SECONDS
done
say "$passed passed, $failed failed, $skipped not run; $out/report.txt, report.json"
((failed == 0)) || die "gpu_check.sh: $failed failed: grep -e '^--.*FAILED' -e '^--.*not run' $out/report.txt"
