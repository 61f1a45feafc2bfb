"""What a contestant is: something that serves a block volume, or a floor below such figures.

A Backend has processes and files, on one medium; several contestants may share one (pools of one Ceph cluster). A Contestant
measures one shape at a time. Both say what is missing on this machine, and stop what they started.
"""
import os
import shutil


def missing_programs(needs):
    """Of {program or path: Debian package}, the packages of those that are not here."""
    absent = []
    for program, package in needs.items():
        found = os.path.exists(program) if program.startswith("/") else shutil.which(
            program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if not found and package not in absent:
            absent.append(package)
    return absent


class Backend:
    """Services of one kind on one medium. start() may raise procs.Failed; stop() is legal at any time, and twice."""

    def __init__(self, o, medium, folder):
        self.o, self.medium, self.folder = o, medium, folder
        self.services = []
        self.started = False

    def start(self):
        raise NotImplementedError

    def stop(self):
        for service in reversed(self.services):
            service.stop()
        self.services = []
        self.started = False

    def ensure(self):
        if not self.started:
            os.makedirs(self.folder, exist_ok=True)
            self.start()
            self.started = True


class Nothing(Backend):
    """For what needs no services."""

    def start(self):
        pass


class Contestant:
    """name is what --only takes; title stands in tables; durable says when a write counts as done."""
    name = title = what = durable = ""
    copies = 1
    media = ("ram", "disk")
    needs = {}
    floor = False  # not a contestant but what the machine can do at most
    slow = False   # takes long to start: not in a --quick run unless it is named

    def __init__(self):
        self.backend = None

    def unavailable(self, _o):
        """Why it cannot run here; empty: it can."""
        absent = missing_programs(self.needs)
        return f"Debian package{'s' if len(absent) > 1 else ''} {' '.join(absent)} missing" if absent else ""

    def backend_key(self):
        """Contestants with the same key share a backend."""
        return self.name

    def make_backend(self, o, medium, folder):
        raise NotImplementedError

    def prepare(self, _o):
        """With the backend running: makes the volume and writes all of it once."""

    def takes(self, _shape):
        """Whether the shape makes sense for it."""
        return True

    def measure(self, shape, o, seed):
        """One row of figures, see fio.figures and fio.load."""
        raise NotImplementedError

    def services(self):
        """The processes whose CPU time is this contestant's, the client not counted."""
        return self.backend.services

    def versions(self):
        """{program: version} for the record."""
        return {}

    def client(self, _o):
        """What makes the load."""
        return "fio"

    def close(self):
        """Ends what prepare started beside the backend."""
