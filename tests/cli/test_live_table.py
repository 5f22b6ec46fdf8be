"""A study's live table: every run's score as it arrives, in a terminal of any width."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from finetune.cli.live_table import LiveTable
from finetune.core.events import RunFinished, RunStarted, Step, StudyFinished, StudyOpened, from_json, to_json
from tests.end_to_end.warm import environment_with

SEEDS = [0, 1, 2, 3, 4]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(clock):
    """Of two variants under five seeds, one run of which is done."""
    there = RunFinished("linear", 0, "finished", None, {"test/accuracy": 0.912, "test/nll": 0.3}, 10.0)
    table = LiveTable(clock=clock)
    table(StudyOpened(Path("runs/it"), ["linear", "full"], SEEDS, 1, "test/accuracy", [there]))
    return table


def drawn(table, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines), lines
    return [re.sub(r" +", " ", line).strip() for line in lines]


def test_nothing_is_drawn_before_a_study_is_open_and_after_it_is_over(table):
    assert LiveTable().drawn() is None
    assert table.drawn() is table
    table(StudyFinished(Path("runs/it"), 0))
    assert table.drawn() is None


def test_scores_arrive_run_by_run(table):
    assert drawn(table) == [
        "variant 0 1 2 3 4 mean",
        "linear 91.2 · · · · 91.2",
        "full · · · · ·",
        "1 of 10 runs · accuracy, % · 0:01:30 left",
    ]
    table(RunStarted("full", 1))
    assert drawn(table)[2] == "full · begun · · ·"
    table(Step("full", 1, 7, 1.26, 0.5, 1e-3, None))
    assert drawn(table)[2] == "full · epoch 1.3 · · ·"
    table(RunFinished("full", 1, "finished", None, {"test/accuracy": 0.95}, 30.0))
    table(RunFinished("full", 2, "degenerate", "no better than chance", {"test/accuracy": 0.2}, 30.0))
    table(RunFinished("full", 3, "error", "no memory", {}, None))
    assert drawn(table)[2] == "full · 95.0 20.0 degenerate – error · 57.5"


def test_a_stage_is_no_run(table):
    before = drawn(table)
    table(RunStarted("full", None))
    table(Step("full", None, 1, 0.1, 0.5, 1e-3, None))
    assert drawn(table) == before


def test_an_error_that_is_tried_again_is_under_way(table):
    table(RunFinished("full", 3, "error", "no memory", {}, None))
    table(RunStarted("full", 3))
    assert "begun" in drawn(table)[2] and drawn(table)[3].startswith("1 of 10 runs")


def test_the_time_left_is_of_what_runs_of_each_variant_take(table, clock):
    table(RunStarted("full", 0))
    clock.now = 20.0
    table(RunFinished("full", 0, "finished", None, {"test/accuracy": 0.95}, 20.0))
    table(RunStarted("full", 1))
    clock.now = 25.0
    assert table.seconds_left() == 4 * 10 + 3 * 20 + 15
    table.processes = 2
    assert table.seconds_left() == (4 * 10 + 3 * 20 + 15) / 2


def test_runs_that_are_not_asked_for_are_not_waited_for(clock):
    table, asked = LiveTable(clock=clock), [("a", seed) for seed in SEEDS]
    there = [RunFinished("b", 0, "finished", None, {"test/accuracy": 0.5}, 7.0)]
    table(
        from_json(json.loads(json.dumps(to_json(StudyOpened(Path("it"), ["a", "b"], SEEDS, 1, "s/x", there, asked)))))
    )
    table(RunStarted("a", 0))
    clock.now = 100.0
    table(RunFinished("a", 0, "finished", None, {"s/x": 0.5}, 100.0))
    assert table.seconds_left() == 400.0
    assert drawn(table)[1:] == ["a 0.500 · · · · 0.500", "b –", "1 of 5 runs · x · 0:06:40 left"]


def test_runs_side_by_side_share_their_time(table, clock):
    for seed in (1, 2, 3, 4):
        table(RunStarted("linear", seed, together=4))
    assert table.seconds_left() == 4 * 10 + 5 * 10
    clock.now = 30.0
    assert table.seconds_left() == 10 + 5 * 10


def test_a_narrow_terminal_has_counts_in_place_of_seeds(table):
    for seed, score in ((1, 0.93), (2, 0.95)):
        table(RunFinished("linear", seed, "finished", None, {"test/accuracy": score}, 10.0))
    table(RunStarted("full", 4))
    table(StudyOpened(Path("runs/it"), ["linear", "full"], list(range(9)), 0, "test/accuracy"))
    assert drawn(table, 44) == [
        "variant runs mean SD now",
        "linear 3/9 93.1 1.9",
        "full 0/9 4: begun",
        "3 of 18 runs · accuracy, % · 0:02:30 left",
    ]
    assert drawn(table, 32)[:3] == ["variant runs mean now", "linear 3/9 93.1", "full 0/9 4: begun"]
    assert drawn(table, 24)[:3] == ["variant runs mean", "linear 3/9 93.1", "full 0/9"]


def test_of_many_variants_those_under_way_come_first():
    names = [f"v{number}" for number in range(40)]
    table = LiveTable()
    table(StudyOpened(Path("runs/it"), names, [0], 0, "test/accuracy"))
    table(RunFinished("v20", 0, "finished", None, {"test/accuracy": 0.5}, 1.0))
    table(RunStarted("v30", 0))
    lines = drawn(table)
    assert lines[1].startswith("v30") and lines[2].startswith("v20") and len(lines) == 14


def on_a_terminal(topics, *arguments, columns=100):
    """What `finetune run` writes to a terminal of that width, its moves of the cursor too."""
    leader, follower = pty.openpty()
    environment = environment_with(COLUMNS=str(columns), LINES="40", TERM="xterm", OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "finetune", "run", "topics.yaml", *arguments]
    process = subprocess.Popen(
        command, cwd=topics.parent, env=environment, stdin=follower, stdout=follower, stderr=follower, close_fds=True
    )
    os.close(follower)
    said = b""
    while True:
        try:
            some = os.read(leader, 65536)
        except OSError:  # how Linux says that nobody holds the other end any more
            break
        if not some:
            break
        said += some
    os.close(leader)
    return process.wait(120), said.decode()


def test_on_a_terminal_the_table_takes_the_place_of_a_line_for_each_run(topics):
    code, said = on_a_terminal(topics)
    assert code == 0, said
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    assert re.search(r"variant +0 +1 +mean", text) and re.search(r"\d of 4 runs · accuracy, %", text)
    assert re.search(r"linear +\d+\.\d +\d+\.\d +\d+\.\d", text)
    assert "run 1 of 4" not in text.replace("run 1 of 4:", "")
    assert not re.search(r"run \d of 4: .* test/accuracy", text)


def test_json_is_for_programs_and_people_read_the_error_stream(topics):
    command = [sys.executable, "-m", "finetune", "run", "topics.yaml", "--json"]
    environment = environment_with(OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=topics.parent, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "study_opened" and kinds[-1] == "study_finished" and kinds.count("run_finished") == 4
    assert {"variant", "seed", "step", "epoch", "loss"} <= events[kinds.index("step")].keys()
    assert "run 4 of 4: " in done.stderr


def test_events_of_other_processes_come_too(topics):
    command = [sys.executable, "-m", "finetune", "run", "topics.yaml", "--json", "--devices", "2"]
    environment = environment_with(OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=topics.parent, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    finished = {(event["variant"], event["seed"]) for event in events if event["event"] == "run_finished"}
    assert finished == {("linear", 0), ("linear", 1), ("full", 0), ("full", 1)}
    assert sum(event["event"] == "study_opened" for event in events) == 1
