#!/usr/bin/env bash
# journal.sh [--disk DIR] [--journal DIR] [--rounds N] [--seconds N]: durable 4 KiB overwrites with the journal on the data's medium
# and with a journal file of its own, in turns: two clusters of one OSD each, loopback, medians, and the ratio.
#   --disk      directory for the data files (default: TMPDIR, then /var/tmp)
#   --journal   directory for the journal file: on a DAX file system it is persistent memory (default: as --disk)
#   --rounds, --seconds   how often (5), and how long (2)
# CISTERN_BIN: the programs (an optimised build).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CISTERN_BIN=${CISTERN_BIN:-$here/../build-release/bin}
disk=${TMPDIR:-/var/tmp} journal="" rounds=5 seconds=2
while [ $# -gt 0 ]; do
    case $1 in
    --disk) disk=$2 ;;
    --journal) journal=$2 ;;
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
    shift 2
done
CLUSTER_OSDS=1 CLUSTER_SAN=""
# shellcheck source=tests/system/cluster.sh
. "$here/../tests/system/cluster.sh"
work=$(mktemp -d "$disk/cistern-journal.XXXXXX")
own=$(mktemp -d "${journal:-$disk}/cistern-journal.XXXXXX")
finish() {
    for CLUSTER_DIR in "$work"/shared "$work"/own; do cluster_stop_all; done
    rm -rf "$work" "$own"
}
trap finish EXIT
for side in shared own; do
    CLUSTER_DIR=$work/$side
    cluster_define_all 1G
    [ $side = shared ] || printf '%s\n' --journal "$own/journal" --journal-size 32M >>"$CLUSTER_DIR/osd1.args"
    cluster_start mdc
    cluster_start osd1
    cistern pool create main >/dev/null
    cistern volume create v 32M >/dev/null
    cistern bench v --write --sequential --size 1M --span 32M --ops 32 >/dev/null 2>&1
done
grep -ho 'msg="journal medium[^"]*"' "$work/own/osd1.log"
for ((round = 0; round < rounds; round++)); do
    for depth in 1 16; do
        for side in shared own; do
            CISTERN_CONFIG=$work/$side/client.conf cistern --json bench v --write --depth $depth --runtime "${seconds}s" \
                --warmup 300ms --seed $round 2>/dev/null >"$work/$side.$depth.$round.json"
        done
    done
done
python3 - "$work" "$rounds" <<'PY'
import json, statistics, sys
work, rounds = sys.argv[1], int(sys.argv[2])

def value(side, depth, key):
    runs = [json.load(open(f"{work}/{side}.{depth}.{r}.json")) for r in range(rounds)]
    return statistics.median(find(r, key) for r in runs)

def find(run, key):
    if isinstance(run, dict):
        if key in run and not isinstance(run[key], (dict, list)):
            return run[key]
        run = list(run.values())
    if isinstance(run, list):
        for part in run:
            found = find(part, key)
            if found:
                return found
    return 0

for depth, key, unit in ((1, "p50_ns", "ns"), (16, "iops", "1/s")):
    a, b = value("shared", depth, key), value("own", depth, key)
    print(f"depth {depth}: {key}: journal with the data {a:.0f} {unit}, of its own {b:.0f} {unit}, ratio {b / a:.2f}")
PY
