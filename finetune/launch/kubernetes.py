"""Kubernetes, by kubectl, with the rights of its user: what becomes of a launch is said in Kubernetes' own words."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FinetuneError, InputError, Problem, bad_input
from finetune.core.run_dir import write_text
from finetune.launch.cluster import Cluster, ClusterOptions, KubernetesOptions
from finetune.launch.jobs import Seen, group_tasks, pod_problem
from finetune.launch.launcher import Task
from finetune.launch.manifests import (
    LAUNCH_LABEL,
    Manifest,
    base_name,
    gather_name,
    job_names,
    manifests,
    probe,
    written,
)
from finetune.launch.record import Launch, former_launch
from finetune.launch.rules import problems
from finetune.launch.volume import ADVICE, off_volume

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe

PROBE = 90.0
"""Seconds for a pod to begin, and to see whether it has the study's folder: its image may have to be pulled."""

LAST = 300
"""Characters of a pod's last words that are told."""

PATIENCE = "30s"
"""How long kubectl waits for an answer."""

BLAMED = (
    (r"context .* does not exist", "kubernetes.context"),
    (r"namespaces? \"", "kubernetes.namespace"),
    (r"gpu", "gpus"),
    (r"priorityclass|priority class", "kubernetes.priority"),
    (r"serviceaccount|service account", "kubernetes.service_account"),
    (r"queue", "kubernetes.queue"),
    (r"persistentvolumeclaim", "kubernetes.claim"),
    (r"image", "kubernetes.image"),
    (r"toleration|taint", "kubernetes.tolerations"),
    (r"node ?selector|node affinity", "kubernetes.node_selector"),
    (r"memory", "memory"),
    (r"cpu", "cpus"),
)
"""What a refusal is about, and which option that is, the likeliest first."""


