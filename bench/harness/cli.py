"""The options of ./dev bench, and what --list says."""
import argparse
import fnmatch
import os
import textwrap

import cephs
import floors
import guests
import machine
import ours
import peers
import shapes

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

DESCRIPTION = """\
Measures Cistern beside what Debian ships: Ceph RBD, nbdkit and tgt, and beside what this machine can do at most (the bare
file, a bare tcp round trip). All run at the same time and are measured in turns, so that what else the machine does
hits all of them alike. Nothing that you have is touched: everything lives in temporary directories, on loopback, and
is gone at the end, also after ^C.

What comes out: a table here, and in the output directory result.json (every single measurement, versions, settings),
table.md, and PNG pictures. result.json is there from the first measurement on, and says whether the run is complete.
"""
EPILOG = """\
examples:
  ./dev bench --quick                     under two minutes: what starts quickly, files in memory
  ./dev bench --install                   install the Debian packages that only the comparison needs (Ceph is large)
  ./dev bench                             all of it: about half an hour
  ./dev bench --only 'cistern*,ceph*' --media disk --shapes write-4k-d1,write-4k-d32
  ./dev bench --ratios [--versus BIN]     another tool: our figures as ratios of this machine's, or two builds in turns
docs/performance.md says what is fair in these figures and what is not.
"""


def contestants():
    """All of them, in the order of tables."""
    return [*(ours.Cistern(copies) for copies in (1, 2, 3)), ours.CisternNbd(),
            *(cephs.Rbd(copies) for copies in (1, 2, 3)), peers.Nbdkit(), peers.Tgt(), floors.RawFile(), floors.PingPong()]


def size(text):
    units = {"k": 10, "m": 20, "g": 30}
    unit = units.get(text[-1:].lower())
    number = text[:-1] if unit else text
    if not number.isdigit() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size like 512M")
    return int(number) << (unit or 0)


def names(text):
    return [n for n in text.split(",") if n]


def parser():
    p = argparse.ArgumentParser(prog="./dev bench", description=DESCRIPTION, epilog=EPILOG,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="short, files in memory only, without what starts slowly")
    p.add_argument("--list", action="store_true", help="contestants, shapes and media, and what is missing here; runs nothing")
    p.add_argument("--only", type=names, metavar="NAMES", help="only these contestants, with commas; * and ? are understood")
    p.add_argument("--shapes", type=names, metavar="NAMES", help="only these shapes of load")
    p.add_argument("--media", type=names, metavar="NAMES", help="of ram, disk, guest (default: all; --quick: ram)")
    p.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured (default 3; --quick: 2)")
    p.add_argument("--seconds", type=float, metavar="S", help="how long a measurement takes (default 1.5; --quick: 0.5)")
    p.add_argument("--warmup", type=float, metavar="S", help="load before it that does not count (default 0.3; --quick: 0.1)")
    p.add_argument("--volume", type=size, dest="volume_bytes", metavar="SIZE", help="size of each volume (default 512M; --quick: 128M)")
    p.add_argument("--out", metavar="DIR", help="where results go (default: build/bench-DATE)")
    p.add_argument("--disk-dir", metavar="DIR", default="/var/tmp", help="where files on disk lie (default /var/tmp)")
    p.add_argument("--ram-dir", metavar="DIR", default="/dev/shm", help="where files in memory lie (default /dev/shm)")
    p.add_argument("--publish", metavar="DIR", help="also put summary.json, table.md and pictures there (docs/performance)")
    p.add_argument("--allow-sanitizers", action="store_true",
                   help="run with programs that have sanitizers (only to try the harness: its figures mean nothing)")
    p.add_argument("--inside", metavar="FILE", help=argparse.SUPPRESS)  # this is the part in the guest; its result
    p.add_argument("--stages", action="store_true", help="instead: where the time of our own operations goes, by our services' metrics")
    p.add_argument("--fio-engine", action="store_true", help="build fio's engine for libcistern, print its path, and end")
    p.add_argument("--install", action="store_true", help="install the Debian packages for it (needs root), and end")
    return p


def add_defaults(o):
    def default(name, quick, full):
        if getattr(o, name) is None:
            setattr(o, name, quick if o.quick else full)

    if o.inside:
        o.media = ["guest"]
    default("media", ["ram"], list(shapes.MEDIA))
    default("rounds", 2, 3)
    default("seconds", 0.5, 1.5)
    default("warmup", 0.1, 0.3)
    default("volume_bytes", 128 << 20, 512 << 20)
    o.bin = os.path.abspath(os.environ.get("CISTERN_BIN", os.path.join(TOP, "build-release/bin")))
    o.cache = os.path.abspath(os.environ.get("CISTERN_BENCH_CACHE", os.path.join(TOP, "build/bench-cache")))


def check(p, o):
    """Refuses what makes no sense, with a reason."""
    there = os.access(os.path.join(o.bin, "cistern-osd"), os.X_OK)
    if not there and not o.list:
        p.error(f"there are no programs in {o.bin} (./dev release builds them)")
    o.sanitized = there and machine.sanitized(o.bin)
    if o.sanitized and (o.publish or not o.allow_sanitizers):
        p.error(f"the programs in {o.bin} have sanitizers: figures of them mean nothing and are not published")
    if o.rounds < 1 or o.seconds <= 0 or o.warmup < 0:
        p.error("--rounds and --seconds must be above 0")
    if o.volume_bytes < 16 << 20 or o.volume_bytes % (1 << 20):
        p.error("--volume must be at least 16M, and whole MiB")
    for medium in o.media:
        if medium not in shapes.MEDIA:
            p.error(f"there is no medium '{medium}': {', '.join(shapes.MEDIA)}")
    o.shapes = choose(p, "shape", o.shapes, [s.name for s in shapes.SHAPES])


def choose(p, kind, wanted, known):
    for pattern in wanted or ():
        if not fnmatch.filter(known, pattern):
            p.error(f"there is no {kind} '{pattern}': {', '.join(known)}")
    return [n for n in known if not wanted or any(fnmatch.fnmatch(n, pattern) for pattern in wanted)]


def parse(words):
    p = parser()
    o = p.parse_args(words)
    add_defaults(o)
    check(p, o)
    o.everybody = guests.contestants() if o.inside else contestants()
    o.names = choose(p, "contestant", o.only, [c.name for c in o.everybody + ([] if o.inside else guests.contestants())])
    return o


def show_list(o):
    print("contestants:")
    for c in o.everybody:
        why = c.unavailable(o)
        print(f"  {c.name:<12} {c.title}{' (a floor)' if c.floor else ''}{'   NOT HERE: ' + why if why else ''}")
        for line in textwrap.wrap(f"{c.what}. Durable: {c.durable}", 104):
            print(f"{'':<15}{line}")
    print("contestants in the guest:")
    for c in guests.contestants():
        print(f"  {c.name:<15} {c.title}{' (a floor)' if c.floor else ''}")
        for line in textwrap.wrap(f"{c.what}. Durable: {c.durable}", 101):
            print(f"{'':<18}{line}")
    print("shapes:")
    for s in shapes.SHAPES:
        print(f"  {s.name:<14} {s.title}")
    print("media:")
    for name, what in shapes.MEDIA.items():
        print(f"  {name:<6} {what}")
