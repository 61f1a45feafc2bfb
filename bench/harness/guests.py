"""The part in the guest: Cistern over verbs beside the kernel's own NVMe-oF target and perftest's raw verbs.

All of them run on one guest kernel, over one Soft-RoCE device in loopback; disks are RAM disks of that kernel (brd), for all
alike. Much of what they do runs in the kernel, in threads that belong to nobody: so the CPU time of each is what the whole
guest used while it was measured, nothing else being asked of it.
"""
import json
import os
import re
import subprocess
import sys
import time

import contest
import fio
import ours
import procs
import shapes

ADDRESS = os.environ.get("GUEST_ADDRESS", "10.0.0.1")
DEVICE = "rxe1"
SLOWER = 1.5  # so much longer than outside measurements take: an emulated CPU translates everything that it meets first
DISKS = 8  # /dev/ram0..: three for each of our clusters, one for nvmet, one bare
KERNEL_SIDE = "kernel and services"


def whole_guest(row):
    """CPU time by what the whole guest used."""
    row["services_cpu_us"] = {KERNEL_SIDE: max(row["machine_busy_cpus"] * 1e6 / row["iops"] - row["client_cpu_us"], 0)}
    row["cpu_us"] = row["client_cpu_us"] + row["services_cpu_us"][KERNEL_SIDE]
    return row


def make_disks(o):
    procs.run(["modprobe", "brd", f"rd_nr={DISKS}", f"rd_size={(2 * o.volume_bytes + (96 << 20)) >> 10}"])


class GuestCluster(ours.Cluster):
    def __init__(self, o, medium, folder, copies, first_disk):
        super().__init__(o, medium, folder, copies, f"rdma:{ADDRESS}")
        self.first_disk = first_disk

    def data_options(self, i):
        return ["--data", f"/dev/ram{self.first_disk + i - 1}"]


class CisternVerbs(ours.Cistern):
    media = ("guest",)

    def __init__(self, copies, first_disk):
        super().__init__(copies)
        self.name = f"cistern-rdma-{copies}"
        self.title += ", verbs"
        self.what = f"MDC, {ours.OSDS} OSDs on RAM disks, RDMA; fio with the engine of libcistern"
        self.first_disk = first_disk
        self.slow = False

    def backend_key(self):
        return self.name

    def make_backend(self, o, medium, folder):
        return GuestCluster(o, medium, folder, self.copies, self.first_disk)

    def measure(self, shape, o, seed):
        row = super().measure(shape, o, seed)
        row["of_it_us"] = row["services_cpu_us"]
        return whole_guest(row)


class NvmetBackend(contest.Backend):
    NQN = "nqn.2026-01.org.cistern:bench"
    CONFIG = "/sys/kernel/config/nvmet"

    def __init__(self, o, medium, folder, disk):
        super().__init__(o, medium, folder)
        self.disk, self.device = disk, None

    @staticmethod
    def put(path, value):
        try:
            with open(path, "w", encoding="ascii") as f:
                f.write(value)
        except OSError as e:
            raise procs.Failed(f"cannot write '{value}' to {path}: {e.strerror}") from e

    def start(self):
        for module in ("configfs", "nvmet", "nvmet-rdma", "nvme-rdma"):
            procs.run(["modprobe", module])
        if not os.path.isdir(self.CONFIG):
            procs.run(["mount", "-t", "configfs", "none", "/sys/kernel/config"])
        subsystem, port = f"{self.CONFIG}/subsystems/{self.NQN}", f"{self.CONFIG}/ports/1"
        os.makedirs(f"{subsystem}/namespaces/1")
        self.put(f"{subsystem}/attr_allow_any_host", "1")
        self.put(f"{subsystem}/namespaces/1/device_path", self.disk)
        self.put(f"{subsystem}/namespaces/1/enable", "1")
        os.makedirs(port)
        for name, value in (("adrfam", "ipv4"), ("trtype", "rdma"), ("traddr", ADDRESS), ("trsvcid", "4420")):
            self.put(f"{port}/addr_{name}", value)
        os.symlink(subsystem, f"{port}/subsystems/{self.NQN}")
        before = set(os.listdir("/sys/block"))
        self.put("/dev/nvme-fabrics", f"transport=rdma,traddr={ADDRESS},trsvcid=4420,nqn={self.NQN}")
        for _ in range(100):  # the host looks for namespaces in the background
            found = sorted(n for n in set(os.listdir("/sys/block")) - before if os.path.exists(f"/dev/{n}") and "c" not in n)
            if found:
                self.device = f"/dev/{found[0]}"
                return
            time.sleep(0.1)
        raise procs.Failed("the kernel's NVMe host did not find the disk:\n" + procs.run(["dmesg"])[-1500:])


class Nvmet(contest.Contestant):
    name = "nvmet-rdma"
    title = "the kernel's nvmet, RDMA"
    what = "one RAM disk, nvmet-rdma and nvme-rdma of the guest's kernel; fio's io_uring engine with O_DIRECT"
    durable = "always: a RAM disk has no cache (O_DSYNC all the same)"
    media = ("guest",)

    def make_backend(self, o, medium, folder):
        return NvmetBackend(o, medium, folder, f"/dev/ram{DISKS - 2}")

    def device(self):
        return self.backend.device

    def prepare(self, o):
        procs.run(["fio", "--name=fill", "--rw=write", "--bs=1M", "--ioengine=psync", "--direct=1", f"--filename={self.device()}",
                   f"--size={o.volume_bytes}", "--output-format=json"], timeout=600)

    def measure(self, shape, o, seed):
        words = ["--ioengine=io_uring", "--direct=1", f"--filename={self.device()}", f"--size={o.volume_bytes}"]
        if not shapes.is_read(shape):
            words.append("--sync=dsync")
        return whole_guest(fio.load(shape, o, seed, words))


