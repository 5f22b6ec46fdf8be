"""Manifests of all combinations of options are valid, mutated ones are refused, and no name is taken for anything else.

Three judges: the server's schemas in strict mode (kubernetes-validate), a round trip through Kubeflow's models of the
API, which finds what a model does not know, and our own rules for what both let pass.
"""

import copy
import functools
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubeflow_trainer_api import models
from kubernetes_validate import utils

from finetune.core.run_dir import StudyDir
from finetune.launch.cluster import ClusterOptions, KubernetesOptions
from finetune.launch.manifests import base_name, literal, manifests, probe, quantity, written
from finetune.launch.record import Group, Launch
from finetune.launch.rules import problems
from tests.launch.stand_in_kubernetes import expanded

utils.schema_contents = functools.cache(utils.schema_contents)

VERSIONS = ("1.29", "1.33", "1.37")
"""The oldest with a limit of retries for each index that is on by default, one between, and the newest."""

GROUPS = (Group("lora", (0, 1)), Group("lora", (2,)), Group("full", (0, 1)))
OWN = {"image": "registry.example/finetune:1", "claim": "team", "mount": "/mnt/team"}


def planned(folder="/mnt/team/runs/topics", overrides=(), own=(), **options):
    command = ("run", "/mnt/team/recipe.yaml", *overrides, "--output", "/mnt/team/runs")
    cluster = ClusterOptions(kubernetes=KubernetesOptions(**{**OWN, **dict(own)}), **options)
    return Launch(StudyDir(Path(folder)), "kubernetes", "2026-01-01", command, "/mnt/team/me", cluster, GROUPS)


def model_of(manifest):
    name = {"Job": "IoK8sApiBatchV1Job", "Service": "IoK8sApiCoreV1Service", "Pod": "IoK8sApiCoreV1Pod"}
    return getattr(models, name[manifest["kind"]])


def by_rules(manifest):
    return bool(problems(manifest))


def by_schema(manifest, version="1.33"):
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError):
        return True
    return False


def by_round_trip(manifest):
    try:
        return model_of(manifest).from_dict(manifest).to_dict() != manifest
    except (ValueError, TypeError, AttributeError, KeyError):
        return True


JUDGES = {"rules": by_rules, "schema": by_schema, "round trip": by_round_trip}

CHOICES = {
    "gpus": 2,
    "cpus": 8,
    "memory": "32G",
    "time": "4:00:00",
    "nodes": 2,
    "processes": 4,
    "retries": 0,
    "environment": {"HF_HOME": "/mnt/team/hf", "NAME": "$(HOME) 'a' \"b\"\n"},
    "python": "/opt/venv/bin/python",
}
OWN_CHOICES = {
    "queue": "gpus",
    "secrets": {"HF_TOKEN": "hf/token"},
    "tolerations": ["nvidia.com/gpu", "a=b:NoSchedule", "c:NoExecute"],
    "node_selector": {"nvidia.com/gpu.product": "H100"},
    "user": 1000,
    "at_once": 2,
    "grace": 600,
}
TOGETHER = {
    "priority": "low",
    "service_account": "trainer",
    "pull_secrets": ["registry"],
    "gpu_resource": "amd.com/gpu",
}


def every(launch):
    return [*manifests(launch, range(3)), probe(launch, f"{base_name(launch)}-probe-1", "/mnt/team/token")]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_pair_of_options_makes_valid_manifests(version):
    names = [*CHOICES, *OWN_CHOICES, "together"]
    for pair in itertools.combinations(names, 2):
        own = {name: OWN_CHOICES[name] for name in pair if name in OWN_CHOICES}
        launch = planned(
            own={**own, **(TOGETHER if "together" in pair else {})}, **{n: CHOICES[n] for n in pair if n in CHOICES}
        )
        for manifest in every(launch):
            assert problems(manifest) == []
            kubernetes_validate.validate(manifest, version, strict=True)
            assert not by_round_trip(manifest)


def test_every_combination_of_options_makes_valid_manifests():
    """Those that a block of its own holds are there in every other."""
    for chosen in itertools.product((False, True), repeat=len(CHOICES)):
        options = {name: value for (name, value), on in zip(CHOICES.items(), chosen, strict=True) if on}
        own = {**OWN_CHOICES, **TOGETHER} if sum(chosen) % 2 else {}
        for manifest in every(planned(own=own, **options)):
            assert not by_rules(manifest) and not by_schema(manifest)


