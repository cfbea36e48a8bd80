#!/usr/bin/env bash
# Runs tests compiled for AVX-512 with AVX512_BF16 on a processor emulated by Bochs, on which Linux boots with
# nothing but the tests. For machines without these instructions.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/avx512_check.sh [--seconds N] [TEST]...

  --seconds N   time limit (default: 5400)
  TEST          such as kernels/ddts_test; default: every test of kernels/ for the CPU, the golden models, train/generate_test,
                and train_and_eval: the program trains and scores in bf16 and f32

Needs root and Debian's debootstrap, which it installs: Bochs 3 and the kernel come from Debian 13 and are unpacked,
not installed, in build-avx512/ (1 GB). All tests take about half an hour, because the emulator executes about 50 million
instructions per second.

Example: scripts/avx512_check.sh kernels/simd_test kernels/gemm_test
TEXT
}

# The tests of kernels/ that run on the CPU: all but those of one backend or of traffic, which CMake lists as special.
special=$(sed -n 's/^set(special \(.*\))$/ \1 /p' "$ROOT/tests/kernels/CMakeLists.txt")
known=(kernels/machine_test)
for file in "$ROOT"/tests/kernels/*_test.cpp; do
  name=$(basename "$file" .cpp)
  [[ $special = *" $name "* ]] || known+=("kernels/$name")
done
[[ -n $special && " ${known[*]} " = *" kernels/ddts_test "* ]] || die "avx512_check.sh does not find the tests of kernels/"
known+=(layers/model_golden_test train/generate_test train_and_eval)

seconds=5400
tests=()
while (($# > 0)); do
  case $1 in
    --seconds)
      seconds=${2:-}
      [[ $seconds =~ ^[1-9][0-9]*$ ]] || die "avx512_check.sh: --seconds needs a number"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "avx512_check.sh: unknown option '$1'" ;;
    *)
      [[ " ${known[*]} " = *" $1 "* ]] || die "avx512_check.sh: no test '$1'; there are ${known[*]}"
      tests+=("$1")
      ;;
  esac
  shift
done
((${#tests[@]} > 0)) || tests=("${known[@]}")
[[ $(id -u) -eq 0 ]] || die "avx512_check.sh runs the emulator in a chroot, so it needs root"

work=$ROOT/build-avx512
debian=$work/debian
check=$debian/check # the emulator reads and writes here
guest=$check/guest
serial=$check/serial.txt
mkdir -p "$work"

# Debian 13 without its set-up scripts: all tools run from where they were unpacked.
if [[ ! -e $debian/.complete ]]; then
  say "fetching Bochs and a kernel from Debian 13"
  debian_13 "$debian" "$work/debootstrap.log" --foreign \
    --include=bochs,linux-image-cloud-amd64,busybox-static,cpio,isolinux,syslinux-common,xorriso
  for package in "$debian"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$debian"; done
  chroot "$debian" ldconfig
  touch "$debian/.complete"
fi

# train_and_eval is the program itself; the others are test executables.
program_of() {
  if [[ $1 = train_and_eval ]]; then echo "$work/build/train/rodimus"; else echo "$work/build/tests/${1%/*}/${1/\//_}"; fi
}
targets=()
for test in "${tests[@]}"; do targets+=(--target "$(basename "$(program_of "$test")")"); done
"$ROOT/scripts/setup.sh"
"$ROOT/scripts/build.sh" --dir "$work/build" "${targets[@]}" -DRODIMUS_ARCH=cooperlake -DRODIMUS_CUDA=OFF

# The guest's file system: the tests with their libraries, and the golden files at their compiled-in path.
rm -rf "$check"
mkdir -p "$guest"/{bin,dev,proc,sys,tmp} "$check/disc/isolinux"
cp "$debian/bin/busybox" "$guest/bin/"
for tool in sh mount grep sleep poweroff awk; do ln -s busybox "$guest/bin/$tool"; done
put() { [[ -e $guest$1 ]] || install -D "$1" "$guest$1"; }
for test in "${tests[@]}"; do
  program=$(program_of "$test")
  put "$program"
  while read -r library; do put "$library"; done < <(ldd "$program" | grep -o '/[^ ]*')
done
# A small run in bf16 (auto) and one in f32; eval scores each in its own type, and must find the same perplexity.
RODIMUS=none python3 - "$ROOT/tests/e2e" "$guest" <<'TEXT'
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import support
support.write_data(f"{sys.argv[2]}/data")
pathlib.Path(f"{sys.argv[2]}/run.toml").write_text(support.MODEL.format(block="rodimus_plus", data="/data", output="/tmp/run"))
TEXT
cat >"$guest/train_and_eval" <<TEXT
#!/bin/sh
for pair in auto=bf16 f32=f32; do
  asked=\${pair%=*} want=\${pair#*=} run=/tmp/\${pair%=*}
  "$work/build/train/rodimus" train /run.toml --set run.compute=\$asked --set run.output=\$run --set run.steps=4 || exit 1
  grep -q "compute = .\$want" \$run/config.toml || { echo "\$asked was not \$want"; exit 1; }
  "$work/build/train/rodimus" eval --json --checkpoint \$run >/tmp/eval.json || exit 1
  grep -q "compute.:.\$want" /tmp/eval.json || { echo "eval did not compute in \$want"; exit 1; }
  awk -F'"perplexity":' 'NF > 1 { sub(/[,}].*/, "", \$2); x[n++] = \$2; print FILENAME, \$2 }
    END { d = x[n - 1] / x[n - 2] - 1; exit !(n >= 2 && d < 1e-6 && d > -1e-6) }' \$run/metrics.jsonl /tmp/eval.json || exit 1
