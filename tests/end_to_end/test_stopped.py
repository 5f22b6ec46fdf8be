"""Asked to stop in any phase, a study answers at once and stops there; run again, it ends as if it had not been."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import cli
from finetune.core.progress import Progress
from finetune.core.run_dir import read_json
from finetune.core.signals import ANSWER
from finetune.runner import autotune
from tests import tiny
from tests.end_to_end.reading import scores

CHAT = [
    "seeds=2",
    "train.replicas=1",
    "task.max_new_tokens=6",
    "scoring.batch_size=4",
    "train.evaluations=2",
    "data.split.validation=8",
]
SOUP = "mitigations=[{type: soup, method: uniform}, {type: ensemble}]"
TOPICS = ["seeds=2", "train.min_steps=16", "train.replicas=1", "scoring.batch_size=16", SOUP]
MEASURED = ["measuring how many seeds", "steps with 2"]
"""Phases of studies that find out by measuring how many seeds go side by side."""


class Pressing(Progress):
    """Sends this process real signals in the middle of a phase."""

    def __init__(self, phase: str = "nowhere", times: int = 1, number: int = signal.SIGINT):
        super().__init__()
        self.wanted, self.times, self.number = phase, times, number
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def start(self, title: str, total: int | None) -> None:
        if re.search(self.wanted, title):
            self.wanted = "nowhere"
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.fixture
def run(monkeypatch, capsys):
    """run(recipe, options, progress) -> exit code, and what was said on the error stream."""
    monkeypatch.setattr(autotune, "WORTH", 0)

    def go(recipe, options, progress):
        monkeypatch.setattr("finetune.core.shown.make_progress", lambda console: progress)
        code = cli.main(["run", str(recipe), *options, "--output", str(recipe.parent / "runs")])
        return code, capsys.readouterr().err

    return go


@pytest.fixture(scope="module")
def places(tmp_path_factory, encoder_folder, decoder_folder):
    """A recipe of each task, with what it comes to when nobody stops it."""
    made = {}
    for kind, write, model in (
        ("topics", tiny.write_topics, encoder_folder),
        ("chat", tiny.write_chat_study, decoder_folder),
    ):
        path = write(tmp_path_factory.mktemp(kind), model)
        made[kind] = path
    return made


def options_of(kind):
    return CHAT if kind == "chat" else TOPICS


@pytest.fixture(scope="module")
def whole(places):
    """scores of the studies when nobody stops them, by task."""
    found = {}
    for kind, path in places.items():
        output = path.parent / "whole"
        assert cli.main(["run", str(path), *options_of(kind), "--output", str(output)]) in (0, 1)
        [study] = output.iterdir()
        found[kind] = scores(study)
    return found


PHASES = {
    "topics": [
        "reading data.train",
        "comparing examples",
        "tokenising data.train",
        "loading .*encoder",
        "filling the prefix store",
        *MEASURED,
        "seed 0",
        "scoring test",
        "averaging weights",
        "reading predictions",
        "writing the report",
    ],
    "chat": ["writing out conversations", "tokenising", "validating", "generating answers"],
}


@pytest.mark.parametrize("kind, phase", [(kind, phase) for kind, phases in PHASES.items() for phase in phases], ids=str)
def test_a_study_stopped_in_a_phase_ends_as_if_it_had_not_been(places, whole, tmp_path, run, kind, phase):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(places[kind].read_text())
    for file in places[kind].parent.iterdir():
        if file.is_file() and file != places[kind]:
            (tmp_path / file.name).symlink_to(file)
    pressing = Pressing(phase)
    options = [*options_of(kind), *(["train.replicas=auto"] if phase in MEASURED else [])]
    code, said = run(recipe, options, pressing)
    assert pressing.wanted == "nowhere", "the phase was reached"
    assert code == 130 and pressing.said.count(ANSWER) == 1
    assert "stopped" in said and "run the same command again" in said and "Traceback" not in said
    code, said = run(recipe, options, Pressing())
    assert code in (0, 1), said
    [study] = (tmp_path / "runs").iterdir()
    # How many go side by side may be measured differently, and then rounding differs.
    assert scores(study).keys() == whole[kind].keys() and (phase in MEASURED or scores(study) == whole[kind])


@pytest.mark.parametrize("phase", ["tokenising data.train", "filling the prefix store", "seed 0", "scoring test"])
def test_a_second_signal_stops_at_once_and_leaves_nothing_half(places, tmp_path, run, phase):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(places["topics"].read_text())
    for file in places["topics"].parent.glob("*.csv"):
        (tmp_path / file.name).symlink_to(file)
    code, said = run(recipe, TOPICS, Pressing(phase, times=2, number=signal.SIGTERM))
    assert code == 130 and "Traceback" not in said and "run the same command again" in said
    runs = tmp_path / "runs"
    assert [path for path in runs.rglob("*") if path.name.endswith(".tmp")] == []
    assert all(read_json(path)["status"] == "finished" for path in runs.rglob("result.json"))


IN_COMPANY = """
import os, sys
from finetune import cli
from tests.end_to_end.test_stopped import Pressing
import finetune.core.progress, finetune.core.runtime, finetune.core.shown
asked = os.environ["RANK"] == sys.argv.pop()
pressing = Pressing("scoring test") if asked else finetune.core.progress.Progress()
finetune.core.shown.make_progress = lambda console: pressing
finetune.core.runtime.Progress = lambda: pressing
code = cli.main(sys.argv[1:])
print(f"rank {os.environ['RANK']} ended with {code}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_two_processes_stop_together_when_one_is_asked(places, tmp_path, rank):
    """In scoring, of which they have unequal shares."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    options = ["seeds=1", "train.min_steps=4", "scoring.batch_size=10", "--output", str(tmp_path)]
    command = [*launcher, sys.executable, "-c", IN_COMPANY, "run", str(places["topics"]), *options]
    root = Path(__file__).parents[2]
    done = subprocess.run([*command, rank], capture_output=True, text=True, timeout=300, cwd=root)
    for each in (0, 1):
        assert f"rank {each} ended with 130" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr and "stopped while scoring test" in done.stderr
