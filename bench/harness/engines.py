"""fio's engines that Debian's fio does not have: ours (bench/fio_engine/cistern.c), and its own for iSCSI.

Both are built as external engines against the source package of the very fio that is installed, because the layout of fio's
structures is no public interface. The source comes through apt from where the machine's packages come from, with a configuration
of our own: the machine's is not touched. It is kept in the build directory, and not fetched again.
"""
import fcntl
import os
import re
import subprocess

import procs

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINES = {  # name -> (source below fio's or below ours, what it is linked with)
    "cistern": (os.path.join(TOP, "bench/fio_engine/cistern.c"), None),
    "libiscsi": ("engines/libiscsi.c", "-liscsi"),
}
failed = {}  # name -> why it could not be had; asked for once a run


def get(o, name):
    """The path of an engine, built when it was not yet; None: it cannot be had, failed[name] says why."""
    if name in failed:
        return None
    os.makedirs(o.cache, exist_ok=True)
    try:
        with open(os.path.join(o.cache, "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two tests may want it at the same time
            return build(o, name)
    except procs.Failed as e:
        failed[name] = str(e).strip().splitlines()[0]
        return None


def preload(o):
    """What a program needs in its environment to load a library of ours that has sanitizers: their runtime before it."""
    if not o.sanitized:
        return {}
    library = os.path.join(os.path.dirname(o.bin), "lib/libcistern.so")
    runtime = [line.split()[2] for line in procs.run(["ldd", library]).splitlines() if "libasan" in line]
    return {"LD_PRELOAD": " ".join(runtime), "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "detect_leaks=0")}


def fio_version():
    """Of the Debian package, as 3.33-3."""
    try:
        version = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "fio"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        raise procs.Failed("fio is not installed as a Debian package") from e
    return re.sub(r"\+b\d+$", "", version)  # a rebuild has the source of its original


def build(o, name):
    folder = os.path.join(o.cache, f"fio-{fio_version()}")
    headers = source(folder)
    path, library = ENGINES[name]
    path = os.path.join(headers, path)
    out = os.path.join(folder, f"fio-{name}.so")
    words = ["cc", "-O2", "-g", "-D_GNU_SOURCE", "-DCONFIG_DYNAMIC_ENGINES", "-fPIC", "-shared", "-include",
             f"{headers}/config-host.h", f"-I{headers}", f"-I{TOP}", "-o", f"{out}.new", path]
    if library:
        words.append(library)
    else:
        lib = os.path.join(os.path.dirname(o.bin), "lib")
        words += [f"-L{lib}", "-lcistern", f"-Wl,-rpath,{lib}"]
        out = os.path.join(lib, "fio-cistern.so")
        words[words.index("-o") + 1] = f"{out}.new"
    if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(path):
        procs.run(words)
        os.rename(f"{out}.new", out)
    return out


def source(folder):
    """The configured source of the installed fio."""
    version = fio_version()
    tree = os.path.join(folder, "source")
    if not os.path.exists(os.path.join(tree, "config-host.h.done")):
        fetch(folder, version, tree)
        # Debian's own options that are about the layout of structures; what else is found here makes no difference to it.
        procs.run(["./configure", "--disable-native"], cwd=tree, timeout=300)
        with open(os.path.join(tree, "config-host.h.done"), "w", encoding="ascii"):
            pass
    return tree


def fetch(folder, version, tree):
    if not os.path.isdir(tree):
        os.makedirs(os.path.join(folder, "lists/partial"), exist_ok=True)
        os.makedirs(os.path.join(folder, "cache/archives/partial"), exist_ok=True)
        apt = ["apt-get", "-q", "-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::Etc::SourceList={folder}/src.list",
               "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o",
               "APT::Sandbox::User=root"]
        with open(f"{folder}/src.list", "w", encoding="ascii") as f:
            f.writelines(f"deb-src {line}\n" for line in repositories())
        procs.run([*apt, "update"], timeout=300)
        if not os.path.isdir(f"{folder}/fio-{version.split('-')[0]}"):
            procs.run([*apt, "source", f"fio={version}"], cwd=folder, timeout=300)
        os.rename(f"{folder}/fio-{version.split('-')[0]}", tree)


def repositories():
    """Where this machine has Debian's packages from, as apt knows it: lines of URI, suite and component."""
    out = procs.run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI) $(RELEASE) $(COMPONENT)",
                     "Created-By: Packages"])
    lines = sorted({line.split("|", 1)[1] for line in out.splitlines() if line.startswith("Debian|")})
    if not lines:
        raise procs.Failed("apt knows no repository of Debian (apt-get update)")
    return lines
