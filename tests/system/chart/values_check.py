#!/usr/bin/env python3
"""values.yaml, values.schema.json and the README's tables have the same values: values_check.py CHART"""
import json
import re
import sys

import yaml


def leaves(value, path=""):
    """Paths of what has a default; a map that has none inside is one."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def schema_paths(schema, path=""):
    for key, item in schema.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        if item.get("properties") and not path.count("[]"):
            yield from schema_paths(item, here)
        elif item.get("type") == "array" and item.get("items", {}).get("properties"):
            yield here
            for inner in schema_paths(item["items"], here + "[]"):
                yield inner
        elif item.get("properties"):
            yield from schema_paths(item, here)
        else:
            yield here


def main():
    chart = sys.argv[1]
    with open(f"{chart}/values.yaml", encoding="utf-8") as f:
        values = yaml.safe_load(f)
    with open(f"{chart}/values.schema.json", encoding="utf-8") as f:
        schema = json.load(f)
    with open(f"{chart}/README.md", encoding="utf-8") as f:
        rows = {}
        for names, default in re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", f.read(), re.M):
            for name in re.findall(r"`([^`]+)`", names):
                for component in ("mdc", "osd", "san", "gateway") if name.startswith("COMPONENT.") else ("",):
                    rows[name.replace("COMPONENT", component)] = default
    known = set(schema_paths(schema)) - {"global"}
    bad = []
    for path in sorted(known):
        # resources.requests and the like are Kubernetes' own
        shown = re.sub(r"\.resources\.(requests|limits)$", ".resources", path)
        if shown not in rows and path not in rows:
            bad.append(f"the README has no row for {shown}")
    for path in rows:
        if path not in known and not any(k.startswith(path + ".") or k.startswith(path + "[") for k in known):
            bad.append(f"the README has a row for {path}, which the schema does not know")
    for path, default in leaves(values):
        base = re.sub(r"\.requests\..*$", ".requests", path)
        if not any(base == k or base.startswith(k + ".") for k in known):
            bad.append(f"values.yaml has {path}, which the schema does not know")
        cell = rows.get(path, "").strip()
        if path in rows and isinstance(default, (bool, int, str)) and cell.strip("`") != (str(default).lower() if isinstance(default, bool) else str(default) if default != "" else ""):
            bad.append(f"the default of {path} is {default!r}, the README says {cell!r}")
    print("\n".join(bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
