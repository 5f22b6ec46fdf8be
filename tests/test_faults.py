"""The campaign of faults: what it counts, what it would notice, and two of its studies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts._faults import __main__ as faults
from scripts._faults import page
from scripts._faults.judging import Outcome, clear_error, differences, steps_lost
from scripts._faults.kinds import KINDS
from scripts._faults.recipes import SHAPES
from scripts._faults.studies import Command, Study
from tests.fabricated import Fabricator

ROOT = Path(__file__).parent.parent
ASKED = ("SIGKILL of a worker", "SIGKILL of the parent", "SIGKILL of a slurmd", "SIGTERM", "SIGUSR1", "20 pre-emptions")
ASKED += ("a full disk", "a truncated checkpoint", "a flipped bit in a checkpoint", "a loss that is no number")
ASKED += ("no memory", "a lost rank", "a hanging rank", "a clock that jumps", "two processes on one study")
ASKED += ("a read-only folder", "a killed download", "a file system without locks")
ASKED += ("a study folder copied while it runs",)


def study_of(folder, lines, interval=0.0):
    """A study that has told these events, each at its place in tenths of a second."""
    told = [f"{number * 10**8} 7 {line}" for number, line in enumerate(lines)]
    (folder / "events").write_text("\n".join(told) + "\n")
    return Study(folder, SHAPES[0], None, interval=interval)


def steps(first, last, run="r/full/seed-0"):
    return [f"step {step} {run}" for step in range(first, last + 1)]


def test_all_kinds_are_there_and_come_in_turn():
    assert set(ASKED) < set(KINDS)
    drawn = faults.drawn(list(KINDS.values()), faults.random.Random(1))
    first = [next(drawn).name for _ in range(2 * len(KINDS))]
    assert set(first) == set(KINDS)


@pytest.mark.parametrize(
    ("lines", "lost", "wrong"),
    [
        ([*steps(1, 5), "fault 1 kill", *steps(6, 9)], [0], False),
        ([*steps(1, 5), "fault 1 kill", *steps(4, 9)], [2], False),
        ([*steps(1, 5), "fault 1 kill", *steps(3, 9)], [3], True),
        ([*steps(1, 5), "fault 2 kill", *steps(3, 9)], [3], False),
        ([*steps(1, 5), "fault 2 kill", *steps(1, 9)], [5], True),
        ([*steps(1, 5), "fault 1 kill", "fault 1 kill", *steps(3, 9)], [3, 0], False),
        ([*steps(1, 5), "fault 1 kill", *steps(5, 6), "fault 1 kill", *steps(6, 9)], [1, 1], False),
        ([*steps(1, 5), *steps(1, 3, "r/full/seed-1"), "fault 1 kill", *steps(3, 9, "r/full/seed-1")], [1], False),
        (["fault 1 kill", *steps(1, 9)], [0], False),
    ],
)
def test_steps_that_were_done_anew_are_counted_by_fault(tmp_path, lines, lost, wrong):
    found, problems = steps_lost(study_of(tmp_path, lines))
    assert found == lost and bool(problems) == wrong, problems


@pytest.mark.parametrize(("interval", "wrong"), [(0.2, True), (1.0, False)])
def test_so_many_steps_may_be_lost_as_there_are_between_two_checkpoints(tmp_path, interval, wrong):
    """Here a step takes a tenth of a second."""
    lines = [*steps(1, 12), "fault 1 kill", *steps(3, 12)]
    assert bool(steps_lost(study_of(tmp_path, lines, interval))[1]) == wrong


@pytest.fixture
def pair(tmp_path):
    """A study's folder, and a copy of it."""
    made = Fabricator(tmp_path / "study", [1, 2], {"full": "full"})
    made.study()
    for seed in (1, 2):
        made.run("full", seed, 0.9)
    made.json("report/results.json", {"environment": {}, "seconds": 3, "estimates": [1.0]})
    return made.path, Path(shutil.copytree(made.path, tmp_path / "copy"))


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))


CHANGES = {
    "a score": lambda study: rewrite(
        study / "full/seed-1/result.json", lambda said: said["scores"].update({"test/accuracy": 0.1})
    ),
    "a missing result": lambda study: (study / "full/seed-2/result.json").unlink(),
    "missing predictions": lambda study: shutil.rmtree(study / "full/seed-2/predictions"),
    "other predictions": lambda study: shutil.copyfile(
        study / "full/seed-1/predictions/test.parquet", study / "full/seed-2/predictions/test.parquet"
    ),
    "a shorter log": lambda study: cut(study / "full/seed-1/metrics.jsonl"),
    "another report": lambda study: rewrite(study / "report/results.json", lambda said: said.update(estimates=[2.0])),
}


def test_a_study_that_came_to_the_same_is_known_whatever_time_it_took(pair):
    study, copy = pair
    rewrite(copy / "report/results.json", lambda said: said.update(seconds=9))
    assert list(differences(copy, study)) == []


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_study_that_came_to_something_else_is_noticed(pair, change):
    study, copy = pair
    change(copy)
    assert list(differences(copy, study))


@pytest.mark.parametrize(
    ("code", "said", "clear"),
    [
        (1, "finetune: the disk is full; free some room", True),
        (2, "x.yaml:3: task: is wrong\n    write it so\n1 problem; nothing was started", True),
        (1, "Traceback (most recent call last):\n  File", False),
        (1, "", False),
        (1, "line\n" * 40, False),
        (0, "fine", False),
        (-11, "finetune: died", False),
    ],
)
def test_a_clear_error_is_short_and_without_a_traceback(tmp_path, code, said, clear):
    (tmp_path / "out").write_text("")
    (tmp_path / "err").write_text(said)
    command = Command(1, tmp_path / "out", tmp_path / "err", int, 0, "runs", True, code)
    assert (clear_error(command) is None) == clear


def test_the_page_has_what_was_counted():
    outcomes = [
        Outcome("SIGKILL", "full", faults=3, resumed=2, lost=[0, 2, 1]),
        Outcome("SIGKILL", "LoRA", faults=1, resumed=1, lost=[1], wrong=["scores differ"]),
        Outcome("no memory", "full", faults=1),
    ]
    said = page.text(outcomes, 7)
    assert "| SIGKILL | 2 | 4 | 0 | 3 | 1 | 1.0 | 2 | 1 |" in said and "| no memory | 1 | 1 |" in said
    assert "3 studies with 5 faults" in said and "--seed 7" in said and "SIGUSR1 |" not in said
    assert all(f"- *{name}*. " in said for name in KINDS)


def test_the_page_in_the_project_counts_no_loss():
    rows = [line.strip("| ").split(" | ") for line in page.PATH.read_text(encoding="utf-8").splitlines()]
    rows = [cells for cells in rows if len(cells) == len(page.HEAD)]
    last = rows[-1]
    assert last[0] == "all" and int(last[1]) >= 50 and int(last[-1]) == 0 and last[5] == last[1]
    assert set(ASKED) <= {cells[0] for cells in rows}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_studies_lose_nothing(tmp_path):
    words = ["--studies", "2", "--seed", "5", "--only", "SIGKILL", "a flipped bit in a checkpoint"]
    done = subprocess.run(
        [sys.executable, "-m", "scripts._faults", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 studies, " in done.stdout and "; 0 studies came to something else" in done.stdout
