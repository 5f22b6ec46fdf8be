"""Manifests for Kubernetes: Indexed Jobs, of which each index does one group of a study's runs, and a Job that gathers.

Where one node does a group, one Job has all of them, an index each. Where several share each run, every group is a Job
of its own, with an index for each node and a headless service by which they meet: it begins, fails and is admitted by
Kueue as a whole. Nothing here goes through a shell: containers are given lists of words.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from finetune.launch.cluster import ClusterOptions, KubernetesOptions, taint, torchrun_settings
from finetune.launch.record import Launch

Manifest = dict[str, Any]

CONTAINER = "finetune"

LAUNCH_LABEL = "finetune/launch"
"""Label of everything that belongs to one launch."""

NODE, FAILURES = "NODE_NAME", "INDEX_FAILURES"
"""Variables that tell a pod where it is, and how often its index has failed before."""

PORT = 29400
"""Where the nodes of a group meet; pods have addresses of their own."""

SAVED = 130
"""Exit code of a pod that has saved and left, which is no failure."""

PULLING = 3600
"""Seconds beyond its time after which a pod is ended that hangs: its clock runs while the image is pulled, too."""

KEPT = 7 * 24 * 3600
"""Seconds for which Kubernetes keeps a Job that has ended."""

GATHER = {"cpu": "500m", "memory": "2Gi"}
"""What the gathering pod is given."""


def job_names(launch: Launch, groups: Sequence[int]) -> dict[str, list[int]]:
    """Name the Jobs that do some groups, each with its groups in the order of its indexes."""
    base = base_name(launch)
    if launch.cluster.nodes == 1:
        return {base: list(groups)}
    return {f"{base}-g{group}": [group] for group in groups}


def base_name(launch: Launch) -> str:
    """Name what belongs to a launch: the study's name, as far as it is a legal name, and a digest that tells it from
    other studies, and from former launches of this one."""
    slug = re.sub(r"[^a-z0-9]+", "-", launch.study.path.name.lower())[:24].strip("-")
    digest = hashlib.sha256(f"{launch.study.path}\n{launch.at}".encode()).hexdigest()[:8]
    return "-".join(part for part in ("ft", slug, digest) if part)


def gather_name(launch: Launch) -> str:
    """Name the Job that gathers."""
    return f"{base_name(launch)}-gather"


def manifests(launch: Launch, groups: Sequence[int]) -> list[Manifest]:
    """Write everything that is submitted for some groups."""
    jobs = [_group_job(launch, name, each) for name, each in job_names(launch, groups).items()]
    service = [_service(launch)] if launch.cluster.nodes > 1 else []
    return [*service, *jobs, _gather_job(launch)]


def probe(launch: Launch, name: str, token: str) -> Manifest:
    """Write a pod that sees whether it has what the runs' pods need but for GPUs: it ends with 0, with 3 where a file
    in the study's folder is not there, and with something else where finetune is not."""
    look = "import os, sys, finetune; sys.exit(0 if os.path.exists(sys.argv[1]) else 3)"
    spec = _pod(launch, ["-c", look, token], {"cpu": "100m", "memory": "256Mi"}, _secrets(_own(launch)))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": _labels(launch)}, "spec": spec}


def _group_job(launch: Launch, name: str, groups: Sequence[int]) -> Manifest:
    options, own = launch.cluster, _own(launch)
    nodes, base = options.nodes, base_name(launch)
    count = len(groups) if nodes == 1 else nodes
    words = ["-m", "finetune.launch.pod", str(launch.study.path), ",".join(map(str, groups))]
    words += [f"{name}-0.{base}:{PORT}"] if nodes > 1 else []
    pod = _pod(launch, words, _resources(options, own), [*_environment(options, own), *_secrets(own)])
    pod |= {"subdomain": base} if nodes > 1 else {}
    pod |= {"activeDeadlineSeconds": int(options.minutes * 60) + PULLING} if options.minutes else {}
    at_once = min(own.at_once or count, count) if nodes == 1 else nodes
    spec: Manifest = {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": at_once,
        "backoffLimitPerIndex": options.retries,
        # Nodes that share a run end together: the first that has failed for good fails all.
        **({"maxFailedIndexes": 0} if nodes > 1 else {}),
        "podReplacementPolicy": "Failed",  # the next pod of an index begins when the last one has saved
        "podFailurePolicy": {"rules": [_ignore_disruption(), _exit_code("Ignore", SAVED)]},
    }
    # Kueue may begin with as few as one of several groups.
    few = {"kueue.x-k8s.io/job-min-parallelism": "1"} if own.queue and nodes == 1 and at_once > 1 else {}
    return _job(launch, name, spec, pod, few)


def _gather_job(launch: Launch) -> Manifest:
    """Write the Job that waits for the groups, counts, and writes the report; that runs are missing is its last word,
    anything else that ends it is not."""
    words = ["-m", "finetune.launch.pod", str(launch.study.path), "gather"]
    pod = _pod(launch, words, dict(GATHER), _environment(launch.cluster, _own(launch)))
    rules = [_ignore_disruption(), _exit_code("Ignore", SAVED), _exit_code("FailJob", 1)]
    spec = {"completions": 1, "parallelism": 1, "backoffLimit": 3, "podReplacementPolicy": "Failed"}
    return _job(launch, gather_name(launch), {**spec, "podFailurePolicy": {"rules": rules}}, pod, {})


