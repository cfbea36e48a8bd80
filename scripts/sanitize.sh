#!/usr/bin/env bash
# The whole suite under AddressSanitizer (with leak check) and UndefinedBehaviorSanitizer, built in
# build-asan/, without the CUDA backend (-DRODIMUS_CUDA=EMULATED adds its tests on the emulator). A test ends at its
# first fault. Takes the options of scripts/test.sh: scripts/sanitize.sh -R data/
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Uses the exact but slow unwinder: Open MPI has no frame pointers and unloads its plug-ins at the end, so a fast
# stack trace has no names that a suppression could match.
export ASAN_OPTIONS=detect_stack_use_after_return=1:fast_unwind_on_malloc=0:allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
# The option string is split at blanks and colons, so the path must be quoted.
export LSAN_OPTIONS="suppressions='$ROOT/scripts/lsan.supp':print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"
exec "$ROOT/scripts/test.sh" --dir build-asan --preset asan "$@"
