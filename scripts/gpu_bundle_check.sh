#!/usr/bin/env bash
# Tries an archive of scripts/gpu_bundle.sh where nothing is installed: in a minimal Debian 13 without network, driver, CUDA,
# compiler, mpirun and Python. Up to the missing driver all must work, and on the CPU everything.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/gpu_bundle_check.sh [ARCHIVE]

  ARCHIVE   default: build-bundle/rodimus-gpu.tar.gz

Needs root, and for the first time a network: debootstrap makes build-bundle/debian (0.5 GB).

Example: scripts/gpu_bundle.sh && scripts/gpu_bundle_check.sh
TEXT
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  -*) usage >&2; die "gpu_bundle_check.sh: unknown option '$1'" ;;
esac
(($# <= 1)) || { usage >&2; die "gpu_bundle_check.sh takes one archive"; }
archive=${1:-$ROOT/build-bundle/rodimus-gpu.tar.gz}
[[ -f $archive ]] || die "gpu_bundle_check.sh: there is no $archive: scripts/gpu_bundle.sh makes it"
[[ $(id -u) -eq 0 ]] || die "gpu_bundle_check.sh runs the bundle in a chroot, so it needs root"

debian=$ROOT/build-bundle/debian
mkdir -p "$ROOT/build-bundle"
if [[ ! -e $debian/.complete ]]; then
  say "fetching a minimal Debian 13"
  debian_13 "$debian" "$ROOT/build-bundle/debootstrap.log"
  touch "$debian/.complete"
fi
rm -rf "$debian"/{check,some,usr/lib/python3,usr/local/cuda} # what an earlier check left there
mkdir "$debian/check"
tar -xzf "$archive" -C "$debian/check"

# What a library that is nowhere says when it is needed.
for library in "$debian"/check/rodimus-gpu/lib/absent/*; do
  symbol=$(nm -D --defined-only "$library" | awk '{ sub(/@.*/, "", $3); print $3; exit }')
  message=$(python3 -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])[sys.argv[2]]()' "$library" "$symbol" 2>&1) && code=0 || code=$?
  [[ $code -eq 1 && $message = "error: $(basename "$library") is needed and was not found"* ]] ||
    die "$symbol of $library: exit code $code, '$message'"
done

cat >"$debian/check/inside" <<'TEXT'
#!/bin/bash
set -euo pipefail
mount -t proc proc /proc
cd /check
export PATH=$PATH:/check/rodimus-gpu/bin
fail() { echo "FAILED: $*"; exit 1; }
for tool in mpirun cc python3 nvidia-smi; do ! command -v "$tool" || fail "this is not an empty system"; done
rodimus --version
for ((line = 1; line <= 2000; ++line)); do echo "this is the line with the number $line"; done >text.txt
rodimus tokenize --input text.txt --vocab-size 300 --val-fraction 0.1 --no-progress --out data
data=(--set data.train=data/train --set data.val=data/val --set data.tokenizer=data/tokenizer.model --set data.seq_len=64)
rodimus train rodimus-gpu/configs/tiny.toml "${data[@]}" --set model.vocab_size=0 --set run.output=run --set run.steps=3 \
  --set run.global_batch=2 | tee train.txt
grep -q '(auto: no GPU: no NVIDIA driver' train.txt || fail "train does not say why it uses the CPU"
SLURM_STEP_NUM_TASKS=1 rodimus eval --checkpoint run --json
rodimus generate --checkpoint run --prompt "this is" --tokens 8

# one_line WORDS COMMAND...: it must fail, and say why in one line with these words.
one_line() {
  local words=$1
  shift
  ! "$@" >out.txt 2>err.txt || fail "$* succeeded"
  cat err.txt
  [[ $(wc -l <err.txt) -eq 1 && $(cat err.txt) = *"$words"* ]] || fail "$*: expected one line with '$words'"
}
one_line "there is no GPU: no NVIDIA driver" rodimus bench rodimus-gpu/configs/tiny.toml --set run.device=cuda
one_line "there is no GPU: no NVIDIA driver" rodimus-gpu/scripts/gpu_check.sh --bundle
gpu_tests --gtest_filter='*DdtsGatesGolden*' >tests.txt 2>&1 && fail "tests passed without a GPU"
grep -q "no NVIDIA driver" tests.txt || fail "the tests do not say that there is no GPU: $(tail -n 3 tests.txt)"

# loaded: from where the program takes cuBLASLt.
loaded() { LD_DEBUG=libs rodimus --version 2>&1 | sed -n 's/.*calling init: \(.*libcublasLt.*\)/\1/p' | tail -n 1; }
absent=/check/rodimus-gpu/lib/absent/libcublasLt.so.13
[[ $(loaded) = "$absent" ]] || fail "cuBLASLt is nowhere, but was loaded from '$(loaded)'"
for folder in /usr/lib/python3/dist-packages/nvidia/cu13/lib /usr/local/cuda/lib64 /some/folder; do
  mkdir -p "$folder"
  cp "$absent" "$folder/"
  if [[ $folder = /some/folder ]]; then export LD_LIBRARY_PATH=$folder; fi
  [[ $(loaded) -ef $folder/libcublasLt.so.13 ]] || fail "cuBLASLt is in $folder, but was loaded from '$(loaded)'"
  rm "$folder"/*
done
TEXT
unshare --mount --pid --fork --net chroot "$debian" /bin/bash /check/inside || die "the bundle does not work in a minimal Debian 13"
say "the bundle works in a minimal Debian 13 without a GPU: $(stat -c %s "$archive" | awk '{ printf "%.1f", $1 / 1048576 }') MiB"
