#!/usr/bin/env bash
# Every service tells its metrics as Prometheus wants them, counts exactly, knows when it is not ready, and no HTTP hurts it.
. "$(dirname "$0")/lib.sh"
need tgtd python3

CLUSTER_METRICS=yes
CLUSTER_OSDS=2
services="mdc osd1 osd2 san1 vbs1"
http=$here/metrics_http.py
cluster_define_all 256M
cluster_start_all
cistern pool create main
cistern volume create data 64M

port() { cluster_port "$1.metrics"; }
scrape() { python3 "$http" get "$(port "$1")" /metrics; }
is_ready() { python3 "$http" status "$(port "$1")" /readyz 200 >/dev/null; }
is_not_ready() { # SERVICE WORD: and says why
    python3 "$http" status "$(port "$1")" /readyz 503 | grep -qi -- "$2"
}
is_alive() { python3 "$http" status "$(port "$1")" /healthz 200 >/dev/null; }

# ---- every page is whole, and to Prometheus's taste ----
# The program out of its package, once; the package is not installed: it would start a daemon.
tools=${CISTERN_BIN%/bin}/promtool
promtool_fetch() {
    rm -rf "$tools.part"
    mkdir -p "$tools.part"
    (cd "$tools.part" && timeout 120 apt-get download -q prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .) && mv "$tools.part" "$tools"
}
promtool=$(type -P promtool || true)
if [ -z "$promtool" ] && { [ -x "$tools/usr/bin/promtool" ] || promtool_fetch; }; then promtool=$tools/usr/bin/promtool; fi
[ -n "$promtool" ] || echo "NOTE: NO PROMTOOL (package prometheus): the pages are judged by this test's own reader alone"
for s in $services; do
    wait_until 20 is_ready "$s" || fail "$s does not become ready: $(python3 "$http" get "$(port "$s")" /readyz)"
    is_alive "$s" || fail "$s says that it does not live"
    scrape "$s" >"$s.prom"
    python3 "$http" check <"$s.prom" || fail "the page of $s is not well formed"
    grep -q "^cistern_build_info{service=\"cistern-${s%%[0-9]*}\",name=\"$s\"" "$s.prom" || grep "^cistern_build_info{service=\"cistern-mdc\"" "$s.prom" ||
        fail "$s does not say what it is"
    if [ -n "$promtool" ]; then
        "$promtool" check metrics <"$s.prom" >promtool.out 2>&1 || fail "promtool on $s: $(cat promtool.out)"
        [ ! -s promtool.out ] || fail "promtool has something to say of $s: $(cat promtool.out)"
    fi
done

# ---- counters move by what is done, neither more nor less ----
figures() { # what of, written to a file: the sum over those services
    local s
    for s in $2; do scrape "$s"; done | python3 "$http" sum "$1"
}
modules="osd1 osd2 san1"
moved() { # WHERE NAME{labels} EXPECTED: since the call before; the first call only remembers
    local now file=before.$(tr -c 'a-z0-9_\n' _ <<<"$1$2")
    sleep 0.15 # figures may be told again for a tenth of a second
    now=$(figures "$2" "$1")
    if [ -n "${3:-}" ]; then
        [ $((now - $(cat "$file"))) -eq "$3" ] || fail "$2 of $1 went from $(cat "$file") to $now, expected $3 more"
    fi
    echo "$now" >"$file"
}
check() { # WRITES BYTES READS BYTES (empty: remember)
    local kind of
    for kind in module gateway; do
        of=vbs1
        [ $kind = gateway ] || of=$modules
        moved "$of" "cistern_${kind}_requests_total{op=\"write\"}" "${1:-}"
        moved "$of" "cistern_${kind}_written_bytes_total" "${2:-}"
        moved "$of" "cistern_${kind}_request_seconds_count{op=\"write\"}" "${1:-}"
        moved "$of" "cistern_${kind}_request_seconds_bucket{op=\"write\",le=\"+Inf\"}" "${1:-}"
        moved "$of" "cistern_${kind}_requests_total{op=\"read\"}" "${3:-}"
        moved "$of" "cistern_${kind}_read_bytes_total" "${4:-}"
        moved "$of" "cistern_${kind}_request_seconds_count{op=\"read\"}" "${3:-}"
    done
}
through_gateway() { CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf cistern bench data --depth 4 "$@" >bench.out 2>&1 || fail "bench: $(cat bench.out)"; }
check
through_gateway --write --size 4k --ops 200
check 200 $((200 * 4096)) 0 0
through_gateway --read --size 16k --ops 150
check 0 0 150 $((150 * 16384))
[ "$(figures 'cistern_gateway_refused_total' vbs1)" = 0 ] || fail "the gateway refused something"
# The controller counts a decision once, and a refusal as one.
moved mdc 'cistern_mdc_requests_total{method="VOLUME_CREATE"}'
moved mdc 'cistern_mdc_refused_total{status="EXISTS"}'
cistern volume create more 8M
expect_error "of that name" cistern volume create more 8M
moved mdc 'cistern_mdc_requests_total{method="VOLUME_CREATE"}' 2
moved mdc 'cistern_mdc_refused_total{status="EXISTS"}' 1
grep -q '^cistern_pool_partitions{pool="main"} ' <(scrape mdc) || fail "no figures of the pool"

