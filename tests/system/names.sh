#!/usr/bin/env bash
# Services find each other by the names of hosts, and listen on an address of a network: what containers give them, whose
# addresses change.
# shellcheck source=tests/system/lib.sh
. "$(dirname "$0")/lib.sh"
CLUSTER_OSDS=1 CLUSTER_SAN=
need nbdcopy nbdkit
cluster_define_all 64M
mdc=$(cluster_port mdc)
sed -i "s|^tcp:127.0.0.1:|tcp:127.0.0.0/8:|" "$CLUSTER_DIR/mdc.args"
for s in osd1 vbs1; do
    sed -i "s|^tcp:127.0.0.1:$mdc\$|tcp:localhost:$mdc|; s|^tcp:127.0.0.1:|tcp:127.0.0.0/8:|" "$CLUSTER_DIR/$s.args"
    grep -q localhost "$CLUSTER_DIR/$s.args" || fail "the command line of $s is not as expected"
done
sed -i "s|tcp:127.0.0.1:|tcp:localhost:|g" "$CLUSTER_DIR/client.conf" "$CLUSTER_DIR/gateway.conf"
cluster_start_all
cistern pool create main
cistern volume create v 16M
head -c 4M /dev/urandom >"$CLUSTER_DIR/data"
for way in client gateway; do
    export CISTERN_CONFIG=$CLUSTER_DIR/$way.conf
    cluster_nbd nbd v
    nbdcopy "$CLUSTER_DIR/data" "$(cluster_nbd_uri nbd)"
    nbdcopy "$(cluster_nbd_uri nbd)" "$CLUSTER_DIR/back"
    cmp -n "$((4 << 20))" "$CLUSTER_DIR/back" "$CLUSTER_DIR/data"
    rm "$CLUSTER_DIR/back"
    cluster_stop nbd
done

# The network that none of our addresses is in, the name that nobody knows.
export CISTERN_CONFIG=$CLUSTER_DIR/client.conf
expect_error "no address in that network" "$CISTERN_BIN/cistern-mdc" --listen tcp:203.0.113.0/24:7100 --data-dir "$CLUSTER_DIR/no" \
    --secret-file "$CLUSTER_DIR/secret"
expect_error "addresses look like" "$CISTERN_BIN/cistern-mdc" --listen tcp:somewhere:7100 --data-dir "$CLUSTER_DIR/no" \
    --secret-file "$CLUSTER_DIR/secret"
expect_error "name" cistern --mdc "tcp:nobody.invalid:$mdc" --timeout 2s status
echo "names and networks serve as addresses"
