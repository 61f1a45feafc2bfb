"""Ceph RBD: a monitor and three OSDs (bluestore on files), with a pool and an image for each number of copies.

It has no manager daemon: I/O needs none, and what it would use is not Ceph's I/O.
"""
import os
import uuid

import contest
import fio
import procs

OSDS = 3
# What differs from Ceph's defaults, and why, is all here.
CONFIG = """[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{port}]
public_addr = 127.0.0.1
# one test cluster as one user in one directory
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {folder}
admin_socket = {folder}/$cluster-$name.$pid.asok
log_file = {folder}/$name.log
crash_dir = {folder}
pid_file =
mon_cluster_log_file = {folder}/cluster.log
# the three OSDs are on one host; a pool may have one copy; placement groups stay as they are
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = true
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_min_size = 1
# the least that it takes, so that reads of the volume are not all from its cache
osd_memory_target = 939524096
bluestore_block_size = {bytes}
# a write is done when the OSDs have it, not when the client has remembered it
[client]
rbd_cache = false
"""


class Ceph(contest.Backend):
    def __init__(self, o, medium, folder):
        super().__init__(o, medium, folder)
        self.env = {"CEPH_CONF": os.path.join(folder, "ceph.conf")}

    def ceph(self, *words):
        return procs.run(["ceph", "--connect-timeout", "30", *words], env=self.env)

    def start(self):
        fsid, port = str(uuid.uuid4()), procs.free_port()
        with open(self.env["CEPH_CONF"], "w", encoding="ascii") as f:
            f.write(CONFIG.format(fsid=fsid, port=port, folder=self.folder,
                                  bytes=(1 + 2 + 3) * self.o.volume_bytes + (4 << 30)))
        monmap = f"{self.folder}/monmap"
        procs.run(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", monmap])
        procs.run(["ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--mon-data", f"{self.folder}/mon"], env=self.env)
        mon = procs.Service("ceph-mon", ["ceph-mon", "-f", "-i", "a", "--mon-data", f"{self.folder}/mon"],
                            f"{self.folder}/mon.out", env=self.env)
        self.services.append(mon)
        mon.wait_for(self.answers, 60, "no quorum")
        for i in range(OSDS):
            self.start_osd(i)
        for copies in (1, 2, 3):
            self.ceph("osd", "pool", "create", f"copies{copies}", "32", "32", "replicated")
            self.ceph("osd", "pool", "set", f"copies{copies}", "size", str(copies), "--yes-i-really-mean-it")
            self.ceph("osd", "pool", "application", "enable", f"copies{copies}", "rbd")

    def answers(self):
        try:
            procs.run(["ceph", "--connect-timeout", "5", "-s"], env=self.env)
            return True
        except procs.Failed:
            return False

    def start_osd(self, i):
        data, unique = f"{self.folder}/osd{i}", str(uuid.uuid4())
        os.mkdir(data)
        self.ceph("osd", "new", unique, str(i))
        words = ["ceph-osd", "-i", str(i), "--osd-data", data]
        procs.run([*words, "--mkfs", "--osd-uuid", unique], env=self.env)
        self.services.append(procs.Service(f"ceph-osd{i}", [*words, "-f"], f"{self.folder}/osd{i}.out", env=self.env))
        up = self.services[-1]
        up.wait_for(lambda: f"osd.{i} up" in " ".join(self.ceph("osd", "dump").split("\n")), 60, "not up")

    def stop(self):
        # Bluestore takes seconds for an orderly end, and nobody will open these files again.
        for service in reversed(self.services):
            service.stop(hard=True)
        super().stop()


class Rbd(contest.Contestant):
    durable = "always: bluestore answers when every copy has it flushed; the client's cache is off"
    needs = {"ceph-osd": "ceph-osd", "ceph-mon": "ceph-mon", "ceph": "ceph-common", "rbd": "ceph-common", "fio": "fio"}
    slow = True

    def __init__(self, copies):
        super().__init__()
        self.copies = copies
        self.name = f"ceph-{copies}"
        self.title = f"Ceph RBD, {copies} cop{'y' if copies == 1 else 'ies'}"
        self.what = f"monitor, {OSDS} OSDs (bluestore on files), tcp; fio's rbd engine"

    def backend_key(self):
        return "ceph"

    def make_backend(self, o, medium, folder):
        return Ceph(o, medium, folder)

    def arguments(self):
        return ["--ioengine=rbd", "--clientname=admin", f"--pool=copies{self.copies}", "--rbdname=bench"]

    def prepare(self, o):
        procs.run(["rbd", "create", f"copies{self.copies}/bench", "--size", f"{o.volume_bytes >> 20}M"],
                  env=self.backend.env)
        fio.fill(o, self.arguments(), env=self.backend.env)

    def measure(self, shape, o, seed):
        return fio.load(shape, o, seed, self.arguments(), self.services(), env=self.backend.env)

    def versions(self):
        return {"ceph": procs.run(["ceph-osd", "--version"]).strip()}
