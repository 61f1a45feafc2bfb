# alive.sh READY-FILE: is the service that wrote this file alive? One authenticated message to it and back. A service that
# is not ready yet has no file, and is not judged: it waits for something, and says for what in its log.
[ -e "$1" ] || exit 0
address=$(sed -n 's/.*listen=\([^ ]*\).*/\1/p' "$1")
[ -n "$address" ] || exit 0
exec cistern --timeout 8s --secret-file "${CISTERN_SECRET:-/etc/cistern-secret/secret}" fabric ping "$address" -c 1
