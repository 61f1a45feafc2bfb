#!/usr/bin/env bash
# Grow, shrink, delete, attach and detach: data stays where it should, goes where it must, and space comes back.
. "$(dirname "$0")/lib.sh"
need nbdkit nbdinfo nbdcopy tgtd qemu-img

cluster_define_all 256M
cluster_start_all
cistern pool create main
cistern volume create v 64M
cluster_nbd nbd v
uri=$(cluster_nbd_uri nbd)
head -c $((64 * 1024 * 1024)) /dev/urandom >"$CLUSTER_DIR/mirror"
nbdcopy "$CLUSTER_DIR/mirror" "$uri"
cluster_stop nbd

cistern volume resize v 96M
cluster_nbd nbd v
[ "$(nbdinfo --size "$uri")" = $((96 * 1024 * 1024)) ] || fail "the volume did not grow"
nbdcopy "$uri" "$CLUSTER_DIR/back"
cmp -n $((64 * 1024 * 1024)) "$CLUSTER_DIR/mirror" "$CLUSTER_DIR/back"
cmp -n $((32 * 1024 * 1024)) -i $((64 * 1024 * 1024)):0 "$CLUSTER_DIR/back" /dev/zero
cluster_stop nbd

# A shrink cuts: what lay beyond must not come back with the next grow.
cistern volume resize v 32M --allow-shrink
grow() { cistern volume resize v 64M; }
wait_until 20 grow || fail "no grow after a shrink"
cluster_nbd nbd v
nbdcopy "$uri" "$CLUSTER_DIR/back"
cmp -n $((32 * 1024 * 1024)) "$CLUSTER_DIR/mirror" "$CLUSTER_DIR/back"
cmp -n $((32 * 1024 * 1024)) -i $((32 * 1024 * 1024)):0 "$CLUSTER_DIR/back" /dev/zero

# Another host: refused while it is attached here, welcome after a detach; the detached one can not go on.
expect_error "attach" "$CISTERN_BIN/cistern" --host other bench v --size 4k --runtime 1s
expect_error "in use\|attached\|open" cistern volume delete v
cistern volume detach v client1
if timeout 20 nbdcopy "$CLUSTER_DIR/mirror" "$uri" 2>/dev/null; then fail "a detached host wrote"; fi
cistern --host other bench v --size 4k --runtime 1s --read
cluster_stop nbd
cistern volume detach v other

cistern volume delete v
used() { cistern --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["used_bytes"])'; }
is_empty() { [ "$(used)" -lt $((1024 * 1024)) ]; }
wait_until 30 is_empty || fail "the space of a deleted volume did not come back: $(used) bytes in use"
echo "volume life: ok"
