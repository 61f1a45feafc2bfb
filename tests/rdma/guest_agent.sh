#!/usr/bin/env bash
# In a guest: does what the test on the host says (on, in hosts.sh), one piece of shell after the other, in this one shell, where
# guest_lib.sh is loaded. Ends with the code that the test gives in the file "bye", or 1 when a service crashed.
. "$(dirname "$0")/guest_lib.sh"
set +e
n=0
until [ -e "$OUT/bye" ]; do
    if [ -e "$OUT/do.$n" ]; then
        eval "$(cat "$OUT/do.$n")" >"$OUT/said.$n" 2>&1
        echo $? >"$OUT/rc.$n.new"
        mv "$OUT/rc.$n.new" "$OUT/rc.$n"
        n=$((n + 1))
    fi
    sleep 0.05
done
exit "$(cat "$OUT/bye")"
