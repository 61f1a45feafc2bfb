#!/usr/bin/env bash
# fio's engine of libcistern (bench/fio_engine), built against the source of the fio that is installed: jobs that verify what they
# wrote, at several depths and sizes, and a second process that reads the same bytes by another way.
. "$(dirname "$0")/lib.sh"
need fio nbdkit nbdcopy apt-get
src=${CISTERN_SRC:-$here/../..}
export CISTERN_BENCH_CACHE=${CISTERN_BENCH_CACHE:-${CISTERN_BIN%/bin}/bench-cache}
engine=$(python3 -B "$src/bench/harness" --allow-sanitizers --fio-engine) || skip "${engine#bench: }"
# A library built with the address sanitizer needs its runtime before the program that loads it.
preload=$(ldd "${CISTERN_BIN%/bin}/lib/libcistern.so" | awk '/libasan/ { print $3 }')

cluster_define_all 256M
for s in mdc osd1 osd2 osd3; do cluster_start $s; done
cistern pool create main --copies 2
cistern volume create data 64M

engine_fio() { # NAME ARG...
    local name=$1
    shift
    LD_PRELOAD=$preload timeout 120 fio --name="$name" --ioengine="external:$engine" --volume=data --config="$CISTERN_CONFIG" \
        --verify_state_save=0 "$@" >"$CLUSTER_DIR/fio-$name.log" 2>&1 || fail "fio $name: $(tail -n 20 "$CLUSTER_DIR/fio-$name.log")"
    if grep -E 'verify: bad|err= *[1-9]' "$CLUSTER_DIR/fio-$name.log"; then fail "fio $name found other data, or an error"; fi
}
verify=(--verify=crc32c --verify_fatal=1 --do_verify=1)
engine_fio sequential --rw=write --bs=128k --iodepth=8 "${verify[@]}"
engine_fio random --rw=randwrite --bs=4k --iodepth=32 --io_size=8M --randseed=7 "${verify[@]}"
engine_fio small --rw=randwrite --bs=512 --iodepth=1 --io_size=200k --fsync=16 "${verify[@]}"
engine_fio large --rw=randrw --bs=1M --iodepth=4 --io_size=16M "${verify[@]}"
engine_fio thread --thread --rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=16 --io_size=16M "${verify[@]}"
# What the engine wrote is what others read: the same pattern, checked through nbdkit.
engine_fio pattern --rw=write --bs=64k --iodepth=8 --buffer_pattern=0xc157e211
cluster_nbd nbd data
nbdcopy "$(cluster_nbd_uri nbd)" data.img
cluster_stop nbd
python3 - data.img <<'PY'
import sys
data = open(sys.argv[1], "rb").read()
assert data == b"\xc1\x57\xe2\x11" * (len(data) // 4) and len(data) == 64 << 20, "other bytes than fio wrote"
PY
engine_fio back --rw=read --bs=64k --iodepth=8
engine_fio trim --rw=trim --bs=1M --iodepth=4
# What cannot be opened is said, by name.
if LD_PRELOAD=$preload fio --name=none --ioengine="external:$engine" --volume=nothing --config="$CISTERN_CONFIG" --rw=read >none.log 2>&1
then fail "a volume that is not there was opened"; fi
grep -q 'volume nothing' none.log || fail "fio said: $(cat none.log)"
echo "verified through the engine, and read back by another way"