class RamDisk(Nvmet):
    name = "ram-disk"
    title = "the bare RAM disk"
    what = "no network: fio's io_uring engine with O_DIRECT on one RAM disk"
    floor = True

    def make_backend(self, o, medium, folder):
        return contest.Nothing(o, medium, folder)

    def device(self):
        return f"/dev/ram{DISKS - 1}"


class Perftest(contest.Contestant):
    name = "verbs"
    title = "raw verbs (perftest)"
    what = ("no storage: one-sided reads and writes of the payload between two polling processes: ib_read_lat, ib_write_lat (one "
            "way, not there and back), ib_read_bw, ib_write_bw")
    durable = "nothing is written"
    media = ("guest",)
    needs = {"ib_write_lat": "perftest"}
    floor = True

    def make_backend(self, o, medium, folder):
        return contest.Nothing(o, medium, folder)

    def client(self, _o):
        return "perftest"

    def measure(self, shape, o, seed):
        kind = "read" if shapes.is_read(shape) else "write"
        program = f"ib_{kind}_{'lat' if shape.depth == 1 else 'bw'}"
        words = [program, "-d", DEVICE, "-F", "-s", str(shape.block), "-p", str(procs.free_port())]
        if shape.depth == 1:
            words += ["-n", "2000"]
        else:
            words += ["-t", str(shape.depth), "-n", "4000" if shape.block < 65536 else "500"]
        busy, begin = procs.machine_busy_ns(), time.monotonic()
        server = procs.Service("perftest", words, os.path.join(o.scratch, "perftest.log"), fresh=True)
        try:
            time.sleep(1)
            text = procs.run([*words, ADDRESS])
        finally:
            server.stop(hard=True)
        elapsed = time.monotonic() - begin
        row = self.figures(shape, text)
        busy = (procs.machine_busy_ns() - busy) / 1e9 / elapsed
        row.update({"client_cpu_us": busy * 1e6 / row["iops"], "services_cpu_us": {}})
        return fio.finish(row, busy, " ".join(words))

    @staticmethod
    def figures(shape, text):
        lines = [line.split() for line in text.splitlines()]
        numbers = [w for w in lines if len(w) >= 5 and w[0] == str(shape.block) and re.fullmatch(r"[\d.]+", w[-1])]
        if not numbers:
            raise procs.Failed(f"perftest printed no result:\n{text[-1500:]}")
        w = [float(x) for x in numbers[-1]]
        if shape.depth == 1:  # bytes iterations min max typical avg stdev 99% 99.9%
            us = {"avg_us": w[5], "p50_us": w[4], "p99_us": w[7], "p999_us": w[8], "max_us": w[3]}
            rate = 1e6 / w[5]
        else:  # bytes iterations peak average (MiB/s) Mpps
            rate = w[3] * (1 << 20) / shape.block
            us = {"avg_us": shape.depth * 1e6 / rate}  # it times no single one
        return {"ios": int(w[1]), "iops": rate, "mb_per_s": rate * shape.block / 1e6, "seconds": w[1] / rate, **us}


def contestants():
    return [CisternVerbs(1, 0), CisternVerbs(2, 3), Nvmet(), RamDisk(), Perftest()]


def run_guest(o, result, say):
    """From the host: boots a guest, lets the harness measure there, and adds what it found."""
    names = [c.name for c in contestants() if c.name in o.names]
    if not names:
        return
    found = os.path.join(o.cache, "guest-result.json")
    os.makedirs(o.cache, exist_ok=True)
    if os.path.exists(found):
        os.unlink(found)
    words = [os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest.sh"), found,
             os.path.join(os.path.dirname(o.bin), "rdma"), "--rounds", min(o.rounds, 2), "--seconds", SLOWER * o.seconds,
             "--warmup", 2 * SLOWER * o.warmup, "--volume", "64M", "--only", ",".join(names), "--shapes", ",".join(o.shapes)]
    if o.sanitized:
        words.append("--allow-sanitizers")
    env = {"CISTERN_BIN": o.bin, "CISTERN_BENCH_CACHE": o.cache}
    child = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=sys.stderr, env={**os.environ, **env},
                             start_new_session=True, preexec_fn=procs.end_with_parent)
    try:
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()  # its trap ends the guest
            child.wait()
    if not os.path.exists(found):
        reason = "this machine cannot run a guest with RDMA" if code == 77 else f"the guest gave no result (code {code})"
        say(f"skipped: guest: {reason}")
        result["skipped"].append({"contestant": "guest", "medium": "guest", "reason": reason})
        return
    with open(found, encoding="utf-8") as f:
        inner = json.load(f)
    for key in ("contestants", "versions", "idle_cpu_us_per_second"):
        result[key].update(inner[key])
    if not inner["complete"]:
        result["skipped"].append({"contestant": "guest", "medium": "guest", "reason": "the guest ended before all was measured"})
    result["guest"] = {"machine": inner["machine"], "settings": inner["settings"]}
    for key in ("skipped", "results"):
        result[key] += inner[key]
