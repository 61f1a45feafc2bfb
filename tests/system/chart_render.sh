#!/usr/bin/env bash
# The chart renders for every kind of cluster that it is for, to objects that Kubernetes takes: by helm's lint, by Kubernetes'
# types and what they do not say (k8s_check.py), and by kubectl's own decoder, which drops what it does not know.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/chart/lib.sh"
chart_tools

count=0
for values in "$CHART_TESTS"/values/*.yaml; do
    name=$(basename "$values" .yaml)
    helm lint --strict --quiet "$CHART" -f "$values" || fail "lint: $name"
    render "$CLUSTER_DIR/$name.yaml" -f "$values" || fail "template: $name"
    k8s_check <"$CLUSTER_DIR/$name.yaml" >/dev/null || fail "not what Kubernetes takes: $name"
    python3 "$CHART_TESTS/kubectl_check.py" "$TOOLS/bin/kubectl/kubectl" "$CLUSTER_DIR/$name.yaml" || fail "kubectl drops something: $name"
    helm install cistern "$CHART" --namespace storage -f "$values" --dry-run=client >"$CLUSTER_DIR/$name.notes"
    sed -n '/^NOTES:/,$p' "$CLUSTER_DIR/$name.notes" | grep -q 'cistern volume create' || fail "no notes: $name"
    ! grep -nE '<no value>|%!|<nil>' "$CLUSTER_DIR/$name.yaml" "$CLUSTER_DIR/$name.notes" || fail "holes in the text: $name"
    count=$((count + 1))
done
[ $count -ge 6 ] || fail "only $count sets of values"
render "$CLUSTER_DIR/default.yaml"
k8s_check <"$CLUSTER_DIR/default.yaml" >/dev/null || fail "the values as they come"

# Twice the same: nothing but the secret is drawn by chance.
render "$CLUSTER_DIR/again.yaml" -f "$CHART_TESTS/values/everything.yaml"
cmp "$CLUSTER_DIR/again.yaml" "$CLUSTER_DIR/everything.yaml"

# Another version of the chart restarts nothing: what pods are made of is the same.
cp -r "$CHART" "$CLUSTER_DIR/newer"
sed -i 's/^version: .*/version: 99.0.0/' "$CLUSTER_DIR/newer/Chart.yaml"
helm template cistern "$CLUSTER_DIR/newer" --namespace storage -f "$CHART_TESTS/values/everything.yaml" >"$CLUSTER_DIR/newer.yaml"
python3 - "$CLUSTER_DIR/newer.yaml" "$CLUSTER_DIR/everything.yaml" <<'PY' || fail "a new version of the chart would restart pods"
import sys, yaml
one, two = ([(d["metadata"]["name"], d["spec"]["template"]) for d in yaml.safe_load_all(open(p)) if d and "template" in d.get("spec", {})]
            for p in sys.argv[1:])
sys.exit(0 if one == two and len(one) > 5 else 1)
PY

# The check itself: each of these must be found.
planted() { # WHAT SED-EXPRESSION
    sed -E "$2" "$CLUSTER_DIR/everything.yaml" >"$CLUSTER_DIR/planted.yaml"
    ! cmp -s "$CLUSTER_DIR/planted.yaml" "$CLUSTER_DIR/everything.yaml" || fail "nothing was planted: $1"
    ! k8s_check <"$CLUSTER_DIR/planted.yaml" >"$CLUSTER_DIR/found" 2>&1 || fail "the check does not find: $1"
    ! grep -q Traceback "$CLUSTER_DIR/found" || { cat "$CLUSTER_DIR/found"; fail "the check breaks on: $1"; }
}
planted "a field that is not there" 's/^( *)minReadySeconds:/\1minReadySecond:/'
planted "a number as text" 's/^( *)minReadySeconds: 10/\1minReadySeconds: "10"/'
planted "a word that is not one of" 's/podManagementPolicy: Parallel/podManagementPolicy: Paralel/'
planted "a kind that is not there" 's/^kind: NetworkPolicy/kind: NetworkPolicies/'
planted "an unknown version" 's|policy/v1|policy/v1beta1|'
planted "a budget that selects nothing" '/^kind: PodDisruptionBudget/,/^---/ s/component: osd/component: odd/'
planted "a selector that is not its pods'" '/matchLabels:/,/^  template:/ s/component: osd$/component: odd/'
planted "a port that no pod has" 's/targetPort: gateway/targetPort: getaway/'
planted "a variable that is not set" 's/\$\(POD_IP\)/$(POD_IPS)/'
planted "a volume that is not there" '/volumeMounts:/,/volumes:/ s/- name: run$/- name: ran/'
planted "a raw disk that is mounted" 's/volumeMode: Filesystem/volumeMode: Block/'
planted "a missing ConfigMap" '/- configMap:/,/name:/ s/store-scripts/store-script/'
planted "a privileged pod" 's/^( *)allowPrivilegeEscalation: false/\1allowPrivilegeEscalation: false\n\1privileged: true/'
planted "a port that a probe asks for" 's/^( +)port: metrics$/\1port: metric/'
planted "an amount that is none" 's/memory: 2Gi/memory: 2GB/'
planted "a rule without groups" 's/^  groups:$/  group:/'
echo "$count sets of values render to what Kubernetes takes"
