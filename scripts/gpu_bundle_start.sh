#!/usr/bin/env bash
# Starts a program of a bundle (scripts/gpu_bundle.sh): bin/NAME, a link to this file, runs libexec/NAME with the
# libraries of the bundle. cuBLASLt and NCCL are this machine's: the ones that the loader finds by itself (also through
# LD_LIBRARY_PATH), else those of a CUDA toolkit or of NVIDIA's Python packages. A library that is nowhere is replaced
# by the one in lib/absent, whose functions only say so: thus the program starts, and uses the CPU, without them.
set -euo pipefail
bundle=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
program=$bundle/libexec/$(basename "$0")
[[ -x $program ]] || { echo "error: $program does not exist: start bin/rodimus or bin/gpu_tests of a bundle" >&2; exit 2; }

# The loader itself says what it does not find.
missing() { { LD_TRACE_LOADED_OBJECTS=1 "$program" || true; } | awk '/=> not found/ { print $1 }'; }

# Only for this program: others must not get the bundle's libraries.
export LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
lost=$(missing)
if [[ -n $lost ]]; then
  shopt -s nullglob
  python=$(command -v python3 || true) # of a virtual environment, too
  for folder in /usr/local/cuda/lib64 /usr/local/cuda-*/lib64 \
    {"${python%/bin/python3}","${HOME:-/root}/.local",/usr,/usr/local,/opt/*}/lib/python3*/{site,dist}-packages/nvidia/*/lib; do
    for library in $lost; do
      if [[ -e $folder/$library ]]; then
        LD_LIBRARY_PATH+=:$folder
        break
      fi
    done
  done
  if [[ -n $(missing) ]]; then LD_LIBRARY_PATH+=:$bundle/lib/absent; fi
fi
# The plug-ins that MPI starts with are not in the bundle, and one task of a Slurm job needs no MPI.
if [[ ${SLURM_STEP_NUM_TASKS:-} = 1 ]]; then unset SLURM_STEP_NUM_TASKS PMI_SIZE PMI_RANK PMIX_RANK; fi
export RODIMUS_GOLDEN=${RODIMUS_GOLDEN:-$bundle/tests/golden}
exec "$program" "$@"
