"""The processes that the harness starts: they are its own children, are known by pid, and end with it.

No process is ever looked for by its name. A child of a harness that is killed with -9 is killed by the kernel
(PR_SET_PDEATHSIG), so that nothing is left running in any case.
"""
import ctypes
import os
import random
import signal
import socket
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Something of a contestant did not work: the message says what, and ends with what it printed."""


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent():
    """The same for a script that has something to put in order."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def tail(path, lines=12):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except OSError:
        return ""


def free_port():
    """A free loopback port, below those that the system gives to outgoing connections."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(10000, 32000)))
                return s.getsockname()[1]
            except OSError:
                continue


def run(command, timeout=120, env=None, cwd=None):
    """Runs a command to its end; what it printed."""
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=timeout,
                              env={**os.environ, **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL,
                              start_new_session=True, preexec_fn=die_with_parent)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{command[0]} did not end within {timeout} s ({' '.join(map(str, command))})") from e
    except OSError as e:
        raise Failed(f"cannot run {command[0]}: {e.strerror}") from e
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Service:
    """A program that runs beside us, with its output in a file."""

    def __init__(self, name, command, log, env=None, fresh=False):
        self.name, self.command, self.log = name, [str(c) for c in command], log
        with open(log, "wb" if fresh else "ab") as out:
            try:
                self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                              env={**os.environ, **(env or {})}, cwd=os.path.dirname(log),
                                              start_new_session=True, preexec_fn=die_with_parent)
            except OSError as e:
                raise Failed(f"cannot start {command[0]}: {e.strerror}") from e

    def alive(self):
        return self.child.poll() is None

    def wait_for(self, ready, seconds, what):
        """Polls ready() until it is true; the service must stay alive meanwhile."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.alive():
                raise Failed(f"{self.name} ended while it was being started:\n{tail(self.log)}")
            if time.monotonic() > end:
                raise Failed(f"{self.name}: {what} within {seconds} s:\n{tail(self.log)}")
            time.sleep(0.02)

    def wait(self, seconds):
        """For a program that ends by itself."""
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{self.name} did not end within {seconds:.0f} s ({' '.join(self.command)})") from e
        if code != 0:
            raise Failed(f"{' '.join(self.command)} ended with {code}:\n{tail(self.log)}")

    def stop(self, hard=False, seconds=20):
        if not self.alive():
            return
        self.child.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def cpu_ns(self):
        return cpu_ns(self.child.pid)


def cpu_ns(pid):
    """CPU time of a process so far, all its threads, those that ended included.

    The process's CPU clock (clock_getcpuclockid(3)) has nanoseconds, where /proc/PID/stat has hundredths of a second. Its
    number follows from the pid.
    """
    clock = (~pid << 3) | 2
    return time.clock_gettime_ns(clock)


def machine_busy_ns():
    """CPU time that anybody on the machine has used so far, in ticks: user, nice, system, irq, softirq, steal (proc(5))."""
    with open("/proc/stat", encoding="ascii") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    return (v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) * (10**9 // os.sysconf("SC_CLK_TCK"))
