#!/usr/bin/env bash
# A metadata controller stopped with SIGSTOP stops no I/O, direct or through a gateway.
. "$(dirname "$0")/lib.sh"
need fio nbdkit tgtd

cluster_define_all 256M
cluster_start_all
cistern pool create main
cistern volume create direct 64M
cistern volume create gated 64M
cluster_nbd direct direct
CISTERN_CONFIG=$CLUSTER_DIR/gateway.conf cluster_nbd gated gated
cluster_signal mdc STOP
on_exit 'cluster_signal mdc CONT'
for v in direct gated; do
    timeout 60 fio --name=$v --ioengine=nbd --uri="$(cluster_nbd_uri $v)" --rw=randrw --bs=4k --iodepth=8 --size=64M --io_size=32M \
        --time_based --runtime=8 --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --output="$CLUSTER_DIR/fio-$v.out" ||
        fail "I/O on '$v' did not go on while the MDC was stopped: $(tail -n 20 "$CLUSTER_DIR/fio-$v.out")"
done
expect_error "controller" timeout 20 "$CISTERN_BIN/cistern" --timeout 2s status
cluster_signal mdc CONT
cistern status
cluster_stop direct
cluster_stop gated
echo "mdc stopped: ok"
