"""Studies on a real SLURM: pre-empted, cancelled or with failing groups they lose nothing, and tell what is missing."""

import json
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from finetune.launch.record import read_launch
from tests.end_to_end.reading import comparable
from tests.end_to_end.warm import environment_with
from tests.launch.real_slurm import RealSlurm
from tests.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

RUN = ("topics.yaml", "train.replicas=1")
SLOW = ("train.min_steps=600", "train.checkpoint_seconds=0.2")
"""Runs that last long enough to be met."""

CLUSTER = "partition: usual\ngpus: 1\ncpus: 1\ntime: 10\n"


@pytest.fixture(scope="module")
def slurm():
    with RealSlurm() as cluster:
        yield cluster


@pytest.fixture
def finetune(slurm, topics, tmp_path):
    """finetune('status', 'runs/topics') -> the ended process."""
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    environment = environment_with(SLURM_CONF=slurm.environment["SLURM_CONF"], OMP_NUM_THREADS="1", COLUMNS="100")

    def run(*argv):
        command = [sys.executable, "-m", "finetune", *argv]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    yield run
    slurm.said("scancel", "--user=root")
    wait_for(lambda: slurm.said("squeue", "-h") == "")


def launch(finetune, *more, cluster="cluster.yaml"):
    done = finetune("launch", *RUN, *more, "--on", "slurm", "--cluster", cluster)
    assert done.returncode == 0, done.stderr
    return done.stdout


def finish(slurm):
    """Wait until the queue is empty."""

    def ended():
        slurm.start_requeued()
        return slurm.said("squeue", "-h") == ""

    wait_for(ended)


def log(study, name):
    path = study / "launch" / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""


def saved(study):
    return list(study.glob("*/seed-*/checkpoints/step-*"))


def test_a_study_that_is_preempted_twice_comes_to_what_it_comes_to_locally(slurm, finetune, tmp_path):
    seeds = "seeds=3"
    assert finetune("launch", *RUN, *SLOW, seeds, "--on", "local", "--output", "local").returncode == 0
    alone, study = tmp_path / "local" / "topics", tmp_path / "runs" / "topics"
    wait_for(lambda: "6 finished; 6 in all" in finetune("status", str(alone)).stdout)
    wait_for(lambda: "report:" in finetune("logs", str(alone)).stdout)
    said = launch(finetune, *SLOW, seeds)
    assert "6 of 6 groups of runs are launched" in said
    for variant in ("linear", "full"):  # while some of the variant's runs have saved, and others wait
        wait_for(lambda variant=variant: list(study.glob(f"{variant}/seed-*/checkpoints/step-*")))
        slurm.said("sbatch", "-p", "urgent", "-N3", "--gres=gpu:1", "-o", "/dev/null", "--wrap", "sleep 1")
        wait_for(lambda: slurm.said("squeue", "-h", "-p", "urgent") == "")
        slurm.start_requeued()
    finish(slurm)
    assert "6 of 6 runs are there" in log(study, "gather"), log(study, "gather")
    assert comparable(study) == comparable(alone)
    logs = "".join(log(study, number) for number in range(6))
    turns = re.findall(r"^== (\w+/\d) on .*, job (\d+),", logs, re.MULTILINE)
    assert len(turns) >= 6 + 4 and "Traceback" not in logs, logs
    array = read_launch(study).submissions[0].facts["array"]
    # The numbers of tasks are not the array's, but for one, by which the others are not to be queued again.
    assert array in {job for _, job in turns} and len({job for _, job in turns}) >= 6
    assert max(Counter(run for run, _ in turns).values()) <= 3, logs
    done = finetune("status", str(study))
    assert done.returncode == 0 and "6 finished; 6 in all" in done.stdout


def test_a_group_that_fails_is_submitted_again_and_one_that_always_fails_is_told(slurm, finetune, tmp_path):
    """And the report is written of what is there."""
    once = "setup: ['if [ \"${SLURM_ARRAY_TASK_ID-}\" = 1 ] && mkdir once 2>/dev/null; then exit 3; fi', '%s']"
    always = 'if [ "${SLURM_ARRAY_TASK_ID-}" = 3 ]; then exit 3; fi'
    (tmp_path / "failing.yaml").write_text(CLUSTER + "retries: 1\n" + once.replace("'%s'", "'" + always + "'") + "\n")
    launch(finetune, cluster="failing.yaml")
    finish(slurm)
    study = tmp_path / "runs" / "topics"
    first, second = log(study, "gather").split("runs are there")[0], log(study, "gather").split("runs are there")[1:]
    assert first.strip() == "2 of 4"
    assert "missing: linear/1, full/1" in second[0] and "submitted again, 1 of 1: job" in second[0]
    assert "missing: full/1" in second[1] and "submitted again" not in second[1]
    assert [list(each.groups) for each in read_launch(study).submissions] == [[0, 1, 2, 3], [1, 3]]
    gathers = [each.facts["gather"] for each in read_launch(study).submissions]
    states = {slurm.said("squeue", "-h", "-t", "all", "-j", gather, "-o", "%T") for gather in gathers}
    assert states == {"FAILED"}
    assert "1 of 4 runs have not ended" in (study / "report" / "report.md").read_text()
    done = finetune("status", str(study))
    assert done.returncode == 1 and "3 finished, 1 not begun; 4 in all" in done.stdout
    assert "full/1" in done.stdout
    (tmp_path / "failing.yaml").write_text(CLUSTER)
    assert "1 of 4 groups of runs are launched" in launch(finetune, cluster="failing.yaml")
    finish(slurm)
    assert finetune("status", str(study)).returncode == 0


