# Sourced by scripts that need the demo's data: makes demo/data, tokenizer and shards, from the sources of the Linux
# kernel's documentation. Run in the project's folder.
# shellcheck shell=bash

# linux-doc only depends on the package of the current kernel, which contains the text. Prints nothing if apt does
# not know it.
documentation_package() {
  { apt-cache depends linux-doc 2>/dev/null || true; } | sed -n 's/^ *Depends: //p' | head -n 1
}

fetch_corpus() {
  [[ ! -d demo/corpus ]] || return 0
  local package sandbox=() part=demo/corpus.part
  package=$(documentation_package)
  if [[ -z $package ]]; then
    [[ $(id -u) -eq 0 ]] || die "no Debian package lists here; as root run: apt-get update"
    apt-get update -q >/dev/null
    package=$(documentation_package)
    [[ -n $package ]] || die "the package linux-doc is unknown to apt; the demo needs a Debian system"
  fi
  # As root, apt would download as user _apt, which may not write here.
  [[ $(id -u) -ne 0 ]] || sandbox=(-o APT::Sandbox::User=root)
  rm -rf "$part"
  mkdir -p "$part"
  say "fetching $package"
  download() { (cd "$part" && apt-get download -q "${sandbox[@]}" "$package" >/dev/null); }
  # Old package lists may name a version that the mirror no longer has.
  if ! download; then
    [[ $(id -u) -eq 0 ]] || die "apt-get download $package failed; as root run: apt-get update"
    apt-get update -q >/dev/null
    download || die "apt-get download $package failed: is there a network?"
  fi
  dpkg-deb --fsys-tarfile "$part"/*.deb |
    tar -x -C "$part" --wildcards --exclude '*/translations/*' '*.rst.txt'
  rm "$part"/*.deb
  mv "$part" demo/corpus
}

# tokenize_corpus PROGRAM
tokenize_corpus() {
  [[ ! -d demo/data ]] || return 0
  rm -rf demo/data.part
  "$1" tokenize --input demo/corpus --extensions .rst.txt --vocab-size 4096 --model-type bpe \
    --training-bytes 4000000 --val-fraction 0.02 --no-progress --out demo/data.part
  mv demo/data.part demo/data
}