def at(path):
    """A way to a place: at('spec.template.spec.containers.0')(manifest) -> that part of it."""

    def walk(manifest):
        for key in filter(None, path.split(".")):
            manifest = manifest[int(key) if key.isdecimal() else key]
        return manifest

    return walk


POD, BOX = "spec.template.spec", "spec.template.spec.containers.0"
RULES = "spec.podFailurePolicy.rules"
GONE = object()


def put(path, key, value):
    def change(manifest):
        if value is GONE:
            del at(path)(manifest)[key]
        else:
            at(path)(manifest)[key] = value

    return change


def renamed(path, old, new):
    def change(manifest):
        place = at(path)(manifest)
        place[new] = place.pop(old)

    return change


def repeated(path):
    def change(manifest):
        place = at(path)(manifest)
        place.append(copy.deepcopy(place[0]))

    return change


JOB = {
    "restartPolicy: Always in a Job": (put(POD, "restartPolicy", "Always"), "rules"),
    "restartPolicy: OnFailure, which a failure policy excludes": (put(POD, "restartPolicy", "OnFailure"), "rules"),
    "restartPolicy: never": (put(POD, "restartPolicy", "never"), "rules"),
    "no restartPolicy, which means Always": (put(POD, "restartPolicy", GONE), "rules"),
    "no template": (put("spec", "template", GONE), "rules"),
    "a template without a pod": (put("spec.template", "spec", GONE), "rules"),
    "no spec": (put("", "spec", GONE), "rules"),
    "no metadata": (put("", "metadata", GONE), "rules"),
    "completionMode: indexed": (put("spec", "completionMode", "indexed"), "rules"),
    "no completionMode under a limit for each index": (put("spec", "completionMode", GONE), "rules"),
    "no completions": (put("spec", "completions", GONE), "rules"),
    "completions below 0": (put("spec", "completions", -1), "rules"),
    "parallelism below 0": (put("spec", "parallelism", -2), "rules"),
    "backoffLimitPerIndex below 0": (put("spec", "backoffLimitPerIndex", -1), "rules"),
    "maxFailedIndexes without a limit for each index": (
        lambda manifest: (
            put("spec", "backoffLimitPerIndex", GONE)(manifest),
            put("spec", "maxFailedIndexes", 0)(manifest),
        ),
        "rules",
    ),
    "podReplacementPolicy beside a failure policy": (
        put("spec", "podReplacementPolicy", "TerminatingOrFailed"),
        "rules",
    ),
    "a deadline for all groups together": (put("spec", "activeDeadlineSeconds", 60), "rules"),
    "a selector of our own": (put("spec", "selector", {"matchLabels": {"a": "b"}}), "rules"),
    "action: ignore": (put(f"{RULES}.0", "action", "ignore"), "rules"),
    "FailIndex without a limit for each index": (
        lambda manifest: (
            put("spec", "backoffLimitPerIndex", GONE)(manifest),
            put(f"{RULES}.1", "action", "FailIndex")(manifest),
        ),
        "rules",
    ),
    "a rule of exit codes and conditions": (put(f"{RULES}.1", "onPodConditions", []), "rules"),
    "a rule of neither": (put(f"{RULES}.0", "onPodConditions", GONE), "rules"),
    "no exit codes": (put(f"{RULES}.1.onExitCodes", "values", []), "rules"),
    "exit code 0 as a failure": (put(f"{RULES}.1.onExitCodes", "values", [0]), "rules"),
    "an exit code beyond 255": (put(f"{RULES}.1.onExitCodes", "values", [1300]), "rules"),
    "exit codes out of order": (put(f"{RULES}.1.onExitCodes", "values", [130, 1]), "rules"),
    "exit codes of no container": (put(f"{RULES}.1.onExitCodes", "containerName", "main"), "rules"),
    "operator: Equals": (put(f"{RULES}.1.onExitCodes", "operator", "Equals"), "rules"),
    "operator: Exists of exit codes": (put(f"{RULES}.1.onExitCodes", "operator", "Exists"), "rules"),
    "status: true": (put(f"{RULES}.0.onPodConditions.0", "status", "true"), "rules"),
    "a name of 64 characters": (put("metadata", "name", "a" * 64), "rules"),
    "a name with capitals": (put("metadata", "name", "Topics"), "rules"),
    "a name that ends with -": (put("metadata", "name", "topics-"), "rules"),
    "a name without room for the index": (put("metadata", "name", "a" * 62), "rules"),
    "a label with a blank": (put("metadata.labels", "finetune/launch", "my topics"), "rules"),
    "a label of 64 characters": (put("metadata.labels", "finetune/launch", "a" * 64), "rules"),
    "a label's key with two slashes": (put("metadata.labels", "a/b/c", "d"), "rules"),
    "a variable twice": (repeated(f"{BOX}.env"), "rules"),
    "a variable with a number first": (put(f"{BOX}.env.0", "name", "1X"), "rules"),
    "a variable with a value and a reference": (
        put(f"{BOX}.env.0", "valueFrom", {"fieldRef": {"fieldPath": "a"}}),
        "rules",
    ),
    "a variable of nothing": (put(f"{BOX}.env.0", "value", GONE), "rules"),
    "a secret in clear": (
        lambda manifest: at(f"{BOX}.env")(manifest).append({"name": "HF_TOKEN_2", "value": "hf_x"}),
        "rules",
    ),
    "a secret without a key": (
        lambda manifest: at(f"{BOX}.env")(manifest)[-1]["valueFrom"]["secretKeyRef"].pop("key"),
        "rules",
    ),
    "memory: 32GB": (put(f"{BOX}.resources.limits", "memory", "32GB"), "rules"),
    "memory: 32 G": (put(f"{BOX}.resources.limits", "memory", "32 G"), "rules"),
    "cpu: -1": (put(f"{BOX}.resources.limits", "cpu", "-1"), "rules"),
    "one and a half GPUs": (put(f"{BOX}.resources.limits", "nvidia.com/gpu", "1.5"), "rules"),
    "more GPUs than are asked for": (
        put(f"{BOX}.resources", "limits", {"cpu": "8", "nvidia.com/gpu": "4"}),
        "rules",
    ),
    "a resource misspelt": (put(f"{BOX}.resources.limits", "memroy", "32Gi"), "rules"),
    "a mount of no volume": (put(f"{BOX}.volumeMounts.0", "name", "data"), "rules"),
    "a mount at no whole path": (put(f"{BOX}.volumeMounts.0", "mountPath", "team"), "rules"),
    "a mount twice": (repeated(f"{BOX}.volumeMounts"), "rules"),
    "a volume twice": (repeated(f"{POD}.volumes"), "rules"),
    "a volume of two kinds": (put(f"{POD}.volumes.0", "emptyDir", {}), "rules"),
    "medium: memory": (put(f"{POD}.volumes.1.emptyDir", "medium", "memory"), "rules"),
    "a container twice": (repeated(f"{POD}.containers"), "rules"),
    "no containers": (put(POD, "containers", []), "rules"),
    "no image": (put(BOX, "image", GONE), "rules"),
    "an image with a blank": (put(BOX, "image", "finetune: 1"), "rules"),
    "effect: NoSchedul": (put(f"{POD}.tolerations.1", "effect", "NoSchedul"), "rules"),
    "a grace below 0": (put(POD, "terminationGracePeriodSeconds", -5), "rules"),
    "terminationMessagePolicy: Logs": (put(BOX, "terminationMessagePolicy", "Logs"), "rules"),
    "nothing where something must be": (put("spec", "completions", None), "rules"),
    "batch/v1beta1": (put("", "apiVersion", "batch/v1beta1"), "rules"),
    "v1 of a Job": (put("", "apiVersion", "v1"), "rules"),
    "kind: Jobs": (put("", "kind", "Jobs"), "rules"),
    "backoffLimitPerindex": (renamed("spec", "backoffLimitPerIndex", "backoffLimitPerindex"), "schema"),
    "podFailurePolcy": (renamed("spec", "podFailurePolicy", "podFailurePolcy"), "schema"),
    "terminationGracePeriod": (renamed(POD, "terminationGracePeriodSeconds", "terminationGracePeriod"), "schema"),
    "volumeMount": (renamed(BOX, "volumeMounts", "volumeMount"), "schema"),
    "label": (renamed("metadata", "labels", "label"), "schema"),
    "onExitCode": (renamed(f"{RULES}.1", "onExitCodes", "onExitCode"), "schema"),
    "completions as a text": (put("spec", "completions", "3"), "schema"),
    "words as one text": (put(BOX, "args", "run topics.yaml"), "schema"),
    "a variable's value as a number": (put(f"{BOX}.env.0", "value", 1), "schema"),
    "annotations as a list": (put("metadata", "annotations", []), "schema"),
    "a typo that a model drops without a word": (
        put(f"{BOX}.securityContext", "allowPrivilegeEscalaton", False),
        "round trip",
    ),
    "a typo deep in a reference": (put(f"{BOX}.env.0", "valuefrom", {}), "round trip"),
}
"""What is done to a Job, and the judge that has to refuse it, beside any others."""