class Kubernetes:
    """The cluster that kubectl is set up for."""

    name = "kubernetes"
    obeys = frozenset(ClusterOptions.model_fields) - {"partition", "account", "qos", "modules", "setup", "container"}
    resubmits = False  # Kubernetes tries failed pods again by itself, as often as `retries` says

    def unfit(self, recipe: ResolvedRecipe, launch: Launch, cluster: Cluster) -> Iterator[Problem]:
        """Find what no cluster could do: options that are missing or contradict each other, paths off the claim."""
        options, own = launch.cluster, launch.cluster.kubernetes
        if own is None:
            advice = "write kubernetes: {image: …, claim: …, mount: …}, as recipes/REFERENCE.md says"
            yield cluster.problem("kubernetes", "is missing", advice)
            return
        if options.gpus is not None and not str(options.gpus).isdecimal():
            advice = f"write gpus: {options.devices}, and name the type's label under kubernetes.node_selector"
            yield cluster.problem("gpus", f"is '{options.gpus}', and Kubernetes knows types of nodes alone", advice)
        if own.at_once is not None and options.nodes > 1:
            found = f"is for groups that have one node, and nodes is {options.nodes}"
            yield cluster.problem("kubernetes.at_once", found, "leave it out; a queue of Kueue's admits whole groups")
        if not own.holds(launch.study.path):
            found = f"is {own.mount}, and {launch.study.path} does not lie there"
            yield cluster.problem("kubernetes.mount", found, ADVICE)
        yield from off_volume(recipe, own)

    def dry_run(self, launch: Launch, groups: Sequence[int]) -> str:
        """Show the manifests."""
        return written(_documents(launch, groups))

    def check(self, launch: Launch, cluster: Cluster) -> list[str]:
        """Ask Kubernetes whether it would take the Jobs, has the claim and GPUs enough, and a pod whether it has the
        study's folder. Gives what could not be found out; raises InputError, with Kubernetes' words, for what is
        refused."""
        if shutil.which("kubectl") is None:
            raise bad_input("--on", "is kubernetes, and there is no kubectl here", "launch where kubectl is set up")
        documents = written(_documents(launch, launch.left()))
        done = _kubectl(launch, "create", "--dry-run=server", "--output=name", "--filename=-", said=documents)
        if done.returncode:
            raise _refused(cluster, done.stderr)
        return [*self._claim(launch, cluster), *self._gpus(launch, cluster), *self._probe(launch, cluster)]

    def _claim(self, launch: Launch, cluster: Cluster) -> Iterator[str]:
        own = _own(launch)
        done = _kubectl(launch, "get", "persistentvolumeclaim", own.claim, "--output=json")
        if done.returncode and "NotFound" in done.stderr:
            raise _refused(cluster, done.stderr)
        if done.returncode:
            yield f"whether there is a claim {own.claim} could not be found out: {_words(done.stderr)}"
        elif "ReadWriteMany" not in json.loads(done.stdout)["spec"].get("accessModes", ["ReadWriteMany"]):
            yield f"the claim {own.claim} is not ReadWriteMany, so that all pods have to be on one node"

    def _gpus(self, launch: Launch, cluster: Cluster) -> Iterator[str]:
        own, asked = _own(launch), launch.cluster.devices
        if not asked or own.autoscaling:
            return
        chosen = [f"--selector={','.join(f'{key}={value}' for key, value in own.node_selector.items())}"]
        done = _kubectl(launch, "get", "nodes", "--output=json", *(chosen if own.node_selector else []))
        if done.returncode:
            yield f"whether a node has {asked} GPUs could not be found out: {_words(done.stderr)}"
            return
        nodes = json.loads(done.stdout)["items"]
        counts = {node["metadata"]["name"]: _count(node, own.gpu_resource) for node in nodes}
        if max(counts.values(), default=0) < asked:
            has = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "no node fits the selector"
            advice = f"{own.gpu_resource} by node: {has}; where nodes are added, write kubernetes.autoscaling: true"
            raise cluster.wrong("gpus", f"is {asked}, and no node has so many", advice)

    def _probe(self, launch: Launch, cluster: Cluster) -> list[str]:
        """See whether a pod has the study's folder."""
        name = f"{base_name(launch)}-probe-{uuid.uuid4().hex[:6]}"
        token = launch.folder / name
        write_text(token, "")
        try:
            done = _kubectl(launch, "create", "--filename=-", said=written([_valid(probe(launch, name, str(token)))]))
            if done.returncode:
                raise _refused(cluster, done.stderr)
            code, why = self._ended(launch, cluster, name)
        finally:
            token.unlink()
            _kubectl(launch, "delete", "pod", name, "--wait=false", "--ignore-not-found")
        if code == 3:
            found = f"{launch.study.path} is not the same folder here and in a pod"
            raise cluster.wrong("kubernetes.claim", found, "name the claim whose folder this machine has there, too")
        if code:
            raise cluster.wrong("kubernetes.image", f"has no finetune that can be imported: {why}")
        if code == 0:
            return []
        return [f"whether pods have {launch.study.path} could not be found out: {why}"]

    def _ended(self, launch: Launch, cluster: Cluster, name: str) -> tuple[int | None, str]:
        """Wait for a pod; gives its exit code, or why it has none. Raises InputError where its image or a Secret cannot
        be had."""
        ends, why = time.monotonic() + PROBE, "no pod has begun"
        while time.monotonic() < ends:
            done = _kubectl(launch, "get", "pod", name, "--output=json")
            if done.returncode:
                return None, _words(done.stderr)
            status = json.loads(done.stdout).get("status", {})
            why = pod_problem(status) or why
            if re.match(r"ErrImage|ImagePull|InvalidImage", why):
                raise cluster.wrong("kubernetes.image", f"cannot be pulled: {why}")
            if why.startswith("CreateContainerConfigError"):
                raise cluster.wrong("kubernetes.secrets", f"cannot be had: {why}")
            for container in status.get("containerStatuses", ()):
                if ended := container.get("state", {}).get("terminated"):
                    code = ended["exitCode"]
                    return code, f"a pod ended with exit code {code}: {_words(ended.get('message', ''))[-LAST:]}"
            time.sleep(1)
        return None, why

    def submit(self, launch: Launch, groups: Sequence[int]) -> Launch:
        """Create the Jobs. What is launched is written down before, because pods read it; it is taken back where
        Kubernetes refuses anything."""
        documents, former = written(_documents(launch, groups)), former_launch(launch.study)
        for folder in (launch.turn(0).parent, launch.log(0).parent):
            folder.mkdir(parents=True, exist_ok=True)
        for turn in launch.turn(0).parent.iterdir():
            turn.unlink()
        facts = {"label": base_name(launch), "jobs": job_names(launch, groups), "gather": gather_name(launch)}
        launched = launch.submitted(groups, facts)
        done = _kubectl(launch, "create", "--filename=-", said=documents)
        if done.returncode:
            self._delete(launched)
            launched.take_back(former)
            raise FinetuneError(f"kubectl create: {_words(done.stderr)}")
        return launched

    def describe(self, launch: Launch) -> str:
        """Say in words what was created."""
        facts, own = launch.submissions[-1].facts, _own(launch)
        names = [*facts["jobs"]]
        jobs = f"Job {names[0]}" if len(names) == 1 else f"{len(names)} Jobs, {names[0]} to {names[-1]},"
        space = f" in namespace {own.namespace}" if own.namespace else ""
        return f"{jobs}{space} (gathered by {facts['gather']})"

    def tasks(self, launch: Launch) -> dict[int, Task]:
        """Find the groups that Kubernetes does, will do, or has given up."""
        seen = self._seen(launch)
        found = {}
        for job, groups in launch.submissions[-1].facts["jobs"].items():
            events = _events(launch, job) if seen.lacks_pods(job) else ""
            found.update(group_tasks(seen, job, groups, events))
        for group in (group for group, task in found.items() if task.state == "ended"):
            launch.give_up(group)  # the gathering pod cannot ask Kubernetes
        return found

    def at_work(self, launch: Launch) -> bool:
        """Tell whether a Job of the launch goes on, or a pod still saves."""
        return self._seen(launch).at_work

    def said(self, launch: Launch, group: int) -> str:
        """Give what the pods of a group have said, where Kubernetes still has it."""
        facts = launch.submissions[-1].facts
        for job, groups in facts["jobs"].items():
            if group in groups:
                index = f",batch.kubernetes.io/job-completion-index={groups.index(group)}" if len(groups) > 1 else ""
                pods = f"--selector=batch.kubernetes.io/job-name={job}{index}"
                done = _kubectl(launch, "logs", pods, "--tail=-1", "--prefix", "--ignore-errors")
                return done.stdout or _words(done.stderr)
        return ""

    def cancel(self, launch: Launch) -> None:
        """Delete the Jobs; pods under way are asked to save and leave."""
        done = self._delete(launch)
        if done.returncode:
            raise FinetuneError(f"kubectl delete: {_words(done.stderr)}")

    def _delete(self, launch: Launch) -> subprocess.CompletedProcess[str]:
        """Delete everything of a launch, and wait for none of it."""
        chosen = f"--selector={LAUNCH_LABEL}={launch.submissions[-1].facts['label']}"
        return _kubectl(launch, "delete", "jobs,services", chosen, "--wait=false", "--ignore-not-found")

    def _seen(self, launch: Launch) -> Seen:
        chosen = f"--selector={LAUNCH_LABEL}={launch.submissions[-1].facts['label']}"
        done = _kubectl(launch, "get", "jobs,pods", chosen, "--output=json")
        if done.returncode:
            raise FinetuneError(f"kubectl get: {_words(done.stderr)}")
        return Seen.of(json.loads(done.stdout)["items"])


