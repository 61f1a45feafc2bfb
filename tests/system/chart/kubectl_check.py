#!/usr/bin/env python3
"""Lets kubectl decode what carries pods, and compares: a field that it does not know is gone afterwards.
usage: kubectl_check.py KUBECTL MANIFESTS"""
import json
import subprocess
import sys

import yaml

MARK = "CISTERN_CHECK"


def lost(before, after, at):
    if isinstance(before, dict):
        for key, value in before.items():
            if value in (None, {}, [], ""):
                continue
            if not isinstance(after, dict) or key not in after:
                yield f"{at}.{key}"
            else:
                yield from lost(value, after[key], f"{at}.{key}")
    elif isinstance(before, list):
        if not isinstance(after, list) or len(before) > len(after):
            yield at
            return
        for i, item in enumerate(before):
            yield from lost(item, after[i], f"{at}[{i}]")
    elif str(before) != str(after):
        yield f"{at} ({before!r} became {after!r})"


def main():
    with open(sys.argv[2], encoding="utf-8") as f:
        docs = [d for d in yaml.safe_load_all(f) if d]
    bad = 0
    for d in docs:
        if d["kind"] not in ("StatefulSet", "Deployment", "DaemonSet", "Job", "Pod"):
            continue
        run = subprocess.run([sys.argv[1], "set", "env", "--local", "-f", "-", "-o", "json", f"{MARK}=1"],
                             input=json.dumps(d), capture_output=True, text=True, check=False)
        if run.returncode != 0:
            print(f"{d['kind']} {d['metadata']['name']}: {run.stderr.strip()}")
            bad += 1
            continue
        if MARK not in run.stdout:
            print(f"{d['kind']} {d['metadata']['name']}: kubectl did nothing with it")
            bad += 1
        for where in lost(d, json.loads(run.stdout), d["kind"] + " " + d["metadata"]["name"]):
            print(where)
            bad += 1
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
