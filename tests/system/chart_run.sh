#!/usr/bin/env bash
# The pods of the rendered chart, run as processes with their own commands, files, users and addresses: all come up in any
# order, the pool job makes the pool, helm's test writes and reads, and all go on when pods come back with other addresses.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/chart/lib.sh"
need setpriv unshare tgtd
[ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null || skip "needs root, for users and mounts of pods"
chart_tools
chmod 755 "$CLUSTER_DIR"
as_pod_user=(setpriv --reuid=10001 --regid=10001 --clear-groups)
"${as_pod_user[@]}" "$CISTERN_BIN/cistern" --version >/dev/null 2>&1 || skip "other users cannot run $CISTERN_BIN"
pods_py=$CHART_TESTS/pods.py
manifests=$CLUSTER_DIR/manifests.yaml

cluster_start_array 256M
render "$manifests" -f "$CHART_TESTS/values/three-nodes.yaml" \
    --set "san.agents[0].name=array,san.agents[0].portal=127.0.0.1:$(cluster_port tgt),san.agents[0].luns[0].lun=1" \
    --set "san.agents[0].target=iqn.2026-01.org.cistern:array,san.options.buffer-memory=16M,san.options.cache-memory=16M" \
    --set "osd.devices[0].name=raw,osd.devices[0].node=node2,osd.devices[0].path=/dev/sdb,osd.devices[0].size=1Gi" \
    --set "metrics.enabled=${CHART_METRICS:-true}" --set "pools[1].name=rest,pools[1].members={array,raw}" --set test.operations=600
mapfile -t all < <("$pods_py" prepare "$CLUSTER_DIR" "$manifests" "$CISTERN_BIN")
services=()
for pod in "${all[@]}"; do
    case $pod in
    *-pools | *-test-volume) ;;
    *) services+=("$pod"); cluster_define "$pod" "$pods_py" exec "$CLUSTER_DIR" "$pod" ;;
    esac
done
[ ${#services[@]} = 9 ] || fail "these pods are not expected: ${services[*]}" # mdc, 3 OSDs, a device, an agent, 3 gateways

probe() { "$pods_py" exec "$CLUSTER_DIR" "$1" "$2" >"$CLUSTER_DIR/probe.out" 2>&1; }
ready() { probe "$1" readiness; }
start_pod() { cluster_launch "$1"; }
wait_ready() { wait_until 60 ready "$1" || fail "$1 does not become ready"; }
run_pod() { timeout 120 "$pods_py" exec "$CLUSTER_DIR" "$1" >"$CLUSTER_DIR/$1.log" 2>&1 || { cat "$CLUSTER_DIR/$1.log"; fail "pod $1 failed"; }; }
stop_all_pods() { local p; for p in "${services[@]}"; do cluster_signal "$p" TERM; done; for p in "${services[@]}"; do cluster_stop "$p"; done; }
on_exit stop_all_pods

# The last to start is whom all wait for.
for pod in "${services[@]}"; do [ "$pod" = cistern-mdc-0 ] || start_pod "$pod"; done
sleep 1
! ready cistern-osd-ssd-0 || fail "an OSD says that it is ready before there is a controller"
probe cistern-osd-ssd-0 liveness || fail "an OSD that waits for the controller would be killed: $(cat "$CLUSTER_DIR/probe.out")"
start_pod cistern-mdc-0
for pod in "${services[@]}"; do wait_ready "$pod"; probe "$pod" liveness || fail "$pod is not alive: $(cat "$CLUSTER_DIR/probe.out")"; done
ps -o uid= -p "$(pgrep -f "^cistern-osd.*--name=cistern-osd-ssd-0" | head -n 1)" | grep -qw 10001 || fail "an OSD is not user 10001"

run_pod cistern-pools
cat "$CLUSTER_DIR/cistern-pools.log"
grep -Eq '^fast .* 2 ' "$CLUSTER_DIR/cistern-pools.log" || fail "the pool was not made as the values say"
run_pod cistern-pools # as after an upgrade
grep -q 'pool fast is there' "$CLUSTER_DIR/cistern-pools.log" || fail "the pool job is not idempotent"
run_pod cistern-test-volume
grep -q 'through the gateways' "$CLUSTER_DIR/cistern-test-volume.log" || fail "the test did not try the gateways"
[ "$(grep -c ' 0 wrong' "$CLUSTER_DIR/cistern-test-volume.log")" = 2 ] || fail "the test did not compare"

# A pod that is started anew has another address. The others find it, and what it serves.
for pod in cistern-mdc-0 cistern-osd-ssd-1 cistern-gateway-0; do
    cluster_kill9 "$pod"
    echo "$pod comes back as $("$pods_py" move "$CLUSTER_DIR" "$manifests" "$pod")"
    start_pod "$pod"
    wait_ready "$pod"
done
run_pod cistern-test-volume
[ "$(grep -c ' 0 wrong' "$CLUSTER_DIR/cistern-test-volume.log")" = 2 ] || fail "the test did not compare after the restarts"

# Alive means that it answers: a process that hangs does not.
cluster_signal cistern-osd-ssd-2 STOP
pid=$(pgrep -f "^cistern-osd.*--name=cistern-osd-ssd-2" | head -n 1)
kill -STOP "$pid"
! probe cistern-osd-ssd-2 liveness || fail "a process that is stopped counts as alive"
kill -CONT "$pid"
cluster_signal cistern-osd-ssd-2 CONT
wait_until 30 probe cistern-osd-ssd-2 liveness || fail "an OSD that goes on does not count as alive"
echo "the rendered pods run, come back elsewhere and serve"
