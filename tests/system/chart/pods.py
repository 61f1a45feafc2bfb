#!/usr/bin/env python3
"""Runs the pods of rendered manifests as processes, without Kubernetes: what the chart says is what is run.

    pods.py prepare DIR MANIFESTS BIN           a folder for each pod in DIR/pods, its claims in DIR/claims; prints their names
    pods.py prepare DIR MANIFESTS ""            the same for `play`: paths in files stay as they are
    pods.py exec DIR POD [PROBE]                becomes the pod's container, or runs one of its probes in it
    pods.py play DIR POD MANIFESTS              prints the pod as `podman kube play` reads it, its volumes as folders
    pods.py move DIR POD                        gives the pod another address, as a restart does

A pod has a loopback address of its own, a node, its environment, its volumes as folders, its user and no capabilities. Paths
of mounts are replaced by those folders, everywhere in commands, arguments and files. The names of Services stand in a
hosts file of the pods' own. What is not there: images, cgroups, network policies, raw disks (a claim in block mode is a file).
"""
import base64
import json
import os
import re
import sys
import urllib.request

import yaml

BLOCK_BYTES = 256 << 20


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


class Pods:
    def __init__(self, folder, manifests, programs, nodes):
        self.folder, self.programs, self.nodes = folder, programs, nodes
        self.docs = [d for d in yaml.safe_load_all(read(manifests)) if d]
        self.net = f"127.{1 + os.getpid() % 250}.{1 + os.getpid() // 250 % 250}"
        self.pods = []

    @classmethod
    def of(cls, docs, nodes=3):
        pods = cls.__new__(cls)
        pods.docs, pods.nodes = docs, nodes
        return pods

    def object(self, kind, name):
        return next(d for d in self.docs if d["kind"] == kind and d["metadata"]["name"] == name)

    def instances(self):
        """(name, labels, spec, claims, node) of every pod that the controllers would make."""
        for d in self.docs:
            kind, name = d["kind"], d["metadata"]["name"]
            if kind == "Pod":
                yield name, d["metadata"]["labels"], d["spec"], [], 0
                continue
            if kind not in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
                continue
            template = d["spec"]["template"]
            count = self.nodes if kind == "DaemonSet" else d["spec"].get("replicas", 1)
            for i in range(count):
                pod = name if kind == "Job" else f"{name}-{i}"
                claims = d["spec"].get("volumeClaimTemplates", [])
                yield pod, template["metadata"]["labels"], template["spec"], claims, i % self.nodes

    def prepare(self):
        for number, (name, labels, spec, claims, node) in enumerate(self.instances()):
            home = f"{self.folder}/pods/{name}"
            os.makedirs(home)
            paths = {}
            container = spec["containers"][0]
            group = spec["securityContext"].get("fsGroup", 0)
            for mount in container.get("volumeMounts", []) + container.get("volumeDevices", []):
                where = mount.get("mountPath") or mount["devicePath"]
                paths[where] = self.volume(home, name, mount["name"], spec, claims, group)
            write(f"{home}/pod.json", json.dumps({
                "labels": labels, "node": f"node{node + 1}", "ip": f"{self.net}.{number + 1}", "paths": paths,
                "container": container, "user": spec["securityContext"].get("runAsUser", 0), "group": group,
                "programs": self.programs}))
            self.pods.append(name)
        if self.programs:
            self.map_files()
        write_hosts(self.folder, self.docs)
        print("\n".join(self.pods))

    def volume(self, home, pod, name, spec, claims, group):
        for claim in claims:
            if claim["metadata"]["name"] == name:
                return self.claim(f"{name}-{pod}", claim["spec"].get("volumeMode") == "Block", group)
        volume = next(v for v in spec["volumes"] if v["name"] == name)
        if "persistentVolumeClaim" in volume:
            claim = self.object("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            return self.claim(claim["metadata"]["name"], claim["spec"].get("volumeMode") == "Block", group)
        path = f"{home}/{name}"
        os.makedirs(path)
        os.chown(path, -1, group)
        os.chmod(path, 0o2775)
        if "secret" in volume:
            self.secret(volume["secret"], path, group)
        for source in [volume] + volume.get("projected", {}).get("sources", []):
            if "configMap" in source:
                for key, text in self.object("ConfigMap", source["configMap"]["name"])["data"].items():
                    write(f"{path}/{key}", text, 0o444)
        return path

    def secret(self, source, path, group):
        secret = self.object("Secret", source["secretName"])
        data = {k: base64.b64decode(v).decode() for k, v in secret.get("data", {}).items()}
        data.update(secret.get("stringData", {}))
        for item in source["items"]:
            write(f"{path}/{item['path']}", data[item["key"]], source["defaultMode"])
            os.chown(f"{path}/{item['path']}", 0, group)

    def claim(self, name, block, group):
        path = f"{self.folder}/claims/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if block:
            with open(path, "ab") as f:
                f.truncate(BLOCK_BYTES)
            os.chmod(path, 0o660)
        else:
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o2775)
        os.chown(path, -1, group)
        return path

    def map_files(self):
        for name in self.pods:
            pod = json.loads(read(f"{self.folder}/pods/{name}/pod.json"))
            for folder in pod["paths"].values():
                for file in os.listdir(folder) if os.path.isdir(folder) and f"/pods/{name}/" in folder else []:
                    path = f"{folder}/{file}"
                    mode = os.stat(path).st_mode & 0o777
                    write(path, mapped(read(path), pod["paths"]), mode)