SERVICE = {
    "clusterIP: none": (put("spec", "clusterIP", "none"), "rules"),
    "no clusterIP, which makes it one address": (put("spec", "clusterIP", GONE), "rules"),
    "no selector": (put("spec", "selector", GONE), "rules"),
    "a service's name with a dot": (put("metadata", "name", "a.b"), "rules"),
    "publishNotReadyAddress": (renamed("spec", "publishNotReadyAddresses", "publishNotReadyAddress"), "schema"),
}


def test_there_are_enough_mutations():
    assert len(JOB) + len(SERVICE) >= 40


@pytest.fixture(scope="module")
def whole():
    """The manifests of a launch with every option, which are all valid."""
    launch = planned(own={**OWN_CHOICES, **TOGETHER, "gpu_resource": "nvidia.com/gpu"}, **CHOICES)
    found = manifests(launch, range(3))
    for manifest, judge in itertools.product(found, JUDGES.values()):
        assert not judge(manifest), problems(manifest)
    return {manifest["kind"]: manifest for manifest in found[:2]}


@pytest.mark.parametrize(("kind", "name"), [("Job", name) for name in JOB] + [("Service", name) for name in SERVICE])
def test_a_mutated_manifest_is_refused(whole, kind, name):
    change, judge = {"Job": JOB, "Service": SERVICE}[kind][name]
    manifest = copy.deepcopy(whole[kind])
    change(manifest)
    assert manifest != whole[kind] and JUDGES[judge](manifest)


