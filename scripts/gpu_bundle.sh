#!/usr/bin/env bash
# Makes an archive of everything that a first look at a GPU needs, for machines on which nothing can be installed: only
# a driver, the libraries of CUDA 13, and glibc. Unpacked there, scripts/gpu_check.sh --bundle runs it.
#
#   bin/        rodimus and gpu_tests: links to scripts/gpu_bundle_start.sh, which finds their libraries
#   libexec/    these programs, for any x86-64-v3 machine, without symbols
#   lib/        the libraries they need, except glibc's
#   lib/absent/ stands in for cuBLASLt and NCCL where the machine has none
#   tests/golden, configs/, demo/data, scripts/gpu_check.sh, share/doc
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/demo_data.sh"

usage() {
  cat <<'TEXT'
usage: scripts/gpu_bundle.sh [--out FILE] [-DNAME=VALUE]...

  --out FILE      the archive (default: build-bundle/rodimus-gpu.tar.gz)
  -DNAME=VALUE    passed to CMake: -DRODIMUS_CUDA_ARCHITECTURES=90-real for a smaller archive, for H100 and H200 only

Installs packages, fetches a CUDA toolkit if there is none, and builds in build-bundle/ (ten minutes or more). The data of
the demo are made from Debian's linux-doc.

Example: scripts/gpu_bundle.sh --out /scratch/rodimus-gpu.tar.gz
On the machine with the GPU: tar -xzf rodimus-gpu.tar.gz && rodimus-gpu/scripts/gpu_check.sh --bundle
TEXT
}

