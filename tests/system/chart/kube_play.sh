#!/usr/bin/env bash
# kube_play.sh IMAGE: the rendered pods in real containers, by `podman kube play`: users, read-only root, capabilities, paths and
# probes as the chart says, the pool job, helm's test. Run by hand (root, podman): it needs an image, charts/README.md.
# Not as in a cluster: the host's network with loopback addresses, folders for claims, the kubelet's part by pods.py.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/lib.sh"
need podman
chart_tools
image=${1:?usage: kube_play.sh IMAGE}
chmod 755 "$CLUSTER_DIR"
manifests=$CLUSTER_DIR/manifests.yaml
render "$manifests" -f "$CHART_TESTS/values/three-nodes.yaml" --set test.operations=2000 \
    --set metrics.enabled=false --set "image.repository=${image%:*},image.tag=${image##*:},image.pullPolicy=Never"
mapfile -t all < <("$CHART_TESTS/pods.py" prepare "$CLUSTER_DIR" "$manifests" "")

play() { # POD
    "$CHART_TESTS/pods.py" play "$CLUSTER_DIR" "$1" "$manifests" >"$CLUSTER_DIR/$1.yaml"
    podman kube play --replace "$CLUSTER_DIR/$1.yaml" >"$CLUSTER_DIR/$1.log" 2>&1 || { cat "$CLUSTER_DIR/$1.log"; fail "podman does not play $1"; }
}
container() { podman ps -a --filter "pod=$1" --format '{{.Names}}' | grep -v -- '-infra$'; }
ready() { podman exec "$(container "$1")" test -e /run/cistern/ready; }
healthy() { podman healthcheck run "$(container "$1")" >/dev/null; }
take_down() { local p; for p in "${all[@]}"; do podman pod rm -f -t 5 "$p" >/dev/null 2>&1; done; }
on_exit take_down

for pod in "${all[@]}"; do
    case $pod in *-pools | *-test-volume) continue ;; esac
    play "$pod"
done
for pod in "${all[@]}"; do
    case $pod in *-pools | *-test-volume) continue ;; esac
    wait_until 60 ready "$pod" || { podman ps -a; podman logs "$(container "$pod")"; fail "$pod does not become ready"; }
    healthy "$pod" || fail "the liveness probe of $pod fails"
done
osd=$(container cistern-osd-ssd-0)
[ "$(podman exec "$osd" id -u)" = 10001 ] || fail "an OSD is not user 10001"
! podman exec "$osd" touch /x 2>/dev/null || fail "an OSD can write to its root file system"
podman exec "$osd" grep -q 'CapBnd:.0000000000000000' /proc/1/status || fail "an OSD has capabilities: $(podman exec "$osd" grep Cap /proc/1/status)"
podman logs "$osd" 2>&1 | grep -o 'io_uring is not allowed here, using threads' || echo "io_uring is allowed in these containers"
for pod in cistern-pools cistern-test-volume; do
    play "$pod"
    c=$(container "$pod")
    rc=$(timeout 180 podman wait "$c")
    podman logs "$c" 2>&1 | tail -n 14
    [ "$rc" = 0 ] || fail "$pod ended with $rc"
done
echo "the rendered pods run in containers"
