#!/usr/bin/env bash
# run.sh [--quick] [--json] [--versus BIN_DIR] [--rounds N] [--seconds N]: what a lookup, a read and a write cost, as ratios
# of what this machine can do. Called by ./dev bench. Everything runs in a temporary directory on loopback.
#   --quick      under a minute: two short rounds, smaller volume
#   --json       print JSON, not Markdown
#   --versus     another build's programs: a second cluster, measured in turns with this one
#   --rounds, --seconds   how often each case runs, and how long
# CISTERN_BIN: the programs (an optimised build). CISTERN_BENCH_DIR: where the files go (default: TMPDIR, then /var/tmp);
# it must be on a filesystem with O_DIRECT to say anything about disks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/.." && pwd)
CISTERN_BIN=${CISTERN_BIN:-$top/build-release/bin}
work=$(mktemp -d "${CISTERN_BENCH_DIR:-${TMPDIR:-/var/tmp}}/cistern-bench.XXXXXX")
CLUSTER_OSDS=3
# shellcheck source=tests/system/cluster.sh
. "$top/tests/system/cluster.sh"

versus="" osd_size=1G quick=""
args=("$@")
for ((i = 0; i < ${#args[@]}; i++)); do
    case ${args[i]} in
    --quick) quick=yes osd_size=512M ;;
    --versus) versus=${args[i + 1]:?--versus needs a directory} ;;
    --help | -h)
        sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        rm -rf "$work"
        exit 0
        ;;
    esac
done

sides=()
finish() {
    local rc=$?
    set +e
    for CLUSTER_DIR in "${sides[@]}"; do cluster_stop_all; done
    if [ $rc -ne 0 ] && [ $rc -ne 2 ]; then
        for CLUSTER_DIR in "${sides[@]}"; do tail -n 8 "$CLUSTER_DIR"/*.log >&2; done
    fi
    rm -rf "$work"
    exit $rc
}
trap finish EXIT

# A cluster of one build: an MDC, three OSDs on files, a gateway.
start_side() { # NAME BIN_DIR
    local s
    CLUSTER_DIR=$work/$1 CISTERN_BIN=$2
    export CLUSTER_DIR CISTERN_BIN
    sides+=("$CLUSTER_DIR")
    cluster_define_all "$osd_size"
    for s in mdc osd1 osd2 osd3 vbs1; do cluster_start "$s"; done
    echo "gateway = tcp:127.0.0.1:$(cluster_port vbs1)" >>"$CLUSTER_DIR/client.conf"
    ln -s "$(readlink -f "$CISTERN_BIN")" "$CLUSTER_DIR/bin"
    cistern pool create main >/dev/null
}

[ -x "$CISTERN_BIN/cistern" ] || { echo "run.sh: no programs in $CISTERN_BIN (./dev release)" >&2; exit 2; }
first=$CISTERN_BIN
start_side this "$first"
[ -z "$versus" ] || start_side versus "$versus"
python3 "$here/measure.py" "$work" "$@" ${quick:+--quick}
