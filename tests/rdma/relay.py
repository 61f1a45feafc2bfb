#!/usr/bin/env python3
"""relay.py DIRECTORY A B: the cable between two guests: Ethernet frames in datagrams on unix sockets.

Guest X has its socket at DIRECTORY/X and sends to DIRECTORY/relay-X. Lines written to the pipe DIRECTORY/cable change it:
  cut A B     what A sends to B is lost, silently (one direction)
  heal        everything arrives again
Each line is answered by the line in DIRECTORY/cable-state, so that whoever wrote it knows that it is in force.
"""
import os
import socket
import sys
import threading

directory, names = sys.argv[1], sys.argv[2:4]
cut = set()


def path(name):
    return os.path.join(directory, name)


def carry(source, target, inbox):
    out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        frame = inbox.recv(70000)
        if (source, target) in cut:
            continue
        try:
            out.sendto(frame, path(target))
        except OSError:
            pass  # that guest is not there (yet)


for source, target in (names, names[::-1]):
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(path("relay-" + source))
    threading.Thread(target=carry, args=(source, target, inbox), daemon=True).start()
os.mkfifo(path("cable"))
pipe = os.fdopen(os.open(path("cable"), os.O_RDWR))  # a writer of our own: no end of file
for line in pipe:
    words = line.split()
    if words[:1] == ["cut"]:
        cut.add((words[1], words[2]))
    elif words[:1] == ["heal"]:
        cut.clear()
    with open(path("cable-state.new"), "w") as f:
        f.write(line)
    os.rename(path("cable-state.new"), path("cable-state"))
