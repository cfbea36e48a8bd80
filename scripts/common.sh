# Sourced by the other scripts: the project's path, messages, and MPI and OpenMP settings for tests and the demo,
# which run several ranks on few cores.
# shellcheck shell=bash

# shellcheck disable=SC2034  # read by the scripts that source this one
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Compile jobs: one per core, but a template-heavy file takes up to 1.5 GB, and a build that swaps
# is slower than one with fewer jobs.
compile_jobs() {
  local cores by_memory
  cores=$(nproc)
  by_memory=$(awk '/^MemAvailable:/ { print int($2 / 1.5e6) }' /proc/meminfo)
  ((by_memory >= 1)) || by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}

# For ranks started by mpirun on this machine. Values set by the user win.
export_mpi_defaults() {
  # In a container the user is root, which mpirun accepts only when told to.
  if [[ $(id -u) -eq 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  # More ranks than cores is normal here, for example three ranks on two cores. Open MPI 5 has another name for it.
  export OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe:-1}
  export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}
  export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1}
  # Waiting OpenMP threads must sleep, not spin on a core that another rank needs.
  export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
}

# debian_13 DIR LOG [OPTION]...: the smallest Debian 13 in the folder DIR, by debootstrap, which is installed if it is
# missing. Needs root.
debian_13() {
  local folder=$1 log=$2
  shift 2
  command -v debootstrap >/dev/null ||
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap >"$log" 2>&1 ||
    die "apt-get could not install debootstrap (see $log; apt-get update may help)"
  rm -rf "$folder"
  debootstrap --force-check-gpg --variant=minbase "$@" trixie "$folder" >"$log" 2>&1 || die "debootstrap failed (see $log)"
}
