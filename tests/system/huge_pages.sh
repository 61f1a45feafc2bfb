#!/usr/bin/env bash
# A host with huge pages, a container whose limit of them is none: services take normal pages, and are not killed by a SIGBUS.
# shellcheck source=tests/system/lib.sh
. "$(dirname "$0")/lib.sh"
skip() { echo "SKIPPED: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root, for huge pages and a control group"
tree=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$tree" ] && grep -qw hugetlb "$tree/cgroup.controllers" || skip "no control groups with the controller hugetlb"
before=$(cat /proc/sys/vm/nr_hugepages) enabled=$(cat "$tree/cgroup.subtree_control")
group=$tree/cistern-test-$$
on_exit 'echo $before >/proc/sys/vm/nr_hugepages'
echo $((before + 96)) >/proc/sys/vm/nr_hugepages 2>/dev/null || skip "huge pages cannot be reserved"
[ "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" -ge 64 ] || skip "this machine has no memory for huge pages"
echo +hugetlb >"$tree/cgroup.subtree_control" 2>/dev/null || skip "the controller hugetlb cannot be used"
grep -qw hugetlb <<<"$enabled" || on_exit 'echo -hugetlb >"$tree/cgroup.subtree_control"'
mkdir "$group"
on_exit 'rmdir "$group"'
on_exit cluster_stop_all # before the group goes
echo 0 >"$group/hugetlb.2MB.max"

inside=(sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group")
CLUSTER_OSDS=1 CLUSTER_SAN=
cluster_define_all 64M
for s in mdc osd1 vbs1; do
    mapfile -t args <"$CLUSTER_DIR/$s.args"
    cluster_define "$s" "${inside[@]}" "${args[@]}"
done
cluster_start_all
cistern pool create main
cistern volume create v 16M
for config in client gateway; do
    CISTERN_CONFIG=$CLUSTER_DIR/$config.conf "${inside[@]}" "$CISTERN_BIN/cistern" bench v --verify --ops 200 --warmup 0s | grep ' 0 wrong'
done
for s in mdc osd1 vbs1; do cluster_running "$s" || fail "$s has died"; done
echo "no huge pages, no harm"
