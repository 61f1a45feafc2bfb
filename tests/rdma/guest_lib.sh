# guest_lib.sh: what the scripts inside a guest share: a cluster over RDMA. Sourced, with CISTERN_BIN set; the address of the
# guest's device is in GUEST_ADDRESS.
export CLUSTER_NET=${GUEST_PROVIDER:-rdma}:${GUEST_ADDRESS:-10.0.0.1} CLUSTER_SAN=${CLUSTER_SAN-} CLUSTER_OSDS=${CLUSTER_OSDS:-2}
export CLUSTER_PATIENCE=120 # everything is emulated
. "$(dirname "${BASH_SOURCE[0]}")/../system/lib.sh"
cistern() { "$CISTERN_BIN/cistern" --timeout 120s "$@" 2> >(cat >&2); } # the console is a terminal: no progress on it

say() { echo "[$SECONDS s] $*"; }

# Fixed ports: the guest is ours alone.
guest_ports() {
    local port=7100 name
    mkdir -p "$CLUSTER_DIR/ports"
    for name in mdc osd1 osd2 san1 tgt vbs1 vbs2; do echo $((port++)) >"$CLUSTER_DIR/ports/$name"; done
}

# guest_tool COMMAND PORT-OF [NUMBER]: see guest_tool.c.
guest_tool() {
    local command=$1 name=$2 limit=
    shift 2
    [ "$command" != counters ] || limit="timeout 60"
    $limit "${CISTERN_BIN%/bin}/bin-tests/guest_tool" "$CLUSTER_DIR/secret" "$CLUSTER_NET:0" "$command" "$CLUSTER_NET:$(cluster_port "$name")" "$@"
}

# guest_counter SERVICE NAME
guest_counter() { guest_tool counters "$1" 2>>"$CLUSTER_DIR/tool.log" | awk -v name="$2" '$1 == name { print $2 }'; }

# guest_nbd NAME VOLUME: cluster_nbd, with the patience that a guest on a busy host needs.
guest_nbd() { cluster_nbd "$@" connect-timeout=110 || fail "cannot open volume $2"; }

# guest_fio NAME RW BS DEPTH BYTES [OPTION...]: writes to the volume served as NAME and verifies.
guest_fio() {
    local name=$1 rw=$2 bs=$3 depth=$4 bytes=$5
    shift 5
    fio --name="$name-$rw-$bs" --ioengine=nbd --uri="$(cluster_nbd_uri "$name")" --rw="$rw" --bs="$bs" --iodepth="$depth" \
        --io_size="$bytes" --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --randseed=7 \
        --output-format=terse --terse-version=3 "$@" >"$CLUSTER_DIR/fio-$name.out" ||
        fail "fio $name $rw $bs: $(tail -n 20 "$CLUSTER_DIR/fio-$name.out")"
    say "fio $name $rw $bs depth $depth $bytes: verified"
}
