#!/usr/bin/env bash
# The image has one list of packages to be built with, which is ./dev's, and none to run with: that is read off the programs.
# Building it takes minutes and a base image: charts/image/check.sh does that.
# shellcheck source=tests/system/lib.sh
. "$(dirname "$0")/lib.sh"
top=${CISTERN_SRC:-$here/../..}
file=$top/charts/image/Containerfile

mapfile -t build < <("$top/dev" packages)
[ ${#build[@]} -gt 10 ] || fail "./dev packages prints ${build[*]}"
grep -q 'bash /src/dev packages' "$file" || fail "the image does not take its packages from ./dev"
for p in "${build[@]}"; do
    ! grep -qwF -- "$p" <<<"$(sed '/^#/d; s/bash\|python3 //g' "$file" | grep -w 'apt-get')" || fail "the image names the package $p itself"
done
# What the programs include is there without the packages of the tests: every library that CMake asks for is one of these.
for module in $(sed -n 's/^pkg_check_modules([A-Z]* REQUIRED IMPORTED_TARGET \(.*\))/\1/p' "$top/CMakeLists.txt"); do
    # A file that comes from a package of the list, or from one that these depend on.
    pc=$(pkg-config --variable=pcfiledir "$module")/$module.pc
    owner=$(dpkg -S "$(readlink -f "$pc")" 2>/dev/null | cut -d: -f1)
    [ -n "$owner" ] || continue # not from a package: this machine's own
    printf '%s\n' "${build[@]}" | grep -qx "$owner" || fail "$module comes from $owner, which ./dev packages does not name"
done

mapfile -t run < <(sh "$top/charts/image/runtime_packages.sh" "$(dirname "$CISTERN_BIN")" 2>/dev/null)
for p in libc6 libibverbs1 librdmacm1 ibverbs-providers liblmdb0 libiscsi7 liburing2; do
    printf '%s\n' "${run[@]}" | grep -qx "$p" || fail "the image would lack $p: ${run[*]}"
done
for p in "${run[@]}"; do
    dpkg-query -W "$p" >/dev/null || fail "there is no package $p"
done
for program in $(sed -n 's/^ *command: \[\(cistern[a-z-]*\)\].*/\1/p' "$top"/charts/cistern/templates/*.yaml | sort -u); do
    [ -x "$CISTERN_BIN/$program" ] || fail "the chart runs $program, which is not built"
done
echo "the image's packages are ./dev's, and those that the programs are linked with"
