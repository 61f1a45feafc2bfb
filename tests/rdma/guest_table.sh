#!/usr/bin/env bash
# In the guest: table replication seen for what it is. The metadata controller's process stands still (SIGSTOP), far longer than
# connections live without a sign of life; gateways, modules and clients go on reading its table, which its device serves
# without it, and I/O goes on. What needs the process (a session, a new connection) waits, and goes on after SIGCONT.
. "$(dirname "$0")/guest_lib.sh"
need fio nbdkit python3

mdc_pid() { cat "$CLUSTER_DIR/mdc.pid"; }
mdc_state() { sed -E 's/.*\) (.) .*/\1/' "/proc/$(mdc_pid)/stat"; }
mdc_cpu() { sed -E 's/.*\) //' "/proc/$(mdc_pid)/stat" | awk '{ print $12 + $13 }'; } # utime + stime, proc(5)

# Of each connection by which the controller's table is read: its number, who reads, and the number of the packet that is
# expected next: it counts on with each READ (the reader sends nothing else while nobody answers).
table_connections() {
    rdma -j -d resource show qp | python3 -c '
import json, sys
qps = json.load(sys.stdin)
mdc = int(sys.argv[1])
comm = {q["lqpn"]: q["comm"] for q in qps if q["type"] == "RC"}
domain = int(sys.argv[2])
for q in qps:
    if q["type"] == "RC" and q["pid"] == mdc and q["pdn"] == domain:
        print(q["lqpn"], comm.get(q["rqpn"], "nobody"), q["rq-psn"])
' "$(mdc_pid)" "$(table_domain)"
}
# The protection domain that the largest registration of the controller is in: the table.
table_domain() {
    rdma -j -d resource show mr | python3 -c '
import json, sys
print(max((m for m in json.load(sys.stdin) if m.get("pid") == int(sys.argv[1])), key=lambda m: m["mrlen"])["pdn"])' "$(mdc_pid)"
}
field() { tail -n 1 "$CLUSTER_DIR/table.out" | tr ' ' '\n' | sed -n "s/^$1=//p"; }
hw() { cat "/sys/class/infiniband/rxe1/ports/1/hw_counters/$1"; }

guest_ports
cluster_define_all 96M
cluster_start_all
cistern pool create main
cistern volume create direct 8M
cistern volume create gated 8M
guest_nbd direct direct
CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf guest_nbd gated gated
guest_tool table mdc 200 >"$CLUSTER_DIR/table.out" &
on_exit "kill $! 2>/dev/null"
has_session() { [ "$(field session)" = 1 ]; }
wait_until 20 has_session || fail "no session with the controller"
guest_fio direct write 64k 4 2M --size=8M
guest_fio gated write 64k 4 2M --size=8M
say "services are up"

cluster_signal mdc STOP
on_exit 'cluster_signal mdc CONT'
sleep 8 # connections without a sign of life end after 5 s: sessions do, those that read tables do not
[ "$(mdc_state)" = T ] || fail "the controller runs"
[ "$(field session)" = 0 ] || fail "a session with a process that stands still"
cpu=$(mdc_cpu)
refreshes=$(field refreshes)
packets=$(hw rcvd_pkts)
served=$(guest_counter vbs1 reads)
table_connections >"$CLUSTER_DIR/before"
cat "$CLUSTER_DIR/before"
for who in cistern-osd cistern-vbs ' cistern ' guest_tool; do # the third is the library's thread, in nbdkit
    grep -q "$who" "$CLUSTER_DIR/before" || fail "no $who reads the table"
done
say "the controller stands still for 8 s: sessions are gone, readers are there"

guest_fio direct randwrite 4k 8 768k --size=8M
guest_fio gated randwrite 4k 8 768k --size=8M
cluster_launch vbs2 # a new gateway connects to the process, so it has to wait
sleep 5
table_connections >"$CLUSTER_DIR/after"
cat "$CLUSTER_DIR/after"
python3 - "$CLUSTER_DIR/before" "$CLUSTER_DIR/after" <<'PY' || fail "somebody does not refresh from a controller that stands still"
import sys
before, after = ({l.split()[0]: (l.split()[1], int(l.split()[2])) for l in open(f)} for f in sys.argv[1:])
bad = [f"{q}: {who}" for q, (who, psn) in before.items() if who != "nobody" and (q not in after or (after[q][1] - psn) % (1 << 24) < 3)]
for b in bad:
    print("no READs by connection", b)
sys.exit(bool(bad))
PY
[ "$(mdc_state)" = T ] || fail "the controller runs"
[ "$(mdc_cpu)" = "$cpu" ] || fail "the controller used its CPU: $cpu, $(mdc_cpu) ticks"
[ "$(hw rcvd_pkts)" -gt "$packets" ] || fail "the device counts no packets"
[ "$(field refreshes)" -gt $((refreshes + 10)) ] || fail "a reader's refreshes: $refreshes, then $(field refreshes)"
[ "$(guest_counter vbs1 reads)" -gt "$served" ] || fail "the gateway's READs: $served, then $(guest_counter vbs1 reads)"
cluster_running vbs2 || fail "a gateway that cannot reach the controller must wait for it"
[ ! -e "$CLUSTER_DIR/vbs2.ready" ] || fail "a gateway without a table says that it is ready"
version=$(field version)
say "READs were answered, and the controller used no CPU: $(field refreshes) refreshes by one reader"

cluster_signal mdc CONT
wait_until 30 test -e "$CLUSTER_DIR/vbs2.ready" || fail "the new gateway did not become ready"
cistern volume create after 8M
moved() { [ "$(field version)" -gt "$version" ] && [ "$(field session)" = 1 ]; }
wait_until 20 moved || fail "the reader did not see the change"
guest_fio direct randwrite 4k 8 512k --size=8M
cluster_stop direct
cluster_stop gated
say "table replication: ok"
