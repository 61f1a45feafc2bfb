#!/usr/bin/env bash
# op_counts.sh [--guest] [--ops N] [--json]: what one 4 KiB read and one write cost on the fabric, counted, not timed: messages,
# doorbells, work requests, completions, copies, wake-ups, registrations; by process; at depth 1 and 32; direct and
# through a gateway. The cluster is an MDC, an OSD and a gateway of its own in a temporary directory.
#   (nothing)    over tcp on loopback
#   --guest      over verbs, in a guest kernel with Soft-RoCE under QEMU (tests/rdma/guest.sh)
#   --ops N      operations of a long run; a short one is taken off, so that what happens once does not count
#   --json       print JSON, not Markdown
# CISTERN_BIN: the programs (default: build-release/bin). CLUSTER_NET: rdma:ADDRESS of a device of this host instead of tcp.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/.." && pwd)
export CISTERN_BIN=${CISTERN_BIN:-$top/build-release/bin}
guest="" ops=4000 form=markdown
while [ $# -gt 0 ]; do
    case $1 in
    --guest) guest=yes ;;
    --ops) ops=${2:?--ops needs a number} && shift ;;
    --json) form=json ;;
    --help | -h) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) echo "op_counts.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
[ -x "$CISTERN_BIN/cistern" ] || { echo "op_counts.sh: no programs in $CISTERN_BIN (./dev release)" >&2; exit 2; }

if [ -n "$guest" ]; then
    # shellcheck source=tests/rdma/guest.sh
    . "$top/tests/rdma/guest.sh"
    guest_init "$top/build-release/rdma"
    options=(--ops "$ops")
    [ $form = markdown ] || options+=(--json)
    guest_run ${CISTERN_GUEST_SECONDS:-1500} env "CISTERN_BIN=$CISTERN_BIN" CLUSTER_NET=rdma:10.0.0.1 "$here/op_counts.sh" "${options[@]}"
    exit
fi

export CLUSTER_OSDS=1 CLUSTER_SAN="" CLUSTER_NET=${CLUSTER_NET:-tcp:127.0.0.1}
CLUSTER_DIR=$(mktemp -d "${CISTERN_BENCH_DIR:-${TMPDIR:-/var/tmp}}/cistern-counts.XXXXXX")
export CLUSTER_DIR
# shellcheck source=tests/system/cluster.sh
. "$top/tests/system/cluster.sh"
finish() {
    local rc=$?
    set +e
    cluster_stop_all
    [ $rc -eq 0 ] || tail -n 8 "$CLUSTER_DIR"/*.log >&2
    rm -rf "$CLUSTER_DIR"
    exit $rc
}
trap finish EXIT
cluster_define_all 256M
cluster_start_all
cistern pool create main >/dev/null
cistern volume create data 16M >/dev/null
# Every place was written: reads find data, writes overwrite.
cistern bench data --write --sequential --size 128k --depth 4 --ops 128 >/dev/null 2>&1
python3 "$here/op_counts.py" "$CISTERN_BIN/cistern" "$CLUSTER_DIR" "$ops" "$form" \
    mdc="$CLUSTER_NET:$(cluster_port mdc)" osd="$CLUSTER_NET:$(cluster_port osd1)" gateway="$CLUSTER_NET:$(cluster_port vbs1)"
