# hosts.sh: a cluster whose services live on hosts of their own: network namespaces of this machine, on one bridge. Sourced after
# lib.sh; needs root. Host NAME has the address hosts_address NAME; hosts_link NAME down|up pulls its cable and puts it back.
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
need ip
hosts_prefix=ci$$ # of namespaces and interfaces: tests may run side by side
hosts_made=()
declare -A hosts_number=()

hosts_down() {
    local h
    for h in "${hosts_made[@]}"; do ip netns del "$hosts_prefix-$h" 2>/dev/null; done
    ip netns del "$hosts_prefix" 2>/dev/null
}
# hosts_up NAME...: makes them, and the bridge in a namespace that is only the cable's.
hosts_up() {
    local h n=0 switch=$hosts_prefix
    ip netns add "$switch" 2>"$CLUSTER_DIR/netns.log" || skip "this machine makes no network namespaces: $(cat "$CLUSTER_DIR/netns.log")"
    on_exit hosts_down
    ip -n "$switch" link add br0 type bridge
    ip -n "$switch" link set br0 up
    for h in "$@"; do
        n=$((n + 1))
        hosts_made+=("$h")
        hosts_number[$h]=$n
        ip netns add "$switch-$h"
        ip -n "$switch" link add "port-$h" type veth peer name eth0 netns "$switch-$h"
        ip -n "$switch" link set "port-$h" master br0 up
        ip -n "$switch-$h" link set lo up
        ip -n "$switch-$h" link set eth0 up
        ip -n "$switch-$h" addr add "10.77.0.$n/24" dev eth0
    done
}
hosts_address() { echo "tcp:10.77.0.${hosts_number[$1]}"; } # NAME
hosts_link() { ip -n "$hosts_prefix" link set "port-$1" "$2"; } # NAME down|up: the other end of the cable, so no process is told
on_host() { # NAME COMMAND...
    local h=$1
    shift
    ip netns exec "$hosts_prefix-$h" "$@"
}

# hosts_cluster OSDS OSD_SIZE: command lines of mdc, osd1..., vbs1, vbs2, each on the host of its name; clients are on "client",
# where CISTERN_CONFIG and GATEWAY_CONFIG lead to the cluster.
hosts_cluster() {
    local osds=$1 size=$2 mdc i s
    CLUSTER_OSDS=$osds CLUSTER_SAN=
    # shellcheck disable=SC2046
    hosts_up mdc $(seq -f 'osd%g' "$osds") vbs1 vbs2 client
    CLUSTER_NET=tcp:127.0.0.1 cluster_define_all "$size"
    mdc=$(hosts_address mdc):7100
    for s in mdc $(seq -f 'osd%g' "$osds") vbs1 vbs2; do
        sed -i -e "s|^tcp:.*:$(cluster_port "$s")\$|$(hosts_address "$s"):7100|" -e "s|^tcp:.*:$(cluster_port mdc)\$|$mdc|" \
            -e "s|^node[0-9]*\$|$s|" "$CLUSTER_DIR/$s.args"
        sed -i "1i ip\nnetns\nexec\n$hosts_prefix-$s" "$CLUSTER_DIR/$s.args"
    done
    sed -i "s|^mdc = .*|mdc = $mdc|" "$CLUSTER_DIR/client.conf"
    sed -i "s|^gateway = .*|gateway = $(hosts_address vbs1):7100,$(hosts_address vbs2):7100|" "$CLUSTER_DIR/gateway.conf"
    GATEWAY_CONFIG=$CLUSTER_DIR/gateway.conf
}
cistern() { on_host client "$CISTERN_BIN/cistern" "$@"; }
# hosts_nbd NAME VOLUME...: cluster_nbd on the clients' host.
hosts_nbd() { CLUSTER_ON="ip netns exec $hosts_prefix-client" cluster_nbd "$@"; }
