"""What Debian ships beside us that serves a block device from user space: nbdkit and tgt, each with one file."""
import os
import random

import contest
import engines
import fio
import procs


def make_file(o, path):
    """Written once: places of a sparse file that were never written are another matter."""
    procs.run(["fio", "--name=make", f"--filename={path}", f"--size={o.volume_bytes}", "--rw=write", "--bs=1M",
               "--ioengine=psync", "--end_fsync=1", "--output-format=json"], timeout=600)


class OneFile(contest.Backend):
    """A server of one file."""

    def __init__(self, o, medium, folder, serve):
        super().__init__(o, medium, folder)
        self.serve = serve
        self.file = os.path.join(folder, "disk.img")

    def start(self):
        make_file(self.o, self.file)
        self.serve(self)


class Nbdkit(contest.Contestant):
    name = "nbdkit"
    title = "nbdkit, file plugin"
    what = "one file, unix socket, 16 threads; fio's nbd engine. Reads come from the page cache: it has no O_DIRECT"
    durable = "every write with FUA (filter fua, fuamode=force): fdatasync after each"
    needs = {"nbdkit": "nbdkit", "fio": "fio"}

    def make_backend(self, o, medium, folder):
        return OneFile(o, medium, folder, self.start)

    def start(self, backend):
        socket = os.path.join(backend.folder, "nbd.sock")
        service = procs.Service("nbdkit", ["nbdkit", "-f", "-U", socket, "--filter=fua", "file", backend.file,
                                           "fuamode=force"], os.path.join(backend.folder, "nbdkit.log"))
        backend.services.append(service)
        service.wait_for(lambda: os.path.exists(socket), 20, "no socket")

    def measure(self, shape, o, seed):
        return fio.load(shape, o, seed, ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.backend.folder}/nbd.sock"],
                        self.services())

    def versions(self):
        return {"nbdkit": procs.run(["nbdkit", "--version"]).strip()}


class Tgt(contest.Contestant):
    name = "tgt"
    title = "tgt, iSCSI"
    what = "one file through the page cache, tcp; fio with its own libiscsi engine, built from Debian's source of fio"
    durable = "write cache of the LUN switched off: tgt flushes after each write"
    needs = {"tgtd": "tgt", "tgtadm": "tgt", "fio": "fio", "/usr/include/iscsi/iscsi.h": "libiscsi-dev"}
    IQN = "iqn.2026-01.org.cistern:bench"

    def __init__(self):
        super().__init__()
        self.engine = None
        self.port = 0

    def unavailable(self, o):
        why = super().unavailable(o)
        if not why:
            self.engine = engines.get(o, "libiscsi")
            if self.engine is None:
                why = f"Debian's fio has no iSCSI engine, and it could not be built: {engines.failed['libiscsi']}"
        return why

    def make_backend(self, o, medium, folder):
        return OneFile(o, medium, folder, self.start)

    def start(self, backend):
        control = random.randrange(1000, 32000)
        self.port = procs.free_port()
        service = procs.Service("tgtd", ["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{self.port}"],
                                os.path.join(backend.folder, "tgtd.log"))
        backend.services.append(service)

        def tgtadm(*words):
            return procs.run(["tgtadm", "-C", control, "--lld", "iscsi", *words])

        def answers():
            try:
                tgtadm("--op", "show", "--mode", "target")
                return True
            except procs.Failed:
                return False

        service.wait_for(answers, 20, "no answer")
        tgtadm("--op", "new", "--mode", "target", "--tid", "1", "-T", self.IQN)
        tgtadm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", backend.file)
        # Mode page 8, the write-enable bit off: the write is answered when it is on the medium.
        tgtadm("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params",
               "mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0")
        tgtadm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def measure(self, shape, o, seed):
        url = f"iscsi\\://127.0.0.1\\:{self.port}/{self.IQN.replace(':', chr(92) + ':')}/1"
        return fio.load(shape, o, seed, [f"--ioengine=external:{self.engine}", f"--filename={url}"], self.services())

    def versions(self):
        return {"tgt": procs.run(["tgtadm", "--version"]).strip()}
