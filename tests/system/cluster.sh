# cluster.sh: a cluster of real processes on loopback, for ./dev up and the system tests. Sourced.
#
# Needs CISTERN_BIN (the programs) and CLUSTER_DIR (where state, logs and pids go). Each service NAME has
# CLUSTER_DIR/NAME.args (its command line, one word a line), NAME.pid, NAME.log, NAME.ready.
# Ports are picked free at the first start and kept in CLUSTER_DIR/ports.

CISTERN_PLUGIN=${CISTERN_PLUGIN:-${CISTERN_BIN%/bin}/lib/nbdkit-cistern-plugin.so}

CLUSTER_PATIENCE=${CLUSTER_PATIENCE:-30} # seconds for a service to start or to stop

# A free loopback port, different at each call. Below those that the system gives to outgoing connections: one of them could have it
# while its service is being restarted.
cluster_free_port() {
    python3 - <<'PY'
import random
import socket
while True:
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(10000, 32000)))
        break
    except OSError:
        s.close()
print(s.getsockname()[1])
PY
}

# cluster_port NAME: the port kept for NAME.
cluster_port() {
    local f=$CLUSTER_DIR/ports/$1
    mkdir -p "$CLUSTER_DIR/ports"
    [ -s "$f" ] || cluster_free_port >"$f"
    cat "$f"
}

# A process whose first thread is gone (a zombie) may have others that are still ending, and with them its ports and locks.
cluster_running() { # NAME
    local pid threads
    pid=$(cat "$CLUSTER_DIR/$1.pid" 2>/dev/null) && [ -n "$pid" ] && [ -d "/proc/$pid" ] || return 1
    grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null || return 0
    threads=$(ls "/proc/$pid/task" 2>/dev/null | wc -l)
    [ "$threads" -gt 1 ]
}

CLUSTER_METRICS=${CLUSTER_METRICS:-} # not empty: services tell their metrics, on loopback

# cluster_define NAME PROGRAM ARG...: remembers the command line of a service.
cluster_define() {
    local name=$1
    shift
    printf '%s\n' "$@" >"$CLUSTER_DIR/$name.args"
    [ -z "$CLUSTER_METRICS" ] || printf '%s\n' --metrics "127.0.0.1:$(cluster_port "$name.metrics")" >>"$CLUSTER_DIR/$name.args"
}

# cluster_launch NAME: starts it, does not wait.
cluster_launch() {
    local name=$1 args
    mapfile -t args <"$CLUSTER_DIR/$name.args"
    rm -f "$CLUSTER_DIR/$name.ready"
    setsid "${args[@]}" >>"$CLUSTER_DIR/$name.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER_DIR/$name.pid"
}

# wait_until SECONDS COMMAND...: polls until it succeeds.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

cluster_is_ready() { # NAME
    [ -e "$CLUSTER_DIR/$1.ready" ] || ! cluster_running "$1"
}

# cluster_start NAME: starts it and waits until it says that it is ready.
cluster_start() {
    local name=$1
    cluster_launch "$name"
    if ! wait_until "$CLUSTER_PATIENCE" cluster_is_ready "$name" || ! cluster_running "$name"; then
        echo "$name did not become ready; the end of its log:" >&2
        tail -n 15 "$CLUSTER_DIR/$name.log" >&2
        return 1
    fi
}

cluster_signal() { # NAME SIGNAL
    local pid
    pid=$(cat "$CLUSTER_DIR/$1.pid" 2>/dev/null) || return 0
    kill "-$2" "$pid" 2>/dev/null || true
}

cluster_gone() { # NAME
    ! cluster_running "$1"
}

cluster_kill9() { # NAME; the kernel may take its time to tear down what it had, queue pairs above all
    cluster_signal "$1" KILL
    wait_until "$CLUSTER_PATIENCE" cluster_gone "$1" || { echo "$1 was killed and is still there" >&2; return 1; }
}

cluster_stop() { # NAME: orderly, then hard
    cluster_running "$1" || return 0
    cluster_signal "$1" TERM
    wait_until "$CLUSTER_PATIENCE" cluster_gone "$1" || cluster_kill9 "$1"
}

# ---- the array: a real iSCSI target daemon ----
cluster_tgt() { # ARG...: tgtadm on our daemon
    tgtadm -C "$(cat "$CLUSTER_DIR/tgt.control")" "$@"
}

cluster_start_array() { # [BYTES]
    local control port
    port=$(cluster_port tgt)
    [ -s "$CLUSTER_DIR/tgt.control" ] || echo $((port % 32000 + 100)) >"$CLUSTER_DIR/tgt.control"
    control=$(cat "$CLUSTER_DIR/tgt.control")
    [ -e "$CLUSTER_DIR/lun.img" ] || truncate -s "${1:-512M}" "$CLUSTER_DIR/lun.img"
    setsid tgtd -f -C "$control" --iscsi "portal=127.0.0.1:$port" >>"$CLUSTER_DIR/tgt.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER_DIR/tgt.pid"
    wait_until 10 cluster_tgt_answers || { echo "the array did not start: see $CLUSTER_DIR/tgt.log" >&2; return 1; }
    cluster_tgt --lld iscsi --op new --mode target --tid 1 -T iqn.2026-01.org.cistern:array
    cluster_tgt --lld iscsi --op new --mode logicalunit --tid 1 --lun 1 -b "$CLUSTER_DIR/lun.img"
    cluster_tgt --lld iscsi --op bind --mode target --tid 1 -I ALL
    touch "$CLUSTER_DIR/tgt.ready"
}