NASTY = [
    "a;touch pwned",
    "$(touch pwned)",
    "$(HOME)",
    "$$(HOME)",
    "`x`",
    "it's",
    'say "x"',
    "two\nlines",
    "-n",
    "{a: b}",
    "#",
]


@pytest.mark.parametrize("name", NASTY)
def test_no_name_is_taken_for_shell_or_variables_or_yaml(tmp_path, name):
    """What a container gets is what was said, after YAML, and after Kubernetes has put variables in their places."""
    folder = f"/mnt/team/{name}/topics"
    launch = planned(
        folder, environment={"VALUE": name, "HOME": "/root"}, python=f"/opt/{name}/python".replace("\n", "")
    )
    job = next(yaml.safe_load_all(written(manifests(launch, range(3)))))
    [container] = job["spec"]["template"]["spec"]["containers"]
    variables = {"HOME": "/root", "NAME": "x"}
    words = [expanded(word, variables) for word in [*container["command"], *container["args"]]]
    assert words == [f"/opt/{name}/python".replace("\n", ""), "-m", "finetune.launch.pod", folder, "0,1,2"]
    [value] = [each["value"] for each in container["env"] if each["name"] == "VALUE"]
    assert expanded(value, variables) == name
    said = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.argv[1:], sep='\\0')", *words], capture_output=True
    )
    assert said.stdout.decode().rstrip("\n").split("\0") == words


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(max_examples=300)
def test_any_text_comes_through(text):
    [found] = yaml.safe_load_all(written([{"value": literal(text)}]))
    assert expanded(found["value"], {"A": "b"}) == text
    pieces = re.split(r"\$\$", literal(text))
    assert not any("$" in piece for piece in pieces)


