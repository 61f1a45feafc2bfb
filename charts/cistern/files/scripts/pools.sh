# pools.sh SECONDS NAME:COPIES:MIN-COPIES:PARTITIONS:STRIPE:MODULE,... ...: makes the pools that are not there yet, each of the
# modules of these names, when all of them are up; waits for that so long. A pool that is there is not changed, but modules
# that it lacks are offered to it. 0 = the default.
set -eu
seconds=$1
shift
end=$(($(date +%s) + seconds))

# Lines of: id name state pool, with "-" for no pool.
modules() {
    cistern --json module list | tr '{' '\n' | awk '
        function field(name,    s) {
            if (!match($0, "\"" name "\": *(\"[^\"]*\"|[^,}]*)")) return ""
            s = substr($0, RSTART, RLENGTH)
            sub("^\"" name "\": *", "", s)
            gsub("\"", "", s)
            return s
        }
        field("id") != "" { p = field("pool"); print field("id"), field("name"), field("state"), p == "" || p == "null" ? "-" : p }'
}

pool_is_there() {
    cistern --json pool list | tr '{' '\n' | grep -q "\"name\": *\"$1\""
}

# ids NAMES: "ok" and their numbers with commas, when all are up; else "waiting for:" and the others.
ids() {
    modules | awk -v names="$1" '
        { id[$2] = $1; state[$2] = $3 }
        END {
            n = split(names, name, ",")
            for (i = 1; i <= n; i++) {
                if (!(name[i] in state)) missing = missing " " name[i] " (not there)"
                else if (state[name[i]] != "up") missing = missing " " name[i] " (" state[name[i]] ")"
                list = list (i > 1 ? "," : "") id[name[i]]
            }
            print missing == "" ? "ok " list : "waiting for:" missing
        }'
}

wait_for_ids() {
    while :; do
        answer=$(ids "$1")
        [ "${answer#ok }" = "$answer" ] || break
        echo "$answer" >&2
        [ "$(date +%s)" -lt "$end" ] || { echo "gave up after $seconds s" >&2; return 1; }
        sleep 2
    done
    echo "${answer#ok }"
}

option() { # FLAG VALUE: nothing for 0
    [ "$2" = 0 ] || printf '%s %s' "$1" "$2"
}

make_pool() { # NAME COPIES MIN PARTITIONS STRIPE NAMES
    list=$(wait_for_ids "$6")
    # shellcheck disable=SC2046 # words on purpose
    cistern pool create "$1" --modules "$list" --copies "$2" $(option --min-copies "$3") $(option --partitions "$4") \
        $(option --stripe "$5")
}

# What a pool lacks is added where the cluster can do that; else it says why not, and nothing is wrong.
complete_pool() { # NAME NAMES
    modules | awk -v names="$2" '
        BEGIN { n = split(names, name, ","); for (i = 1; i <= n; i++) want[name[i]] = 1 }
        want[$2] && $3 == "up" && $4 == "-" { print $1 }' |
        while read -r id; do
            cistern module add "$id" "$1" || echo "module $id stays outside of pool $1" >&2
        done
}

until cistern status >/dev/null 2>"${TMPDIR:-/run/cistern}/error"; do
    [ "$(date +%s)" -lt "$end" ] || { cat "${TMPDIR:-/run/cistern}/error" >&2; exit 1; }
    sleep 2
done
for pool in "$@"; do
    IFS=: read -r name copies min partitions stripe names <<EOF
$pool
EOF
    if pool_is_there "$name"; then
        echo "pool $name is there"
        complete_pool "$name" "$names"
    else
        make_pool "$name" "$copies" "$min" "$partitions" "$stripe" "$names"
    fi
done
cistern pool list
