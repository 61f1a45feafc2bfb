#!/usr/bin/env bash
# Wrong values are refused before anything is made, with a sentence that names the value and says what it may be; the README
# tells all values there are, and their defaults.
# shellcheck source=tests/system/chart/lib.sh
. "$(dirname "$0")/chart/lib.sh"
chart_tools

refused() { # TEXT HELM-ARGUMENT...
    local text=$1 out
    shift
    if out=$(helm template cistern "$CHART" "$@" 2>&1); then fail "accepted: $*"; fi
    grep -qF -- "$text" <<<"$out" || fail "'$*' was refused with '$out', not with '$text'"
}
agent='san.agents[0].name=a1,san.agents[0].luns[0].lun=1'

# A slip of the pen anywhere.
refused "at '/osd': additional properties 'replicas' not allowed" --set osd.replicas=3
refused "at '/network/transport': value must be one of 'tcp', 'rdma'" --set network.transport=roce
refused "at '/osd/sets/0/volumeMode': value must be one of 'Block', 'Filesystem'" --set 'osd.sets[0].name=a,osd.sets[0].replicas=1,osd.sets[0].storage.size=1Gi,osd.sets[0].volumeMode=block'
refused "at '/osd/sets/0': missing propert" --set 'osd.sets[0].name=a,osd.sets[0].replicas=1'
refused "at '/ports/mdc': maximum: got 71,000, want 65,535" --set ports.mdc=71000
refused "at '/mdc/addresses/0'" --set 'mdc.addresses[0]=192.0.2.1'
refused "at '/osd/devices/0/path'" --set 'osd.devices[0].name=a,osd.devices[0].node=n,osd.devices[0].path=sdb,osd.devices[0].size=1Ti'
refused "at '/image/digest'" --set image.digest=latest
refused "at '/clusterId'" --set clusterId=12
refused "at '/pools/0/copies'" --set 'pools[0].name=p,pools[0].copies=9'
refused "at '/osd/options': additional properties 'Spin' not allowed" --set 'osd.options.Spin=1us'
refused "at '/test/volumeSize'" --set test.volumeSize=64Mi

# What belongs together.
refused "there is nothing to store on" --set 'osd.sets=null'
refused 'set "a" has volumeMode Filesystem and no dataSize' --set 'osd.sets[0].name=a,osd.sets[0].replicas=1,osd.sets[0].storage.size=1Gi,osd.sets[0].volumeMode=Filesystem'
refused 'the name "disk" is used 2 times' --set 'osd.devices[0].name=disk,osd.devices[0].node=n,osd.devices[0].path=/dev/sdb,osd.devices[0].size=1Ti'
refused "the cluster's own network carries no RDMA" --set network.transport=rdma
refused "Give the latter in mdc.addresses" --set network.cidr=10.0.0.0/8
refused 'mdc.addresses: "tcp:192.0.2.1:7100" is not of network.transport "rdma"' --set network.transport=rdma,network.hostNetwork=true,mdc.addresses[0]=tcp:192.0.2.1:7100
refused 'there is no member "fast"; there are: disk' --set 'pools[0].name=p,pools[0].members[0]=fast'
refused 'pool "p" wants 4 copies of 3 modules' --set 'pools[0].name=p,pools[0].copies=4'
refused 'minCopies 3 is more than copies 2' --set 'pools[0].name=p,pools[0].copies=2,pools[0].minCopies=3'
refused 'agent "a1": LUN 1 has no portal or no target' --set "$agent"
refused "chap.user needs its secret" --set "$agent,san.agents[0].portal=192.0.2.1,san.agents[0].target=iqn.2026-01.com.example:a,san.agents[0].chap.user=u"
refused "no NetworkPolicy reaches pods on the host's network" --set network.hostNetwork=true,networkPolicy.enabled=true
refused "set osd.seccomp.type to Localhost too" --set seccompInstaller.enabled=true
refused "need metrics.enabled" --set metrics.rules.enabled=true,metrics.enabled=false
refused "makes one of more than 52 characters" --set 'osd.sets[0].name=a123456789012345678901234567890123456789,osd.sets[0].replicas=1,osd.sets[0].storage.size=1Gi' --set fullnameOverride=b123456789012345678901
refused 'there is no pool "q" in pools' --set 'pools[0].name=p,test.pool=q'

# Budgets follow the copies that a pool can spare.
budget() { helm template cistern "$CHART" "$@" | awk '/^kind: PodDisruptionBudget/ { here = 1 } here && /maxUnavailable/ { print $2; exit }'; }
[ "$(budget)" = 1 ] || fail "the budget without pools"
[ "$(budget --set 'pools[0].name=p')" = 0 ] || fail "the budget with one copy"
[ "$(budget --set 'pools[0].name=p,pools[0].copies=2')" = 1 ] || fail "the budget with two copies"
[ "$(budget --set 'pools[0].name=p,pools[0].copies=3')" = 1 ] || fail "the budget with three copies"
[ "$(budget --set 'pools[0].name=p,pools[0].copies=2,pools[0].minCopies=2')" = 0 ] || fail "the budget with no copy to spare"

python3 "$CHART_TESTS/values_check.py" "$CHART" || fail "values.yaml, the schema and the README differ"
echo "wrong values are refused with the reason"
