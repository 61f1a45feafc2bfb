#!/usr/bin/env python3
"""mirror.py STATE COMMAND ...: writes to an NBD server and knows, sector by sector, what must be there afterwards.

    mirror.py STATE load HOST PORT SECONDS SEED   random writes and reads until then, or until the server is gone (exit 3)
    mirror.py STATE check HOST PORT               reads everything and compares

HOST is a name or address, or the path of a unix socket (PORT is 0 then). A load ends early, and well, when STATE.stop appears.

Of each sector STATE has the write that was acknowledged last and one that was not: the latter may be there or not, but a check
decides it for good. Sectors under way are not written again. Each sector says whose it is: (sector, number of its write)."""
import array
import os
import random
import select
import struct
import sys
import time

import nbd

SECTOR, DEPTH, NONE = 512, 16, 2**64 - 1
PIECE = 1 << 20


class Mirror:
    def __init__(self, path):
        self.path = path
        self.acked, self.open, self.next = array.array("Q"), array.array("Q"), 1
        if os.path.exists(path):
            with open(path, "rb") as f:
                sectors, self.next = struct.unpack("<QQ", f.read(16))
                self.acked.fromfile(f, sectors)
                self.open.fromfile(f, sectors)

    def size(self, size):
        sectors = size // SECTOR
        if not self.acked:
            self.acked = array.array("Q", [0]) * sectors
            self.open = array.array("Q", [NONE]) * sectors
        if len(self.acked) != sectors:
            sys.exit(f"the volume has {sectors} sectors, it had {len(self.acked)}")

    def save(self):
        with open(self.path + ".new", "wb") as f:
            f.write(struct.pack("<QQ", len(self.acked), self.next))
            self.acked.tofile(f)
            self.open.tofile(f)
        os.rename(self.path + ".new", self.path)

    def compare(self, first, data, settled):
        """Wrong sectors. settled: nothing is under way, what is there counts from now on."""
        wrong = 0
        for i in range(len(data) // SECTOR):
            sector, piece = first + i, data[i * SECTOR:(i + 1) * SECTOR]
            found = None
            for number in (self.acked[sector], self.open[sector]):
                if number != NONE and piece == content(sector, number):
                    found = number
                    break
            if found is None:
                wrong += 1
                if wrong <= 5:
                    whose = struct.unpack("<QQ", piece[:16])
                    print(f"WRONG sector {sector}: acknowledged {self.acked[sector]}, under way {self.open[sector]}, "
                          f"there begins with (sector, write) {whose}", flush=True)
            elif settled:
                self.acked[sector], self.open[sector] = found, NONE
        return wrong


def content(sector, number):
    return struct.pack("<QQ", sector, number) * (SECTOR // 16) if number else bytes(SECTOR)


class Load:
    def __init__(self, mirror, client, seed):
        self.m, self.c, self.random = mirror, client, random.Random(seed)
        self.flight = {}  # cookie: (kind, first, count, number)
        self.cookie = self.writes = self.reads = self.wrong = 0

    def submit(self):
        count = self.random.choice((1, 1, 3, 8, 8, 8, 16, 64, 256))
        first = self.random.randrange(len(self.m.acked) - count)
        if self.random.random() < 0.5:  # some places again and again
            first //= 16
        if self.random.random() < 0.7:
            first &= ~7
        if any(f < first + count and first < f + n for _, f, n, _ in self.flight.values()):
            return
        self.cookie += 1
        roll, number = self.random.random(), 0
        if roll < 0.1:
            kind, data = nbd.READ, b""
        else:
            kind = nbd.ZEROES if roll < 0.15 and self.c.flags & 64 else nbd.WRITE
            if kind == nbd.WRITE:
                number, self.m.next = self.m.next, self.m.next + 1
            data = b"".join(content(s, number) for s in range(first, first + count)) if kind == nbd.WRITE else b""
            for s in range(first, first + count):
                self.m.open[s] = number
        self.flight[self.cookie] = (kind, first, count, number)
        self.c.submit(kind, self.cookie, first * SECTOR, count * SECTOR, data)

    def take(self):
        cookie, error = self.c.reply()
        kind, first, count, number = self.flight[cookie]
        if error:
            sys.exit(f"request kind {kind} at sector {first}: error {error}")
        if kind == nbd.READ:
            self.wrong += self.m.compare(first, nbd.receive(self.c.sock, count * SECTOR), False)
            self.reads += 1
        else:
            for s in range(first, first + count):
                self.m.acked[s], self.m.open[s] = number, NONE
            self.writes += 1
            if self.writes == 1:
                open(self.m.path + ".started", "w").close()
        del self.flight[cookie]

    def run(self, seconds):
        end, look = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < end or self.flight:
            if now >= look:
                look = now + 0.2
                if os.path.exists(self.m.path + ".stop"):
                    end = 0.0
            if len(self.flight) < DEPTH and now < end:
                self.submit()
                if not select.select([self.c.sock], [], [], 0)[0]:
                    continue
            self.take()


def connect(host, port):
    """The server may be about to start."""
    for tries in range(120):
        try:
            return nbd.Client(host, port)
        except OSError as e:
            if tries == 119:
                sys.exit(f"no NBD server: {e}")
            time.sleep(0.5)


def load(mirror, host, port, seconds, seed):
    client = connect(host, port)
    mirror.size(client.size)
    if any(n != NONE for n in mirror.open):
        sys.exit("writes under way at the last load's end were not checked")
    job, code, how = Load(mirror, client, seed), 0, "ended"
    try:
        job.run(seconds)
        client.close()
    except OSError as e:
        code, how = 3, f"was cut off ({e})"
    mirror.save()
    print(f"load {how}: {job.writes} writes acknowledged, {job.reads} reads compared, {job.wrong} sectors wrong, "
          f"{len(job.flight)} requests under way", flush=True)
    sys.exit(1 if job.wrong else code)


def check(mirror, host, port):
    client = connect(host, port)
    mirror.size(client.size)
    wrong, open_before = 0, sum(1 for n in mirror.open if n != NONE)
    before = mirror.acked[:]
    for at in range(0, client.size, PIECE):
        wrong += mirror.compare(at // SECTOR, client.read(at, min(PIECE, client.size - at)), True)
    landed = sum(1 for a, b in zip(before, mirror.acked) if a != b)
    client.close()
    mirror.save()
    print(f"check: {len(mirror.acked)} sectors, {wrong} wrong; of {open_before} under way {landed} are new", flush=True)
    sys.exit(1 if wrong else 0)


def main():
    mirror, command = Mirror(sys.argv[1]), sys.argv[2]
    host, port = sys.argv[3], int(sys.argv[4])
    if command == "load":
        load(mirror, host, port, float(sys.argv[5]), sys.argv[6])
    elif command == "check":
        check(mirror, host, port)
    else:
        sys.exit(__doc__)


main()