cluster_tgt_answers() {
    cluster_tgt --lld iscsi --op show --mode target >/dev/null 2>&1
}

# ---- the whole thing ----
CLUSTER_OSDS=${CLUSTER_OSDS:-3}
CLUSTER_NET=${CLUSTER_NET:-tcp:127.0.0.1} # provider and address of all services
CLUSTER_SAN=${CLUSTER_SAN-san1}             # empty: no array

# cluster_define_all [OSD_SIZE]: secrets, ports and command lines of mdc, osd1.., san1, vbs1.
cluster_define_all() {
    local size=${1:-512M} mdc i
    mkdir -p "$CLUSTER_DIR"
    [ -s "$CLUSTER_DIR/secret" ] || (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$CLUSTER_DIR/secret")
    mdc=$CLUSTER_NET:$(cluster_port mdc)
    cluster_define mdc "$CISTERN_BIN/cistern-mdc" --listen "$mdc" --data-dir "$CLUSTER_DIR/mdc" \
        --secret-file "$CLUSTER_DIR/secret" --ready-file "$CLUSTER_DIR/mdc.ready"
    for i in $(seq "$CLUSTER_OSDS"); do
        cluster_define "osd$i" "$CISTERN_BIN/cistern-osd" --name "osd$i" --host "node$i" --data "$CLUSTER_DIR/osd$i.img" \
            --create --data-size "$size" --listen "$CLUSTER_NET:$(cluster_port "osd$i")" --mdc "$mdc" --media ssd \
            --secret-file "$CLUSTER_DIR/secret" --ready-file "$CLUSTER_DIR/osd$i.ready"
    done
    cluster_define san1 "$CISTERN_BIN/cistern-san" --name san1 --host node1 \
        --lun "iscsi://127.0.0.1:$(cluster_port tgt)/iqn.2026-01.org.cistern:array/1" \
        --listen "$CLUSTER_NET:$(cluster_port san1)" --mdc "$mdc" \
        --secret-file "$CLUSTER_DIR/secret" --ready-file "$CLUSTER_DIR/san1.ready"
    for i in 1 2; do
        cluster_define "vbs$i" "$CISTERN_BIN/cistern-vbs" --name "vbs$i" --host "node$i" \
            --listen "$CLUSTER_NET:$(cluster_port "vbs$i")" --mdc "$mdc" \
            --secret-file "$CLUSTER_DIR/secret" --ready-file "$CLUSTER_DIR/vbs$i.ready"
    done
    {
        echo "mdc = $mdc"
        echo "secret-file = $CLUSTER_DIR/secret"
        echo "host = client1"
    } >"$CLUSTER_DIR/client.conf"
    {
        echo "gateway = $CLUSTER_NET:$(cluster_port vbs1),$CLUSTER_NET:$(cluster_port vbs2)"
        echo "secret-file = $CLUSTER_DIR/secret"
        echo "host = client1"
    } >"$CLUSTER_DIR/gateway.conf"
    export CISTERN_CONFIG=$CLUSTER_DIR/client.conf
}

cluster_services() {
    echo mdc
    local i
    for i in $(seq "$CLUSTER_OSDS"); do echo "osd$i"; done
    [ -z "$CLUSTER_SAN" ] || echo "$CLUSTER_SAN"
    echo vbs1
}

# cluster_start_all: the array and every service that is not running.
cluster_start_all() {
    local s
    [ -z "$CLUSTER_SAN" ] || cluster_running tgt || cluster_start_array
    for s in $(cluster_services) "$@"; do
        cluster_running "$s" || cluster_start "$s"
    done
}

cluster_stop_all() {
    local f
    [ ! -e "$CLUSTER_DIR/tgt.pid" ] || cluster_signal tgt KILL # it has nothing to put in order, and does not go by itself
    for f in nbd vbs2 vbs1 san1 $(ls "$CLUSTER_DIR"/osd*.pid 2>/dev/null | sed 's|.*/||; s/\.pid$//') mdc tgt; do
        [ ! -e "$CLUSTER_DIR/$f.pid" ] || cluster_stop "$f"
        rm -f "$CLUSTER_DIR/$f.pid" "$CLUSTER_DIR/$f.ready"
    done
}

cistern() {
    "$CISTERN_BIN/cistern" "$@"
}

# cluster_nbd NAME VOLUME [nbdkit plugin parameter...]: serves VOLUME at CLUSTER_DIR/NAME.sock. CLUSTER_ON: words before the command.
cluster_nbd() {
    local name=$1 volume=$2
    shift 2
    rm -f "$CLUSTER_DIR/$name.sock"
    # A plugin built with the address sanitizer needs its runtime before the program that loads it.
    LD_PRELOAD=$(ldd "$CISTERN_PLUGIN" | awk '/libasan/ { print $3 }') \
        setsid ${CLUSTER_ON:-} nbdkit -f -U "$CLUSTER_DIR/$name.sock" "$CISTERN_PLUGIN" "volume=$volume" \
        "config=$CISTERN_CONFIG" "$@" >>"$CLUSTER_DIR/$name.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER_DIR/$name.pid"
    if ! wait_until "$CLUSTER_PATIENCE" cluster_nbd_settled "$name" || [ ! -S "$CLUSTER_DIR/$name.sock" ]; then
        tail -n 15 "$CLUSTER_DIR/$name.log" >&2
        return 1
    fi
}

cluster_nbd_settled() { # NAME
    [ -S "$CLUSTER_DIR/$1.sock" ] || ! cluster_running "$1"
}

cluster_nbd_uri() { # NAME
    echo "nbd+unix:///?socket=$CLUSTER_DIR/$1.sock"
}
