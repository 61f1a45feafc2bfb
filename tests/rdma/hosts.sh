# hosts.sh: two guests as two hosts, a at 10.0.0.1 and b at 10.0.0.2, on one cable that can be cut. Sourced, after lib.sh.
# On a: mdc, osd1, vbs1. On b: osd2 and the clients.

# hosts_start SECONDS: both guests boot; the services are defined, not started. The test must be over within SECONDS.
hosts_start() {
    local name cable=$guest_dir/cable
    mkdir -p "$cable"
    "$here/relay.py" "$cable" a b &
    hosts_relay=$!
    hosts_end=$((SECONDS + $1))
    trap 'kill $hosts_relay 2>/dev/null || true; guest_cleanup' EXIT
    hosts_until 10 test -p "$cable/cable"
    GUEST_NET=eth0 GUEST_CPUS=${HOSTS_CPUS:-1} GUEST_MEMORY=3072
    for name in a b; do
        [ $name = a ] && GUEST_ADDRESS=10.0.0.1 || GUEST_ADDRESS=10.0.0.2
        GUEST_LABEL="$name: "
        GUEST_OPTIONS=(-netdev "dgram,id=n0,local.type=unix,local.path=$cable/$name,remote.type=unix,remote.path=$cable/relay-$name"
            -device "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:0${GUEST_ADDRESS##*.},host_mtu=4200,romfile=")
        guest_start $name env "CISTERN_BIN=${HOSTS_BIN:-$CISTERN_BUILD/bin}" CI=1 "$here/guest_agent.sh"
    done
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$guest_dir/secret"
    for name in a b; do
        cp "$guest_dir/secret" "$(guest_out $name)/secret"
        on $name '(umask 077 && cp $OUT/secret $CLUSTER_DIR/secret) && guest_ports && cluster_define_all 64M &&
            sed -i "s/rdma:10.0.0.2:7100/rdma:10.0.0.1:7100/; s/rdma:10.0.0.2:7105/rdma:10.0.0.1:7105/" $CLUSTER_DIR/*.args $CLUSTER_DIR/*.conf'
    done
}

hosts_until() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

# on HOST SHELL-TEXT: runs it there and prints what it said; its code.
on() {
    local out n
    out=$(guest_out "$1")
    n=$(cat "$out/next" 2>/dev/null || echo 0) # in a file: this may run in a subshell
    echo $((n + 1)) >"$out/next"
    printf '%s\n' "$2" >"$out/do.$n.new"
    mv "$out/do.$n.new" "$out/do.$n"
    until [ -e "$out/rc.$n" ]; do
        if [ $SECONDS -ge "$hosts_end" ] || ! kill -0 "${guest_pid[$1]}" 2>/dev/null; then
            echo "host $1 does not answer: $2" >&2
            return 124
        fi
        sleep 0.05
    done
    cat "$out/said.$n"
    return "$(cat "$out/rc.$n")"
}

# cable "cut a b" | "cut b a" | heal: in force when it returns.
cable() {
    rm -f "$guest_dir/cable/cable-state"
    echo "$1" >"$guest_dir/cable/cable"
    hosts_until 10 test -e "$guest_dir/cable/cable-state"
}
cable_cut() { cable "cut a b" && cable "cut b a"; }

# link HOST on|off: the port of that host goes down or up (its kernel sees that).
link() { guest_monitor "$1" "set_link n0 $2"; }

# seen SECONDS HOST FILE TEXT: waits until TEXT is in $OUT/FILE there; sets seen_ms, how long that took.
seen() {
    local begin
    begin=$(date +%s%3N)
    hosts_until "$1" grep -qs -- "$4" "$(guest_out "$2")/$3" || { echo "FAILED: no '$4' on host $2 within $1 s" >&2; return 1; }
    seen_ms=$(($(date +%s%3N) - begin))
}

# hosts_stop CODE: ends both; with a code above 0 they show what the services said. CODE, or 1 when a service crashed.
hosts_stop() {
    local name rc=$1 code
    for name in a b; do
        echo "$1" >"$(guest_out $name)/bye.new"
        mv "$(guest_out $name)/bye.new" "$(guest_out $name)/bye"
    done
    for name in a b; do
        code=0
        guest_wait $name 90 || code=$?
        [ $code = 0 ] || [ "$rc" != 0 ] || rc=1
    done
    return "$rc"
}
