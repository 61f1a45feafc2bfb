#!/usr/bin/env bash
# The journal file of a running OSD becomes shorter: a store into it is a SIGBUS. The process lives on, its module says what is
# wrong and goes on by itself when the file has its size back; the load that ran meanwhile saw neither an error nor wrong data.
. "$(dirname "$0")/lib.sh"

CLUSTER_OSDS=2
cluster_define_all 192M
truncate -s 32M "$CLUSTER_DIR/journal.img"
printf '%s\n' --journal "$CLUSTER_DIR/journal.img" >>"$CLUSTER_DIR/osd1.args"
cluster_start mdc
cluster_start osd1
cluster_start osd2
grep -q 'msg="journal medium is not persistent memory' "$CLUSTER_DIR/osd1.log" || fail "nothing said about the kind of journal"
[ $(($(stat -c %b "$CLUSTER_DIR/journal.img") * 512)) -ge $((32 << 20)) ] || fail "the journal file has holes"
cistern pool create main
cistern volume create v 128M

truncate -s 12M "$CLUSTER_DIR/journal.img" # a new store's ring is used from its beginning
pid=$(cat "$CLUSTER_DIR/osd1.pid")
"$CISTERN_BIN/cistern" bench v --verify --mix 10 --depth 16 --runtime 8s &
load=$!
wait_until 60 grep -q 'persistent memory failed (SIGBUS)' "$CLUSTER_DIR/osd1.log" || fail "the store never met the end of the file"
wait_until 60 grep -q 'journal device .* is smaller than at format' "$CLUSTER_DIR/osd1.log" || fail "no word about the size"
cluster_running osd1 || fail "the process ended"
kill -0 "$load" || fail "the load ended"
truncate -s 32M "$CLUSTER_DIR/journal.img"
wait "$load" || fail "the load saw an error or wrong data"
[ "$(cat "$CLUSTER_DIR/osd1.pid")" = "$pid" ] && cluster_running osd1 || fail "it is another process"
cistern module list | tee "$CLUSTER_DIR/modules"
if grep -q damaged "$CLUSTER_DIR/modules"; then fail "something durable was lost"; fi
echo "journal truncated: ok"
