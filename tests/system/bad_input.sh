#!/usr/bin/env bash
# Wrong names, sizes, secrets, clusters, garbage and wrong media: each a clear error, and the services stay up.
. "$(dirname "$0")/lib.sh"
need nbdkit tgtd

cluster_define_all 256M
cluster_start_all
cistern pool create main
cistern volume create data 64M

expect_error "nosuch" cistern volume show nosuch
expect_error "size" cistern volume create empty 0
expect_error "size" cistern volume create odd 1000
expect_error "of that name" cistern volume create data 64M
expect_error "name" cistern volume create -- '../etc' 1G
expect_error "nosuch" cistern volume create other 1G --pool nosuch
expect_error "shrink" cistern volume resize data 32M
asan=$(ldd "$CISTERN_PLUGIN" | awk '/libasan/ { print $3 }')
expect_error "nosuch" env LD_PRELOAD="$asan" nbdkit -U - "$CISTERN_PLUGIN" volume=nosuch config="$CISTERN_CONFIG" --run true

(umask 077 && echo "this is not the secret of the cluster" >"$CLUSTER_DIR/wrong")
expect_error "secret" timeout 30 "$CISTERN_BIN/cistern" --timeout 5s --secret-file "$CLUSTER_DIR/wrong" status

# Garbage on every listening port hurts nobody.
for s in mdc osd1 san1 vbs1; do
    python3 - "$(cluster_port $s)" <<'PY'
import os, socket, sys
for i in range(20):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    try:
        s.sendall(os.urandom(1 + i * 997))
    except OSError:
        pass
    s.close()
PY
    cluster_running $s || fail "$s fell to garbage"
done

# A service with the wrong secret is refused, says so, and does not serve.
cluster_stop osd1
sed -i "s|^$CLUSTER_DIR/secret\$|$CLUSTER_DIR/wrong|" "$CLUSTER_DIR/osd1.args"
cluster_launch osd1
wait_until 20 grep -qi 'secret' "$CLUSTER_DIR/osd1.log" || fail "osd1 says nothing about its wrong secret"
cluster_kill9 osd1
sed -i "s|^$CLUSTER_DIR/wrong\$|$CLUSTER_DIR/secret|" "$CLUSTER_DIR/osd1.args"
cluster_start osd1

# Media: an older copy of a disk, a blank one, one of another cluster.
cluster_nbd nbd data
echo "the data" | dd of="$CLUSTER_DIR/pattern" bs=1M count=1 conv=sync status=none
nbdcopy "$CLUSTER_DIR/pattern" "$(cluster_nbd_uri nbd)" 2>/dev/null || true
cluster_stop nbd
cluster_stop osd2
cp --sparse=always "$CLUSTER_DIR/osd2.img" "$CLUSTER_DIR/osd2.old"
cluster_start osd2
cluster_stop osd2
cp --sparse=always "$CLUSTER_DIR/osd2.img" "$CLUSTER_DIR/osd2.new"
cp --sparse=always "$CLUSTER_DIR/osd2.old" "$CLUSTER_DIR/osd2.img"
cluster_launch osd2
wait_until 20 grep -qiE 'older|OLD_MEDIA' "$CLUSTER_DIR/osd2.log" || fail "a rolled-back disk was not noticed"
osd2_is_down() {
    cistern --json module list | python3 -c '
import json, sys
sys.exit([m for m in json.load(sys.stdin) if m["name"] == "osd2"][0]["state"] == "up")'
}
wait_until 30 osd2_is_down || fail "a rolled-back disk serves"
cluster_kill9 osd2
cp --sparse=always "$CLUSTER_DIR/osd2.new" "$CLUSTER_DIR/osd2.img"
cluster_start osd2

cluster_stop osd3
printf 'something else, a filesystem perhaps' | dd of="$CLUSTER_DIR/osd3.img" conv=notrunc bs=1 seek=0 status=none
dd if=/dev/urandom of="$CLUSTER_DIR/osd3.img" conv=notrunc bs=4k count=4 status=none
cluster_launch osd3
wait_until 20 grep -qiE 'store|superblock' "$CLUSTER_DIR/osd3.log" || fail "a foreign disk was not noticed"
sleep 1
cmp -s -n 16384 "$CLUSTER_DIR/osd3.img" /dev/zero && fail "the foreign disk was overwritten"
cistern status
for s in mdc osd1 osd2 san1 vbs1; do cluster_running $s || fail "$s is not up at the end"; done
echo "bad input: ok"