@pytest.mark.parametrize(
    "text", ["1e3", "no", "Y", "0o7", "12:30", "~", "null", "1_000", ".5", "0x1F", "2026-01-01", "=", "<<"]
)
def test_texts_that_look_like_something_else_are_quoted(text):
    """1e3 is a text to PyYAML and a number to kubectl."""
    assert written([{"value": text}]) == f'---\nvalue: "{text}"\n'


@pytest.mark.root  # for Debian's kubernetes-client
@pytest.mark.parametrize("name", [*NASTY, "1e3", "no", "0o7", "ünïcödé"])
def test_a_real_kubectl_reads_what_was_written(name):
    """It needs no cluster to put a label on what it has read."""
    documents = every(planned(own={**OWN_CHOICES, **TOGETHER}, **{**CHOICES, "environment": {"VALUE": name}}))
    command = ["kubectl", "label", "--local", "--filename=-", "read=yes", "--output=json"]
    said = subprocess.run(command, input=written(documents), capture_output=True, text=True, check=True).stdout
    decoder, read, place = json.JSONDecoder(), [], 0
    while place < len(said.rstrip()):
        found, place = decoder.raw_decode(said, place + len(said[place:]) - len(said[place:].lstrip()))
        assert found["metadata"]["labels"].pop("read") == "yes"
        read.append(found)
    assert read == documents


def test_the_manifests_of_a_study(tmp_path):
    launch = planned(
        own={"queue": "gpus", "secrets": {"HF_TOKEN": "hf/token"}, "at_once": 2}, gpus=1, memory="32G", time=60
    )
    job, gather = manifests(launch, [0, 2])
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["backoffLimitPerIndex"] == launch.cluster.retries and pod["restartPolicy"] == "Never"
    disruption, saved = spec["podFailurePolicy"]["rules"]
    assert disruption["action"] == saved["action"] == "Ignore" and saved["onExitCodes"]["values"] == [130]
    [container] = pod["containers"]
    assert container["args"] == ["-m", "finetune.launch.pod", "/mnt/team/runs/topics", "0,2"]
    assert container["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "1"}
    assert pod["activeDeadlineSeconds"] == 60 * 60 + 3600 and "activeDeadlineSeconds" not in spec
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}} in container["env"]
    gathering = gather["spec"]["template"]["spec"]["containers"][0]
    assert gathering["args"][-1] == "gather" and "nvidia.com/gpu" not in gathering["resources"]["limits"]
    assert not any("secretKeyRef" in each.get("valueFrom", {}) for each in gathering["env"])
    assert gather["spec"]["podFailurePolicy"]["rules"][-1]["action"] == "FailJob"


def test_nodes_that_share_runs_have_a_job_for_each_group_and_a_service():
    service, *jobs, _ = manifests(planned(nodes=2, processes=4), [0, 2])
    base = service["metadata"]["name"]
    assert [job["metadata"]["name"] for job in jobs] == [f"{base}-g0", f"{base}-g2"]
    for job in jobs:
        assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2 and job["spec"]["maxFailedIndexes"] == 0
        pod = job["spec"]["template"]["spec"]
        assert (
            pod["subdomain"] == base and pod["containers"][0]["args"][-1] == f"{job['metadata']['name']}-0.{base}:29400"
        )
        assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_secrets_of_the_shell_stay_out_of_manifests(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in written(manifests(planned(own={"secrets": {"HF_TOKEN": "hf/token"}}), range(3)))


@pytest.mark.parametrize(
    "name", ["topics", "Topics of 2026 (draft)", "ünïcödé", "话题", "a" * 200, "-", "42", "a." * 60]
)
def test_any_study_has_legal_names_that_tell_it_from_others(name):
    launch, other = planned(f"/mnt/team/runs/{name}"), planned(f"/mnt/team/other/{name}")
    assert base_name(launch) != base_name(other)
    for manifest in manifests(planned(f"/mnt/team/runs/{name}", nodes=2), range(3)):
        assert problems(manifest) == [] and len(manifest["metadata"]["name"]) <= 50


@pytest.mark.parametrize(
    ("said", "meant"),
    [("32G", "32Gi"), ("32Gi", "32Gi"), ("500", "500Mi"), ("8T", "8Ti"), ("64M", "64Mi"), (None, None)],
)
def test_memory_is_as_much_as_for_slurm(said, meant):
    assert quantity(said) == meant