@pytest.mark.parametrize("by", ["finetune", "scancel"])
def test_what_is_cancelled_is_saved_and_not_queued_again(slurm, finetune, tmp_path, by):
    study = tmp_path / "runs" / "topics"
    launch(finetune, *SLOW, "seeds=1")
    again = finetune("launch", *RUN, *SLOW, "seeds=1", "--on", "slurm", "--cluster", "cluster.yaml")
    assert again.returncode == 2 and "has been launched already, as job" in " ".join(again.stderr.split())
    wait_for(lambda: saved(study))
    facts = read_launch(study).submissions[0].facts
    if by == "finetune":
        assert finetune("cancel", str(study)).returncode == 0
    else:
        slurm.said("scancel", facts["array"], facts["gather"])
    wait_for(lambda: slurm.said("squeue", "-h") == "")
    time.sleep(3)
    assert slurm.said("squeue", "-h") == ""
    done = finetune("status", str(study))
    assert done.returncode == 1 and "interrupted" in done.stdout and "running" not in done.stdout, done.stdout
    assert "what was done is saved" in finetune("logs", str(study)).stdout
    steps = {int(path.name.partition("-")[2]) for path in saved(study)}
    launch(finetune, *SLOW, "seeds=1")
    finish(slurm)
    assert finetune("status", str(study)).returncode == 0 and max(steps) > 0


def test_two_nodes_share_a_run_and_save_when_they_are_asked(slurm, finetune, tmp_path):
    (tmp_path / "two.yaml").write_text(CLUSTER + "nodes: 2\n")
    study = tmp_path / "runs" / "topics"
    launch(finetune, *SLOW, "seeds=1", "variants=null", "strategy={type: full}", cluster="two.yaml")
    wait_for(lambda: saved(study))
    slurm.said("scancel", "--batch", "--signal=USR1", read_launch(study).submissions[0].facts["array"])
    wait_for(lambda: "it goes on in another turn" in log(study, 0))
    assert saved(study)
    finish(slurm)
    assert "1 of 1 runs are there" in log(study, "gather"), log(study, 0)
    assert json.loads((study / "full" / "seed-0" / "result.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("partition: nope", "cluster.yaml:1: partition: SLURM refuses it: invalid partition specified: nope"),
        ("gpus: 9", "cluster.yaml:1: gpus: SLURM refuses it: allocation failure: Requested node configuration"),
        ("gpus: a100:1", "by partition: lonely gpu:1, urgent gpu:1, usual gpu:1"),
        ("cpus: 64", "cluster.yaml:1: cpus: SLURM refuses it"),
        ("memory: 900G", "cluster.yaml:1: memory: SLURM refuses it"),
        ("time: 5:00:00", "cluster.yaml:1: time: SLURM refuses it"),
        ("time: 2", "cluster.yaml:1: time: is 2 minutes"),
    ],
)
def test_what_slurm_refuses_is_told_with_its_place_and_nothing_is_submitted(slurm, finetune, tmp_path, said, told):
    (tmp_path / "cluster.yaml").write_text(f"{said}\n")
    done = finetune("launch", *RUN, "--on", "slurm", "--cluster", "cluster.yaml")
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and told in text and "1 problem; nothing was started" in text, text
    assert slurm.said("squeue", "-h") == "" and not (tmp_path / "runs").exists()


def test_a_folder_that_nodes_do_not_share_is_refused(slurm, finetune, tmp_path):
    (tmp_path / "cluster.yaml").write_text("partition: lonely\n")
    output = slurm.hidden / "runs"
    done = finetune("launch", *RUN, "--on", "slurm", "--cluster", "cluster.yaml", "--output", str(output))
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and "is not the same folder here and on" in text, text
    assert slurm.said("squeue", "-h") == "" and not (output / "topics").exists()


def test_a_dry_run_submits_nothing(slurm, finetune, tmp_path):
    done = finetune("launch", *RUN, "--on", "slurm", "--cluster", "cluster.yaml", "--dry-run")
    assert done.returncode == 0 and done.stdout.count("#!/bin/bash") == 2
    assert slurm.said("squeue", "-h") == "" and not (tmp_path / "runs").exists()
