#!/usr/bin/env python3
"""volatile_disk.py FILE SOCKET SEED: a disk with a write cache that a loss of power really loses, as an NBD server.

Writes go into the cache, a flush brings what was written before it into FILE. When the connection ends (a killed QEMU), each
write that no flush has covered survives whole, in some of its sectors, or not at all, each on its own; so drawn from SEED. Then
the next connection is served. The cache is this process's memory: nothing else of the host's can save it."""
import mmap
import os
import random
import socket
import struct
import sys

import nbd

SECTOR = 512


class Disk:
    def __init__(self, path, seed):
        self.file = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        self.random = random.Random(seed)
        self.unflushed = []
        self.load()

    def load(self):
        """Reads see the cache: a private mapping, in which only what was written differs from the file."""
        self.view = mmap.mmap(self.file, self.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    def write(self, offset, data):
        self.view[offset:offset + len(data)] = data
        self.unflushed.append((offset, data))

    def flush(self):
        for offset, data in self.unflushed:
            os.pwrite(self.file, data, offset)
        self.unflushed = []

    def lose_power(self):
        kept, torn = self.random.random(), self.random.random()  # how much survives differs from time to time
        count = [0, 0, 0]
        for offset, data in self.unflushed:
            roll = self.random.random()
            fate = 0 if roll < kept else 1 if self.random.random() < torn else 2
            count[fate] += 1
            if fate == 0:
                os.pwrite(self.file, data, offset)
            elif fate == 1:
                for at in range(0, len(data), SECTOR):
                    if self.random.getrandbits(1):
                        os.pwrite(self.file, data[at:at + SECTOR], offset + at)
        self.unflushed = []
        self.view.close()
        self.load()
        print(f"power lost: of the unflushed writes {count[0]} stayed, {count[1]} are torn, {count[2]} are gone", flush=True)


def serve(disk, sock):
    while True:
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", nbd.receive(sock, 28))
        if magic != nbd.REQUEST or kind == nbd.DISC:
            return
        error, data = 0, b""
        if kind == nbd.WRITE:
            data = nbd.receive(sock, length)
        if kind in (nbd.READ, nbd.WRITE) and offset + length > disk.size:
            error = nbd.EINVAL
        elif kind == nbd.READ:
            data = disk.view[offset:offset + length]
        elif kind == nbd.WRITE:
            disk.write(offset, data)
            if flags & nbd.FLAG_FUA:
                disk.flush()
        elif kind == nbd.FLUSH:
            disk.flush()
        else:
            error = nbd.EINVAL
        sock.sendall(struct.pack(">IIQ", nbd.REPLY, error, cookie) + (data if kind == nbd.READ and not error else b""))


def main():
    path, address, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    disk = Disk(path, seed)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(1)
    while True:
        sock, _ = listener.accept()
        try:
            if nbd.serve_handshake(sock, disk.size):
                serve(disk, sock)
        except (ConnectionError, BrokenPipeError):
            pass
        sock.close()
        disk.lose_power()


main()
