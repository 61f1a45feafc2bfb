#!/usr/bin/env bash
# In the guest: rounds of verified I/O of many shapes, directly and through the gateway, with clients, volumes, attachments and
# connections that come and go, for SOAK_SECONDS. What each service holds at rest (connections, operations, exposed memory,
# windows, registrations, queue pairs, buffers, descriptors) is compared between the third round and the last. Credits are lent by
# activity, so of them the cluster's sum is compared: lent by all, without what their peers hold. Buffers and windows are kept for the
# next time when they have come back: none may be out.
CLUSTER_OSDS=2
. "$(dirname "$0")/guest_lib.sh"
need fio nbdkit rdma

pid_of() { cat "$CLUSTER_DIR/$1.pid"; }
counted() { awk -v name="$1" '$1 == name { print $2 }' "$CLUSTER_DIR/counters"; }
# What the fabric, the kernel's RDMA and the system count for each service; the name first.
held() {
    local s kind counters=$CLUSTER_DIR/counters lent=0
    for s in $(cluster_services); do
        timeout 60 "${CISTERN_BIN%/bin}/bin-tests/guest_tool" "$CLUSTER_DIR/secret" "$CLUSTER_NET:0" counters "$CLUSTER_NET:$(cluster_port "$s")" |
            tr -s ' ' >"$counters"
        sed -n -E "s/^(conns_open|conns_unproved|ops_pending|mems|exposures|buffers_out|qps|windows_out) /$s \1 /p" "$counters"
        lent=$((lent + $(counted credits_lent) - $(counted credits_held)))
        echo "$s mrs_but_chunks $(($(counted mrs) - $(counted chunks)))"
        for kind in qp cq cm_id pd; do
            echo "$s kernel_$kind $(rdma resource show $kind | grep -c "pid $(pid_of "$s") ")"
        done
        echo "$s kernel_mr_but_chunks $(($(rdma resource show mr | grep -c "pid $(pid_of "$s") ") - $(counted chunks)))"
        echo "$s descriptors $(find "/proc/$(pid_of "$s")/fd" -type l 2>/dev/null | wc -l)"
    done
    echo "cluster credits_under_way $lent"
}
# At rest: the same twice, three seconds apart.
held_at_rest() {
    local tries
    held >"$CLUSTER_DIR/held.1"
    for tries in $(seq 40); do
        sleep 3
        held >"$CLUSTER_DIR/held.2"
        cmp -s "$CLUSTER_DIR/held.1" "$CLUSTER_DIR/held.2" && break
        mv "$CLUSTER_DIR/held.2" "$CLUSTER_DIR/held.1"
    done
    cat "$CLUSTER_DIR/held.1"
}
memory() { local s; for s in $(cluster_services); do awk -v s="$s" '/^VmRSS/ { printf "%s %d MiB, ", s, $2 / 1024 }' "/proc/$(pid_of "$s")/status"; done; }

round() { # NUMBER
    local shape rw bs depth bytes name i jobs=()
    local shapes=("randwrite 4k 16 1M" "write 128k 4 4M" "randrw 1536 4 192k" "randwrite 64k 8 4M" "write 1M 2 4M")
    cistern volume create "round$1" 4M >/dev/null
    CISTERN_CONFIG=$CLUSTER_DIR/client.conf guest_nbd direct direct
    CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf guest_nbd gated gated
    CISTERN_CONFIG=$CLUSTER_DIR/client.conf guest_nbd passing "round$1"
    guest_fio passing randwrite 4k 4 256k --size=4M >/dev/null
    for i in 0 1; do # three rounds have all of them
        shape=${shapes[($1 * 2 + i) % 5]}
        read -r rw bs depth bytes <<<"$shape"
        for name in direct gated; do
            guest_fio $name "$rw" "$bs" "$depth" "$bytes" --size=16M --randseed="$1" >/dev/null &
            jobs+=($!)
        done
        for name in "${jobs[@]}"; do wait "$name" || fail "round $1, $shape"; done
        jobs=()
    done
    timeout 60 "${CISTERN_BIN%/bin}/bin-tests/guest_tool" "$CLUSTER_DIR/secret" "$CLUSTER_NET:0" many "$CLUSTER_NET:$(cluster_port osd1)" 20 >/dev/null ||
        true # they only come and go
    if [ $(($1 % 2)) = 0 ]; then cluster_kill9 passing; else cluster_stop passing; fi
    cluster_stop direct
    cluster_stop gated
    cistern detach "round$1" client1 >/dev/null
    cistern volume delete "round$1" --wait >/dev/null
}

guest_ports
cluster_define_all 192M
cluster_start_all
cistern pool create main
cistern volume create direct 16M
cistern volume create gated 16M
n=0
while [ $n -lt 4 ] || [ "$SECONDS" -lt "$SOAK_SECONDS" ]; do
    n=$((n + 1))
    round $n
    if [ $n = 3 ]; then
        held_at_rest >"$CLUSTER_DIR/held.start"
        cp "$CLUSTER_DIR/held.start" "$OUT/"
    fi
    say "round $n: verified. Resident: $(memory)"
done
held_at_rest >"$CLUSTER_DIR/held.end"
cp "$CLUSTER_DIR/held.end" "$OUT/"
column -c 150 "$CLUSTER_DIR/held.end"
diff "$CLUSTER_DIR/held.start" "$CLUSTER_DIR/held.end" || fail "at rest a service holds other than at the start (above: start <, end >)"
for s in $(cluster_services); do cluster_stop "$s"; done
say "soak: $n rounds, everything verified, nothing leaked"
