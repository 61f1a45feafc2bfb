# lib.sh: what the tests in a guest start with. Sourced. Exit 77 = skipped, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/rdma/guest.sh
. "$here/guest.sh"
guest_init "${CISTERN_BUILD:?}/rdma"

# in_guest SECONDS PROGRAM...: runs them one after the other in one guest; ends with their code.
in_guest() {
    local seconds=$1
    shift
    guest_run "$seconds" "$here/guest_run.sh" "$@"
}
