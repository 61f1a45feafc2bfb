#!/usr/bin/env bash
# The fabric's conformance tests on the verbs provider: the programs of the unit tests, in a guest with Soft-RoCE.
. "$(dirname "$0")/lib.sh"
in_guest 420 "${CISTERN_BUILD:?}/tests/unit/test_fabric_conformance" "$CISTERN_BUILD/tests/unit/test_fabric_conformance_ends" \
    "$CISTERN_BUILD/tests/unit/test_fabric_verbs_garbage"