def mapped(text, paths):
    if not paths:
        return text
    longest_first = sorted(paths, key=len, reverse=True)
    pattern = "|".join(re.escape(p) + r"(?![-\w])" for p in longest_first)
    return re.sub(pattern, lambda m: paths[m.group(0)], text)


def write_hosts(folder, docs):
    """In place: running pods have this file mounted."""
    lines = ["127.0.0.1 localhost"]
    for d in docs:
        if d["kind"] != "Service" or d["spec"].get("clusterIP") != "None":
            continue
        service = f"{d['metadata']['name']}.{d['metadata']['namespace']}.svc.cluster.local"
        for name in sorted(os.listdir(f"{folder}/pods")):
            pod = json.loads(read(f"{folder}/pods/{name}/pod.json"))
            if all(pod["labels"].get(k) == v for k, v in d["spec"]["selector"].items()):
                lines.append(f"{pod['ip']} {service} {name}.{service}")
    write(f"{folder}/hosts", "\n".join(lines) + "\n")


def move(folder, manifests, name):
    path = f"{folder}/pods/{name}/pod.json"
    pod = json.loads(read(path))
    head, last = pod["ip"].rsplit(".", 1)
    pod["ip"] = f"{head}.{int(last) % 120 + 121}" if int(last) < 121 else f"{head}.{int(last) - 120}"
    write(path, json.dumps(pod))
    write_hosts(folder, [d for d in yaml.safe_load_all(read(manifests)) if d])
    print(pod["ip"])


def environment(pod, name):
    env = {k: os.environ[k] for k in ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LD_LIBRARY_PATH") if k in os.environ}
    env["PATH"] = f"{pod['programs']}:{env['PATH']}"
    for e in pod["container"].get("env", []):
        field = e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        label = re.match(r"metadata\.labels\['(.*)'\]", field)
        value = {"metadata.name": name, "status.podIP": pod["ip"], "spec.nodeName": pod["node"]}.get(field, e.get("value", ""))
        env[e["name"]] = mapped(pod["labels"].get(label.group(1), "") if label else value, pod["paths"])
    if pod["paths"]:  # else as it is in the container
        env["CISTERN_SECRET"] = mapped("/etc/cistern-secret/secret", pod["paths"])
        env["TMPDIR"] = pod["paths"]["/run/cistern"]
    return env


def ask(container, probe, ip):
    get = probe["httpGet"]
    port = next(p["containerPort"] for p in container["ports"] if p["name"] == get["port"])
    try:
        with urllib.request.urlopen(f"http://{ip}:{port}{get['path']}", timeout=probe["timeoutSeconds"]) as answer:
            print(answer.status)
    except OSError as e:
        sys.exit(f"{get['path']}: {e}")


def run(folder, name, probe):
    pod = json.loads(read(f"{folder}/pods/{name}/pod.json"))
    container = pod["container"]
    env = environment(pod, name)
    words = container.get("command", []) + container.get("args", [])
    if probe and "httpGet" in container[f"{probe}Probe"]:
        ask(container, container[f"{probe}Probe"], pod["ip"])
        return
    if probe:
        words = container[f"{probe}Probe"]["exec"]["command"]
    words = [mapped(re.sub(r"\$\((\w+)\)", lambda m: env[m.group(1)], w), pod["paths"]) for w in words]
    os.chdir(mapped(container.get("workingDir", "/"), pod["paths"]))
    drop = ["setpriv", f"--reuid={pod['user']}", f"--regid={pod['group']}", "--clear-groups", "--inh-caps=-all",
            "--bounding-set=-all", "--no-new-privs"]
    inside = 'mount --bind "$0" /etc/hosts && exec "$@"'
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", inside, f"{folder}/hosts"] + drop + words
    os.execvpe(argv[0], argv, env)


def play(folder, name, manifests):
    """What the kubelet would fill in is filled in; the rest of the container is as the chart has it."""
    pod = json.loads(read(f"{folder}/pods/{name}/pod.json"))
    container = dict(pod["container"])
    env = environment(dict(pod, paths={}), name)
    names = [e["name"] for e in container.get("env", [])]
    container["env"] = [{"name": n, "value": env[n]} for n in names]
    for part in ("command", "args"):
        container[part] = [re.sub(r"\$\((\w+)\)", lambda m: env[m.group(1)], w) for w in container.get(part, [])]
    container.pop("resources", None)
    container.pop("readinessProbe", None)  # podman has one probe
    container.pop("ports", None)  # and takes none on the host's network
    paths = dict(pod["paths"], **{"/etc/hosts": f"{folder}/hosts"})
    container["volumeMounts"] = [{"name": f"v{i}", "mountPath": where} for i, where in enumerate(sorted(paths))]
    container.pop("volumeDevices", None)
    docs = [d for d in yaml.safe_load_all(read(manifests)) if d]
    owner = next(spec for n, _, spec, _, _ in Pods.of(docs).instances() if n == name)
    spec = {"hostNetwork": True, "containers": [container],
            "restartPolicy": owner.get("restartPolicy", "Always"), "securityContext": owner["securityContext"],
            "volumes": [{"name": f"v{i}", "hostPath": {"path": paths[where]}} for i, where in enumerate(sorted(paths))]}
    yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": pod["labels"]}, "spec": spec},
                   sys.stdout)


def main():
    verb, folder = sys.argv[1:3]
    folder = os.path.abspath(folder)
    if verb == "prepare":
        Pods(folder, sys.argv[3], sys.argv[4], 3).prepare()
    elif verb == "play":
        play(folder, sys.argv[3], sys.argv[4])
    elif verb == "move":
        move(folder, sys.argv[3], sys.argv[4])
    else:
        run(folder, sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)


if __name__ == "__main__":
    main()
