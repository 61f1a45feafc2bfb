#!/usr/bin/env bash
# What is installed can be used: a program outside of the tree finds libcistern by pkg-config, and links and runs with it.
set -euo pipefail
for p in pkg-config cmake nbdkit nm; do
    command -v $p >/dev/null || { echo "SKIPPED: $p is not installed (./dev deps)"; exit 77; }
done
build=$(cd "${CISTERN_BIN%/bin}" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/cistern-test.XXXXXX")
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

# Only what a host needs: the programs, the library, the plugin; the build is up to date when tests run.
cmake --install "$build" --prefix "$dir/usr" >"$dir/install.log" || { cat "$dir/install.log" >&2; fail "cmake --install"; }
for program in cistern cistern-mdc cistern-osd cistern-san cistern-vbs; do
    "$dir/usr/bin/$program" --version | grep "^$program [0-9]" >/dev/null || fail "$program does not run where it was installed"
done

PKG_CONFIG_PATH=$(dirname "$(find "$dir/usr" -name cistern.pc)")
export PKG_CONFIG_PATH
[ "$(realpath "$(pkg-config --variable=prefix cistern)")" = "$(realpath "$dir/usr")" ] || fail "cistern.pc does not name the folder that it was installed into"
cat >"$dir/program.c" <<'C'
#include <cistern.h>
#include <stdio.h>
int main(void)
{
    struct cistern_options options;
    struct cistern *c = NULL;
    cistern_options_init(&options);
    int rc = cistern_connect(&options, &c);
    printf("%d: %s\n", rc, cistern_error());
    return rc < 0 && c == NULL ? 0 : 1;
}
C
# A library with the address sanitizer wants its program to have it too.
libdir=$(pkg-config --variable=libdir cistern)
export LD_LIBRARY_PATH=$libdir
sanitize=
if ldd "$libdir/libcistern.so" | grep libasan >/dev/null; then sanitize=-fsanitize=address; fi
# shellcheck disable=SC2046,SC2086
${CC:-cc} -std=c99 -Wall -Wextra -Werror $sanitize "$dir/program.c" -o "$dir/program" $(pkg-config --cflags --libs cistern)
"$dir/program" | grep "mdc or gateway" || fail "the library does not say what is missing"

# The library shows its own calls and nothing else.
if nm -D --defined-only "$libdir/libcistern.so" | awk '{ print $3 }' | grep -v '^cistern_' | grep -v '^CISTERN_'; then
    fail "libcistern shows more than its calls (above)"
fi
LD_PRELOAD=$(ldd "$libdir/libcistern.so" | awk '/libasan/ { print $3 }') \
    nbdkit --dump-plugin "$(find "$dir/usr" -name 'nbdkit-cistern-plugin.so')" | grep '^name=cistern' >/dev/null ||
    fail "nbdkit does not load the installed plugin"
