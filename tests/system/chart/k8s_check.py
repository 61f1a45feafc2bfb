#!/usr/bin/env python3
"""Checks what `helm template` prints: k8s_check.py TYPES-FOLDER... < manifests

The types of every field, then what types do not say: names that refer to each other, selectors, ports, limits of names and
labels. Prints what is wrong, a line each; exit status 1 when there is anything.
"""
import re
import sys

import yaml

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from k8s_types import Types

DNS = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
CLUSTER_SCOPED = ("PersistentVolume",)


def name_of(d):
    return f"{d['kind']} {d['metadata']['name']}"


def matches(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


class Check:
    def __init__(self, docs):
        self.docs = docs
        self.pods = [p for p in (self.pod_of(d) for d in docs) if p]

    @staticmethod
    def pod_of(d):
        if d["kind"] == "Pod":
            return d, d["metadata"].get("labels", {}), d["spec"]
        if d["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
            t = d["spec"]["template"]
            return d, t["metadata"].get("labels", {}), t["spec"]
        return None

    def find(self, kind, name):
        return any(d["kind"] == kind and d["metadata"]["name"] == name for d in self.docs)

    def all(self):
        yield from self.identity()
        for d in self.docs:
            yield from self.metadata(d)
            yield from self.by_kind(d)
        for owner, labels, spec in self.pods:
            for problem in self.pod(owner, labels, spec):
                yield f"{name_of(owner)}: {problem}"

    def identity(self):
        seen = set()
        for d in self.docs:
            key = (d["kind"], d["metadata"]["name"])
            if key in seen:
                yield f"{name_of(d)}: is there twice"
            seen.add(key)
            if d["kind"] not in CLUSTER_SCOPED and not d["metadata"].get("namespace"):
                yield f"{name_of(d)}: no namespace"

    def metadata(self, d):
        m = d["metadata"]
        limit = 63 if d["kind"] in ("Service", "StatefulSet", "Job") else 253
        if d["kind"] == "StatefulSet":
            limit = 52  # its pods' label controller-revision-hash has its name and a hash
        if not DNS.match(m["name"]) or len(m["name"]) > limit:
            yield f"{name_of(d)}: its name is too long or has characters that are not allowed"
        sets = [m.get("labels") or {}]
        pod = self.pod_of(d)
        if pod:
            sets.append(pod[1])
        for labels in sets:
            for key, value in labels.items():
                if not LABEL_KEY.match(key) or not LABEL_VALUE.match(value):
                    yield f"{name_of(d)}: the label {key}={value} is not legal"

    def by_kind(self, d):
        spec = d.get("spec", {})
        if d["kind"] in ("StatefulSet", "Deployment", "DaemonSet"):
            if not matches(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
                yield f"{name_of(d)}: its selector does not match its own pods"
            strangers = [name_of(o) for o, labels, _ in self.pods
                         if o is not d and matches(spec["selector"]["matchLabels"], labels)]
            if strangers:
                yield f"{name_of(d)}: its selector matches pods of {strangers}"
        if d["kind"] == "StatefulSet" and not self.find("Service", spec["serviceName"]):
            yield f"{name_of(d)}: there is no Service {spec['serviceName']}"
        if d["kind"] == "Service":
            yield from self.service(d, spec)
        if d["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = spec["selector" if d["kind"] == "PodDisruptionBudget" else "podSelector"]["matchLabels"]
            if not any(matches(selector, labels) for _, labels, _ in self.pods):
                yield f"{name_of(d)}: selects no pod"
        if d["kind"] == "PersistentVolumeClaim" and spec.get("volumeName") and \
                not self.find("PersistentVolume", spec["volumeName"]):
            yield f"{name_of(d)}: there is no PersistentVolume {spec['volumeName']}"
        if d["kind"] == "PersistentVolume" and \
                not self.find("PersistentVolumeClaim", spec["claimRef"]["name"]):
            yield f"{name_of(d)}: there is no claim {spec['claimRef']['name']}"

    def service(self, d, spec):
        chosen = [s for _, labels, s in self.pods if matches(spec["selector"], labels)]
        if not chosen:
            yield f"{name_of(d)}: selects no pod"
        for port in spec["ports"]:
            names = {p["name"] for s in chosen for c in s["containers"] for p in c.get("ports", [])}
            if isinstance(port.get("targetPort"), str) and port["targetPort"] not in names:
                yield f"{name_of(d)}: no pod that it selects has a port {port['targetPort']}"

    def pod(self, owner, labels, spec):
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        claims = {c["metadata"]["name"]: c["spec"] for c in owner["spec"].get("volumeClaimTemplates", [])}
        for volume in volumes.values():
            yield from self.volume(volume)
        for c in spec["containers"]:
            yield from self.container(c, volumes, claims, spec)
        used = {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", []) + c.get("volumeDevices", [])}
        for name in set(volumes) | set(claims):
            if name not in used:
                yield f"the volume {name} is not used"
        if spec.get("automountServiceAccountToken") is not False:
            yield "gets a token of the Kubernetes API"
        if not self.find("ServiceAccount", spec["serviceAccountName"]) and spec["serviceAccountName"] not in ("default", "external"):
            yield f"there is no ServiceAccount {spec['serviceAccountName']}"

    def volume(self, volume):
        sources = [volume] + volume.get("projected", {}).get("sources", [])
        for source in sources:
            if "configMap" in source and not self.find("ConfigMap", source["configMap"]["name"]):
                yield f"there is no ConfigMap {source['configMap']['name']}"
        if "secret" in volume and not volume["secret"]["secretName"].startswith("external") and \
                not self.find("Secret", volume["secret"]["secretName"]):
            yield f"there is no Secret {volume['secret']['secretName']}"
        if "persistentVolumeClaim" in volume and \
                not self.find("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]):
            yield f"there is no claim {volume['persistentVolumeClaim']['claimName']}"

    def container(self, c, volumes, claims, spec):
        env = {e["name"] for e in c.get("env", [])}
        for text in c.get("command", []) + c.get("args", []):
            for variable in VARIABLE.findall(text):
                if variable not in env:
                    yield f"{text!r} uses the variable {variable}, which is not set"
        for m in c.get("volumeMounts", []):
            if m["name"] not in volumes and m["name"] not in claims:
                yield f"mounts {m['name']}, which is no volume"
            if claims.get(m["name"], {}).get("volumeMode") == "Block":
                yield f"mounts {m['name']}, which is a raw disk"
        for m in c.get("volumeDevices", []):
            if m["name"] in claims and claims[m["name"]].get("volumeMode") != "Block":
                yield f"uses {m['name']} as a raw disk, which it is not"
            if m["name"] not in claims and m["name"] not in volumes:
                yield f"uses {m['name']}, which is no volume"
        ports = {p["name"]: p["containerPort"] for p in c.get("ports", [])}
        if len(set(ports.values())) != len(ports):
            yield f"two of its ports have one number: {ports}"
        for number in ports.values():
            if not 0 < number < 65536:
                yield f"{number} is no port"
        yield from self.probes(c, ports)
        yield from self.security(c, spec)
        yield from self.resources(c)

    @staticmethod
    def probes(c, ports):
        for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
            port = c.get(kind, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"its {kind} asks port {port}, which it does not have"
        if any(p in ports for p in ("mdc", "osd", "san", "gateway")) and \
                not ("readinessProbe" in c and "livenessProbe" in c):
            yield "a service without probes"

    @staticmethod
    def security(c, spec):
        s = c.get("securityContext", {})
        whole = spec.get("securityContext", {})
        if s.get("privileged"):
            yield "is privileged"
        if s.get("allowPrivilegeEscalation") is not False or s.get("readOnlyRootFilesystem") is not True:
            yield "may gain privileges, or write to its root file system"
        if s.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"
        if set(s.get("capabilities", {}).get("add", [])) - {"IPC_LOCK"}:
            yield f"adds capabilities {s['capabilities']['add']}"
        root = s.get("runAsUser", whole.get("runAsUser")) == 0
        if root and not s["capabilities"].get("add") and c["name"] != "install":
            yield "is root without need"
        if not root and not whole.get("runAsNonRoot"):
            yield "may be root"
        if not (s.get("seccompProfile") or whole.get("seccompProfile")):
            yield "no seccomp profile is named"

    @staticmethod
    def resources(c):
        r = c.get("resources", {})
        for part in ("requests", "limits"):
            for name, value in r.get(part, {}).items():
                if not QUANTITY.match(str(value)):
                    yield f"{part} {name}: {value!r} is no amount"
                if ("/" in name or name.startswith("hugepages-")) and r.get("limits", {}).get(name) != value:
                    yield f"{name}: requests and limits must be equal"
        if any(n.startswith("hugepages-") for n in r.get("limits", {})) and not r.get("requests", {}).get("memory"):
            yield "huge pages without a request for memory"
        if not r.get("requests", {}).get("memory"):
            yield "no request for memory"


def main():
    types = Types(sys.argv[1:])
    docs = [d for d in yaml.safe_load_all(sys.stdin) if d]
    problems = []
    for d in docs:
        kind = (d.get("apiVersion"), d.get("kind"))
        if kind not in types.kinds:
            problems.append(f"{kind}: Kubernetes knows no such kind")
        else:
            problems.extend(types.check(d, ("name", types.kinds[kind]), name_of(d)))
    if not problems:  # the rest relies on the shape
        problems.extend(Check(docs).all())
    print("\n".join(problems) if problems else f"{len(docs)} objects", file=sys.stderr if problems else sys.stdout)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
