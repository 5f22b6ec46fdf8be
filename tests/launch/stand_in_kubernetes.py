"""A stand-in for Kubernetes where there is none: a kubectl that keeps objects in a folder, and a cluster that runs the
pods' commands as real processes of this machine.

What is created is validated strictly (kubernetes-validate). Of Kubernetes it does what a launch rests on, as the API's
reference describes it: indexes, variables and what is put in their place, exit codes and the pod failure policy, limits
per index, GPUs of nodes, images and Secrets that are not there, deletion with a time of grace, and eviction. It is no
scheduler, no network and no container; a pod sees this machine's files, so that a claim is any folder.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
VERSION = "1.33"
PLURALS = {"job": "Job", "pod": "Pod", "service": "Service", "node": "Node", "event": "Event"}
PLURALS["persistentvolumeclaim"] = "PersistentVolumeClaim"
MARK = "STAND_IN_POD"
"""Variable by which the processes of a pod are known, whatever sessions they have begun."""

INDEX = "batch.kubernetes.io/job-completion-index"


class Store:
    """Objects in a folder, a file each, and what kind of cluster it is."""

    def __init__(self, folder):
        self.folder = Path(folder)

    @contextmanager
    def locked(self):
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self

    @property
    def settings(self):
        return json.loads((self.folder / "settings.json").read_text())

    def set(self, **changes):
        with self.locked():
            (self.folder / "settings.json").write_text(json.dumps({**self.settings, **changes}))

    def path(self, kind, name):
        return self.folder / "objects" / f"{kind}.{name}.json"

    def put(self, item):
        path = self.path(item["kind"], item["metadata"]["name"])
        path.with_suffix(".tmp").write_text(json.dumps(item))
        path.with_suffix(".tmp").rename(path)

    def items(self, *kinds):
        found = [json.loads(path.read_text()) for path in sorted((self.folder / "objects").glob("*.json"))]
        return [item for item in found if item["kind"] in kinds]


class Refused(Exception):
    """What kubectl says on its error stream."""


def kubectl(store, argv):
    """kubectl, as far as a launch uses it; gives what it prints."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb")
    parser.add_argument("words", nargs="*")
    for option in ("context", "selector", "field-selector", "output", "filename", "dry-run", "tail", "sort-by"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--request-timeout")
    parser.add_argument("--wait", choices=("true", "false"))
    for flag in ("ignore-not-found", "prefix", "ignore-errors"):
        parser.add_argument(f"--{flag}", action="store_true")
    args = parser.parse_args(argv)
    settings = store.settings
    with open(store.folder / "asked", "a") as asked:
        asked.write(shlex.join(argv) + "\n")
    if args.context not in (None, "stand-in"):
        raise Refused(f'error: context "{args.context}" does not exist')
    if args.verb in settings["refuse"]:
        raise Refused(settings["refuse"][args.verb])
    return {"create": create, "get": get, "logs": logs, "delete": delete}[args.verb](store, args, settings)


def create(store, args, settings):
    documents, said = list(yaml.safe_load_all(sys.stdin.read())), []
    for item in documents:
        kind, metadata = item["kind"], item["metadata"]
        try:
            kubernetes_validate.validate(item, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(f'error: error validating "STDIN": {error.message}') from None
        about = 'Error from server (NotFound): error when creating "STDIN": '
        if args.namespace not in settings["namespaces"]:
            raise Refused(f'{about}namespaces "{args.namespace}" not found')
        if store.path(kind, metadata["name"]).exists():
            raise Refused(f'Error from server (AlreadyExists): {kind} "{metadata["name"]}" already exists')
        said.append(f"{kind.lower()}/{metadata['name']}")
        if args.dry_run is None:
            now = datetime.now(timezone.utc).isoformat()
            metadata = {**metadata, "namespace": args.namespace, "creationTimestamp": now}
            store.put({**item, "metadata": metadata, "status": {"phase": "Pending"} if kind == "Pod" else {}})
    return "\n".join(said)


def chosen(args, items):
    """The objects that --selector and --field-selector choose."""
    for condition in filter(None, (args.selector or "").split(",")):
        key, value = condition.split("=")
        items = [item for item in items if item["metadata"].get("labels", {}).get(key) == value]
    for condition in filter(None, (args.field_selector or "").split(",")):
        path, value = condition.split("=")
        items = [item for item in items if follow(item, path) == value]
    return items


def follow(item, path):
    for key in path.split("."):
        item = item.get(key, {})
    return item


def get(store, args, settings):
    kinds = [PLURALS[word.removesuffix("s")] for word in args.words[0].split(",")]
    if kinds == ["PersistentVolumeClaim"]:
        items = [
            {"kind": kinds[0], "metadata": {"name": name}, "spec": {"accessModes": modes}}
            for name, modes in settings["claims"].items()
        ]
    elif kinds == ["Node"]:
        items = [
            {"kind": "Node", "metadata": {"name": name, "labels": {"pool": name}}, "status": {"allocatable": amounts}}
            for name, amounts in settings["nodes"].items()
        ]
    else:
        items = store.items(*kinds)
    items = chosen(args, items)
    if len(args.words) == 1:
        return json.dumps({"kind": "List", "items": items})
    for item in items:
        if item["metadata"]["name"] == args.words[1]:
            return json.dumps(item)
    raise Refused(f'Error from server (NotFound): {args.words[0]}s "{args.words[1]}" not found')


def logs(store, args, settings):
    paths = {pod["metadata"]["name"]: log(store, pod) for pod in chosen(args, store.items("Pod"))}
    return "\n".join(
        f"[pod/{name}] {line}"
        for name, path in paths.items()
        if path.exists()
        for line in path.read_text().splitlines()
    )


def log(store, pod):
    return store.folder / "logs" / f"{pod['metadata']['name']}.log"


def delete(store, args, settings):
    kinds = [PLURALS[word.removesuffix("s")] for word in args.words[0].split(",")]
    items = [
        item
        for item in chosen(args, store.items(*kinds))
        if item["metadata"]["name"] in (args.words[1:] or item["metadata"]["name"])
    ]
    for item in items:
        item["metadata"]["deletionTimestamp"] = datetime.now(timezone.utc).isoformat()
        store.put(item)
    return "\n".join(f"{item['kind'].lower()} {item['metadata']['name']} deleted" for item in items)


def expanded(text, variables):
    """What Kubernetes makes of `$(NAME)` and `$$` in a word: unknown names stay as they are."""
    return re.sub(
        r"\$(?:\$|\(([^)]*)\))",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
        flags=re.DOTALL,
    )


class StandIn:
    """The cluster: a thread that makes pods of Jobs, and processes of pods."""

    def __init__(self, folder):
        self.store = Store(folder)
        for name in ("objects", "logs", "bin"):
            (self.store.folder / name).mkdir(parents=True)
        gpus = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"}
        settings = {"namespaces": ["default"], "claims": {"team": ["ReadWriteMany"]}, "secrets": {}, "refuse": {}}
        settings |= {"images": ["finetune:1"], "nodes": {"n1": gpus, "n2": gpus}, "quota": None}
        (self.store.folder / "settings.json").write_text(json.dumps(settings))
        program = self.store.folder / "bin" / "kubectl"
        words = shlex.join([sys.executable, "-m", __name__, str(folder)])
        program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH exec {words} "$@"\n')
        program.chmod(0o755)
        self.path = str(program.parent)
        self.processes, self.kill_at, self.counter = {}, {}, itertools.count()
        self.stopped, self.error = threading.Event(), None
        self.thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        for name in [*self.processes]:
            self._kill(name)
        if self.error is not None:
            raise self.error

    def pods(self, phase=None):
        with self.store.locked():
            found = self.store.items("Pod")
        return [pod for pod in found if phase in (None, pod["status"].get("phase"))]

    def jobs(self):
        with self.store.locked():
            return self.store.items("Job")

    def evict(self, pod):
        """Evict a pod, as pre-emption does: it is told, has its time of grace, and another takes its place."""
        with self.store.locked():
            pod["status"]["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
            ]
            self._terminate(pod)

    def kill(self, pod):
        """Kill a pod, as for want of memory."""
        self._kill(pod["metadata"]["name"])

    def _kill(self, name):
        """Kill all processes of a pod; a container's end with its first."""
        process = self.processes[name]  # the other thread may note its end meanwhile
        while pids := [pid for pid in in_pod(name) if pid != os.getpid() and alive(pid)]:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        process.wait()

    def _live(self):
        try:
            while not self.stopped.wait(0.1):
                with self.store.locked():
                    for pod in self.store.items("Pod"):
                        self._tend(pod)
                    for job in self.store.items("Job"):
                        self._reconcile(job)
                    for service in self.store.items("Service"):
                        if "deletionTimestamp" in service["metadata"]:
                            self.store.path("Service", service["metadata"]["name"]).unlink()
        except Exception as error:  # told at the end: a thread's own are not
            self.error = error

    def _terminate(self, pod):
        name = pod["metadata"]["name"]
        pod["metadata"].setdefault("deletionTimestamp", "now")
        self.store.put(pod)
        if name in self.processes and name not in self.kill_at:
            self.kill_at[name] = time.monotonic() + pod["spec"].get("terminationGracePeriodSeconds", 30)
            self.processes[name].send_signal(signal.SIGTERM)

    def _tend(self, pod):
        """Start a pod that can be, note the end of one, and remove one that is deleted and has ended."""
        name, deleted = pod["metadata"]["name"], "deletionTimestamp" in pod["metadata"]
        process = self.processes.get(name)
        if process is None:
            if deleted or pod["status"].get("phase") in ("Succeeded", "Failed"):
                if deleted:
                    self.store.path("Pod", name).unlink()
                return
            self._start(pod)
        elif process.poll() is not None:
            self._kill(name)  # what it has started, as when a container ends
            del self.processes[name]
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            self._ended(pod, code)
            if deleted:
                self.store.path("Pod", name).unlink()
        elif deleted:
            self._terminate(pod)
            if time.monotonic() > self.kill_at[name]:
                self._kill(name)

    def _ended(self, pod, code):
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "OOMKilled" if code == 137 else "Error"}
        lines = log(self.store, pod).read_text(errors="replace").splitlines()
        ended["message"] = "\n".join(lines[-10:]) if code else ""
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        pod["status"]["containerStatuses"] = [{"name": "finetune", "state": {"terminated": ended}}]
        self.store.put(pod)
        owner = pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name")
        path = self.store.path("Job", owner)
        if path.exists():
            job = json.loads(path.read_text())
            self._count(job, pod, code)
            self.store.put(job)

    def _count(self, job, pod, code):
        """What a Job makes of the end of a pod."""
        spec, status = job["spec"], job.setdefault("status", {})
        index = pod["metadata"]["annotations"].get(INDEX, "0")
        if code == 0:
            status.setdefault("done", []).append(int(index))
            return
        action = "Count"
        for rule in spec.get("podFailurePolicy", {}).get("rules", ()):
            if matches(rule, pod, code):
                action = rule["action"]
                break
        if action == "Ignore":
            return
        failures = status.setdefault("failures", {})
        failures[index] = failures.get(index, 0) + 1
        if action == "FailJob":
            self._end(job, "Failed", "PodFailurePolicy", f"Container finetune failed with exit code {code}")
        elif "backoffLimitPerIndex" in spec:
            if failures[index] > spec["backoffLimitPerIndex"]:
                status.setdefault("gone", []).append(int(index))
            if len(status.get("gone", ())) > spec.get("maxFailedIndexes", 10**6):
                self._end(
                    job, "Failed", "MaxFailedIndexesExceeded", "Job has exceeded the maximal number of failed indexes"
                )
        elif sum(failures.values()) > spec.get("backoffLimit", 6):
            self._end(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def _end(self, job, kind, reason, message):
        job["status"]["conditions"] = [{"type": kind, "status": "True", "reason": reason, "message": message}]

    def _reconcile(self, job):
        spec, status, name = job["spec"], job.setdefault("status", {}), job["metadata"]["name"]
        pods = [
            pod
            for pod in self.store.items("Pod")
            if pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") == name
        ]
        active = [pod for pod in pods if pod["status"].get("phase", "Pending") in ("Pending", "Running")]
        if "deletionTimestamp" in job["metadata"] or status.get("conditions"):
            for pod in active:
                self._terminate(pod)
            if "deletionTimestamp" in job["metadata"] and not active:
                for pod in pods:
                    self.store.path("Pod", pod["metadata"]["name"]).unlink()
                self.store.path("Job", name).unlink()
            return
        done, gone = status.get("done", []), status.get("gone", [])
        status["completedIndexes"] = ",".join(map(str, sorted(done)))
        status["failedIndexes"] = ",".join(map(str, sorted(gone)))
        if len(done) + len(gone) == spec["completions"]:
            reason = (
                ("Failed", "FailedIndexes", "Job has failed indexes")
                if gone
                else ("Complete", "CompletionsReached", "")
            )
            self._end(job, *reason)
        else:
            busy = {int(pod["metadata"]["annotations"].get(INDEX, "0")) for pod in active}
            for index in range(spec["completions"]):
                if len(busy) < spec["parallelism"] and index not in {*busy, *done, *gone}:
                    busy.add(index)
                    self._make(job, index)
        self.store.put(job)

    def _make(self, job, index):
        name, template = job["metadata"]["name"], job["spec"]["template"]
        quota = self.store.settings["quota"]
        if quota:
            event = {"kind": "Event", "metadata": {"name": name}, "type": "Warning", "reason": "FailedCreate"}
            self.store.put({**event, "message": quota, "involvedObject": {"name": name}})
            return
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
        annotations = {}
        if job["spec"].get("completionMode") == "Indexed":
            labels[INDEX] = annotations[INDEX] = str(index)
            failures = job["status"].get("failures", {}).get(str(index), 0)
            annotations["batch.kubernetes.io/job-index-failure-count"] = str(failures)
        number = next(self.counter)
        metadata = {"name": f"{name}-{index}-{number:05d}", "labels": labels, "annotations": annotations}
        metadata["creationTimestamp"] = datetime.now(timezone.utc).isoformat()
        self.store.put({"kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}})

    def _start(self, pod):
        settings, spec = self.store.settings, pod["spec"]
        [container] = spec["containers"]
        node = self._node(container, settings)
        waiting = None
        if container["image"] not in settings["images"]:
            waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{container["image"]}"'}
        variables = {}
        for each in container.get("env", ()):
            source = each.get("valueFrom", {})
            if "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                if reference["name"] not in settings["secrets"]:
                    message = f'secret "{reference["name"]}" not found'
                    waiting = waiting or {"reason": "CreateContainerConfigError", "message": message}
                    continue
                variables[each["name"]] = settings["secrets"][reference["name"]][reference["key"]]
            elif "fieldRef" in source:
                variables[each["name"]] = field(pod, node, source["fieldRef"]["fieldPath"])
            else:
                variables[each["name"]] = expanded(each["value"], variables)
        if node is None:
            message = (
                f"0/{len(settings['nodes'])} nodes are available: {len(settings['nodes'])} Insufficient nvidia.com/gpu."
            )
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            pod["status"]["conditions"] = [condition]
        elif waiting:
            pod["status"]["containerStatuses"] = [{"name": "finetune", "state": {"waiting": waiting}}]
        else:
            self._run(pod, container, node, variables)
        self.store.put(pod)

    def _node(self, container, settings):
        """A node that has as many free GPUs as a container asks for."""
        asked = int(container["resources"].get("limits", {}).get("nvidia.com/gpu", 0))
        for name, amounts in settings["nodes"].items():
            used = sum(
                int(pod["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu", 0))
                for pod in self.store.items("Pod")
                if pod["spec"].get("nodeName") == name and pod["status"].get("phase") == "Running"
            )
            if asked + used <= int(amounts.get("nvidia.com/gpu", 0)):
                return name
        return None

    def _run(self, pod, container, node, variables):
        metadata = pod["metadata"]
        index = metadata.get("annotations", {}).get(INDEX)
        own = {**variables, **({"JOB_COMPLETION_INDEX": index} if index is not None else {})}
        words = ["setpriv", "--pdeathsig=TERM"]  # they leave when this process ends, however that ends
        words += [expanded(word, own) for word in [*container["command"], *container["args"]]]
        words = [
            re.sub(rf"^[-a-z0-9]+-0\.{re.escape(pod['spec'].get('subdomain', '-'))}:", "127.0.0.1:", word)
            for word in words
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        environment["PYTHONPATH"] = f"{ROOT}:{environment.get('PYTHONPATH', '')}"
        with open(log(self.store, pod), "ab") as stream:
            how = {"stdin": subprocess.DEVNULL, "stdout": stream, "stderr": stream, "start_new_session": True}
            how |= {"cwd": container["workingDir"], "env": {**environment, **own, MARK: metadata["name"]}}
            self.processes[metadata["name"]] = subprocess.Popen(words, **how)
        pod["spec"]["nodeName"] = node
        pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "finetune", "state": {"running": {}}}]}


def field(pod, node, path):
    """What the downward API says of a pod."""
    if path == "spec.nodeName":
        return node or ""
    key = re.fullmatch(r"metadata\.annotations\['(.*)'\]", path)[1]
    return pod["metadata"].get("annotations", {}).get(key, "")


def matches(rule, pod, code):
    """Whether a rule of a pod failure policy is about this end of a pod."""
    if "onExitCodes" in rule:
        inside = code in rule["onExitCodes"]["values"]
        return inside == (rule["onExitCodes"]["operator"] == "In")
    conditions = {(each["type"], each["status"]) for each in pod["status"].get("conditions", ())}
    return any((each["type"], each["status"]) in conditions for each in rule["onPodConditions"])


def alive(pid):
    """Whether a process has not ended, and waits for nobody to be told so."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def in_pod(name):
    """The numbers of a pod's processes."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={name}".encode() in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)
        except (OSError, ProcessLookupError):
            continue  # it has ended by now


if __name__ == "__main__":
    store = Store(sys.argv[1])
    try:
        with store.locked():
            print(kubectl(store, sys.argv[2:]))
    except Refused as error:
        sys.exit(str(error))
