#!/usr/bin/env bash
# In the guest: the operator's tools see the device, say what is wrong when it is, and measure over verbs.
set -euo pipefail
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=1}
dir=$(mktemp -d)
cd "$dir"
say() { echo "[$SECONDS s] $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
cistern() { "$CISTERN_BIN/cistern" "$@"; }
(umask 077 && echo "a secret for tools alone" >secret)
echo "secret-file = $dir/secret" >client.conf
export CISTERN_CONFIG=$dir/client.conf

judge() { # PYTHON: over r, what info says as JSON
    cistern fabric info --json >info.json
    python3 - "$1" <<'PY' || fail "$(cistern fabric info)"
import json, sys
r = json.load(open("info.json"))
advised = [a["what"] for a in r["advice"]]
def says(text): return any(text in a for a in advised)
port = r["ports"][0]
exec(sys.argv[1])
PY
}
cistern fabric info
judge 'd = r["devices"][0]
assert d["device"] == "rxe1" and d["usable"], d
assert d["max_qp"] > 0 and d["max_srq"] > 0 and d["max_mw"] > 0 and d["max_inline"] >= 128, d
assert port["state"] == "ACTIVE" and port["link"] == "RoCE" and port["active_mtu"] == 4096, port
assert any(g["ip"] == "10.0.0.1" and g["type"] == "RoCEv2" for g in r["gids"]), r["gids"]
assert r["counters"] and port["netdev_mtu"] == 4200, port
assert not any(a["level"] == "problem" for a in r["advice"]), advised'
say "a good host: no problem"
(ulimit -l 8192; judge 'assert says("only 8 MiB of memory may be locked"), advised')
ip link set dummy0 mtu 1500
judge 'assert port["active_mtu"] == 1024 and says("MTU 1500 of dummy0"), (port, advised)'
ip link set dummy0 mtu 4200
ip link set dummy0 down
judge 'assert port["state"] != "ACTIVE" and says("the port is"), (port, advised)'
ip link set dummy0 up
ip addr add 10.0.0.1/24 dev dummy0 2>/dev/null || true
judge 'assert port["state"] == "ACTIVE" and port["active_mtu"] == 4096, port'
say "what is wrong is said"

"$CISTERN_BIN/cistern" fabric bench --listen rdma:10.0.0.1:7300 --verbose >listen.out 2>&1 &
listener=$!
for ((i = 0; i < 100; i++)); do
    grep -q '^listening' listen.out && break
    sleep 0.2
done
cistern fabric ping rdma:10.0.0.1:7300 -c 20 -i 0s || fail "ping"
[[ "$(cistern fabric ping rdma:10.0.0.1:7301 -c 1 2>&1)" == *"refused the connection"* ]] || fail "nobody there"
(umask 077 && echo "another secret, as long" >other)
[[ "$(cistern fabric ping rdma:10.0.0.1:7300 -c 1 --secret-file other 2>&1)" == *"the secrets differ"* ]] || fail "wrong secret"
say "ping"
cistern --json fabric bench rdma:10.0.0.1:7300 --rounds 1 --runtime 50ms --warmup 5ms >bench.json
python3 - <<'PY'
import json
r = json.load(open("bench.json"))
c = r["connection"]
assert c["provider"] == "verbs" and c["device"] == "rxe1" and c["mtu"] == 4096, c
assert c["inline_bytes"] > 0 and c["reads_out"] > 0 and c["credits"] > 0 and c["send_queue"] > 0, c
assert c["retries"] < 7 and c["ack_timeout_us"] > 0, c
for t in r["results"]:
    assert t["ops_per_s"] > 0, t
PY
cistern fabric counters rdma:10.0.0.1:7300
kill -INT $listener
code=0
wait $listener || code=$?
[ $code -eq 0 ] || fail "the listener ended with $code: $(cat listen.out)"
rm -rf "$dir"
say "fabric tools over verbs: ok"
