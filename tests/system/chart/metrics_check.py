#!/usr/bin/env python3
"""Every metric that the files name stands in the services' sources: metrics_check.py TOP FILE..."""
import json
import os
import re
import sys


def expressions(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if path.endswith(".json"):
        return [t["expr"] for p in json.loads(text)["panels"] for t in p.get("targets", [])]
    return re.findall(r"expr: (.*)", text)


def main():
    top = sys.argv[1]
    sources = ""
    for room in ("common", "rdma", "services"):
        for folder, _, names in os.walk(os.path.join(top, room)):
            for name in names:
                if name.endswith((".c", ".h", ".def")):
                    with open(os.path.join(folder, name), encoding="utf-8") as f:
                        sources += f.read()
    if '{"metrics", CONFIG_STRING' not in sources:
        print("the services have no option --metrics yet: the names cannot be compared")
        return
    unknown = set()
    for path in sys.argv[2:]:
        for expression in expressions(path):
            for name in re.findall(r"\bcistern_\w+", re.sub(r'"[^"]*"', "", expression)):
                if f'"{name}"' not in sources and f'"{re.sub("_(bucket|sum|count)$", "", name)}"' not in sources:
                    unknown.add(f"{os.path.basename(path)}: no service has the metric {name}")
    print("\n".join(sorted(unknown)))
    sys.exit(1 if unknown else 0)


if __name__ == "__main__":
    main()
