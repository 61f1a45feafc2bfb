#!/usr/bin/env bash
# The alerts are rules that Prometheus takes, fire when they should and not before, and name, like the dashboard, only metrics
# that the services have.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/chart/lib.sh"
chart_promtool
alerts=$CHART/files/monitoring/alerts.yaml

sed 's/@JOB@/cistern/g' "$alerts" >"$CLUSTER_DIR/alerts.yaml"
promtool check rules "$CLUSTER_DIR/alerts.yaml"
cp "$CHART_TESTS/alerts_test.yaml" "$CLUSTER_DIR/"
(cd "$CLUSTER_DIR" && promtool test rules alerts_test.yaml) || fail "an alert does not fire as it should"
for alert in $(sed -n 's/.*- alert: //p' "$alerts"); do
    grep -q "alertname: $alert\$" "$CHART_TESTS/alerts_test.yaml" || fail "$alert has no test"
done
# As the chart renders them they are the same rules.
render "$CLUSTER_DIR/all.yaml" -f "$CHART_TESTS/values/everything.yaml"
python3 - "$CLUSTER_DIR/all.yaml" "$CLUSTER_DIR/rendered.yaml" <<'PY'
import sys, yaml
rule = next(d for d in yaml.safe_load_all(open(sys.argv[1])) if d and d["kind"] == "PrometheusRule")
yaml.safe_dump(rule["spec"], open(sys.argv[2], "w"))
PY
promtool check rules "$CLUSTER_DIR/rendered.yaml" >/dev/null
! grep -n '@JOB@' "$CLUSTER_DIR/all.yaml" || fail "a place for the job's name was left"
python3 "$CHART_TESTS/metrics_check.py" "$TOP" "$alerts" "$CHART/files/monitoring/dashboard.json"
echo "the alerts fire, the dashboard's metrics are there"
