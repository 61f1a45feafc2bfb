# test_volume.sh SIZE OPERATIONS [POOL]: makes a volume, writes and reads it with every byte compared, directly and, where there
# are gateways, through them, and deletes it.
set -eu
size=$1 operations=$2 pool=${3:-}
volume=helm-test-$(date +%s)-$$
here=$(dirname "${CISTERN_CONFIG:-/etc/cistern/client.conf}")

cistern status
# shellcheck disable=SC2086 # words on purpose
cistern volume create "$volume" "$size" ${pool:+--pool "$pool"}
trap 'cistern volume delete "$volume" --force' EXIT

echo "directly:"
cistern bench "$volume" --verify --depth 8 --ops "$operations" --runtime 120s --warmup 0s
if [ -e "$here/gateway.conf" ]; then
    echo "through the gateways:"
    CISTERN_CONFIG=$here/gateway.conf cistern bench "$volume" --verify --depth 8 --ops "$operations" --runtime 120s --warmup 0s
fi
echo "every byte was right"