done
TEXT
chmod +x "$guest/train_and_eval"
mkdir -p "$guest$ROOT/tests"
cp -r "$ROOT/tests/golden" "$guest$ROOT/tests/"
{
  cat <<'TEXT'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
grep -q avx512_bf16 /proc/cpuinfo || echo "FAILED: this processor has no AVX512_BF16"
export OMP_NUM_THREADS=1
TEXT
  for test in "${tests[@]}"; do
    if [[ $test = train_and_eval ]]; then
      echo '/train_and_eval && echo "passed train_and_eval" || echo "FAILED train_and_eval"'
      continue
    fi
    printf '"%s" --gtest_brief=1 --gtest_color=no && echo "passed %s" || echo "FAILED %s"\n' \
      "$(program_of "$test")" "$test" "$test"
    # Checks that oneDNN uses the bf16 product instructions.
    [[ $test != kernels/gemm_test ]] ||
      printf 'ONEDNN_VERBOSE=1 "%s" --gtest_filter=Gemm.EveryFlagAtOddSizes | grep -q avx512_core_bf16 || echo "FAILED native bf16"\n' \
        "$work/build/tests/kernels/kernels_gemm_test"
  done
  echo 'echo "the end"; sleep 5; poweroff -f'
} >"$guest/init"
chmod +x "$guest/init"
chroot "$debian" sh -c 'cd /check/guest && find . | cpio -o -H newc --quiet' >"$check/disc/initrd"
cp "$debian"/boot/vmlinuz-* "$check/disc/linux"
cp "$debian"/usr/lib/ISOLINUX/isolinux.bin "$debian"/usr/lib/syslinux/modules/bios/ldlinux.c32 "$check/disc/isolinux/"
cat >"$check/disc/isolinux/isolinux.cfg" <<'TEXT'
default test
label test
  kernel /linux
  append initrd=/initrd console=ttyS0 quiet loglevel=2 nokaslr no5lvl mitigations=off panic=-1
TEXT
chroot "$debian" xorriso -as mkisofs -quiet -o /check/disc.iso -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table /check/disc 2>"$work/xorriso.log" || die "xorriso failed (see $work/xorriso.log)"

# Without AMX, which this build of Bochs announces but does not implement.
cat >"$check/bochsrc" <<'TEXT'
megs: 1024
cpu: model=sapphire_rapids, ips=50000000, exclude_features="amx,amx_int8,amx_bf16"
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1
ata0-master: type=cdrom, path=/check/disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/check/serial.txt
log: /check/bochs.log
panic: action=fatal
clock: sync=none, time0=local
display_library: rfb, options="timeout=60"
TEXT
: >"$serial"
say "booting; the tests print to $serial"
# Bochs waits for a VNC viewer of its screen: in a separate network namespace, a client connects, requests nothing
# and discards what it receives.
# shellcheck disable=SC2016  # the inner shell expands these
timeout "$seconds" unshare --net --pid --fork --kill-child sh -c '
  "$1/bin/busybox" ip link set lo up
  (until grep -q "00000000:170C [^ ]* 0A" /proc/net/tcp; do sleep 0.2; done # Bochs listens on port 5900
   (printf "RFB 003.003\n\001"; sleep "$2") | "$1/bin/busybox" nc 127.0.0.1 5900 >/dev/null) &
  chroot "$1" bochs -q -f /check/bochsrc' sh "$debian" "$seconds" >"$work/bochs.out" 2>&1 </dev/null &
emulator=$!
trap 'kill "$emulator" 2>/dev/null || true' EXIT
tail -n +1 -f --pid="$emulator" "$serial" | while read -r line; do
  line=${line%$'\r'}
  case $line in
    passed* | FAILED* | '[  FAILED'* | *Failure) printf '%s\n' "$line" ;;
  esac
done
status=0
wait "$emulator" || status=$?
trap - EXIT
count=$(tr -d '\r' <"$serial" | grep -c '^passed' || true)
((status != 124)) || die "$count of ${#tests[@]} tests passed within $seconds s (--seconds; see $serial)"
grep -q '^the end' "$serial" || die "the guest stopped after $count of ${#tests[@]} tests (see $serial, $work/bochs.out and $check/bochs.log)"
! grep -q '^FAILED' "$serial" || die "$count of ${#tests[@]} tests passed, others failed (see $serial)"
((count == ${#tests[@]})) || die "only $count of ${#tests[@]} tests passed (see $serial)"
say "$count tests passed on an emulated processor with AVX512_BF16"
