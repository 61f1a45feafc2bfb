#!/usr/bin/env bash
# run.sh BUILD_DIR SECONDS [SUBJECT ...]: runs each libFuzzer target (or those named) that was built with CISTERN_FUZZ.
# What is learnt stays in BUILD_DIR/fuzz-corpus/SUBJECT for the next run; inputs that break something are put into
# BUILD_DIR/fuzz-findings/. To keep one as a test: copy it to tests/fuzz/corpus/SUBJECT/.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 2 ] || ! [[ $2 =~ ^[0-9]+$ ]]; then
    echo "usage: run.sh BUILD_DIR SECONDS [SUBJECT ...]" >&2
    exit 2
fi
build=$(cd "$1" && pwd) || exit 2
seconds=$2
shift 2
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

subjects=("$@")
if [ ${#subjects[@]} -eq 0 ]; then
    for src in "$here"/fuzz_*.c; do
        subject=$(basename "$src" .c)
        subjects+=("${subject#fuzz_}")
    done
fi

failed=()
for subject in "${subjects[@]}"; do
    program=$build/tests/fuzz/fuzz_$subject
    corpus=$build/fuzz-corpus/$subject findings=$build/fuzz-findings
    if [ ! -x "$program" ]; then
        echo "$subject: $program is not built" >&2
        failed+=("$subject")
        continue
    fi
    mkdir -p "$corpus" "$findings"
    if [ -z "$(ls -A "$corpus")" ]; then
        "${program}_seeds" --seeds "$corpus" || true
    fi
    kept=()
    [ ! -d "$here/corpus/$subject" ] || kept=("$here/corpus/$subject")
    log=$findings/$subject.log
    # The longest input is that of the driver: a table region is the largest.
    if "$program" -max_total_time="$seconds" -max_len=262144 -rss_limit_mb=4096 -timeout=20 -print_final_stats=1 \
        -artifact_prefix="$findings/$subject-" "$corpus" "${kept[@]}" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        cover=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
        echo "$subject: ${runs:-?} inputs in $seconds s, ${cover:-cov: ?}, nothing found"
    else
        failed+=("$subject")
        echo "$subject: FAILED, see $log:" >&2
        grep -E 'ERROR|runtime error|MUST|SUMMARY|Test unit written' "$log" | head -n 12 >&2
    fi
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: failed: ${failed[*]}" >&2; exit 1; }
