"""Studies on Kubernetes, for which a stand-in is here that runs the pods' commands as real processes: pre-empted,
cancelled or with failing groups they lose nothing, and tell what is missing in Kubernetes' words."""

import json
import os
import subprocess
import sys
import time

import pytest

from finetune import load_recipe
from finetune.core.errors import FinetuneError, InputError
from finetune.core.run_dir import write_text
from finetune.launch.cluster import read_cluster
from finetune.launch.kubernetes import Kubernetes
from finetune.launch.launching import plan_launch
from finetune.launch.record import read_launch
from tests.end_to_end.reading import comparable
from tests.end_to_end.warm import environment_with
from tests.launch.stand_in_kubernetes import StandIn
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

RUN = ("topics.yaml", "train.replicas=1")
ONE = ("seeds=1", "variants=null", "strategy={type: full}")
SLOW = ("train.min_steps=600", "train.checkpoint_seconds=0.2")
"""Runs that last long enough to be met."""

ON = ("--on", "kubernetes", "--cluster", "cluster.yaml")


@pytest.fixture
def cluster(tmp_path):
    with StandIn(tmp_path / "kube") as stand_in:
        one = {"cpu": "8", "nvidia.com/gpu": "1"}
        stand_in.store.set(nodes={"n1": one, "n2": one})
        yield stand_in


@pytest.fixture
def say(tmp_path):
    """say('gpus: 1', queue='gpus') writes cluster.yaml."""

    def write(*lines, python=sys.executable, **own):
        own = {"image": "finetune:1", "claim": "team", "mount": str(tmp_path.parent), **own}
        block = [f"  {key}: {json.dumps(value)}" for key, value in own.items() if value is not None]
        lines = (f"python: {python}", *lines, "kubernetes:", *block)
        write_text(tmp_path / "cluster.yaml", "\n".join(lines) + "\n")

    write("gpus: 1")
    return write


@pytest.fixture
def finetune(cluster, say, topics, tmp_path):
    """finetune('status', 'runs/topics') -> the ended process."""
    path = f"{cluster.path}:{os.environ['PATH']}"
    environment = environment_with(PATH=path, OMP_NUM_THREADS="1", COLUMNS="100")

    def run(*argv):
        command = [sys.executable, "-m", "finetune", *argv]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)

    return run


