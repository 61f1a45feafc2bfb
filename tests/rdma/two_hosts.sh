#!/usr/bin/env bash
# Two hosts on one cable over RDMA: under a verified load the cable is cut silently, in both directions and in one, and ports
# go down. Every operation ends, clients go on when it is whole again, and the data is right. Times are told, not asserted.
. "$(dirname "$0")/lib.sh"
. "$here/hosts.sh"

check() {
    on a 'cluster_start mdc && cluster_start osd1' || return
    on b 'cluster_start osd2' || return
    on a 'cluster_start vbs1 && cistern pool create main && cistern volume create data 16M && cistern volume create gated 4M' || return
    on b 'guest_nbd nbd data && CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf guest_nbd gated gated &&
        guest_fio nbd write 128k 4 4M --size=16M && guest_fio gated randwrite 4k 8 512k --size=4M' || return
    idle_cut || return
    load_and_cuts
}

# Two connections from b to osd1: one idle, one with a call every 300 ms.
watchers() {
    on b 'watch_port 7101 >$OUT/idle 2>&1 & watch_port 7101 300 >$OUT/busy 2>&1 &'
    seen 60 b idle up && seen 60 b busy answered && ! grep -q down "$(guest_out b)"/{idle,busy}
}

# at_rest HOST SERVICE: none of its operations is pending (at some moment: it goes on reading the table).
at_rest() {
    hosts_until 60 on "$1" "[ \"\$(guest_counter $2 ops_pending)\" = 0 ]" || { echo "FAILED: $2 has operations pending"; return 1; }
}

# A silent cut with nothing under way is noticed by the signs of life that do not come; a call on its way ends, once.
idle_cut() {
    local before
    on b 'watch_port() { "${CISTERN_BIN%/bin}/bin-tests/guest_tool" "$CLUSTER_DIR/secret" "$CLUSTER_NET:0" watch rdma:10.0.0.1:$1 ${2-}; }'
    watchers || watchers || { echo "FAILED: no connection stays"; tail "$(guest_out b)"/{idle,busy}; return 1; }
    before=$(on a 'guest_counter osd1 conns_open')
    cable_cut || return
    seen 60 b busy down && echo "silent cut, with traffic: noticed after $seen_ms ms" || return
    seen 60 b idle down && echo "silent cut, idle: noticed at most $seen_ms ms later" || return
    hosts_until 60 eval '[ "$(on a "guest_counter osd1 conns_open")" -lt "$before" ]' || { echo "FAILED: osd1 keeps dead connections"; return 1; }
    cat "$(guest_out b)/busy"
    ! grep -q WRONG "$(guest_out b)/busy" || return
    at_rest a osd1 && cable heal
}

load_and_cuts() {
    local fault
    on b 'guest_fio nbd randwrite 4k 8 100M --size=16M --time_based --runtime=40 >$OUT/load 2>&1 & load=$!
          guest_fio gated randwrite 2k 4 100M --size=4M --time_based --runtime=40 >$OUT/load2 2>&1 & load2=$!'
    for fault in "cable cut a b;cable cut b a" "link a off" "cable cut a b" "link b off" "cable cut b a"; do
        sleep 2
        echo "$fault"
        case $fault in
        cable*) (IFS=';'; for cut in $fault; do cable "${cut#cable }"; done) && sleep 4 && cable heal || return ;;
        link*) link "${fault:5:1}" off && sleep 2 && link "${fault:5:1}" on || return ;;
        esac
    done
    seen 300 b load verified && seen 300 b load2 verified || { cat "$(guest_out b)"/load*; return 1; }
    echo "verified loads went on through all of that"
    on b 'wait $load && wait $load2 && nbdcopy "$(cluster_nbd_uri nbd)" $CLUSTER_DIR/nbd.img && cluster_stop nbd && cluster_stop gated' || return
    hosts_until 60 eval 'on a "cistern status" | grep -q "health *ok"' || { on a 'cistern status'; return 1; }
    # what is at rest: no call and no exposed memory is left of all the connections that ended
    for fault in "a mdc" "a osd1" "b osd2" "a vbs1"; do
        at_rest "${fault% *}" "${fault#* }" || return
    done
}

hosts_start 840
rc=0
check || rc=1
hosts_stop $rc
