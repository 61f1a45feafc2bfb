#!/usr/bin/env bash
# cistern fabric info, ping, bench and counters over tcp: every service answers, and what does not says why.
. "$(dirname "$0")/lib.sh"
need python3

export CLUSTER_SAN="" CLUSTER_OSDS=1
cluster_define_all 128M
cluster_start_all

# Each service answers pings, also the module, which has no place for operators' tools otherwise.
ping() { cistern fabric ping "$@" --interval 0s --json; }
for service in mdc osd1 vbs1; do
    ping "$CLUSTER_NET:$(cluster_port "$service")" --count 50 | python3 -c '
import json, sys
r = json.load(sys.stdin)
assert r["sent"] == r["answered"] == 50 and r["lost"] == 0, r
assert 0 < r["min_ns"] <= r["median_ns"] <= r["p99_ns"] <= r["max_ns"], r
print(r["address"], r["role"])'
done
# They stay what they were: the cluster works, and nobody took the tool for a client.
cistern pool create main
cistern volume create data 16M
cistern bench data --write --ops 100 >/dev/null

# Counters: what was asked for shows.
counter() { # SERVICE NAME
    cistern --json fabric counters "$CLUSTER_NET:$(cluster_port "$1")" |
        python3 -c 'import json, sys; print({c["counter"]: c["value"] for c in json.load(sys.stdin)}[sys.argv[1]])' "$2"
}
before=$(counter osd1 fetches)
cistern bench data --write --ops 50 >/dev/null
after=$(counter osd1 fetches)
[ $((after - before)) -eq 50 ] || fail "50 writes made $((after - before)) fetches"

# Why not.
mdc=$CLUSTER_NET:$(cluster_port mdc)
(umask 077 && echo "another secret, long enough" >other)
expect_error "the secrets differ" cistern fabric ping "$mdc" --secret-file other -c 1
expect_error "refused the connection" cistern fabric ping "tcp:127.0.0.1:$(cluster_free_port)" -c 1
expect_error "is not an address" cistern fabric ping localhost -c 1
expect_error "is not an address" cistern fabric ping sim:1:1 -c 1
expect_error "no RDMA device" cistern fabric ping rdma:127.0.0.1:7100 -c 1
expect_error "not a cistern fabric bench" cistern fabric bench "$mdc"
expect_error "give --listen" cistern fabric bench
code=0
cistern fabric ping "tcp:127.0.0.1:$(cluster_free_port)" -c 1 2>/dev/null || code=$?
[ $code -eq 3 ] || fail "nobody there: exit status $code"

# A service that stops answering, and one that goes away in between: losses with a reason, then answers again.
cluster_signal osd1 STOP
code=0
cistern --timeout 500ms fabric ping "$CLUSTER_NET:$(cluster_port osd1)" -c 2 -i 10ms >stopped.out 2>&1 || code=$?
cluster_signal osd1 CONT
[ $code -eq 3 ] || fail "a stopped service: exit status $code: $(cat stopped.out)"
cistern fabric ping "$mdc" -c 40 -i 50ms --timeout 1s >restart.out 2>&1 &
pinger=$!
wait_until 10 grep -q 'seq=3' restart.out || fail "no pings: $(cat restart.out)"
cluster_kill9 mdc
wait_until 10 grep -q 'lost: ' restart.out || fail "no loss was told: $(cat restart.out)"
cluster_start mdc
code=0
wait $pinger || code=$?
grep -q 'lost: ' restart.out || fail "no loss was told: $(cat restart.out)"
tail -n 1 restart.out | grep -q '40 sent' || fail "it ended early: $(cat restart.out)"
[ $code -eq 1 ] || fail "some lost: exit status $code"

# ^C ends it with the figures. In the foreground: otherwise timeout signals twice, and the second ^C is one too many.
timeout --foreground -s INT 1 "$CISTERN_BIN/cistern" fabric ping "$mdc" -i 50ms >interrupted.out 2>&1 || true
tail -n 1 interrupted.out | grep -q ' sent, .* median ' || fail "no summary after ^C: $(cat interrupted.out)"

# bench: one end listens; a second client is sent away while one measures.
"$CISTERN_BIN/cistern" fabric bench --listen tcp:127.0.0.1:0 --spin 10us --verbose >listen.out 2>&1 &
listener=$!
on_exit "kill $listener 2>/dev/null"
wait_until 10 grep -q '^listening on' listen.out || fail "it does not listen: $(cat listen.out)"
address=$(sed -n 's/^listening on \(tcp:[0-9.]*:[0-9]*\):.*/\1/p' listen.out)
expect_error "the secrets differ" cistern fabric bench "$address" --secret-file other
cistern --json fabric bench "$address" --rounds 2 --runtime 300ms --warmup 10ms --depth 4 --size 64k >bench.json &
client=$!
wait_until 10 grep -q "a client came" listen.out
expect_error "one at a time" cistern fabric bench "$address" --rounds 1
wait $client
python3 - bench.json <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
assert r["connection"]["provider"] == "tcp" and r["connection"]["peer_spin_ns"] == 10000, r["connection"]
tests = {(t["test"], t["bytes"], t["depth"]) for t in r["results"]}
assert ("payload fetched", 65536, 4) in tests and ("one-sided read", 8, 1) in tests, tests
for t in r["results"]:
    assert t["ops_per_s"] > 0 and 0 < t["p50_ns"] <= t["p99_ns"], t
assert any("this end sleeps" in a["what"] for a in r["advice"]), r["advice"]
PY
cistern fabric bench "$address" --rounds 1 --runtime 5ms --warmup 1ms >again.out # no pipe: grep -q would end it early
grep -q '^one-sided write' again.out || fail "$(cat again.out)"
kill -INT $listener
code=0
wait $listener || code=$?
[ $code -eq 0 ] || fail "the listener ended with $code"

# info: says something useful everywhere, and is JSON when asked.
cistern fabric info >info.out
grep -q '^Network devices' info.out && grep -q '^Memory' info.out || fail "$(cat info.out)"
cistern fabric info --json | python3 -c '
import json, sys
r = json.load(sys.stdin)
assert any(n["netdev"] == "lo" and n["ip"] == "127.0.0.1" for n in r["netdevs"]), r
assert r["devices"] or r["advice"], r'
expect_error "no RDMA device \"none\"" cistern fabric info --device none
echo "fabric tools: ok"
