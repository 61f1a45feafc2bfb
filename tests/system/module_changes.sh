#!/usr/bin/env bash
# Modules are added, emptied, reweighed, removed and forgotten while a pool has no volumes (moves.sh: with them); data stays readable
# afterwards, and what would have to move data is refused.
export CLUSTER_SAN=
. "$(dirname "$0")/lib.sh"

cluster_define_all 256M
cluster_start_all
partitions() { cistern --json module list | python3 -c "import json,sys; print([m['partitions'] for m in json.load(sys.stdin) if m['id'] == $1][0])"; }
state() { cistern --json module list | python3 -c "import json,sys; print([m['state'] for m in json.load(sys.stdin) if m['id'] == $1][0])"; }
id_of() { cistern --json module list | python3 -c "import json,sys; print([m['id'] for m in json.load(sys.stdin) if m['name'] == '$1'][0])"; }
one=$(id_of osd1) two=$(id_of osd2) three=$(id_of osd3)

cistern pool create main --modules "$one,$two" --partitions 64
cistern module add "$three"
[ "$(partitions "$three")" = 21 ] || fail "the added module has $(partitions "$three") partitions, not its share"
cistern volume create v 48M
cistern bench v --write --verify --size 128k --sequential --ops 400 --runtime 60s

cistern partition show v 20M | grep "its share by weight is 2" >/dev/null || fail "partition show does not explain"
cistern --json partition show main/5 | python3 -c 'import json,sys; p=json.load(sys.stdin); assert p["partition"] == 5 and len(p["members"]) == 1 and len(p["why"]) == 1, p'
[ "$(cistern --json partition locate v 20M | python3 -c 'import json,sys; print(json.load(sys.stdin)["partition"])')" = \
  "$(cistern --json partition show v 20M | python3 -c 'import json,sys; print(json.load(sys.stdin)["partition"])')" ] || fail "show and locate differ"

# The same modules again, without volumes: now everything may move.
cistern volume detach v client1
cistern volume delete v --wait
cistern module drain "$one"
[ "$(partitions "$one")" = 0 ] && [ "$(state "$one")" = draining ] || fail "module $one is not drained"
cistern module reweight "$three" 1T
[ "$(partitions "$three")" -ge 63 ] || fail "the heavy module has $(partitions "$three") partitions"
cistern module reweight "$three" auto
[ "$(partitions "$three")" = 32 ] || fail "the weight is still in force"

# What is refused for a moment is tried again: a module that is stopped has not taken over the latest change.
cluster_signal osd2 STOP
cistern module reweight "$one" 1T
(sleep 1.5; cluster_signal osd2 CONT) &
expect_error "has not taken over the latest changes" cistern --timeout 300ms pool grow-partitions main
cistern pool grow-partitions main
[ "$(partitions "$three")" = 64 ] || fail "the pool did not get more partitions"
cistern module remove "$one"
cluster_stop osd1
is_down() { [ "$(state "$one")" = down ]; }
expect_error "stop it\|not down" cistern module remove "$one"
wait_until 20 is_down || fail "the stopped module is not down"
cistern status | grep "cistern module remove $one)" >/dev/null || fail "status does not say what to do about module $one: $(cistern status)"
cistern module remove "$one"
[ "$(cistern --json module list | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))')" = 2 ] || fail "it is not forgotten"

# What is left serves, through a restart of everything.
cistern volume create w 48M
cistern bench w --write --verify --size 64k --random --ops 400 --runtime 60s
for i in osd2 osd3 mdc; do cluster_kill9 "$i"; done
for i in mdc osd2 osd3; do cluster_start "$i"; done
cistern bench w --read --size 64k --random --ops 200 --runtime 60s
