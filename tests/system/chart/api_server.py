#!/usr/bin/env python3
"""As much of a Kubernetes API server as helm needs to install, upgrade and uninstall: discovery, and objects that are kept.

usage: api_server.py PORT-FILE    listens on a free loopback port and writes it there. Nothing is run, defaulted or admitted.
"""
import base64
import json
import os
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import yaml

KINDS = {  # group/version -> (resource, kind, namespaced)
    "v1": [("secrets", "Secret", True), ("configmaps", "ConfigMap", True), ("services", "Service", True),
           ("serviceaccounts", "ServiceAccount", True), ("pods", "Pod", True), ("namespaces", "Namespace", False),
           ("persistentvolumes", "PersistentVolume", False),
           ("persistentvolumeclaims", "PersistentVolumeClaim", True)],
    "apps/v1": [("statefulsets", "StatefulSet", True), ("deployments", "Deployment", True), ("daemonsets", "DaemonSet", True)],
    "batch/v1": [("jobs", "Job", True)],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy", True)],
}
KIND_OF = {(gv, r): k for gv, kinds in KINDS.items() for r, k, _ in kinds}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]

objects = {}  # (group/version, namespace, resource, name) -> object
lock = threading.Lock()
counter = [0]


def resource_list(gv):
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": [
        {"name": r, "singularName": k.lower(), "kind": k, "namespaced": n, "verbs": VERBS} for r, k, n in KINDS[gv]]}


def groups():
    out = []
    for gv in KINDS:
        if "/" in gv:
            group, version = gv.split("/")
            v = {"groupVersion": gv, "version": version}
            out.append({"name": group, "versions": [v], "preferredVersion": v})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": out}


def split_path(path):
    """(group/version, namespace, resource, name); None: not an object's."""
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        gv, rest = parts[1], parts[2:]
    else:
        gv, rest = "/".join(parts[1:3]), parts[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    return gv, namespace, rest[0], rest[1] if len(rest) > 1 else None


def stamped(obj, gv, resource, old=None):
    counter[0] += 1
    obj.setdefault("apiVersion", gv)
    obj.setdefault("kind", KIND_OF[(gv, resource)])
    if obj["kind"] == "Secret":
        obj.pop("stringData", None)
    meta = obj.setdefault("metadata", {})
    meta["uid"] = old["metadata"]["uid"] if old else str(uuid.uuid4())
    meta["resourceVersion"] = str(counter[0])
    return obj


def merged(old, patch):
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    out = dict(old)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def protobuf(data):
    """Fields of a message: {number: [value, ...]}; what has a length stays bytes (protobuf.dev/programming-guides/encoding)."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
        else:
            assert tag & 7 == 2, "a kind of field that objects here do not have"
            length = varint()
            value, at = data[at:at + length], at + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def text_map(entries):
    pairs = [protobuf(e) for e in entries]
    return {p[1][0].decode(): p.get(2, [b""])[0] for p in pairs}


def secret_of(data):
    """The one kind that helm sends so: the Secret that keeps a release (k8s.io/api/core/v1/generated.proto)."""
    unknown = protobuf(data[4:])
    kind = protobuf(unknown[1][0])[2][0].decode()
    assert kind == "Secret", kind
    secret = protobuf(unknown[2][0])
    meta = protobuf(secret[1][0])
    return {"apiVersion": "v1", "kind": kind, "type": secret.get(3, [b"Opaque"])[0].decode(),
            "metadata": {"name": meta[1][0].decode(), "namespace": meta.get(3, [b""])[0].decode(),
                         "labels": {k: v.decode() for k, v in text_map(meta.get(11, [])).items()}},
            "data": {k: base64.b64encode(v).decode() for k, v in text_map(secret.get(2, [])).items()}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def status(self, code, reason, message):
        self.answer(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                           "message": message, "metadata": {}})

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if data.startswith(b"k8s\0"):
            return secret_of(data)
        return yaml.safe_load(data) if data else {}

    def discovery(self, path):
        if path == "/version":
            return {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return groups()
        if path.startswith("/api") and path.split("/", 2)[-1] in KINDS:
            return resource_list(path.split("/", 2)[-1])
        return None

    def do_GET(self):
        url = urlparse(self.path)
        found = self.discovery(url.path)
        if found is not None:
            self.answer(200, found)
            return
        if not url.path.startswith(("/api/", "/apis/")):
            self.status(404, "NotFound", "nothing there")
            return
        gv, namespace, resource, name = split_path(url.path)
        with lock:
            if name:
                obj = objects.get((gv, namespace, resource, name))
                if obj:
                    self.answer(200, obj)
                else:
                    self.status(404, "NotFound", f'{resource} "{name}" not found')
                return
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair and "!" not in pair)
            items = [o for (g, ns, r, _), o in sorted(objects.items()) if (g, r) == (gv, resource) and namespace in ("", ns) and
                     all(o["metadata"].get("labels", {}).get(k) == v for k, v in wanted.items())]
            self.answer(200, {"kind": KIND_OF.get((gv, resource), "") + "List", "apiVersion": gv,
                              "metadata": {"resourceVersion": str(counter[0])}, "items": items})

    def do_POST(self):
        gv, namespace, resource, _ = split_path(urlparse(self.path).path)
        obj = self.body()
        key = (gv, namespace, resource, obj["metadata"]["name"])
        with lock:
            if key in objects:
                self.status(409, "AlreadyExists", f'{resource} "{key[3]}" already exists')
                return
            objects[key] = stamped(obj, gv, resource)
            self.answer(201, objects[key])

    def do_PUT(self):
        gv, namespace, resource, name = split_path(urlparse(self.path).path)
        key = (gv, namespace, resource, name)
        obj = self.body()
        with lock:
            objects[key] = stamped(obj, gv, resource, objects.get(key))
            self.answer(200, objects[key])

    def do_PATCH(self):
        gv, namespace, resource, name = split_path(urlparse(self.path).path)
        key = (gv, namespace, resource, name)
        patch = self.body()
        with lock:
            old = objects.get(key)
            apply = "apply-patch" in self.headers.get("Content-Type", "")
            if old is None and not apply:
                self.status(404, "NotFound", f'{resource} "{name}" not found')
                return
            objects[key] = stamped(patch if apply or old is None else merged(old, patch), gv, resource, old)
            self.answer(200 if old else 201, objects[key])

    def do_DELETE(self):
        gv, namespace, resource, name = split_path(urlparse(self.path).path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with lock:
            if objects.pop((gv, namespace, resource, name), None) is None:
                self.status(404, "NotFound", f'{resource} "{name}" not found')
            else:
                self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}})


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with open(sys.argv[1] + ".part", "w", encoding="utf-8") as f:
        f.write(str(server.server_address[1]))
    os.rename(sys.argv[1] + ".part", sys.argv[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
