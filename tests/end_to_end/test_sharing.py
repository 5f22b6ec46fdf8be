"""Several processes may work at one study: each run is done once, and what comes out is what one process makes."""

import collections
import os
import re
import signal
import threading
import time

import pytest

from tests.end_to_end.reading import predictions, results, scores

RUN = ("run", "topics.yaml", "seeds=3", "train.replicas=1", "baselines.enabled=true")
SLOW = """
import time
from finetune.study import study
plain = study.run
def run(*about):
    time.sleep(0.7)
    return plain(*about)
study.run = run
"""
"""So that processes meet."""


def runs(done):
    """Which runs a process says that it has done."""
    return re.findall(r"run \d+ of \d+: (\w+, seed \d+) ", done.text)


@pytest.fixture
def alone(topics, finetune, tmp_path):
    assert finetune(*RUN, "--output", "alone").code == 0
    return tmp_path / "alone" / "topics"


def assert_as_alone(study, alone):
    assert scores(study) == scores(alone)
    tables, wanted = predictions(study), predictions(alone)
    assert tables.keys() == wanted.keys() and all(tables[path].equals(wanted[path]) for path in wanted)
    left, right = results(study), results(alone)
    assert [each["estimates"] for each in left["variants"]] == [each["estimates"] for each in right["variants"]]


def test_two_processes_share_the_runs_of_a_study(warm, tmp_path, alone):
    first, second = warm.run_together(RUN, RUN, cwd=tmp_path, hook=SLOW)
    assert first.code == second.code == 0, first.text + second.text
    assert min(len(runs(first)), len(runs(second))) >= 1
    every = collections.Counter(runs(first) + runs(second))
    assert len(every) == 6 and set(every.values()) == {1}, every
    assert_as_alone(tmp_path / "runs" / "topics", alone)


def test_what_a_killed_process_leaves_another_does(warm, tmp_path, alone):
    """It dies within a run, which the other has had to leave to it."""
    killed = threading.Thread(target=_kill_one_that_runs, args=(tmp_path / "runs" / "topics",))
    killed.start()
    done = warm.run_together(RUN, RUN, cwd=tmp_path, hook=SLOW + TELLS)
    killed.join()
    codes = sorted(each.code for each in done)
    assert codes == [-signal.SIGKILL, 0], [each.text for each in done]
    assert_as_alone(tmp_path / "runs" / "topics", alone)


TELLS = """
import os
telling = study.run
def run(*about):
    open(f"running-{os.getpid()}", "w").close()
    return telling(*about)
study.run = run
"""


def _kill_one_that_runs(study):
    folder = study.parents[1]
    for _ in range(600):
        if found := list(folder.glob("running-*")):
            time.sleep(0.3)
            os.kill(int(found[0].name.removeprefix("running-")), signal.SIGKILL)
            return
        time.sleep(0.05)


def test_runs_are_done_one_by_one_as_they_are_asked_for(finetune, tmp_path, alone):
    first = finetune(*RUN, "--only", "linear/1")
    assert first.code == 0 and runs(first) == ["linear, seed 1"]
    assert "5 of 6 runs have not ended: this report is not final" in (
        tmp_path / "runs" / "topics" / "report" / "report.md"
    ).read_text(encoding="utf-8")
    second = finetune(*RUN, "--only", "linear")
    assert second.code == 0 and runs(second) == ["linear, seed 0", "linear, seed 2"]
    third = finetune(*RUN, "--only", "full")
    assert third.code == 0 and runs(third) == [f"full, seed {seed}" for seed in range(3)]
    assert_as_alone(tmp_path / "runs" / "topics", alone)


def test_a_soup_is_made_of_all_seeds_or_not_at_all(topics, finetune, tmp_path):
    soup = (*RUN, "variants=null", "strategy={type: full}", "mitigations=[{type: soup}]")
    for seed in range(3):
        assert not list(tmp_path.rglob("soup-*"))
        assert finetune(*soup, "--only", f"full/{seed}").code == 0
    assert list(tmp_path.rglob("soup-*/result.json"))


@pytest.mark.parametrize(
    ("only", "reason"),
    [
        ("lineal", "there is no variant 'lineal' did you mean 'linear'"),
        ("linear/7", "there is no seed '7' choose from: 0, 1, 2"),
        ("linear/x", "there is no seed 'x'"),
        ("linear/", "there is no seed ''"),
    ],
)
def test_what_is_not_in_the_recipe_is_refused(topics, finetune, tmp_path, only, reason):
    done = finetune(*RUN, "--only", only)
    assert done.code == 2 and reason in done.text
    assert not (tmp_path / "runs").exists()


def test_a_rule_that_adds_seeds_needs_all_runs(topics, finetune):
    rule = "seeds={until: {ci_width: 1.0}, at_least: 4}"
    done = finetune("run", "topics.yaml", rule, "--only", "linear")
    assert done.code == 2 and "here a rule adds them" in done.text
