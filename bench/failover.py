#!/usr/bin/env python3
"""failover.py: called by failover.sh in its cluster's environment. failover.py ROUNDS KIND: KIND kill or cut.

Each round waits until all copies are in sync, takes a module that is the primary of two partitions of the volume, kills its process
(or asks for its cable to be cut), submits a read to one partition and a write to the other, and notes how long each took, counted
from the event. Then what was broken is mended."""
import json
import os
import select
import signal
import statistics
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/nbd"))
import nbd  # noqa: E402

MIB = 1 << 20
DIR = os.environ["CLUSTER_DIR"]


def command(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


class Cluster:
    """Commands go through the scripts that failover.sh names: cistern on the clients' host, link, start."""

    def __init__(self):
        self.ctl = os.environ["FAILOVER_CTL"].split()
        self.prefix = os.environ["FAILOVER_HOSTS"]
        self.partitions = int(os.environ["FAILOVER_PARTITIONS"])
        self.copies = int(os.environ["FAILOVER_COPIES"])
        self.offset = {}
        for mib in range(int(os.environ["FAILOVER_MIB"])):
            where = json.loads(command(*self.ctl, "--json", "partition", "locate", "data", f"{mib}M"))
            where = where[0] if isinstance(where, list) else where
            self.offset.setdefault(where["partition"], mib * MIB)
        modules = json.loads(command(*self.ctl, "--json", "module", "list"))
        self.name = {m["id"]: m["name"] for m in modules}

    def show(self, index):
        shown = json.loads(command(*self.ctl, "--json", "partition", "show", f"main/{index}"))
        return shown[0] if isinstance(shown, list) else shown

    def wait_in_sync(self, seconds=120):
        end = time.monotonic() + seconds
        while True:
            shown = [self.show(i) for i in range(self.partitions)]
            if all(len(s["in_sync"]) == self.copies for s in shown):
                return {s["partition"]: s["primary"] for s in shown}
            if time.monotonic() > end:
                sys.exit(f"the copies do not come in sync: {shown}")
            time.sleep(0.2)

    def pid(self, name):
        with open(f"{DIR}/{name}.pid") as f:
            return int(f.read())

    def link(self, name, state):
        command("ip", "-n", self.prefix, "link", "set", f"port-{name}", state)

    def start(self, name):
        with open(f"{DIR}/{name}.args") as f:
            words = f.read().splitlines()
        ready = f"{DIR}/{name}.ready"
        if os.path.exists(ready):
            os.unlink(ready)
        with open(f"{DIR}/{name}.log", "a") as log:
            p = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        with open(f"{DIR}/{name}.pid", "w") as f:
            f.write(str(p.pid))
        while not os.path.exists(ready):
            if p.poll() is not None:
                sys.exit(f"{name} did not start again")
            time.sleep(0.05)


def wait_replies(client, kinds, begin, limit):
    """{cookie: seconds since begin}"""
    took = {}
    while len(took) < len(kinds):
        if not select.select([client.sock], [], [], limit)[0]:
            sys.exit(f"no reply within {limit} s of the event")
        cookie, error = client.reply()
        took[cookie] = time.monotonic() - begin
        if error:
            sys.exit(f"error {error} from the volume")
        if kinds[cookie] == nbd.READ:
            nbd.receive(client.sock, 4096)
    return took


def one_round(cluster, client, kind, n):
    primary = cluster.wait_in_sync()
    mine = {}
    for partition, module in sorted(primary.items()):
        if partition in cluster.offset:
            mine.setdefault(module, []).append(partition)
    modules = sorted(m for m, p in mine.items() if len(p) >= 2)
    if not modules:
        sys.exit("no module is the primary of two partitions of the volume")
    victim = modules[n % len(modules)]
    name, (r, w) = cluster.name[victim], mine[victim][:2]
    for offset in (cluster.offset[r], cluster.offset[w]):  # connections are up, and the table is fresh
        client.read(offset, 4096)
    pid = cluster.pid(name)
    begin = time.monotonic()
    if kind == "kill":
        os.kill(pid, signal.SIGKILL)
    else:
        cluster.link(name, "down")
    client.submit(nbd.READ, 1, cluster.offset[r], 4096)
    client.submit(nbd.WRITE, 2, cluster.offset[w], 4096, struct.pack("<Q", n) * 512)
    took = wait_replies(client, {1: nbd.READ, 2: nbd.WRITE}, begin, 60)
    if kind == "kill":
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
        cluster.start(name)
    else:
        cluster.link(name, "up")
    return took[1] * 1000, took[2] * 1000


def main():
    rounds, kind = int(sys.argv[1]), sys.argv[2]
    cluster = Cluster()
    client = nbd.Client(f"{DIR}/data.sock", 0)
    for offset in range(0, client.size, MIB):
        client.submit(nbd.WRITE, 1, offset, MIB, os.urandom(MIB))
        if client.reply()[1]:
            sys.exit("cannot fill the volume")
    took = []
    for n in range(rounds):
        took.append(one_round(cluster, client, kind, n))
        print(f"{kind} {n + 1}/{rounds}: read {took[-1][0]:.0f} ms, write {took[-1][1]:.0f} ms", file=sys.stderr, flush=True)
    client.close()
    event = "kill -9 of the primary" if kind == "kill" else "its host's cable cut"
    for what, column in (("read", 0), ("write", 1)):
        values = [t[column] for t in took]
        print(f"| {event} | {what} | {statistics.median(values):.0f} | {max(values):.0f} | {len(values)} |")


main()
