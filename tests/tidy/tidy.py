#!/usr/bin/env python3
"""The rules of the house that a script can check. usage: tidy.py SUBJECT [ROOT]

Each subject is one function below and one ctest, tidy.<subject>. It prints what breaks the rule, a line each, and exits
with 1; 77 means skipped. Exceptions are in exceptions.txt beside this file: that file may only shrink, so one that is not
needed any more is reported too.
"""
import os
import re
import shutil
import subprocess
import sys

FUNCTION_LINES = 70
FILE_LINES = 800
SKIPPED = 77

PRODUCT = ("common", "rdma", "services")
ALL = PRODUCT + ("tests", "bench")

# Lowest first. A room includes from itself and from floors below it.
FLOORS = (
    ("common",),
    ("rdma",),
    ("services/cluster",),
    ("services/rwm", "services/vbs"),
    ("services/mdc", "services/osd", "services/san", "services/ctl", "services/csi"),
)

# Where the outside world may be asked: path -> (functions, reason). Not exceptions but the real providers.
PROVIDERS = {
    "common/device/device_file.c": (("nanosleep",), "waits for a lock at start, before the loop runs"),
    "common/device/device_threads.c": (("clock_gettime",), "deadline for joining threads at the end"),
    "common/loop.c": (("clock_gettime",), "wall clock of log lines"),
    "common/loop_real.c": (("clock_gettime",), "the real clock"),
    "common/metrics_http.c": (("clock_gettime",), "a thread of its own, without a loop"),
    "common/rng.c": (("getrandom",), "the real source of randomness"),
}
BANNED = {
    "time": "env's loop has the clock",
    "gettimeofday": "env's loop has the clock",
    "clock_gettime": "env's loop has the clock",
    "rand": "use env's rng",
    "random": "use env's rng",
    "srand": "use env's rng",
    "srandom": "use env's rng",
    "drand48": "use env's rng",
    "getrandom": "use env's rng",
    "sleep": "nothing blocks: use a timer",
    "usleep": "nothing blocks: use a timer",
    "nanosleep": "nothing blocks: use a timer",
    "strcpy": "knows no bound: use snprintf",
    "strcat": "knows no bound: use snprintf",
    "sprintf": "knows no bound: use snprintf",
    "vsprintf": "knows no bound: use vsnprintf",
    "gets": "knows no bound",
    "atoi": "sees no errors: use config_parse_uint",
    "atol": "sees no errors: use config_parse_uint",
    "alloca": "unbounded stack",
    "assert": "goes away with NDEBUG: use MUST",
}

# Library header (regular expression) -> where it may be included, and what to use instead elsewhere.
LIBRARIES = (
    (r"infiniband/|rdma/rdma_", ("rdma/",), "fabric.h"),
    (r"liburing", ("common/device/", "services/san/", "services/osd/device"), "device.h"),
    (r"libpmem", ("common/device/", "services/san/", "services/osd/device"), "device.h"),
    (r"iscsi/", ("common/device/", "services/san/", "services/osd/device"), "device.h"),
    (r"isa-l", ("common/crc.c",), "crc.h"),
    (r"msgpack", ("common/wire/",), "wire.h"),
    (r"lmdb\.h", ("services/mdc/",), "the meta store"),
    (r"microhttpd", ("common/metrics_http.c",), "metrics_http.h"),
)

LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX)\b|printf\s*\([^;]*\bDEBUG\b")


def files(root, tops, endings):
    for top in tops:
        for folder, subfolders, names in os.walk(os.path.join(root, top)):
            subfolders[:] = sorted(d for d in subfolders if not d.startswith((".", "build")))
            for name in sorted(names):
                if name.endswith(endings):
                    yield os.path.relpath(os.path.join(folder, name), root)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        return f.read()


def code_only(text):
    """Comments and the insides of literals blanked, line breaks kept."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(match):
        s = match.group(0)
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[0]
        return re.sub(r"[^\n]", " ", s)

    return pattern.sub(blank, text)


def functions_of(text):
    """(name, line of the brace, number of lines with both braces): the style puts a function's braces, and no others,
    alone in column 0."""
    lines = text.split("\n")
    begin = None
    for i, line in enumerate(lines):
        if line.rstrip() == "{":
            begin = i
        elif line.rstrip() == "}" and begin is not None:
            top = begin
            while top > 0 and re.search(r"[^;}\\]$", lines[top - 1].rstrip()) and lines[top - 1][0] != "#":
                top -= 1
            names = re.findall(r"(\w+)\s*\(", " ".join(lines[top:begin]))
            yield (names[0] if names else "?", begin + 1, i - begin + 1)
            begin = None


def includes_of(text):
    for i, line in enumerate(text.split("\n")):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if m:
            yield i + 1, m.group(1), m.group(2)


def room_of(path):
    """The floor's number and the room, or None outside of the house."""
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if path.startswith(room + "/"):
                return floor, room
    return None


# Each check yields (path, thing, message); "path thing" is what an exception names.


def check_functions(root):
    for path in files(root, ALL, (".c", ".h")):
        for name, line, length in functions_of(code_only(read(root, path))):
            if length > FUNCTION_LINES:
                yield path, name, f"line {line}: {length} lines, more than {FUNCTION_LINES}"


def check_files(root):
    for path in files(root, ALL, (".c", ".h", ".def", ".py", ".sh")):
        lines = read(root, path).count("\n")
        if lines > FILE_LINES:
            yield path, "-", f"{lines} lines, more than {FILE_LINES}"


def check_calls(root):
    call = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
    for path in files(root, PRODUCT, (".c", ".h")):
        allowed = PROVIDERS.get(path, ((), ""))[0]
        for i, line in enumerate(code_only(read(root, path)).split("\n")):
            for name in call.findall(line):
                if name not in allowed:
                    yield path, name, f"line {i + 1}: {BANNED[name]}"


def check_floors(root):
    for path in files(root, PRODUCT, (".c", ".h", ".def")):
        floor, room = room_of(path) or (None, None)
        if room is None:
            yield path, "-", "is in no room that the house plan knows"
            continue
        for line, quote, name in includes_of(read(root, path)):
            beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
            target = beside if os.path.exists(os.path.join(root, beside)) else os.path.normpath(name)
            if quote == "<" or not os.path.exists(os.path.join(root, target)):
                continue
            there = room_of(target)
            if there is None or (there[0] >= floor and there[1] != room):
                yield path, target, f"line {line}: {room} must not know it"


def check_libraries(root):
    for path in files(root, PRODUCT, (".c", ".h")):
        for line, quote, name in includes_of(read(root, path)):
            for pattern, places, instead in LIBRARIES:
                if quote == "<" and re.match(pattern, name) and not path.startswith(places):
                    yield path, name, f"line {line}: only {', '.join(places)} may; use {instead}"


def check_headers(root):
    compiler = os.environ.get("CC", "cc")
    for path in files(root, PRODUCT, (".h",)):
        text = f'#include "{path}"\n#include "{path}"\n'
        run = subprocess.run(
            [compiler, "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
             "-I", root, "-x", "c", "-"],
            input=text, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            yield path, "-", "does not compile alone:\n" + run.stderr.rstrip()


def check_leftovers(root):
    for path in files(root, ALL, (".c", ".h", ".def", ".sh", ".txt", ".cmake")):
        if path.startswith("tests/tidy/"):
            continue
        for i, line in enumerate(read(root, path).split("\n")):
            if LEFTOVERS.search(line):
                yield path, "-", f"line {i + 1}: {line.strip()}"


def check_format(root):
    program = shutil.which("clang-format")
    if program is None:
        print("skipped: clang-format is not installed")
        sys.exit(SKIPPED)
    for path in files(root, ALL, (".c", ".h")):
        run = subprocess.run([program, "--dry-run", "-Werror", "--style=file", os.path.join(root, path)],
                             capture_output=True, text=True, check=False)
        if run.returncode != 0:
            first = run.stderr.split("\n")[0].replace(root + "/", "")
            yield path, "-", f"run clang-format -i on it ({first})"


SUBJECTS = {
    "functions": check_functions,
    "files": check_files,
    "calls": check_calls,
    "floors": check_floors,
    "libraries": check_libraries,
    "headers": check_headers,
    "leftovers": check_leftovers,
    "format": check_format,
}


def exceptions_of(path, subject):
    """{(path, thing)} of the lines "subject path thing reason ..."."""
    found = set()
    if not os.path.exists(path):
        return found
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) < 4 or words[0] not in SUBJECTS:
                sys.exit(f"{path}:{number}: expected: SUBJECT PATH THING REASON")
            if words[0] == subject:
                found.add((words[1], words[2]))
    return found


def run(subject, root):
    exceptions = exceptions_of(os.path.join(root, "tests/tidy/exceptions.txt"), subject)
    used = set()
    bad = 0
    for path, thing, message in SUBJECTS[subject](root):
        if (path, thing) in exceptions:
            used.add((path, thing))
            continue
        bad += 1
        print(f"{path}: {thing}: {message}" if thing != "-" else f"{path}: {message}")
    for path, thing in sorted(exceptions - used):
        bad += 1
        print(f"{path}: {thing}: the exception is not needed any more, remove it from tests/tidy/exceptions.txt")
    return bad


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in SUBJECTS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(SUBJECTS)} [ROOT]")
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    root = os.path.abspath(sys.argv[2]) if len(sys.argv) == 3 else here
    sys.exit(1 if run(sys.argv[1], root) > 0 else 0)


if __name__ == "__main__":
    main()
