#!/usr/bin/env bash
# idle.sh [--versus BIN_DIR] [--rounds N] [--seconds N] [--dir DIR]: what a cluster costs when nobody asks for anything: CPU time
# and voluntary sleeps a second of each service, with one, two and three copies; an MDC and three OSDs each, loopback, medians.
#   --versus              another build's programs: more clusters, measured in turns with these
#   --rounds, --seconds   how often (4), and how long (5)
#   --dir                 where the files go (default: /dev/shm)
# CISTERN_BIN: the programs (an optimised build).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CISTERN_BIN=${CISTERN_BIN:-$here/../build-release/bin}
versus="" rounds=4 seconds=5 dir=/dev/shm
while [ $# -gt 0 ]; do
    case $1 in
    --versus) versus=${2:?} ;;
    --rounds) rounds=${2:?} ;;
    --seconds) seconds=${2:?} ;;
    --dir) dir=${2:?} ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
    shift 2
done
CLUSTER_OSDS=3 CLUSTER_SAN=""
# shellcheck source=tests/system/cluster.sh
. "$here/../tests/system/cluster.sh"
work=$(mktemp -d "$dir/cistern-idle.XXXXXX")
sides=()
finish() {
    for CLUSTER_DIR in "${sides[@]}"; do cluster_stop_all; done
    rm -rf "$work"
}
trap finish EXIT
for copies in 1 2 3; do
    for build in this ${versus:+versus}; do
        CLUSTER_DIR=$work/$copies.$build
        [ $build = this ] && bin=$CISTERN_BIN || bin=$versus
        sides+=("$CLUSTER_DIR")
        CISTERN_BIN=$bin cluster_define_all 512M
        for s in mdc osd1 osd2 osd3; do cluster_start "$s"; done
        cistern pool create main --copies $copies >/dev/null
        cistern volume create v 64M >/dev/null
        cistern bench v --write --sequential --size 1M --depth 4 --ops 64 >/dev/null 2>&1
    done
done
sleep 12 # a pool is at rest after ten seconds
python3 - "$rounds" "$seconds" "${sides[@]}" <<'PY'
import os, statistics, sys, time

rounds, seconds, sides = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
SERVICES = ("mdc", "osd1", "osd2", "osd3")

def spent(side, service):
    """(CPU ms, sleeps) of all threads"""
    with open(f"{side}/{service}.pid", encoding="ascii") as f:
        tasks = f"/proc/{f.read().strip()}/task"
    ms = sleeps = 0
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/schedstat", encoding="ascii") as f:
            ms += int(f.read().split()[0]) / 1e6
        with open(f"{tasks}/{task}/status", encoding="ascii") as f:
            sleeps += next(int(line.split()[1]) for line in f if line.startswith("voluntary"))
    return ms, sleeps

runs = {side: [] for side in sides}
for number in range(rounds):
    for side in sides if number % 2 == 0 else sides[::-1]:
        before, begun = [spent(side, s) for s in SERVICES], time.time()
        time.sleep(seconds)
        after, took = [spent(side, s) for s in SERVICES], time.time() - begun
        runs[side].append([((a[0] - b[0]) / took, (a[1] - b[1]) / took) for a, b in zip(after, before)])
print("| copies | build | all, ms a second | " + " | ".join(f"{s}, ms; sleeps" for s in SERVICES) + " |")
print("| --- | --- | ---: |" + " ---: |" * len(SERVICES))
for side in sides:
    copies, build = os.path.basename(side).split(".")
    each = [[statistics.median(run[i][k] for run in runs[side]) for k in (0, 1)] for i in range(len(SERVICES))]
    total = statistics.median(sum(service[0] for service in run) for run in runs[side])
    print(f"| {copies} | {build} | {total:.1f} | " + " | ".join(f"{ms:.1f}; {sleeps:.0f}" for ms, sleeps in each) + " |")
PY
