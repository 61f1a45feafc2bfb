#!/usr/bin/env bash
# What an operation costs on the fabric, counted by process (bench/op_counts.sh): no message, payload or copy too many.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CISTERN_BIN=${CISTERN_BIN:-$here/../../build/bin}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=1}
command -v python3 >/dev/null || { echo "SKIPPED: python3 is not installed (./dev deps)"; exit 77; }
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
"$here/../../bench/op_counts.sh" --json --ops 400 >"$counts"
python3 - "$counts" <<'PY'
import json, sys
cases = json.load(open(sys.argv[1]))
assert len(cases) == 8, len(cases)
wrong = []
def expect(case, process, counter, low, high):
    value = case["cost"][process][counter]
    if not low <= value <= high:
        wrong.append(f"{case['path']} {case['op']} depth {case['depth']}: {process} {counter} {value}, not {low} to {high}")
for c in cases:
    payload = "fetches" if c["op"] == "write" else "pushes"
    other = "pushes" if c["op"] == "write" else "fetches"
    hops = [("client", 1), ("osd", 1)] + ([("gateway", 2)] if c["path"] == "gateway" else [])
    for process, messages in hops:
        expect(c, process, "messages_sent", messages - 0.1, messages + 0.3)
        expect(c, process, "registrations", -0.05, 0.05)
        expect(c, process, "protocol_errors", 0, 0)
    for process, _ in hops[1:]:
        expect(c, process, payload, 0.95, 1.05)
        expect(c, process, other, -0.05, 0.05)
    # On tcp a payload is copied at most once by each process that receives it (what recv had taken along).
    for process, _ in hops:
        expect(c, process, "bytes_copied", -100, 4096 + 300)
    expect(c, "mdc", "messages_sent", -0.3, 0.3)
print("\n".join(wrong))
sys.exit(bool(wrong))
PY
echo "op counts: ok"
