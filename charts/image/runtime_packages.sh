#!/bin/sh
# runtime_packages.sh PREFIX: the Debian packages that what is installed in PREFIX runs with, sorted, a line each. Libraries
# by what the programs are linked with; then what is loaded by name at run time.
set -eu
prefix=$1
{
    find "$prefix" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null |
        awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | grep -v "^$prefix/" |
        while read -r library; do
            dpkg -S "$(readlink -f "$library")" 2>/dev/null || dpkg -S "/usr$library" 2>/dev/null ||
                dpkg -S "$library" || { echo "no package has $library" >&2; exit 1; }
        done | sed 's/:.*//'
    echo ibverbs-providers # the drivers of libibverbs
} | sort -u