build=$ROOT/build-bundle
out=$build/rodimus-gpu.tar.gz
options=()
while (($# > 0)); do
  case $1 in
    --out)
      (($# > 1)) || die "gpu_bundle.sh: --out needs a value"
      out=$(realpath -m "$2")
      shift
      ;;
    -D*) options+=("$1") ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "gpu_bundle.sh: unknown option '$1'" ;;
  esac
  shift
done
[[ -d $(dirname "$out") || $out = "$build"/* ]] || die "gpu_bundle.sh: the folder of $out does not exist"

limit=$((60 << 20))
bundle=$build/rodimus-gpu
cd "$ROOT" # as demo/data is relative

"$ROOT/scripts/setup.sh" --cuda
rm -f "$build/CMakeCache.txt" # options of an earlier bundle must not stay
"$ROOT/scripts/build.sh" --dir "$build" --target rodimus --target gpu_tests -DRODIMUS_CUDA=ON -DRODIMUS_TEST_GPU=ON \
  -DRODIMUS_ARCH=x86-64-v3 "${options[@]}"
fetch_corpus
tokenize_corpus "$build/train/rodimus"

rm -rf "$bundle"
cmake --install "$build" --prefix "$bundle" --strip >"$build/install.log" || die "cmake --install failed (see $build/install.log)"
mv "$bundle/bin" "$bundle/libexec"
mkdir -p "$bundle"/{bin,lib/absent,scripts,tests/golden,demo}

# Not carried although the programs name them. NVIDIA's libraries are large (0.8 GB) and on the target. The others serve
# formats that the programs do not use, HDF5 in the cloud and xar archives, and would make the archive half as large
# again, with the libraries that they need in turn.
of_cuda='libcublasLt\.so\..*|libnccl\.so\..*'
unused='libcurl\.so\..*|libcrypto\.so\..*|libxml2\.so\..*'
of_glibc='ld-linux.*|lib(c|m|dl|rt|pthread|resolv)\.so\..*'
needed_by() { objdump -p "$1" | awk '$1 == "NEEDED" { print $2 }'; }

# What the programs need, and what that needs in turn. `users` are the files that refer to a library not carried.
declare -A place users carried
while read -r name path; do place[$name]=$path; done < <(
  ldd "$bundle"/libexec/* | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }')
queue=("$bundle"/libexec/*)
while ((${#queue[@]} > 0)); do
  file=${queue[0]}
  queue=("${queue[@]:1}")
  for name in $(needed_by "$file"); do
    if [[ $name =~ ^($of_cuda|$unused)$ ]]; then
      users[$name]+=$file$'\n'
    elif [[ ! $name =~ ^($of_glibc)$ && -z ${carried[$name]:-} ]]; then
      carried[$name]=1
      [[ -n ${place[$name]:-} ]] || die "gpu_bundle.sh: $file needs $name, which the loader does not find"
      install -m 644 "${place[$name]}" "$bundle/lib/$name"
      queue+=("${place[$name]}")
    fi
  done
done

# stand_in NAME FOLDER FILE...: a library NAME with every symbol that the FILEs take from the real one, in the same versions,
# so that they load. What calls one ends with a line that names the library.
stand_in() {
  local name=$1 folder=$2 symbols=$build/symbols work=$build/stand_in
  shift 2
  nm -D --defined-only "${place[$name]}" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u >"$work.defined"
  nm -D --undefined-only "$@" | awk '$1 == "U" || $1 == "w" { print $2 }' | sort -u |
    awk -F@ 'NR == FNR { defined[$1]; next } $1 in defined' "$work.defined" - >"$symbols"
  [[ -s $symbols ]] || die "gpu_bundle.sh: nothing that needs $name uses a symbol of it"
  {
    printf '#include <stdio.h>\n#include <stdlib.h>\nstatic void absent(void) {\n  fputs("error: %s ' "$name"
    printf 'is needed and was not found on this machine; put its folder into LD_LIBRARY_PATH\\n", stderr);\n  _Exit(1);\n}\n'
    awk -F@ '{ print "void " $1 "(void) { absent(); }" }' "$symbols"
  } >"$work.c"
  # A version of its own for each group of symbols, and none for symbols without.
  awk -F@ 'NF > 1 { v = $NF; of[v] = of[v] " " $1 ";" } END { for (v in of) print v " { global:" of[v] " };" }' "$symbols" >"$work.map"
  local versions=()
  if [[ -s $work.map ]]; then versions=("-Wl,--version-script=$work.map"); fi
  cc -shared -fPIC -s -fno-builtin -w "-Wl,-soname,$name" "${versions[@]}" "$work.c" -o "$folder/$name"
}
for name in "${!users[@]}"; do
  folder=$bundle/lib
  if [[ $name =~ ^($of_cuda)$ ]]; then folder=$bundle/lib/absent; fi
  mapfile -t files < <(printf '%s' "${users[$name]}")
  stand_in "$name" "$folder" "${files[@]}"
done
strip --strip-unneeded "$bundle"/lib/*.so*

cp scripts/{common,gpu_check,gpu_bundle_start}.sh "$bundle/scripts/"
for program in "$bundle"/libexec/*; do ln -s ../scripts/gpu_bundle_start.sh "$bundle/bin/$(basename "$program")"; done
ln -s share/rodimus/configs "$bundle/configs"
cp -r tests/golden/{models,ops} "$bundle/tests/golden/"
cp -r demo/data "$bundle/demo/"

tar -C "$build" --owner=0 --group=0 --sort=name -c rodimus-gpu | gzip -9 >"$out.part"
bytes=$(stat -c %s "$out.part")
glibc=$(objdump -T "$bundle"/libexec/* "$bundle"/lib/*.so* | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)
((bytes <= limit)) || die "gpu_bundle.sh: the archive has $bytes bytes, more than $limit: build for fewer architectures \
(-DRODIMUS_CUDA_ARCHITECTURES=90-real); it is $out.part"
mv "$out.part" "$out"
say "$out: $(awk -v b="$bytes" 'BEGIN { printf "%.1f", b / 1048576 }') MiB (limit 60), $(du -sm "$bundle" | cut -f 1) MiB unpacked; needs ${glibc/_/ } or later"
