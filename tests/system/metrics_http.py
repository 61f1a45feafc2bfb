#!/usr/bin/env python3
"""What metrics.sh does by HTTP.

get PORT PATH               prints the body, whatever the status
status PORT PATH CODE       prints the body; exit 1 when the status is another
check <PAGE                 reads a page of metrics; exit 1 and a word when it is malformed
sum NAME[{a="b",...}] <PAGES   the sum of all series of that name that have these labels at least
screen WORD COMMAND...      runs it on a terminal that changes its size, ends it by ^C; each line must fit, WORD must be there
attack PORT                 garbage, headers without end, 1000 connections; the service must still answer after it
"""
import fcntl
import http.client
import os
import pty
import re
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time

SERIES = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def get(port, path, timeout=20):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    c.request("GET", path)
    r = c.getresponse()
    body = r.read().decode()
    c.close()
    return r.status, body


def series(text):
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        m = SERIES.match(line)
        if m is None:
            sys.exit(f"not a series: {line}")
        yield m.group(1), dict(LABEL.findall(m.group(2) or "")), m.group(3)


def family(name, types):
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and types.get(name[: -len(suffix)]) == "histogram":
            return name[: -len(suffix)]
    return name


def check(text):
    types, helps, seen, order, hists = {}, set(), set(), [], {}
    if not text.endswith("\n"):
        sys.exit("the page ends within a line")
    for line in text.splitlines():
        words = line.split(" ", 3)
        if line.startswith("# HELP "):
            if words[2] in helps or not words[3].strip():
                sys.exit(f"second or empty help: {line}")
            helps.add(words[2])
        elif line.startswith("# TYPE "):
            types[words[2]] = words[3]
    for name, labels, value in series(text):
        f = family(name, types)
        key = (name, tuple(sorted(labels.items())))
        if f not in types or f not in helps:
            sys.exit(f"{name} has no type or help")
        if key in seen:
            sys.exit(f"{key} is there twice")
        seen.add(key)
        if f not in order[-1:]:
            if f in order:
                sys.exit(f"the series of {f} do not stand together")
            order.append(f)
        if float(value) < 0 or (types[f] == "counter") != f.endswith("_total"):
            sys.exit(f"{name} {value} is a {types[f]}")
        if name.endswith("_bucket"):
            rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
            last = hists.setdefault((f, rest), [0.0, 0])
            le = float(labels["le"].replace("+Inf", "inf"))
            if le <= last[0] or int(value) < last[1]:
                sys.exit(f"{key}: buckets do not grow")
            last[:] = [le, int(value)]
        if name.endswith("_count") and f != name:
            if hists[(f, tuple(sorted(labels.items())))] != [float("inf"), int(value)]:
                sys.exit(f"{key} is not what the last bucket has")
    if len(order) < 30:
        sys.exit("hardly anything is there")


def total(what, text):
    m = SERIES.match(what + " 0")
    name, wanted = m.group(1), dict(LABEL.findall(m.group(2) or ""))
    found = [int(value) for n, labels, value in series(text)
             if n == name and all(labels.get(k) == v for k, v in wanted.items())]
    if not found:
        sys.exit(f"there is no {what}")
    return sum(found)


def read_for(fd, seconds):
    got, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                got += os.read(fd, 65536)
            except OSError:  # the other end is closed
                break
    return got.decode()


def screen(word, command):
    pid, fd = pty.fork()
    if pid == 0:
        time.sleep(0.5)  # until the terminal has its size
        os.execvp(command[0], command)
    for rows, columns in ((40, 200), (6, 50)):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        frames = read_for(fd, 4).split("\x1b[H")
        last = frames[-2]  # the last one that is whole
        lines = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", last).split("\r\n")
        assert len(lines) <= rows and max(map(len, lines)) <= columns, (rows, columns, lines)
        assert word in last or rows < 10, last
        assert ("lines more" in last) == (rows < 10), last
    os.kill(pid, signal.SIGINT)
    rest = read_for(fd, 2)
    assert "\x1b[?25h" in rest, "the cursor stays hidden"
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status


def push(port, data):
    s = socket.create_connection(("127.0.0.1", port), timeout=1)
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    except OSError:
        pass  # cut off: as good
    s.close()


def attack(port):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
    for i in range(10):
        push(port, os.urandom(1 + i * 977))
    push(port, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 1000000)
    push(port, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 100000 + b"\r\n")
    push(port, b"GET /" + b"x" * 1000000 + b" HTTP/1.1\r\n\r\n")
    push(port, b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" + b"z" * 1000000)
    push(port, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 300)
    held = []
    for _ in range(1000):  # in every state: silent, half a request, one that waits for nobody to read the answer
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", port))
        held.append(s)
    for i, s in enumerate(held):
        try:
            s.send((b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")[i % 3])
        except OSError:
            pass
    time.sleep(1)
    for s in held:
        s.close()
    end = time.monotonic() + 30
    while True:
        try:
            status, text = get(port, "/metrics", 10)
            break
        except OSError:
            if time.monotonic() > end:
                raise
    assert status == 200, text


def main():
    what = sys.argv[1]
    if what == "get":
        print(get(int(sys.argv[2]), sys.argv[3])[1], end="")
    elif what == "status":
        try:
            status, body = get(int(sys.argv[2]), sys.argv[3])
        except OSError as e:
            sys.exit(str(e))
        print(body, end="")
        sys.exit(status != int(sys.argv[4]))
    elif what == "check":
        check(sys.stdin.read())
    elif what == "sum":
        print(total(sys.argv[2], sys.stdin.read()))
    elif what == "screen":
        screen(sys.argv[2], sys.argv[3:])
    elif what == "attack":
        attack(int(sys.argv[2]))


main()