def _documents(launch: Launch, groups: Sequence[int]) -> list[Manifest]:
    return [_valid(manifest) for manifest in manifests(launch, groups)]


def _valid(manifest: Manifest) -> Manifest:
    """Give a manifest on as it is; raises InputError for what Kubernetes would refuse, or take for something else."""
    if found := problems(manifest):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        raise InputError(Problem(f"the {name} would be refused: {each}") for each in found)
    return manifest


def _count(node: Mapping[str, Any], resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def _events(launch: Launch, job: str) -> str:
    """Give the last warning about a Job, such as that a quota is exceeded."""
    chosen = f"--field-selector=involvedObject.name={job},type=Warning"
    done = _kubectl(launch, "get", "events", chosen, "--sort-by=.lastTimestamp", "--output=json")
    items = [] if done.returncode else json.loads(done.stdout)["items"]
    return f"{items[-1].get('reason', '')}: {_words(items[-1].get('message', ''))}" if items else ""


def _own(launch: Launch) -> KubernetesOptions:
    own = launch.cluster.kubernetes
    assert own is not None, "a launch on Kubernetes is planned with its options"
    return own


def _kubectl(launch: Launch, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl, with ``said`` on its input. Raises FinetuneError where there is none."""
    own = _own(launch)
    chosen = {"context": own.context, "namespace": own.namespace, "request-timeout": PATIENCE}
    options = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
    how: dict[str, Any] = {"input": said, "capture_output": True, "text": True, "errors": "replace"}
    try:
        return subprocess.run(["kubectl", *words, *options], **how)
    except FileNotFoundError:
        raise FinetuneError("there is no kubectl here") from None


def _words(said: str) -> str:
    """What Kubernetes says, on one line."""
    lines = [re.sub(r"^error: ", "", line.strip()) for line in said.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


def _refused(cluster: Cluster, said: str) -> InputError:
    """Give Kubernetes' refusal as an error of the option that it is about."""
    words = _words(said)
    named = [option for pattern, option in BLAMED if re.search(pattern, words, re.IGNORECASE)]
    written_there = [option for option in named if cluster.says(option)]
    found = f"Kubernetes refuses it: {words}"
    return cluster.wrong(written_there[0], found) if written_there else bad_input(None, found)
