#!/usr/bin/env bash
# The benchmark harness itself: a tiny matrix with what is installed and starts quickly; what it writes has the promised shape,
# figures that can be, and the CPU time of every process of ours; it leaves nothing behind, also when it is interrupted.
. "$(dirname "$0")/lib.sh"
need fio nbdkit python3
src=${CISTERN_SRC:-$here/../..}
export CISTERN_BENCH_CACHE=${CISTERN_BENCH_CACHE:-${CISTERN_BIN%/bin}/bench-cache}
harness=(python3 -B "$src/bench/harness" --allow-sanitizers --ram-dir "$CLUSTER_DIR/ram" --disk-dir "$CLUSTER_DIR/disk")
bench() { "${harness[@]}" "$@"; }
mkdir ram disk

bench --list >list.txt
grep -q 'write-4k-d32' list.txt && grep -q 'cistern-3' list.txt || fail "--list says: $(cat list.txt)"
expect_error "no contestant 'nobody'" bench --only nobody
expect_error "no shape" bench --shapes some
expect_error "no medium" bench --media tape
if ldd "$CISTERN_BIN/cistern-osd" | grep -q libasan; then
    expect_error "are not published" bench --publish pub
    expect_error "figures of them mean nothing" env PYTHONDONTWRITEBYTECODE=1 python3 -B "$src/bench/harness" --quick
fi

bench --quick --only 'cistern-2,cistern-nbd,nbdkit,tgt,file,ping-pong' --shapes 'read-4k-d1,write-4k-d32' --rounds 2 --seconds 0.3 \
    --warmup 0.1 --volume 16M --out out >table.txt 2>progress.txt || fail "bench: $(cat progress.txt)"
python3 - out/result.json <<'PY'
import json
import sys
r = json.load(open(sys.argv[1]))
for key in ("schema", "started", "command", "settings", "revision", "sanitizers", "machine", "versions", "contestants", "skipped",
            "idle_cpu_us_per_second", "results", "seconds"):
    assert key in r, key
assert r["complete"] is True
processes = {"cistern-2": {"mdc", "osd1", "osd2", "osd3"}, "cistern-nbd": {"mdc", "osd1", "osd2", "osd3", "nbdkit"},
             "nbdkit": {"nbdkit"}, "tgt": {"tgtd"}, "file": set(), "ping-pong": set()}
left_out = {s["contestant"] for s in r["skipped"]}
assert not left_out - {"tgt"}, r["skipped"]  # its engine for fio needs fio's source
seen = {(x["shape"], x["contestant"]): x for x in r["results"]}
wanted = {(s, c) for s in ("read-4k-d1", "write-4k-d32") for c in processes if c not in left_out} - {("write-4k-d32", "ping-pong")}
assert set(seen) == wanted, set(seen) ^ wanted
for (shape, who), x in seen.items():
    assert x["medium"] == "ram" and len(x["repeats"]) == 2, (shape, who)
    for row in x["repeats"]:
        for figure in ("ios", "iops", "mb_per_s", "avg_us", "p50_us", "p99_us", "p999_us", "client_cpu_us", "cpu_us",
                       "machine_busy_cpus"):
            assert row[figure] > 0, (shape, who, figure, row[figure])
        assert row["p50_us"] <= row["p99_us"] <= row["p999_us"], (shape, who)
        assert abs(row["iops"] * row["seconds"] / row["ios"] - 1) < 0.1, (shape, who, row["iops"], row["seconds"], row["ios"])
        # Every process of the contestant, by name; what did the work has used time; the sum is the sum.
        assert set(row["services_cpu_us"]) == processes[who], (who, row["services_cpu_us"])
        used = [name for name, us in row["services_cpu_us"].items() if us > 0]
        for name in processes[who] - {"mdc"}:
            assert name in used, (shape, who, name, row["services_cpu_us"])
        total = row["client_cpu_us"] + sum(row["services_cpu_us"].values())
        assert abs(total - row["cpu_us"]) < 1e-6 * total, (shape, who)
        # No more than the machine has: CPU time per I/O times the rate.
        assert row["cpu_us"] * row["iops"] / 1e6 <= r["machine"]["cpus"] * 1.5, (shape, who, row["cpu_us"], row["iops"])
    assert min(y["iops"] for y in x["repeats"]) <= x["median"]["iops"] <= max(y["iops"] for y in x["repeats"])
print(f"{len(seen)} results are as they should be")
PY
grep -q '4 KiB random read, depth 1 (ram)' table.txt && grep -q 'Cistern, 2 copies' table.txt || fail "the table: $(cat table.txt)"
[ -z "$(ls ram)" ] || fail "left behind: $(ls ram)"

# Where the time goes: what the services counted is there, and is no more than what the client saw.
if bench --fio-engine >engine.txt; then
    bench --stages --media ram --only cistern-1 --shapes 'read-4k-d1,write-4k-d1' --seconds 0.5 --warmup 0.1 --volume 16M --out out3 >stages.txt ||
        fail "bench --stages: $(cat stages.txt)"
    python3 - out3/stages.json <<'PY'
import json
import sys
rows = {r["shape"]: r for part in json.load(open(sys.argv[1])) for r in part["rows"]}
assert set(rows) == {"read-4k-d1", "write-4k-d1"}, rows
for r in rows.values():
    assert 0 < r["module_us"] < r["client_us"], r
    assert set(r["cpu_us"]) == {"client", "mdc", "osd1", "osd2", "osd3"}, r
    assert r["osd_sends_per_io"] > 0 and r["osd_receives_per_io"] > 0, r
assert rows["write-4k-d1"]["device"]["flush"]["per_io"] > 0.9, rows["write-4k-d1"]  # at depth 1 nobody shares a flush
PY
fi

# Interrupted in the middle, as ^C does: nothing is left, no process and no file, but what was measured.
: >interrupted.txt
"${harness[@]}" --quick --only 'cistern-1,nbdkit' --shapes read-4k-d1 --rounds 20 --seconds 0.5 --volume 16M --out out2 >>interrupted.txt 2>&1 &
pid=$!
wait_until 60 grep -q '^\[1/' interrupted.txt || fail "it does not begin: $(cat interrupted.txt)"
measured() { # the number of measurements that are kept, while it runs and after it
    python3 -c 'import json
r = json.load(open("out2/result.json"))
assert r["complete"] is False, r
print(sum(len(x["repeats"]) for x in r["results"]))'
}
two_measured() { [ -e out2/result.json ] && [ "$(measured)" -ge 2 ]; }
wait_until 60 two_measured || fail "nothing is written while it measures: $(cat interrupted.txt)"
children=$(pgrep -P "$pid" | tr '\n' ' ')
[ -n "$children" ] || fail "no processes of it"
kill -TERM $pid
rc=0
wait $pid || rc=$?
[ $rc = 130 ] || fail "it ended with $rc: $(cat interrupted.txt)"
for c in $children; do [ ! -d "/proc/$c" ] || fail "process $c of it still runs: $(tr '\0' ' ' <"/proc/$c/cmdline")"; done
[ -z "$(ls ram)" ] || fail "left behind: $(ls ram)"
kept=$(measured)
[ "$kept" -ge 2 ] && [ "$kept" -lt 40 ] || fail "$kept measurements are kept"
grep -q INTERRUPTED out2/table.md && grep -q 'Cistern, 1 copy' out2/table.md || fail "the table of what was measured: $(cat out2/table.md)"
echo "interrupted: nothing is left but $kept measurements"
