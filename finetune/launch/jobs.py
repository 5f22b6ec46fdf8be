"""What Jobs and pods, as `kubectl get` gives them, say of a launch's groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.launch.launcher import Task

Object = Mapping[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
JOB = "batch.kubernetes.io/job-name"


@dataclass(frozen=True)
class Seen:
    """The Jobs of a launch, and their pods."""

    jobs: dict[str, Object]
    pods: dict[str, list[Object]]
    """By their Job's name, which may be gone already."""

    @classmethod
    def of(cls, items: Sequence[Object]) -> Seen:
        """Sort what kubectl has listed."""
        jobs = {item["metadata"]["name"]: item for item in items if item["kind"] == "Job"}
        pods: dict[str, list[Object]] = {}
        for item in items:
            if item["kind"] == "Pod":
                pods.setdefault(item["metadata"]["labels"].get(JOB, ""), []).append(item)
        return cls(jobs, pods)

    @property
    def at_work(self) -> bool:
        """Tell whether a Job goes on, or a pod of one that was deleted does."""
        pods = (pod for each in self.pods.values() for pod in each)
        return any(not end_of(job) for job in self.jobs.values()) or any(map(_alive, pods))

    def lacks_pods(self, name: str) -> bool:
        """Tell whether a Job that goes on has no pod, as where a quota is exceeded."""
        job = self.jobs.get(name)
        return job is not None and not end_of(job) and not any(map(_alive, self.pods.get(name, ())))


def _alive(pod: Object) -> bool:
    return pod.get("status", {}).get("phase", "Pending") in ("Pending", "Running")


def end_of(job: Object) -> Object | None:
    """Give the condition that says how a Job has ended; None where it goes on."""
    conditions = job.get("status", {}).get("conditions", ())
    ends = (each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True")
    return next(ends, None)


def _numbers(said: str | None) -> Iterator[int]:
    """Read indexes as a Job's status writes them: `0-2,5`."""
    for part in filter(None, (said or "").split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def group_tasks(seen: Seen, name: str, groups: Sequence[int], events: str) -> dict[int, Task]:
    """Find what becomes of a Job's groups; ``events`` is what Kubernetes says where it makes no pods."""
    job, pods = seen.jobs.get(name), seen.pods.get(name, [])
    if len(groups) == 1:  # or several nodes, each with an index, that do one group
        found = _task(job, pods, None, events)
        return {} if found is None else {groups[0]: found}
    indexed = {index: [pod for pod in pods if _index(pod) == index] for index in range(len(groups))}
    tasks = {groups[index]: _task(job, each, index, events) for index, each in indexed.items()}
    return {group: task for group, task in tasks.items() if task is not None}


def _index(pod: Object) -> int:
    metadata = pod["metadata"]
    return int(metadata.get("labels", {}).get(INDEX) or metadata.get("annotations", {}).get(INDEX, -1))


def _task(job: Object | None, pods: Sequence[Object], index: int | None, events: str) -> Task | None:
    alive = [pod for pod in pods if _alive(pod)]
    waiting = [pod for pod in alive if pod.get("status", {}).get("phase") != "Running"]
    if alive and not waiting:
        return Task("running", ", ".join(sorted({pod["spec"].get("nodeName", "") for pod in alive})), "")
    if waiting:
        why = (pod_problem(pod.get("status", {})) for pod in waiting)
        return Task("waiting", "", next(filter(None, why), "Pending"))
    if job is None:
        return None
    status, end = job.get("status", {}), end_of(job)
    if (end and end["type"] == "Complete") or (index is not None and index in _numbers(status.get("completedIndexes"))):
        return None
    if end or (index is not None and index in _numbers(status.get("failedIndexes"))):
        said = ": ".join(filter(None, map((end or {}).get, ("reason", "message"))))
        return Task("ended", "", _last_words(pods) or said)
    return Task("waiting", "", events or _suspended(job) or "no pod yet")


def _suspended(job: Object) -> str:
    """Say why a Job has no pods: Kueue lets it wait for its quota, or somebody has suspended it."""
    if not job["spec"].get("suspend"):
        return ""
    said = (each for each in job.get("status", {}).get("conditions", ()) if each["type"] == "Suspended")
    return next((f"Suspended: {each.get('message', '')}" for each in said), "Suspended")


def _last_words(pods: Sequence[Object]) -> str:
    """Say how the last of several pods has ended."""
    for pod in sorted(pods, key=lambda each: each["metadata"].get("creationTimestamp", ""), reverse=True):
        status = pod.get("status", {})
        for container in status.get("containerStatuses", ()):
            if ended := container.get("state", {}).get("terminated"):
                return f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}"
        if status.get("reason"):
            return f"{status['reason']}: {status.get('message', '')}"
    return ""


def pod_problem(status: Object) -> str:
    """Say in Kubernetes' words why a pod does not begin: no node has room, or its image or a Secret cannot be had."""
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return ": ".join(filter(None, (waiting["reason"], " ".join(waiting.get("message", "").split()))))
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Pending')}: {' '.join(condition.get('message', '').split())}"
    return ""
