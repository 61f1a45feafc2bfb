#!/usr/bin/env bash
# The chart's seccomp profile lets an OSD use io_uring and all else that it, its probes and the tools need; under a profile
# without io_uring, as container runtimes have, it says so, works with threads, and serves the same data.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/chart/lib.sh"
python3 -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null || skip "libseccomp2 is not installed"
under=("$CHART_TESTS/with_seccomp.py" "$CHART/files/seccomp/cistern-osd.json")
no_uring=(-io_uring_setup -io_uring_enter -io_uring_register)
CLUSTER_SAN= CLUSTER_OSDS=1

# The profile is one: what nobody needs is not there.
for call in mount ptrace bpf init_module reboot setns unshare pivot_root kexec_load swapon perf_event_open userfaultfd; do
    ! grep -q "\"$call\"" "$CHART/files/seccomp/cistern-osd.json" || fail "the profile allows $call"
done

cluster_define_all 128M
mapfile -t plain <"$CLUSTER_DIR/osd1.args"
osd_under() { cluster_define osd1 "${under[@]}" "$@" -- "${plain[@]}"; }
says_threads() { grep -q 'io_uring is not allowed here, using threads' "$CLUSTER_DIR/osd1.log"; }
works() { # SEED
    # shellcheck disable=SC2086
    "${under[@]}" -- "$CISTERN_BIN/cistern" bench v --verify --seed "$1" --ops 500 --depth 8 --warmup 0s 2>&1 |
        grep ' 0 wrong' || fail "wrong, or not at all"
}

osd_under
cluster_start_all
! says_threads || skip "this machine's kernel forbids io_uring itself"
cistern pool create main
cistern volume create v 32M
works 1
# A probe, as the kubelet runs it inside the same profile.
CISTERN_SECRET=$CLUSTER_DIR/secret PATH=$CISTERN_BIN:$PATH "${under[@]}" -- sh "$CHART/files/scripts/alive.sh" "$CLUSTER_DIR/osd1.ready" ||
    fail "the liveness probe does not run"

cluster_stop osd1
osd_under "${no_uring[@]}"
cluster_start osd1
says_threads || fail "the OSD does not say that it works with threads"
works 2
cluster_kill9 osd1
cluster_start osd1
works 3
# And back: the store is the same.
cluster_stop osd1
osd_under
: >"$CLUSTER_DIR/osd1.log"
cluster_start osd1
! says_threads || fail "the OSD does not use io_uring where it may"
works 4
echo "the OSD works under the chart's profile, and without io_uring"