@pytest.fixture
def here(cluster, say, topics, tmp_path, monkeypatch):
    """here() -> the launch as planned in this very process, and its cluster file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{cluster.path}:{os.environ['PATH']}")

    def plan(*overrides):
        found = read_cluster(tmp_path / "cluster.yaml")
        recipe = load_recipe(topics, overrides)
        return plan_launch(recipe, topics, overrides, tmp_path / "runs", "kubernetes", found), found

    return plan


def program(path, line):
    """Put a line of shell in the place of a pod's Python."""
    write_text(path, f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def launch(finetune, *more):
    done = finetune("launch", *RUN, *more, *ON)
    assert done.returncode == 0, done.stderr
    return done.stdout


def finish(cluster):
    """Wait until all Jobs have ended."""
    wait_for(lambda: all(job["status"].get("conditions") for job in cluster.jobs()) and not cluster.pods("Running"))


def at_work(cluster):
    return [pod for pod in cluster.pods("Running") if "gather" not in pod["metadata"]["name"]]


def said(study, name):
    path = study / "launch" / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""


def turn_of(study, group):
    path = study / "launch" / "turns" / str(group)
    return (
        {key: value for key, value in json.loads(path.read_text()).items() if key != "round"} if path.exists() else None
    )


def saved(study, where="*"):
    return list(study.glob(f"{where}/seed-*/checkpoints/step-*"))


@pytest.mark.slow
def test_a_study_that_is_preempted_twice_comes_to_what_it_comes_to_locally(cluster, finetune, tmp_path):
    more = (*SLOW, "seeds=3")
    assert finetune("launch", *RUN, *more, "--on", "local", "--output", "local").returncode == 0
    alone, study = tmp_path / "local" / "topics", tmp_path / "runs" / "topics"
    wait_for(lambda: "report:" in finetune("logs", str(alone)).stdout)
    assert "6 of 6 groups of runs are launched, as Job ft-topics-" in launch(finetune, *more)
    for variant in ("linear", "full"):
        wait_for(lambda variant=variant: saved(study, variant))
        evicted = at_work(cluster)
        assert evicted
        for pod in evicted:
            cluster.evict(pod)
    finish(cluster)
    assert "6 of 6 runs are there" in said(study, "gather"), said(study, "gather")
    assert comparable(study) == comparable(alone)
    logs = "".join(said(study, number) for number in range(6))
    assert logs.count("it goes on in another turn") >= 2 and "Traceback" not in logs, logs
    assert logs.count("== linear/0 on ") + logs.count("== full/0 on ") >= 3
    job, gather = sorted(cluster.jobs(), key=lambda job: len(job["metadata"]["name"]))
    assert job["status"].get("failures", {}) == {}, "pre-emption is no failure"
    assert [each["status"]["conditions"][0]["type"] for each in (job, gather)] == ["Complete", "Complete"]
    done = finetune("status", str(study))
    assert done.returncode == 0 and "6 finished; 6 in all" in done.stdout


@pytest.mark.slow
def test_what_is_killed_is_tried_again_and_what_is_killed_always_is_told(cluster, finetune, say, tmp_path):
    """And the report is written of what is there, though no process could say that it ended."""
    say("gpus: 1", "retries: 1")
    study = tmp_path / "runs" / "topics"
    launch(finetune, "seeds=1")
    doomed = {(0, 0), (1, 0), (1, 1)}  # indexes, and how often they have failed before

    def next_victim():
        for pod in at_work(cluster):
            annotations = pod["metadata"]["annotations"]
            keys = ("job-completion-index", "job-index-failure-count")
            index, failures = (int(annotations[f"batch.kubernetes.io/{key}"]) for key in keys)
            noted = {"state": "running", "failures": failures} == turn_of(study, index)
            if (index, failures) in doomed and noted:
                doomed.remove((index, failures))
                cluster.kill(pod)
        return not doomed

    wait_for(next_victim)
    wait_for(lambda: (study / "linear" / "seed-0" / "result.json").exists())
    time.sleep(1)
    assert "missing" not in said(study, "gather"), "a turn that may go on is waited for"
    os.utime(read_launch(study).turn(1), (0, 0))
    finish(cluster)
    assert "1 of 2 runs are there" in said(study, "gather") and "missing: full/0" in said(study, "gather")
    ends = {job["metadata"]["name"]: job["status"]["conditions"][0] for job in cluster.jobs()}
    assert {end["type"] for end in ends.values()} == {"Failed"} and any(
        end["reason"] == "PodFailurePolicy" for end in ends.values()
    )
    assert "1 of 2 runs have not ended" in (study / "report" / "report.md").read_text()
    done = finetune("status", str(study))
    assert done.returncode == 1 and "1 finished, 1 not begun; 2 in all" in done.stdout
    assert "OOMKilled, exit code 137" in done.stdout
    assert "1 of 2 groups of runs are launched" in launch(finetune, "seeds=1")
    finish(cluster)
    assert finetune("status", str(study)).returncode == 0
    assert "2 of 2 runs are there" in said(study, "gather")


@pytest.mark.slow
def test_what_is_cancelled_is_saved_and_does_not_begin_again(cluster, finetune, tmp_path):
    study = tmp_path / "runs" / "topics"
    launch(finetune, *SLOW, *ONE)
    again = finetune("launch", *RUN, *SLOW, *ONE, *ON)
    assert again.returncode == 2 and "has been launched already, as Job ft-topics-" in " ".join(again.stderr.split())
    wait_for(lambda: saved(study))
    assert "1 running; 1 in all" in finetune("status", str(study)).stdout
    assert finetune("cancel", str(study)).returncode == 0
    wait_for(lambda: not cluster.jobs() and not cluster.pods())
    done = finetune("status", str(study))
    assert done.returncode == 1 and "1 interrupted; 1 in all" in done.stdout, done.stdout
    assert "cancelled; what was done is saved" in finetune("logs", str(study)).stdout
    launch(finetune, *SLOW, *ONE)
    finish(cluster)
    assert finetune("status", str(study)).returncode == 0
    assert said(study, 0).count("/0 on ") == 2, said(study, 0)


@pytest.mark.slow
def test_two_nodes_share_a_run_and_both_leave_when_one_is_evicted(cluster, finetune, say, tmp_path):
    say("gpus: 1", "nodes: 2", "cpus: 1")
    study = tmp_path / "runs" / "topics"
    launch(finetune, *SLOW, *ONE)
    wait_for(lambda: saved(study))
    first, second = sorted(at_work(cluster), key=lambda pod: pod["metadata"]["name"])
    assert [pod["spec"]["nodeName"] for pod in (first, second)] == ["n1", "n2"]
    cluster.evict(second)
    for log in ("0", "0.1"):
        wait_for(lambda log=log: "it goes on in another turn" in said(study, log))
    assert "stopped after step" in said(study, 0)
    finish(cluster)
    assert "1 of 1 runs are there" in said(study, "gather"), said(study, 0)
    for job in cluster.jobs():
        assert job["status"].get("failures", {}) == {} and job["status"]["conditions"][0]["type"] == "Complete"
    assert "of which" not in finetune("logs", str(study)).stdout


FORBIDDEN = "Error from server (Forbidden): "
MISSING = "Kubernetes refuses it: Error from server (NotFound): "
REFUSED = {
    "a namespace": (
        (),
        {"namespace": "nowhere"},
        None,
        f'kubernetes.namespace: {MISSING}error when creating "STDIN": namespaces "nowhere" not found',
    ),
    "a context": (
        (),
        {"context": "elsewhere"},
        None,
        'kubernetes.context: Kubernetes refuses it: context "elsewhere" does not exist',
    ),
    "a claim": ((), {"claim": "none"}, None, f'kubernetes.claim: {MISSING}persistentvolumeclaims "none" not found'),
    "GPUs": (
        ("gpus: 9",),
        {},
        None,
        "cluster.yaml:2: gpus: is 9, and no node has so many nvidia.com/gpu by node: n1 1, n2 1;",
    ),
    "GPUs of a kind of node": (
        ("gpus: 1",),
        {"node_selector": {"pool": "n3"}},
        None,
        "gpus: is 1, and no node has so many nvidia.com/gpu by node: no node fits the selector",
    ),
    "an image": (
        (),
        {"image": "nothing:1"},
        None,
        'kubernetes.image: cannot be pulled: ImagePullBackOff: Back-off pulling image "nothing:1"',
    ),
    "a Secret": (
        (),
        {"secrets": {"HF_TOKEN": "hf/token"}},
        None,
        'kubernetes.secrets: cannot be had: CreateContainerConfigError: secret "hf" not found',
    ),
    "a quota": (
        ("gpus: 1",),
        {},
        f'{FORBIDDEN}jobs "x" is forbidden: exceeded quota: small, requested: requests.nvidia.com/gpu=2',
        f'cluster.yaml:2: gpus: Kubernetes refuses it: {FORBIDDEN}jobs "x" is forbidden: exceeded quota',
    ),
    "rights": (
        (),
        {},
        f'{FORBIDDEN}jobs.batch is forbidden: User "me" cannot create resource "jobs"',
        f"Kubernetes refuses it: {FORBIDDEN}jobs.batch is forbidden",
    ),
    "a queue": (
        (),
        {"queue": "none"},
        'Error from server: admission webhook denied the request: queue "none" not found',
        "kubernetes.queue: Kubernetes refuses it: Error from server: admission webhook denied",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_kubernetes_refuses_is_told_with_its_place_and_nothing_is_submitted(cluster, say, here, tmp_path, what):
    lines, own, refuse, told = REFUSED[what]
    say(*lines, **own)
    cluster.store.set(refuse={"create": refuse} if refuse else {})
    planned, found = here()
    with pytest.raises(InputError) as caught:
        Kubernetes().check(planned, found)
    [problem] = caught.value.problems
    assert told in " ".join(str(problem).split())
    assert cluster.jobs() == [] and not list((tmp_path / "runs").rglob("*-probe-*"))
    wait_for(lambda: not cluster.pods())


def test_what_cannot_be_found_out_is_told_and_no_reason_to_refuse(cluster, here):
    cluster.store.set(refuse={"get": 'Error from server (Forbidden): User "me" cannot get resource'})
    notes = Kubernetes().check(*here())
    assert [note.partition(" could not")[0] for note in notes][:2] == [
        "whether there is a claim team",
        "whether a node has 1 GPUs",
    ]
    assert all('User "me" cannot get resource' in note for note in notes) and len(notes) == 3


def test_a_claim_that_one_node_can_mount_is_told(cluster, here):
    cluster.store.set(claims={"team": ["ReadWriteOnce"]})
    assert Kubernetes().check(*here()) == [
        "the claim team is not ReadWriteMany, so that all pods have to be on one node"
    ]


def test_a_folder_that_pods_have_not_is_refused(cluster, say, here, tmp_path):
    """Here by a pod whose Python finds no file."""
    say(python=program(tmp_path / "blind", "exit 3"))
    with pytest.raises(InputError, match=r"kubernetes\.claim: .* is not the same folder here and in a pod"):
        Kubernetes().check(*here())


def test_an_image_without_finetune_is_refused(cluster, say, here, tmp_path):
    say(python=program(tmp_path / "bare", "echo \"No module named 'finetune'\" >&2; exit 1"))
    with pytest.raises(
        InputError, match=r"kubernetes\.image: has no finetune .* exit code 1: No module named 'finetune'"
    ):
        Kubernetes().check(*here())


def test_where_there_is_no_kubectl_that_is_said(here, monkeypatch):
    planned = here()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="there is no kubectl here"):
        Kubernetes().check(*planned)
    assert "apiVersion: batch/v1" in Kubernetes().dry_run(planned[0], range(4)), "which a dry run does not need"


def test_when_creating_fails_all_is_taken_back(cluster, here):
    planned, _ = here()
    former = Kubernetes().submit(planned, [0, 1])
    planned, _ = here("seeds=3")
    cluster.store.set(refuse={"create": "Error from server (Forbidden): no"})
    with pytest.raises(FinetuneError, match=r"kubectl create: Error from server \(Forbidden\): no"):
        Kubernetes().submit(planned, [0])
    assert read_launch(planned.study.path) == former
    former.file.unlink()
    with pytest.raises(FinetuneError):
        Kubernetes().submit(planned, [0])
    assert not former.file.exists()


WAITING = {
    "Unschedulable: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.": ("gpus: 2", {}, {}),
    'ImagePullBackOff: Back-off pulling image "nothing:1"': ("gpus: 1", {"image": "nothing:1"}, {}),
    'CreateContainerConfigError: secret "hf" not found': ("gpus: 1", {"secrets": {"HF_TOKEN": "hf/token"}}, {}),
    "FailedCreate: exceeded quota: small": ("gpus: 1", {}, {"quota": "exceeded quota: small"}),
}


@pytest.mark.parametrize("why", WAITING)
def test_status_says_in_kubernetes_words_what_pods_wait_for(cluster, say, here, why):
    line, own, changes = WAITING[why]
    say(line, **own)
    cluster.store.set(**changes)
    launched = Kubernetes().submit(here()[0], [1, 2])
    tasks = wait_for(
        lambda: (found := Kubernetes().tasks(launched)) and found[2].why not in ("Pending", "no pod yet") and found
    )
    assert {group: (task.state, task.why) for group, task in tasks.items()} == {
        1: ("waiting", why),
        2: ("waiting", why),
    }
    assert Kubernetes().at_work(launched)
    Kubernetes().cancel(launched)
    wait_for(lambda: not Kubernetes().at_work(launched))


def test_a_secret_comes_from_kubernetes_and_is_nowhere_else(cluster, say, here, tmp_path):
    cluster.store.set(secrets={"hf": {"token": "hf_secret"}})
    python = program(tmp_path / "python", f'echo "$HF_TOKEN $HOME_OF" >>{tmp_path}/seen')
    say("environment: {HOME_OF: '$(HF_TOKEN)'}", python=python, secrets={"HF_TOKEN": "hf/token"})
    launched = Kubernetes().submit(here()[0], [0])
    wait_for(lambda: (tmp_path / "seen").exists() and "hf_secret $(HF_TOKEN)\n" in (tmp_path / "seen").read_text())
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("settings.json", "seen")]
    assert files and not any("hf_secret" in path.read_text(errors="replace") for path in files)
    Kubernetes().cancel(launched)


def test_what_ends_before_it_can_write_a_log_is_told_by_kubernetes(cluster, say, here, tmp_path):
    """And the gathering pod, which sees nothing of it, is told by whoever asks for the status."""
    say("retries: 1", python=program(tmp_path / "broken", "echo no module named finetune >&2; exit 1"))
    launched = Kubernetes().submit(here()[0], [0, 3])
    tasks = wait_for(
        lambda: (found := Kubernetes().tasks(launched)) and {t.state for t in found.values()} == {"ended"} and found
    )
    assert tasks[3].why == "Error, exit code 1"
    assert "no module named finetune" in Kubernetes().said(launched, 3)
    assert turn_of(launched.study.path, 3) == {"state": "failed", "failures": 1}


def test_options_that_only_others_can_obey_are_refused_with_their_lines(here, say, tmp_path):
    say("partition: gpu", "setup: [source x]", "gpus: a100:2", "nodes: 2", at_once=3)
    with pytest.raises(InputError) as caught:
        here()
    assert [(problem.where.rpartition(":")[2], problem.path) for problem in caught.value.problems] == [
        ("2", "partition"),
        ("3", "setup"),
        ("4", "gpus"),
        ("10", "kubernetes.at_once"),
    ]
    assert "name an image that is set up under kubernetes.image" in str(caught.value)


@pytest.mark.parametrize("on", ["slurm", "local"])
def test_a_block_for_kubernetes_is_refused_elsewhere(topics, say, tmp_path, on):
    write_text(tmp_path / "cluster.yaml", (tmp_path / "cluster.yaml").read_text().replace("python:", "cpus: 1\n#"))
    found = read_cluster(tmp_path / "cluster.yaml")
    with pytest.raises(InputError, match=f"kubernetes: is for kubernetes, and means nothing on {on}"):
        plan_launch(load_recipe(topics), topics, [], tmp_path / "runs", on, found)


def test_what_lies_off_the_claim_is_refused_with_its_place(here, say, topics, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_text(elsewhere / "base.yaml", "train: {min_steps: 30}\n")
    write_text(elsewhere / "mine.py", "def score(prediction, reference):\n    return 1.0\n")
    write_text(topics, f"extends: {elsewhere / 'base.yaml'}\n{topics.read_text()}")
    say(mount=str(tmp_path))
    with pytest.raises(InputError, match="does not lie on the claim") as caught:
        here(f"task.metrics=[accuracy, {elsewhere / 'mine.py'}:score]")
    found = {(problem.path, problem.where.replace(f"{tmp_path}/", "")) for problem in caught.value.problems}
    assert found == {
        (None, f"{elsewhere}/base.yaml:1"),
        ("task.metrics.1", "command line"),
        ("model.source", "topics.yaml:4"),
    }
    say(mount="/elsewhere")
    with pytest.raises(InputError) as caught:
        here()
    assert {"kubernetes.mount", None, "model.source", "data.train.path"} == {
        problem.path for problem in caught.value.problems
    }
