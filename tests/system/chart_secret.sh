#!/usr/bin/env bash
# The real helm installs, upgrades and uninstalls the chart at a server that keeps objects: the cluster's secret is drawn once,
# outlives upgrades, an uninstall and a new install, and is never replaced silently.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/chart/lib.sh"
chart_tools
cluster_define api "$CHART_TESTS/api_server.py" "$CLUSTER_DIR/api.port"
cluster_launch api
on_exit 'cluster_stop api'
wait_until 20 test -s "$CLUSTER_DIR/api.port" || fail "the server of objects does not start: $(cat "$CLUSTER_DIR/api.log")"
cat >"$CLUSTER_DIR/kubeconfig" <<TEXT
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:$(cat "$CLUSTER_DIR/api.port")"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: storage}}]
current-context: x
TEXT
export KUBECONFIG=$CLUSTER_DIR/kubeconfig

h() {
    local more=(--wait=hookOnly)
    case $1 in install | upgrade) more+=(--disable-openapi-validation) ;; uninstall) more=() ;; esac
    timeout 60 "$TOOLS/bin/helm/helm" -n storage "$@" "${more[@]}" >"$CLUSTER_DIR/helm.out" 2>&1
}
k() { timeout 20 "$TOOLS/bin/kubectl/kubectl" -n storage "$@"; }
must() { h "$@" || { cat "$CLUSTER_DIR/helm.out"; fail "helm $1"; }; }
secret() { k get secret cistern-secret -o 'jsonpath={.data.secret}'; }

must install cistern "$CHART" --set gateway.enabled=true
first=$(secret)
[ "$(base64 -d <<<"$first" | wc -c)" -ge 32 ] || fail "the secret is too short: '$first'"
k get statefulset cistern-mdc cistern-osd-disk -o name >/dev/null || fail "the objects were not made"
must upgrade cistern "$CHART" --set gateway.enabled=true --set gateway.replicas=5
[ "$(secret)" = "$first" ] || fail "an upgrade changed the secret"
[ "$(k get deployment cistern-gateway -o 'jsonpath={.spec.replicas}')" = 5 ] || fail "the upgrade did nothing"
must upgrade cistern "$CHART" --reuse-values --set logLevel=debug
[ "$(secret)" = "$first" ] || fail "a second upgrade changed the secret"
must rollback cistern 1
[ "$(secret)" = "$first" ] || fail "a rollback changed the secret"

must uninstall cistern
! k get statefulset cistern-mdc >/dev/null 2>&1 || fail "the uninstall did nothing"
[ "$(secret)" = "$first" ] || fail "the uninstall took the secret away from the data"
must install cistern "$CHART"
[ "$(secret)" = "$first" ] || fail "a new install over the old data draws another secret"

# Gone, or not what it was: said, not replaced.
k get secret cistern-secret -o json >"$CLUSTER_DIR/kept.json"
k delete secret cistern-secret --wait=false >/dev/null
! h upgrade cistern "$CHART" || fail "an upgrade without the secret draws another one"
grep -q 'is gone or cannot be read' "$CLUSTER_DIR/helm.out" || fail "no reason: $(cat "$CLUSTER_DIR/helm.out")"
! secret >/dev/null 2>&1 || fail "the refused upgrade made a secret"
k create secret generic cistern-secret --from-literal=other=x >/dev/null
! h upgrade cistern "$CHART" || fail "a Secret without the key was taken"
grep -q 'has no key "secret"' "$CLUSTER_DIR/helm.out" || fail "no reason: $(cat "$CLUSTER_DIR/helm.out")"
k delete secret cistern-secret --wait=false >/dev/null
k create secret generic mine --from-literal=secret=a-secret-that-is-long-enough >/dev/null
must upgrade cistern "$CHART" --set secret.existingSecret=mine
[ "$(k get statefulset cistern-mdc -o json | grep -c '"secretName": "mine"')" = 1 ] || fail "the given Secret is not used"
! secret >/dev/null 2>&1 || fail "a secret of the chart's own was made beside the given one"
echo "the secret is drawn once, and kept"
