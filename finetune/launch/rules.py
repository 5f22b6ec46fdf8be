"""What is wrong with a manifest though its schema allows it: Kubernetes' own checks, as far as ours can run into them.

Schemas hold types and the names of fields, and take any text for a name, a quantity or one of a few words. What is said
here is from the API's reference and the server's validation; the server has the last word, by a dry run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.launch.cluster import EFFECTS, LABEL_KEY, LABEL_VALUE, SECRET, VARIABLE

KINDS = {"Job": "batch/v1", "Service": "v1", "Pod": "v1"}

WORDS = {
    "restartPolicy": ("Never",),  # with Always a Job is refused, and with OnFailure its failure policy
    "completionMode": ("Indexed", "NonIndexed"),
    "podReplacementPolicy": ("Failed",),  # the one that a failure policy allows
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "action": ("Ignore", "Count", "FailIndex", "FailJob"),
    "operator": ("In", "NotIn", "Exists", "Equal"),
    "effect": EFFECTS,
    "medium": ("", "Memory"),
}
"""Fields that hold one of a few words, wherever they stand."""

NATURAL = (
    "parallelism",
    "completions",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "ttlSecondsAfterFinished",
    "terminationGracePeriodSeconds",
    "runAsUser",
    "runAsGroup",
)
"""Fields that hold a number from 0."""

LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
"""A label of a domain name, of at most 63 characters."""

QUANTITY = re.compile(r"\+?[0-9]+(?:\.[0-9]+)?(?:m|k|[MGTPE]|[KMGTPE]i|[eE][0-9]+)?")

Wrong = Iterator[tuple[str, str]]
"""Places, and what is wrong there."""


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """List what is wrong, with its place."""
    kind = manifest.get("kind")
    if KINDS.get(str(kind)) != manifest.get("apiVersion"):
        return [f"apiVersion: {manifest.get('apiVersion')!r} has no {kind!r}"]
    if missing := [name for name in ("metadata", "spec") if not isinstance(manifest.get(name), Mapping)]:
        return [f"{name}: is missing" for name in missing]
    found = [*_names(manifest), *_anywhere("", manifest)]
    return [f"{place}: {what}" for place, what in found or _particular(str(kind), manifest)]


def _particular(kind: str, manifest: Mapping[str, Any]) -> Wrong:
    """Look for what is wrong in a manifest of this kind, where all values are of the type that they must be."""
    spec = manifest["spec"]
    if kind == "Job":
        yield from _job(manifest["metadata"]["name"], spec)
    elif kind == "Service":
        yield from _service(spec)
    else:
        yield from _pod("spec", spec)


def _names(manifest: Mapping[str, Any]) -> Wrong:
    name = manifest["metadata"].get("name", "")
    if not _is_label(name):
        yield "metadata.name", f"{name!r} is no name of at most 63 small letters, digits and -"


def _is_label(name: Any, most: int = 63) -> bool:
    return isinstance(name, str) and len(name) <= most and LABEL.fullmatch(name) is not None


def _anywhere(at: str, value: Any) -> Wrong:
    """Look for what is wrong wherever it stands."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{at}.{key}" if at else str(key)
            if key in WORDS and item not in WORDS[key]:
                yield place, f"is {item!r}; it must be one of {', '.join(WORDS[key])}"
            if key in NATURAL and (not isinstance(item, int) or item < 0):
                yield place, f"is {item!r}; it must be a number from 0"
            if key in ("labels", "selector", "nodeSelector", "matchLabels"):
                yield from _labels(place, item)
            yield from _anywhere(place, item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from _anywhere(f"{at}[{number}]", item)
    elif value is None:
        yield at, "is empty"


def _labels(at: str, labels: Any) -> Wrong:
    for key, value in labels.items() if isinstance(labels, Mapping) else ():
        if not LABEL_KEY.fullmatch(str(key)) or not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
            yield at, f"{key}: {value!r} is no label"


def _job(name: str, spec: Mapping[str, Any]) -> Wrong:
    pod = spec.get("template", {}).get("spec")
    if not isinstance(pod, Mapping):
        yield "spec.template.spec", "is missing"
        return
    if "restartPolicy" not in pod:
        yield "spec.template.spec.restartPolicy", "is missing; a Job's pods are not restarted Always, the default"
    if "selector" in spec or "manualSelector" in spec:
        yield "spec.selector", "is for Kubernetes to write"
    if "activeDeadlineSeconds" in spec:
        yield "spec.activeDeadlineSeconds", "would end the runs that wait, too"
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and "completions" not in spec:
        yield "spec.completions", "is missing, and the Job is Indexed"
    if indexed and not _is_label(f"{name}-{max(spec.get('completions', 1) - 1, 0)}"):
        yield "metadata.name", "leaves no room for the index, which is part of the pods' host names"
    for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if field in spec and not indexed:
            yield f"spec.{field}", "is for Indexed Jobs"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield "spec.maxFailedIndexes", "needs backoffLimitPerIndex"
    yield from _pod("spec.template.spec", pod)
    containers = {each.get("name") for each in pod.get("containers", ())}
    for number, rule in enumerate(spec.get("podFailurePolicy", {}).get("rules", ())):
        yield from _failure_rule(f"spec.podFailurePolicy.rules[{number}]", rule, containers, spec)


def _failure_rule(at: str, rule: Mapping[str, Any], containers: set[Any], spec: Mapping[str, Any]) -> Wrong:
    if ("onExitCodes" in rule) == ("onPodConditions" in rule):
        yield at, "must have either onExitCodes or onPodConditions"
    if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in spec:
        yield f"{at}.action", "FailIndex needs backoffLimitPerIndex"
    codes = rule.get("onExitCodes", {})
    values = codes.get("values", ())
    if codes and codes.get("operator") not in ("In", "NotIn"):
        yield f"{at}.onExitCodes.operator", "must be In or NotIn"
    if codes and (not values or [*values] != sorted({*values}) or not all(0 <= value <= 255 for value in values)):
        yield f"{at}.onExitCodes.values", f"{values!r} are no exit codes, each once and in order"
    if 0 in values and codes.get("operator") == "In":
        yield f"{at}.onExitCodes.values", "0 is no failure"
    if codes and codes.get("containerName") not in {None, *containers}:
        yield f"{at}.onExitCodes.containerName", f"there is no container {codes['containerName']!r}"
    for condition in rule.get("onPodConditions", ()):
        if condition.get("status") not in ("True", "False", "Unknown"):
            yield f"{at}.onPodConditions", f"status is {condition.get('status')!r}"


def _service(spec: Mapping[str, Any]) -> Wrong:
    if spec.get("clusterIP") != "None":
        yield "spec.clusterIP", f"is {spec.get('clusterIP')!r}; pods have names under a headless service alone: None"
    if not spec.get("selector"):
        yield "spec.selector", "is missing, so that it has no pods"


def _pod(at: str, pod: Mapping[str, Any]) -> Wrong:
    containers, volumes = pod.get("containers", ()), pod.get("volumes", ())
    if not containers:
        yield f"{at}.containers", "is missing"
    yield from _repeated(f"{at}.containers", [each.get("name") for each in containers])
    yield from _repeated(f"{at}.volumes", [each.get("name") for each in volumes])
    if "subdomain" in pod and not _is_label(pod["subdomain"]):
        yield f"{at}.subdomain", f"{pod['subdomain']!r} is no name of a service"
    if pod.get("activeDeadlineSeconds", 1) < 1:
        yield f"{at}.activeDeadlineSeconds", "must be at least 1"
    known = {each.get("name") for each in volumes}
    for number, volume in enumerate(volumes):
        if len(volume) != 2:
            yield f"{at}.volumes[{number}]", "must have a name, and be of one kind"
    for number, container in enumerate(containers):
        yield from _container(f"{at}.containers[{number}]", container, known)


def _container(at: str, container: Mapping[str, Any], volumes: set[Any]) -> Wrong:
    if not _is_label(container.get("name")):
        yield f"{at}.name", f"{container.get('name')!r} is no name"
    image = container.get("image", "")
    if not image or re.search(r"\s", str(image)):
        yield f"{at}.image", f"{image!r} is no image"
    yield from _repeated(f"{at}.env", [each.get("name") for each in container.get("env", ())])
    for number, variable in enumerate(container.get("env", ())):
        yield from _variable(f"{at}.env[{number}]", variable)
    mounts = container.get("volumeMounts", ())
    yield from _repeated(f"{at}.volumeMounts", [each.get("mountPath") for each in mounts])
    for number, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            yield f"{at}.volumeMounts[{number}].name", f"there is no volume {mount.get('name')!r}"
        if not str(mount.get("mountPath", "")).startswith("/") or ":" in mount["mountPath"]:
            yield f"{at}.volumeMounts[{number}].mountPath", "must be the whole path of a folder, without a colon"
    yield from _resources(f"{at}.resources", container.get("resources", {}))


def _variable(at: str, variable: Mapping[str, Any]) -> Wrong:
    name, source = str(variable.get("name", "")), variable.get("valueFrom", {})
    if not VARIABLE.fullmatch(name):
        yield f"{at}.name", f"{name!r} is no name of a variable"
    if ("value" in variable) == ("valueFrom" in variable):
        yield at, "must have either a value or where it is from"
    if "value" in variable and SECRET.search(name):
        yield f"{at}.value", f"{name} would be read by whoever may see the Job; refer to a Secret"
    if "valueFrom" in variable and len(source) != 1:
        yield f"{at}.valueFrom", "must be from one place"
    if "secretKeyRef" in source and not (source["secretKeyRef"].get("name") and source["secretKeyRef"].get("key")):
        yield f"{at}.valueFrom.secretKeyRef", "must name a Secret and a key in it"


def _resources(at: str, resources: Mapping[str, Any]) -> Wrong:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for side, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if not isinstance(amount, str) or not QUANTITY.fullmatch(amount):
                yield f"{at}.{side}.{name}", f"{amount!r} is no quantity, as 8, 500m or 32Gi are"
            elif "/" in name and not amount.isdecimal():
                yield f"{at}.{side}.{name}", f"{amount!r} is no number of devices"
            elif name not in ("cpu", "memory", "ephemeral-storage") and "/" not in name:
                yield f"{at}.{side}.{name}", "there is no such resource"
    for name in {*limits, *requests}:
        if "/" in name and limits.get(name) != requests.get(name, limits.get(name)):
            yield f"{at}.requests.{name}", "devices are given as they are asked for: the limit must be the same"


def _repeated(at: str, names: Sequence[Any]) -> Wrong:
    for name, count in Counter(names).items():
        if count > 1:
            yield at, f"{name!r} is there {count} times"
