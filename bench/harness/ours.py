"""Cistern: an MDC and three OSDs on files, over tcp or RDMA; the load by fio's engine of ours, or through nbdkit."""
import json
import os
import secrets

import contest
import engines
import fio
import procs

OSDS = 3


class Cluster(contest.Backend):
    def __init__(self, o, medium, folder, copies, net="tcp:127.0.0.1"):
        super().__init__(o, medium, folder)
        self.copies, self.net = copies, net
        self.config = os.path.join(folder, "client.conf")
        self.with_metrics, self.metrics = False, {}  # service: port

    def program(self, name):
        return os.path.join(self.o.bin, name)

    def cistern(self, *words, timeout=120):
        return procs.run([self.program("cistern"), "--config", self.config, "--timeout", "60s", *words], timeout=timeout)

    def serve(self, name, *words):
        ready = os.path.join(self.folder, f"{name}.ready")
        words = [self.program(words[0]), *words[1:], "--secret-file", f"{self.folder}/secret", "--ready-file", ready]
        if self.with_metrics:
            self.metrics[name] = procs.free_port()
            words += ["--metrics", f"127.0.0.1:{self.metrics[name]}"]
        service = procs.Service(name, words, os.path.join(self.folder, f"{name}.log"))
        self.services.append(service)
        service.wait_for(lambda: os.path.exists(ready), 120, "not ready")

    def start(self):
        mdc = f"{self.net}:{procs.free_port()}"
        with open(os.open(f"{self.folder}/secret", os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
            f.write(secrets.token_hex(32))
        with open(self.config, "w", encoding="ascii") as f:
            f.write(f"mdc = {mdc}\nsecret-file = {self.folder}/secret\nhost = client1\n")
        self.serve("mdc", "cistern-mdc", "--listen", mdc, "--data-dir", f"{self.folder}/mdc")
        for i in range(1, OSDS + 1):
            self.serve(f"osd{i}", "cistern-osd", "--name", f"osd{i}", "--host", f"node{i}", *self.data_options(i), "--listen",
                       f"{self.net}:{procs.free_port()}", "--mdc", mdc, "--media", "ssd")
        self.cistern("pool", "create", "main", "--copies", str(self.copies))

    def data_options(self, i):
        """A file with room for both volumes (see Cistern and CisternNbd), wherever they are placed, and the journal."""
        return ["--data", f"{self.folder}/osd{i}.img", "--create", "--data-size", str(2 * self.o.volume_bytes + (256 << 20))]

    def make_volume(self, name):
        self.cistern("volume", "create", name, str(self.o.volume_bytes))


class Cistern(contest.Contestant):
    durable = "always: answered when every copy has it flushed"

    def __init__(self, copies):
        super().__init__()
        self.copies = copies
        self.name = f"cistern-{copies}"
        self.title = f"Cistern, {copies} cop{'y' if copies == 1 else 'ies'}"
        self.what = f"MDC, {OSDS} OSDs, tcp; fio with the engine of libcistern (bench/fio_engine)"
        self.engine = None
        self.slow = copies != 1

    def backend_key(self):
        return f"cistern-{self.copies}"

    def make_backend(self, o, medium, folder):
        return Cluster(o, medium, folder, self.copies)

    def client(self, o):
        return "fio, engine of libcistern" if engines.get(o, "cistern") else "cistern bench"

    def prepare(self, o):
        self.engine = engines.get(o, "cistern")
        self.backend.make_volume("native")
        self.backend.cistern("bench", "native", "--write", "--sequential", "--size", "1M", "--depth", "4", "--ops",
                             str(o.volume_bytes >> 20), timeout=600)

    def measure(self, shape, o, seed):
        if self.engine is None:
            return self.measure_bench(shape, o)
        return fio.load(shape, o, seed, self.fio_arguments(), self.services(), env=engines.preload(o))

    def fio_arguments(self):
        return [f"--ioengine=external:{self.engine}", "--volume=native", f"--config={self.backend.config}"]

    def measure_bench(self, shape, o):
        """Where fio has no engine for it: our own tool, which measures the same."""
        words = ["--json", "bench", "native", "--read" if fio.is_read(shape) else "--write", "--size", str(shape.block),
                 "--depth", str(shape.depth), "--runtime", f"{int(o.seconds * 1000)}ms", "--warmup",
                 f"{int(o.warmup * 1000)}ms"] + ([] if shape.rw.startswith("rand") else ["--sequential"])
        meter = fio.Meter(self.services())
        r = json.loads(self.backend.cistern(*words))[0]
        row = {"ios": r["ops"], "iops": r["iops"], "mb_per_s": r["bytes_per_second"] / 1e6, "avg_us": r["avg_ns"] / 1e3,
               "max_us": r["max_ns"] / 1e3, "seconds": r["measured_ns"] / 1e9, "p50_us": r["p50_ns"] / 1e3,
               "p99_us": r["p99_ns"] / 1e3, "p999_us": r["p999_ns"] / 1e3, "client_cpu_us": r["cpu_ns_per_op"] / 1e3}
        return meter.finish(row, o, " ".join(["cistern", *words]))

    def versions(self):
        return {"cistern": procs.run([self.backend.program("cistern"), "--version"]).strip()}


class CisternNbd(contest.Contestant):
    name = "cistern-nbd"
    title = "Cistern, 1 copy, through nbdkit"
    what = "the same cluster; fio's nbd engine, unix socket, nbdkit with Cistern's plugin"
    durable = Cistern.durable
    needs = {"nbdkit": "nbdkit", "fio": "fio"}

    def __init__(self):
        super().__init__()
        self.nbdkit = None

    def backend_key(self):
        return "cistern-1"

    def make_backend(self, o, medium, folder):
        return Cluster(o, medium, folder, 1)

    def prepare(self, o):
        cluster = self.backend
        cluster.make_volume("nbd")
        self.socket = os.path.join(cluster.folder, "nbd.sock")
        plugin = os.path.join(os.path.dirname(o.bin), "lib", "nbdkit-cistern-plugin.so")
        self.nbdkit = procs.Service("nbdkit", ["nbdkit", "-f", "-U", self.socket, plugin, "volume=nbd",
                                               f"config={cluster.config}"], os.path.join(cluster.folder, "nbdkit.log"),
                                    env=engines.preload(o))
        self.nbdkit.wait_for(lambda: os.path.exists(self.socket), 30, "no socket")
        fio.fill(o, self.arguments())

    def arguments(self):
        return ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.socket}"]

    def services(self):
        return [*self.backend.services, self.nbdkit]

    def measure(self, shape, o, seed):
        return fio.load(shape, o, seed, self.arguments(), self.services())

    def versions(self):
        return {"nbdkit": procs.run(["nbdkit", "--version"]).strip()}

    def close(self):
        if self.nbdkit is not None:
            self.nbdkit.stop()
