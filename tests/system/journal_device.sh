#!/usr/bin/env bash
# An OSD with its journal on a file of its own (as on pmem or DAX): kill -9 under a verified load loses nothing, and a journal
# put back from a copy is refused.
. "$(dirname "$0")/lib.sh"

CLUSTER_OSDS=1
cluster_define_all 192M
truncate -s 32M "$CLUSTER_DIR/journal.img"
printf '%s\n' --journal "$CLUSTER_DIR/journal.img" >>"$CLUSTER_DIR/osd1.args"
cluster_start mdc
cluster_start osd1
cistern pool create main
cistern volume create v 128M
"$CISTERN_BIN/cistern" bench v --verify --mix 30 --depth 8 --runtime 5s &
load=$!
sleep 2
cluster_kill9 osd1
cluster_start osd1
wait $load || fail "the load saw an error or wrong data"

cluster_stop osd1
cp "$CLUSTER_DIR/journal.img" "$CLUSTER_DIR/journal.old"
cluster_start osd1
cistern bench v --write --runtime 1s
cluster_stop osd1
mv "$CLUSTER_DIR/journal.img" "$CLUSTER_DIR/journal.new"
cp "$CLUSTER_DIR/journal.old" "$CLUSTER_DIR/journal.img"
cluster_launch osd1
wait_until 20 grep -q 'the journal device is older' "$CLUSTER_DIR/osd1.log" || fail "an old journal was not noticed"
cluster_kill9 osd1
mv "$CLUSTER_DIR/journal.new" "$CLUSTER_DIR/journal.img"
cluster_start osd1
cistern bench v --read --runtime 1s
echo "journal device: ok"
