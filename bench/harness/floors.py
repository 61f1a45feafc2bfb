"""What nothing on this machine can beat: the bare file, and the bare round trip."""
import json
import os

import contest
import fio
import peers
import procs
import shapes


class RawFile(contest.Contestant):
    name = "file"
    title = "the bare file"
    what = "no server: fio's io_uring engine with O_DIRECT on one file"
    durable = "O_DSYNC"
    needs = {"fio": "fio"}
    floor = True

    def make_backend(self, o, medium, folder):
        return contest.Nothing(o, medium, folder)

    def prepare(self, o):
        peers.make_file(o, os.path.join(self.backend.folder, "disk.img"))

    def measure(self, shape, o, seed):
        words = ["--ioengine=io_uring", "--direct=1", f"--filename={self.backend.folder}/disk.img",
                 f"--size={o.volume_bytes}"]
        if not shapes.is_read(shape):
            words.append("--sync=dsync")
        return fio.load(shape, o, seed, words)

    def versions(self):
        return {"fio": procs.run(["fio", "--version"]).strip()}


class PingPong(contest.Contestant):
    name = "ping-pong"
    title = "tcp ping-pong"
    what = "no storage: two blocking processes send the payload one way and 128 bytes the other (bench/tcp_pingpong)"
    durable = "nothing is written"
    floor = True
    HEADER = 128

    def make_backend(self, o, medium, folder):
        return contest.Nothing(o, medium, folder)

    def takes(self, shape):
        return shape.depth == 1

    def client(self, _o):
        return "tcp_pingpong"

    def measure(self, shape, o, seed):
        there, back = self.HEADER, shape.block
        if not shapes.is_read(shape):
            there, back = self.HEADER + shape.block, self.HEADER
        words = [os.path.join(o.bin, "tcp_pingpong"), "--request", str(there), "--reply", str(back), "--runtime",
                 f"{int((o.seconds + o.warmup) * 1000)}ms"]
        meter = fio.Meter(())
        r = json.loads(procs.run(words))
        row = {"ios": r["ops"], "iops": 1e9 / r["avg_ns"], "mb_per_s": shape.block * 1e3 / r["avg_ns"],
               "avg_us": r["avg_ns"] / 1e3, "p50_us": r["p50_ns"] / 1e3, "p99_us": r["p99_ns"] / 1e3,
               "p999_us": r["p999_ns"] / 1e3, "max_us": r["max_ns"] / 1e3, "seconds": r["ops"] * r["avg_ns"] / 1e9,
               "client_cpu_us": r["cpu_ns_per_op"] / 1e3}
        return meter.finish(row, o, " ".join(words))