# ---- top: the same figures, without HTTP ----
cistern top --interval 300ms >top.out
for s in osd1 osd2 san1 vbs1; do grep -qw "$s" top.out || fail "top does not show $s: $(cat top.out)"; done
python3 "$http" screen osd2 "$CISTERN_BIN/cistern" top --interval 500ms || fail "top on a terminal"
cistern bench data --write --size 4k --depth 4 --runtime 3s >bench.out 2>&1 &
load=$!
cistern top --json --interval 1500ms | python3 -c '
import json, sys
t = json.load(sys.stdin)
modules = {m["name"]: m for m in t["modules"]}
assert set(modules) == {"osd1", "osd2", "san1"}, t
assert all(m["state"] == "up" and m["answers"] for m in modules.values()), t
writes = sum(m["writes_per_s"] for m in modules.values())
assert writes > 0 and sum(m["write_bytes_per_s"] for m in modules.values()) >= writes * 4096 * 9 // 10, t
assert any(m["write_p50_ns"] > 0 and m["write_p99_ns"] >= m["write_p50_ns"] for m in modules.values()), t
assert [g["name"] for g in t["gateways"]] == ["vbs1"] and t["cluster"]["modules_up"] == 3, t'
wait $load || fail "bench beside top: $(cat bench.out)"

# ---- readiness is the truth ----
cluster_stop mdc
# Who has a table goes on with it, and says so; who has none yet serves nobody.
goes_on() { python3 "$http" status "$(port "$1")" /readyz 200 | grep -q "no session with a metadata controller"; }
for s in vbs1 osd1; do
    wait_until 20 goes_on "$s" || fail "without a controller $s tells: $(python3 "$http" get "$(port "$s")" /readyz)"
done
is_alive vbs1 || fail "the gateway does not live without a controller"
cluster_stop osd2
cluster_launch osd2
wait_until 20 is_not_ready osd2 "metadata controller" || fail "osd2 has started without a controller, and is ready"
cluster_start mdc
for s in $services; do wait_until 30 is_ready "$s" || fail "$s is not ready with the controller back: $(python3 "$http" get "$(port "$s")" /readyz)"; done

cluster_stop osd1 # its disk is taken out, and what is there instead is none
mv osd1.img osd1.taken
mkdir osd1.img
cluster_launch osd1
wait_until 20 is_not_ready osd1 "osd1.img" || fail "osd1 is ready without its disk"
is_alive osd1 || fail "osd1 does not live without its disk"
scrape osd1 | grep -q '^cistern_module_up{module="osd1"} 0' || fail "osd1 does not tell that its module is away"
rmdir osd1.img
mv osd1.taken osd1.img
wait_until 60 is_ready osd1 || fail "osd1 is not ready with its disk back: $(python3 "$http" get "$(port osd1)" /readyz)"

cluster_kill9 tgt # the LUN goes under a running agent
wait_until 40 is_not_ready san1 "san1" || fail "the SAN agent is ready without its LUN"
is_alive san1 || fail "the SAN agent does not live without its LUN"
cluster_start_array
wait_until 60 is_ready san1 || fail "the SAN agent is not ready with its LUN back: $(python3 "$http" get "$(port san1)" /readyz)"

# ---- hostile HTTP beside verified I/O ----
cistern bench data --verify --size 4k --depth 8 --runtime 12s >verify.out 2>&1 &
load=$!
for s in $services; do python3 "$http" attack "$(port "$s")" || fail "the attack on $s could not be made"; done
wait $load || fail "I/O beside the attack: $(cat verify.out)"
for s in $services; do
    cluster_running "$s" || fail "$s fell"
    wait_until 20 is_ready "$s" || fail "$s is not ready after the attack"
    scrape "$s" | python3 "$http" check || fail "$s has no metrics after the attack"
done
echo "metrics: ok"
