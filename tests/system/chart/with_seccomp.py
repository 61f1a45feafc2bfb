#!/usr/bin/env python3
"""Runs a program under a seccomp profile as container runtimes read it: with_seccomp.py PROFILE [-DENIED] ... -- COMMAND...

Each -NAME takes a system call out of what the profile allows, as a stricter profile would.
"""
import ctypes
import errno
import json
import os
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # seccomp_init(3)


def main():
    split = sys.argv.index("--")
    profile, denied, command = sys.argv[1], {a[1:] for a in sys.argv[2:split]}, sys.argv[split + 1:]
    with open(profile, encoding="utf-8") as f:
        rules = json.load(f)
    assert rules["defaultAction"] == "SCMP_ACT_ERRNO"
    lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    lib.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(ERRNO | rules.get("defaultErrnoRet", errno.EPERM))))
    unknown = []
    for group in rules["syscalls"]:
        assert group["action"] == "SCMP_ACT_ALLOW" and not group.get("args")
        for name in group["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number < 0:
                unknown.append(name)
            elif name not in denied:
                assert lib.seccomp_rule_add(filter_, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    if len(unknown) > 10:
        sys.exit(f"this machine knows none of {unknown}")
    if lib.seccomp_load(filter_) != 0:
        sys.exit("the profile cannot be loaded")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
