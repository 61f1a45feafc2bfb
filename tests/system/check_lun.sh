#!/usr/bin/env bash
# cistern-san --check on a LUN of a real target: refused while an agent has it, clean behind it, and rot is found.
. "$(dirname "$0")/lib.sh"
need tgtd tgtadm

CLUSTER_OSDS=0
cluster_define_all
cluster_start_array 96M
cluster_start mdc
cluster_start san1
cistern pool create main
cistern volume create v 32M
lun=iscsi://127.0.0.1:$(cluster_port tgt)/iqn.2026-01.org.cistern:array/1
check() { # STATUS PATTERN [OPTIONS...]
    local want=$1 pattern=$2 rc=0
    shift 2
    "$CISTERN_BIN/cistern-san" --check --lun "$lun" "$@" >report 2>&1 || rc=$?
    [ $rc -eq "$want" ] || { cat report; fail "the check ended with $rc, not $want"; }
    grep -q -- "$pattern" report || { cat report; fail "the check does not say: $pattern"; }
}
cistern bench v --verify --mix 20 --depth 8 --size 16k --runtime 2s
check 8 'reservation'
cistern bench v --read --runtime 1s # the agent has not noticed
cluster_stop san1
before=$(sha256sum <lun.img)
check 0 'result: *clean, all data read' --check-data
[ "$before" = "$(sha256sum <lun.img)" ] || fail "the check has written to the LUN"
head -c 64 /dev/urandom | dd of=lun.img bs=1 seek=100 conv=notrunc status=none
check 4 'superblock copy 0 .* is damaged'
lun=iscsi://127.0.0.1:$(cluster_port tgt)/iqn.2026-01.org.cistern:array/7
check 8 'cannot check'
cluster_start san1
cistern bench v --read --runtime 1s
echo "check of a LUN: ok"
