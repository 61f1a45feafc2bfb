"""What the figures were made on: kernel, CPU, file systems, programs."""
import os
import platform
import shutil
import subprocess


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0]


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_bytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def filesystem(folder):
    return first_line(["stat", "-f", "-c", "%T", folder])


def describe(folders):
    with open("/etc/os-release", encoding="utf-8") as f:
        system = [line.split("=", 1)[1].strip().strip('"') for line in f if line.startswith("PRETTY_NAME")]
    return {"cpu": cpu_model(), "cpus": os.cpu_count(), "memory_bytes": memory_bytes(), "kernel": platform.release(),
            "system": system[0] if system else "", "virtual": first_line(["systemd-detect-virt"]),
            "filesystems": {medium: filesystem(folder) for medium, folder in folders.items()},
            "load_average_before": os.getloadavg()}


def sanitized(bin_dir):
    """Whether these programs were built with sanitizers."""
    program = os.path.join(bin_dir, "cistern-osd")
    if shutil.which("ldd") is None:
        return False
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return any(name in libraries for name in ("libasan", "libubsan", "libtsan"))


def revision(top):
    commit = first_line(["git", "-C", top, "rev-parse", "--short=12", "HEAD"])
    changed = first_line(["git", "-C", top, "status", "--porcelain", "--untracked-files=no"])
    return commit + (" with changes" if changed else "")
