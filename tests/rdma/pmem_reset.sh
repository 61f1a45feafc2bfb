#!/usr/bin/env bash
# The journal on (emulated) persistent memory: the machine is reset, or loses power, in the middle of writes; what was acknowledged
# is there after each boot, the rest old or new, by sector. The mirror that knows is outside, on the host.
#
# Modelled: a reset (system_reset; everything outside the CPUs stays), and a loss of power (kill -9 of the machine; the disks lose,
# keep or tear each unflushed write: volatile_disk.py). The pmem is a file of the host's in both: what was stored is there, so a
# missing flush of a CPU cache line is not found here but by unit.device_pmem and the simulator; ext4's own metadata, MAP_SYNC, and
# the order of journal and disk are. CISTERN_PMEM_ROUNDS: how often (default 3).
. "$(dirname "$0")/lib.sh"
rounds=${CISTERN_PMEM_ROUNDS:-3}
seed=${CISTERN_SEED:-$((SECONDS + $$ + RANDOM))}
for program in ndctl nbdkit mkfs.ext4; do
    command -v $program >/dev/null || guest_skip "$program is not installed (./dev deps)"
done
echo "seed $seed (CISTERN_SEED), $rounds rounds"
export CISTERN_BIN=$CISTERN_BUILD/bin

disks=()
end() {
    local rc=$?
    [ $rc = 0 ] || tail -n 5 "$guest_dir"/*.disk.log
    [ ${#disks[@]} = 0 ] || kill "${disks[@]}" 2>/dev/null || true
    guest_cleanup
    exit $rc
}
trap end EXIT
for disk in data meta; do
    truncate -s 160M "$guest_dir/$disk"
    "$here/../nbd/volatile_disk.py" "$guest_dir/$disk" "$guest_dir/$disk.sock" "$seed" >"$guest_dir/$disk.disk.log" &
    disks+=($!)
    GUEST_OPTIONS+=(-blockdev "driver=nbd,server.type=unix,server.path=$guest_dir/$disk.sock,node-name=$disk,cache.direct=on"
        -device "virtio-blk-pci,drive=$disk,write-cache=on")
done
truncate -s 128M "$guest_dir/pmem"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
GUEST_MEMORY=3072,slots=2,maxmem=6G
GUEST_MODULES=(virtio_blk ext4 libnvdimm nfit nd_pmem dax_pmem device_dax)
GUEST_OPTIONS+=(-machine "nvdimm=on" -object "memory-backend-file,id=pmem,share=on,mem-path=$guest_dir/pmem,size=128M"
    -device "nvdimm,memdev=pmem,id=nvdimm0"
    -netdev "user,id=out,hostfwd=tcp:127.0.0.1:$port-10.0.2.15:10809" -device "virtio-net-pci,netdev=out,romfile=")
out=$(guest_out main)
pids() { echo "${guest_pid[main]}"; }

boot() {
    local end=$((SECONDS + 400))
    rm -f "$out/serving"
    guest_start main env CISTERN_BIN="$CISTERN_BIN" "$here/guest_pmem.sh"
    until [ -e "$out/serving" ]; do
        kill -0 "$(pids)" 2>/dev/null || { echo "FAILED: the guest ended before it served"; exit 1; }
        [ $SECONDS -lt $end ] || { echo "FAILED: the guest does not serve"; exit 1; }
        sleep 0.2
    done
}
mirror() { # COMMAND ARGUMENT...
    local command=$1
    shift
    timeout 300 "$here/../nbd/mirror.py" "$guest_dir/mirror" "$command" 127.0.0.1 "$port" "$@"
}

RANDOM=$seed
boot
for ((round = 1; round <= rounds; round++)); do
    rm -f "$guest_dir/mirror.started"
    mirror load 600 "$seed.$round" &
    load=$!
    until [ -e "$guest_dir/mirror.started" ]; do kill -0 $load 2>/dev/null || break; sleep 0.1; done
    sleep "$((5 + RANDOM % 15)).$((RANDOM % 10))"
    if [ $((round % 3)) = 0 ]; then
        how=reset
        guest_monitor main system_reset
        guest_wait main 30 || true
    else
        how=power
        guest_cut main
    fi
    rc=0
    wait $load || rc=$?
    [ $rc = 3 ] || { echo "FAILED: the load ended with $rc, not by the machine's end"; exit 1; }
    echo "round $round ($how): $(tail -n 1 "$guest_dir/data.disk.log")"
    boot
    mirror check
done
mirror load 3 "$seed.last"
mirror check
touch "$out/end"
guest_wait main 60
echo "pmem reset: $rounds rounds: ok"
