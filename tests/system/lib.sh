# lib.sh: what every system test starts with. Sourced by tests/system/*.sh.
# A test states its purpose in one line, breaks something, and compares data. Exit 77 = skipped, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CISTERN_BIN=${CISTERN_BIN:-$here/../../build/bin}
CLUSTER_DIR=$(mktemp -d "${TMPDIR:-/tmp}/cistern-test.XXXXXX")
export CISTERN_BIN CLUSTER_DIR
cd "$CLUSTER_DIR" # clients leave files where they stand
# Leak checks of clients that are loaded into other programs (nbdkit) are done by the unit tests.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=1}
# shellcheck source=tests/system/cluster.sh
. "$here/cluster.sh"

on_exit_commands=()
on_exit() { on_exit_commands+=("$1"); }
finish() {
    local rc=$? i
    set +e
    for ((i = ${#on_exit_commands[@]} - 1; i >= 0; i--)); do eval "${on_exit_commands[i]}"; done
    cluster_stop_all
    # Loads of a test that failed would wait for their volume for ever, and the test's runner for them.
    for i in $(jobs -p); do kill -9 "$i" 2>/dev/null; done
    if grep -lE 'MUST failed|ERROR: AddressSanitizer|runtime error:' "$CLUSTER_DIR"/*.log 2>/dev/null; then
        echo "FAILED: a service crashed (see below)" >&2
        grep -hE -A 25 'MUST failed|ERROR: AddressSanitizer|runtime error:' "$CLUSTER_DIR"/*.log | head -n 80 >&2
        [ $rc -ne 0 ] || rc=1
    fi
    if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
        for i in "$CLUSTER_DIR"/*.log; do
            echo "---- $i" >&2
            tail -n 12 "$i" >&2
        done
    fi
    if [ $rc -eq 0 ] || [ $rc -eq 77 ] || [ -n "${CI:-}" ]; then
        rm -rf "$CLUSTER_DIR"
    else
        echo "kept: $CLUSTER_DIR" >&2
    fi
    exit $rc
}
trap finish EXIT

need() { # PROGRAM...: skips the test when one is missing
    local p
    for p in "$@"; do
        command -v "$p" >/dev/null || { echo "SKIPPED: $p is not installed (./dev deps)"; exit 77; }
    done
}

skip() { echo "SKIPPED: $*"; exit 77; }
fail() { echo "FAILED: $*" >&2; exit 1; }

# expect_error TEXT COMMAND...: it must fail, and its output must contain TEXT.
expect_error() {
    local text=$1 out
    shift
    if out=$("$@" 2>&1); then fail "'$*' was accepted: $out"; fi
    grep -qi -- "$text" <<<"$out" || fail "'$*' said '$out', not '$text'"
}
