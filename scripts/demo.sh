#!/usr/bin/env bash
# The whole life of a model in a few minutes: packages, build, a real corpus (the sources of the Linux kernel's
# documentation), tokenizer, training on two ranks with one killed half-way, the resumed run, perplexity on held-out
# documents, and a sample.
# Earlier results are reused; everything is kept in demo/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/demo_data.sh"

usage() {
  cat <<'TEXT'
usage: scripts/demo.sh [--fresh]

  --fresh   train again from step 0; without it a finished run is only evaluated

Example: scripts/demo.sh --fresh
TEXT
}

fresh=
case ${1:-} in
  '') ;;
  --fresh) fresh=1 ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; die "demo.sh: unknown option '$1'" ;;
esac

cd "$ROOT" # paths in configs/demo.toml are relative to this folder
build=demo/build
rodimus=$build/train/rodimus
config=configs/demo.toml
data=demo/data
run=demo/run
ranks=2
steps=$(sed -n 's/^steps = \([0-9]*\).*/\1/p' "$config")
mkdir -p demo

# Name -> seconds, for the summary.
declare -A took
timed() {
  local name=$1 begin=$SECONDS
  shift
  "$@"
  took[$name]=$((SECONDS - begin))
}

set_up() {
  scripts/setup.sh
  # On the CPU, which is enough for this model: CUDA kernels would take longer to compile than everything else here.
  scripts/build.sh --dir "$build" --target rodimus -DRODIMUS_CUDA=OFF
}

train_command=(mpirun -n "$ranks" "$rodimus" train "$config")
# Committed checkpoints, oldest first: a save in progress has a longer name.
checkpoints() { find "$run" -maxdepth 1 -regex '.*/step_[0-9]+' 2>/dev/null | sort; }
newest_checkpoint() { checkpoints | tail -n 1; }
metric_lines() { if [[ -f $run/metrics.jsonl ]]; then wc -l <"$run/metrics.jsonl"; else echo 0; fi; }

newest_step() {
  local folder
  folder=$(newest_checkpoint)
  echo $((10#0${folder##*step_}))
}

# Process ids of the ranks of mpirun, which is process $1: its children on this machine.
ranks_of() {
  local pid
  { cat /proc/"$1"/task/*/children 2>/dev/null || true; } | tr ' ' '\n' | while read -r pid; do
    if [[ $(cat "/proc/$pid/comm" 2>/dev/null) == rodimus ]]; then echo "$pid"; fi
  done
}

# Starts the training, and kills one rank without warning a few steps after the first checkpoint of the second half.
killed_at=
train_until_killed() {
  local begin victim
  say "${train_command[*]}"
  "${train_command[@]}" </dev/null &
  job=$!
  trap 'kill "$job" 2>/dev/null || true' EXIT
  while kill -0 "$job" 2>/dev/null && (($(newest_step) < steps / 2)); do sleep 0.2; done
  begin=$(metric_lines)
  while kill -0 "$job" 2>/dev/null && (($(metric_lines) < begin + 20)); do sleep 0.2; done
  victim=$(ranks_of "$job" | tail -n 1)
  if [[ -n $victim ]] && kill -KILL "$victim" 2>/dev/null; then
    killed_at=$(basename "$(newest_checkpoint)")
    say "killed rank process $victim with SIGKILL; the newest checkpoint is $killed_at"
  fi
  if wait "$job" && [[ -n $killed_at ]]; then
    die "a rank was killed, but mpirun reported success"
  fi
  trap - EXIT
  [[ -n $killed_at ]] || die "training stopped before step $((steps / 2))"
}

train() {
  [[ -z $fresh ]] || rm -rf "$run"
  if [[ -d $run/$(printf 'step_%08d' "$steps") ]]; then
    say "$run is finished (--fresh trains again)"
    return
  fi
  if [[ -z $(newest_checkpoint) ]]; then train_until_killed; fi
  say "${train_command[*]}   (the same command resumes)"
  "${train_command[@]}" </dev/null
}

# Extracts a number from one JSON line on stdin.
json_number() { sed -n "s/.*\"$1\": *\([-+0-9.eE]*\).*/\1/p" | head -n 1; }

# Held-out perplexity and bits per byte of a checkpoint.
score() {
  local result
  result=$("$rodimus" eval --checkpoint "$1" --data "$data/val" --micro-batch 8 --json)
  echo "$(json_number perplexity <<<"$result") $(json_number bits_per_byte <<<"$result")"
}

evaluate() {
  first=$(checkpoints | head -n 1)
  last=$(newest_checkpoint)
  first_score=$(score "$first")
  last_score=$(score "$last")
}

export_mpi_defaults
timed 'set-up and build' set_up
timed corpus fetch_corpus
timed tokenize tokenize_corpus "$rodimus"
timed train train
timed evaluate evaluate
say "a sample"
"$rodimus" generate --checkpoint "$run" --prompt "The scheduler" --tokens 120 --temperature 0.6 \
  --top-p 0.9 --seed 3

echo
echo "summary"
for step in 'set-up and build' corpus tokenize train evaluate; do
  printf '  %-18s %5d s\n' "$step" "${took[$step]}"
done
[[ -z $killed_at ]] || echo "  one rank was killed after $killed_at; the resumed run went on to step $steps"
echo "  held-out documents   perplexity   bits per byte"
# shellcheck disable=SC2086  # a score is two numbers
{
  printf '    %-16s %12.2f %15.3f\n' "$(basename "$first")" $first_score
  printf '    %-16s %12.2f %15.3f\n' "$(basename "$last")" $last_score
}
echo "  everything is in demo/: build/, the corpus, data/ (shards, tokenizer), run/ (checkpoints, metrics.jsonl)"
