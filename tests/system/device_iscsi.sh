#!/bin/bash
# LUN devices against a real iSCSI target: data, fences, lost sessions, a vanished LUN; 512 and 4096 byte blocks, CHAP.
set -u
check=$CISTERN_TESTS/device_iscsi_check
command -v tgtd >/dev/null && command -v tgtadm >/dev/null || { echo "tgtd is not installed"; exit 77; }
dir=$(mktemp -d) || exit 1
tgt=
control=$((10000 + RANDOM % 20000))
port=$((20000 + RANDOM % 12000))
target=iqn.2026-01.test.cistern:a
cleanup() { [ -n "$tgt" ] && kill -9 "$tgt" 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"; }
trap cleanup EXIT
adm() { tgtadm -C "$control" --lld iscsi "$@"; }

start_target() { # block size
    tgtd -f -C "$control" --iscsi portal=127.0.0.1:"$port" >>"$dir/tgtd.log" 2>&1 &
    tgt=$!
    for _ in $(seq 100); do adm --mode sys --op show >/dev/null 2>&1 && break; sleep 0.1; done
    adm --mode target --op new --tid 1 --targetname "$target" &&
        adm --mode logicalunit --op new --tid 1 --lun 1 --backing-store "$dir/lun" --blocksize "$1" &&
        adm --mode logicalunit --op update --tid 1 --lun 1 --params thin_provisioning=1 &&
        adm --mode account --op new --user cistern --password 0123456789abcdef &&
        { [ "$2" = - ] || adm --mode account --op bind --tid 1 --user cistern; } &&
        adm --mode target --op bind --tid 1 -I ALL || { cat "$dir/tgtd.log"; return 1; }
}
cut_sessions() {
    local sid=
    while read -r word value; do
        case $word in
        Session:) sid=$value ;;
        Connection:) adm --mode conn --op delete --tid 1 --sid "$sid" --cid "$value" ;;
        esac
    done < <(adm --mode conn --op show --tid 1)
}
kill_target() { kill -9 "$tgt"; wait "$tgt" 2>/dev/null; tgt=; }

run_check() { # block size, user or -
    truncate -s 0 "$dir/lun" && truncate -s 64M "$dir/lun"
    start_target "$1" "$2" || exit 1
    local url=iscsi://127.0.0.1:$port/$target/1 line args=()
    if [ "$2" != - ]; then
        url=iscsi://$2@127.0.0.1:$port/$target/1
        (umask 077; echo 0123456789abcdef >"$dir/secret")
        args=("$dir/secret")
    fi
    coproc CHECK { "$check" "$url" iqn.2026-01.test.cistern:check "${args[@]}" 2>"$dir/log"; }
    local pid=$CHECK_PID in=${CHECK[0]} out=${CHECK[1]} ok=
    exec 5<&"$in" 6>&"$out"
    while read -r line <&5; do
        echo "$line"
        case $line in
        "do: kill target") kill_target ;;
        "do: cut sessions") cut_sessions ;;
        "do: start target") start_target "$1" "$2" || exit 1 ;;
        "do: remove lun") adm --mode logicalunit --op delete --tid 1 --lun 1 || adm --force --mode logicalunit --op delete --tid 1 --lun 1 ;;
        "all ok") ok=1 ;;
        esac
        case $line in do:*) echo done >&6 ;; esac
    done
    wait "$pid"
    local rc=$?
    exec 5<&- 6>&-
    [ "$rc" = 0 ] && [ -n "$ok" ] || { echo "check failed: $rc"; cat "$dir/log"; tail -20 "$dir/tgtd.log"; exit 1; }
    grep -q 'could not check' "$dir/log" && { echo "the array's fence was not checked"; exit 1; }
    grep 'fenced' "$dir/log" | head -1
    kill_target
}
run_check 512 -
run_check 4096 cistern
