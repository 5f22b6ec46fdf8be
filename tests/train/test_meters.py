"""The training log continues where a checkpoint stands, and costs are measured."""

import time

import pytest
import torch

from finetune.core.events import Evaluated, Step
from finetune.core.run_dir import RunDir
from finetune.train.meters import Clock, MetricsLog, Phases, read_rows


@pytest.fixture
def folder(tmp_path):
    return RunDir(tmp_path / "lora" / "seed-3")


@pytest.fixture
def path(folder):
    return folder.metrics


def test_rows_come_back(folder, path):
    log = MetricsLog(folder)
    log.write(kind="train", step=1, loss=0.5)
    log.write(kind="train", step=2, loss=None)
    assert read_rows(path) == [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "train", "step": 2, "loss": None},
    ]


def test_a_new_run_begins_an_empty_log(folder, path):
    MetricsLog(folder).write(kind="train", step=1)
    MetricsLog(folder)
    assert read_rows(path) == []


def test_a_resumed_run_forgets_what_its_checkpoint_does_not_know(folder, path):
    log = MetricsLog(folder)
    for step in range(1, 6):
        log.write(kind="train", step=step)
    MetricsLog(folder, resume_at=3).write(kind="train", step=4, again=True)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4] and read_rows(path)[-1]["again"]


def test_an_evaluation_that_will_be_made_again_is_forgotten_too(folder, path):
    log = MetricsLog(folder)
    for step in (2, 4):
        log.write(kind="train", step=step)
        log.write(kind="evaluation", step=step)
    MetricsLog(folder, resume_at=4, validated=2)
    assert [(row["kind"], row["step"]) for row in read_rows(path)] == [("train", 2), ("evaluation", 2), ("train", 4)]


def test_a_line_cut_short_is_left_out(folder, path):
    MetricsLog(folder).write(kind="train", step=1)
    with open(path, "a", encoding="utf-8") as log:
        log.write('{"step": 2, "lo')
    assert read_rows(path) == [{"kind": "train", "step": 1}]


def test_rows_are_told_as_events(folder):
    told = []
    log = MetricsLog(folder, tell=told.append)
    log.write(kind="train", step=1, epoch=0.1, loss=None, learning_rate=0.5, gradient_norm=2.0, tokens=7, seconds=0.1)
    log.write(kind="evaluation", step=1, epoch=0.1, scores={"loss": 3.0}, seconds=0.2)
    assert told == [Step("lora", 3, 1, 0.1, None, 0.5, 2.0), Evaluated("lora", 3, 1, 0.1, {"loss": 3.0})]


def test_only_the_first_process_writes(folder, path):
    MetricsLog(folder, active=False).write(kind="train", step=1)
    assert not path.exists() and read_rows(path) == []


def test_the_clock_goes_on_from_what_was_spent():
    clock = Clock(spent=100.0)
    time.sleep(0.01)
    assert 100.01 <= clock.seconds < 101


def test_phases_add_up_and_memory_is_measured():
    phases = Phases(torch.device("cpu"))
    time.sleep(0.02)
    phases.end("load")
    block = torch.ones(20_000_000)
    phases.end("train")
    facts = phases.facts()
    assert list(facts["phases"]) == ["load", "train"] and facts["phases"]["load"] >= 0.02
    assert facts["seconds"] == pytest.approx(sum(facts["phases"].values()), abs=2e-3)
    assert facts["peak_memory_bytes"] > block.numel() * block.element_size()
