#!/usr/bin/env bash
# timings.sh [ROUNDS [PROVIDER...]]: how long it takes until a death, a cut or a refusal is noticed between two hosts (guests on one
# cable), over rdma and tcp, and until 1,000 connections are up. Prints a table: each round's milliseconds. Not a ctest: no test
# asserts a time.
: "${CISTERN_BUILD:=$(cd "$(dirname "$0")/../.." && pwd)/build-release}"
. "$(dirname "$0")/lib.sh"
. "$here/hosts.sh"
rounds=${1:-3}
providers=("${@:2}")
[ ${#providers[@]} -gt 0 ] || providers=(rdma tcp)
declare -A took
order=()
record() { # WHAT MS
    [ -n "${took[$1]:-}" ] || order+=("$1")
    took[$1]="${took[$1]:-} $2"
}

# serving [PATIENT]: a serves at port 7500 (not the cluster's); watching FILE [MS]: b is connected to it, and pings every MS.
serving() {
    on a 'tool() { exec "${CISTERN_BIN%/bin}/bin-tests/guest_tool" "$CLUSTER_DIR/secret" "$CLUSTER_NET:0" "$@"; }
          rm -f $OUT/served; (tool serve '"$net:10.0.0.1:7500 ${1:-}"') >$OUT/served 2>&1 & server=$!' &&
        seen 120 a served serving
}
watching() {
    on b "tool() { exec \"\${CISTERN_BIN%/bin}/bin-tests/guest_tool\" \"\$CLUSTER_DIR/secret\" \"\$CLUSTER_NET:0\" \"\$@\"; }
          rm -f \$OUT/$1; (tool watch $net:10.0.0.1:7500 ${2:-}) >\$OUT/$1 2>&1 & client=\$!" &&
        seen 120 b "$1" up && { [ -z "${2:-}" ] || seen 120 b "$1" answered; }
}
quiet_end() { on a 'kill -9 $server; kill -CONT $server; wait $server' || true; on b 'kill -9 $client; wait $client' || true; } >/dev/null 2>&1

# The hosts' clocks differ, but the times of the files that they write are this machine's.
written_ms() { date -r "$1" +%s%3N; } # FILE

# noticed WHAT HOST...: from the event, which was at $event, to the last line that each of these hosts says: a its server, b its client.
noticed() {
    local what=$1 host file why
    for host in "${@:2}"; do
        [ "$host" = a ] && file=served || file=w
        seen 90 "$host" "$file" '^[0-9]* down ' || return
        file=$(guest_out "$host")/$file
        why=$(sed -n 's/^[0-9]* down //p' "$file" | head -n 1)
        record "$net: $what, noticed by $([ "$host" = a ] && echo server || echo client): $why" $(($(written_ms "$file") - event))
    done
}
happens() { # COMMAND...: the event, at the latest
    "$@" || return
    event=$(date +%s%3N)
}
signal() { # HOST SIGNAL PID-VARIABLE
    on "$1" "echo >\$OUT/event; kill -$2 \$$3" && event=$(written_ms "$(guest_out "$1")/event")
}

one_round() {
    local traffic kind
    serving && watching w && signal a 9 server && noticed "the server's process is killed" b || return
    quiet_end
    serving && watching w && signal b 9 client && noticed "the client's process is killed" a || return
    quiet_end
    serving && watching w 100 && signal a STOP server && noticed "the server's process stands still" b || return
    quiet_end
    serving && watching w && signal b STOP client && noticed "the client's process stands still" a || return
    quiet_end
    for traffic in "" 100; do
        kind=idle
        [ -z "$traffic" ] || kind="with traffic"
        serving && watching w $traffic && happens link a off && noticed "the server's port goes down, $kind" a b || return
        link a on
        quiet_end
        serving && watching w $traffic && happens cable_cut && noticed "silent cut, $kind" a b || return
        cable heal
        quiet_end
    done
    refusals && many
}

timed() { # WHAT ADDRESS: a connection that does not come up; the guest's own clock, which is the host's
    local ms why
    read -r ms why < <(on b "begin=\$(date +%s%3N); (tool watch $2 2>/dev/null) | { read -r at what why; echo \$((at - begin)) \$why; }")
    record "$net: $1: $why" "$ms"
}
refusals() {
    timed "connect where nobody listens" "$net:10.0.0.1:7599"
    timed "connect to an address that no host has" "$net:10.0.0.77:7500"
    cable_cut
    timed "connect to a host that was cut off" "$net:10.0.0.1:7500"
    cable heal
}

many() {
    local ms
    serving 1 || return
    ms=$(on b "(tool many $net:10.0.0.1:7500 1000) 2>&1 | tail -n 1") || { echo "FAILED: $ms"; return 1; }
    record "$net: 1,000 connections at once, until all are up" "$(sed -E 's/.* in ([0-9]+) ms/\1/' <<<"$ms")"
    quiet_end
}

hosts_start $((120 + rounds * ${#providers[@]} * 240))
rc=0
for _ in $(seq "$rounds"); do
    for net in "${providers[@]}"; do one_round || { rc=1; break 2; }; done
done
hosts_stop $rc || rc=$?
printf '\n%-90s %s\n' what "milliseconds, each round"
for what in "${order[@]}"; do printf '%-90s %s\n' "$what" "${took[$what]}"; done
exit $rc