def _job(launch: Launch, name: str, spec: Manifest, pod: Manifest, annotations: dict[str, str]) -> Manifest:
    queue = _own(launch).queue
    metadata = {
        "name": name,
        "labels": {**_labels(launch), **({"kueue.x-k8s.io/queue-name": queue} if queue else {})},
        "annotations": {"finetune/command": shlex.join(["finetune", *launch.command]), **annotations},
    }
    template = {"metadata": {"labels": _labels(launch)}, "spec": pod}
    spec = {**spec, "ttlSecondsAfterFinished": KEPT, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _service(launch: Launch) -> Manifest:
    """Write the headless service that gives pods names; also before they are ready, since they wait for each other."""
    metadata = {"name": base_name(launch), "labels": _labels(launch)}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": _labels(launch)}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _ignore_disruption() -> Manifest:
    """Pre-emption, eviction, a node that goes: none of it is the runs' fault."""
    return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _exit_code(action: str, code: int) -> Manifest:
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [code]}}


def _pod(launch: Launch, words: Sequence[str], resources: dict[str, str], environment: Sequence[Manifest]) -> Manifest:
    own = _own(launch)
    container = {
        "name": CONTAINER,
        "image": own.image,
        "command": [literal(launch.cluster.python or "python")],
        "args": [literal(word) for word in words],
        "workingDir": launch.cwd if own.holds(launch.cwd) else own.mount,
        "env": list(environment),
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [
            {"name": "study", "mountPath": own.mount},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    said = {
        "priorityClassName": own.priority,
        "serviceAccountName": own.service_account,
        "imagePullSecrets": [{"name": name} for name in own.pull_secrets],
        "nodeSelector": own.node_selector,
        "tolerations": [_toleration(text) for text in own.tolerations],
        "securityContext": {} if own.user is None else {"runAsUser": own.user, "runAsGroup": own.user},
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": own.grace,
        "automountServiceAccountToken": False,
        **{key: value for key, value in said.items() if value},
        "containers": [container],
        "volumes": [
            {"name": "study", "persistentVolumeClaim": {"claimName": own.claim}},
            # Workers that read data hand it on there, and so does NCCL; by default it has 64 MB.
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _environment(options: ClusterOptions, own: KubernetesOptions) -> list[Manifest]:
    """List the variables of a pod, and what it is told of itself."""
    said = {"PYTHONUNBUFFERED": "1", **({"OMP_NUM_THREADS": str(options.cpus)} if options.cpus else {})}
    if options.nodes * options.processes > 1:
        said |= torchrun_settings(own.grace)
    said |= options.environment
    values = [{"name": name, "value": literal(value)} for name, value in said.items()]
    fields = {
        NODE: "spec.nodeName",
        FAILURES: "metadata.annotations['batch.kubernetes.io/job-index-failure-count']",
    }
    return values + [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]


def _secrets(own: KubernetesOptions) -> list[Manifest]:
    """List the variables that are references: what Kubernetes keeps of them never comes here."""
    places = {name: place.partition("/") for name, place in own.secrets.items()}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, _, key) in places.items()
    ]


def _resources(options: ClusterOptions, own: KubernetesOptions) -> dict[str, str]:
    """List what each pod of a group is given: as much as it asks for, and no more."""
    said = {"cpu": options.cpus, "memory": quantity(options.memory), own.gpu_resource: options.devices or None}
    return {name: str(value) for name, value in said.items() if value is not None}


def quantity(memory: str | None) -> str | None:
    """Write an amount of memory as Kubernetes does, for which `32G` would be 7 % less than for SLURM."""
    if memory is None:
        return None
    number, unit = re.fullmatch(r"([0-9]+)([KMGT]?)i?", memory).groups()  # type: ignore[union-attr]
    return f"{number}{unit or 'M'}i"


def literal(text: str) -> str:
    """Write a text in which Kubernetes puts no variable in the place of `$(NAME)`."""
    return text.replace("$", "$$")


def _toleration(text: str) -> Manifest:
    key, value, effect = taint(text)
    which = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return {"key": key, **which, **({"effect": effect} if effect else {})}


def _labels(launch: Launch) -> dict[str, str]:
    return {"app.kubernetes.io/name": "finetune", LAUNCH_LABEL: base_name(launch)}


def _own(launch: Launch) -> KubernetesOptions:
    own = launch.cluster.kubernetes
    assert own is not None, "a launch on Kubernetes is planned with its options"
    return own


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what anybody's YAML might take for something else than a text: 1e3, no, 0o7, 12:30."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    words = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    plain = re.fullmatch(r"[A-Za-z][-./_A-Za-z0-9]*", text) and text.lower() not in words
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def written(documents: Iterable[Manifest]) -> str:
    """Write manifests as YAML, in several documents."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=sys.maxsize)
