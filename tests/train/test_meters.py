"""The training log continues where a checkpoint stands, and costs are measured."""

import time

import pytest
import torch

from finetune.train.meters import Clock, MetricsLog, Phases, read_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def test_rows_come_back(path):
    log = MetricsLog(path)
    log.write(kind="train", step=1, loss=0.5)
    log.write(kind="train", step=2, loss=None)
    assert read_rows(path) == [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "train", "step": 2, "loss": None},
    ]


def test_a_new_run_begins_an_empty_log(path):
    MetricsLog(path).write(kind="train", step=1)
    MetricsLog(path)
    assert read_rows(path) == []


def test_a_resumed_run_forgets_what_its_checkpoint_does_not_know(path):
    log = MetricsLog(path)
    for step in range(1, 6):
        log.write(kind="train", step=step)
    MetricsLog(path, resume_at=3).write(kind="train", step=4, again=True)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4] and read_rows(path)[-1]["again"]


def test_an_evaluation_that_will_be_made_again_is_forgotten_too(path):
    log = MetricsLog(path)
    for step in (2, 4):
        log.write(kind="train", step=step)
        log.write(kind="evaluation", step=step)
    MetricsLog(path, resume_at=4, validated=2)
    assert [(row["kind"], row["step"]) for row in read_rows(path)] == [("train", 2), ("evaluation", 2), ("train", 4)]


def test_a_line_cut_short_is_left_out(path):
    MetricsLog(path).write(kind="train", step=1)
    with open(path, "a", encoding="utf-8") as log:
        log.write('{"step": 2, "lo')
    assert read_rows(path) == [{"kind": "train", "step": 1}]


def test_only_the_first_process_writes(path):
    MetricsLog(path, active=False).write(kind="train", step=1)
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
