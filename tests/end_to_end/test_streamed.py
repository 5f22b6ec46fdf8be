"""A study of a stream: killed anywhere, and without its cache, it ends as one that was never interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import tiny
from tests.end_to_end.reading import predictions, results
from tests.end_to_end.test_killed import DIE, RENAME, assert_as_if_nothing_had_happened
from tests.served import serving, write_parquet

SMALL = "from finetune.data import remote, streaming; streaming.PIECE = 300; remote.WAIT = 0.01\n"

STOPPED = """
import os, signal
def atomic(path):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(path)
whole, streaming.atomic = streaming.atomic, atomic
"""


def cached(folder: Path) -> str:
    """Python that gives a command a cache of its own."""
    return f"import os; os.environ['FINETUNE_CACHE'] = {str(folder)!r}\n"


@pytest.fixture
def served(tmp_path):
    (tmp_path / "far").mkdir()
    rows = tiny.sentences(400)
    for number in range(4):
        write_parquet(tmp_path / "far" / f"part-{number}.parquet", rows[100 * number :][:100])
    with serving(tmp_path / "far") as found:
        yield found


@pytest.fixture
def run(served, finetune, tmp_path, encoder_folder):
    """finetune run on the stream, with more Python that runs first."""
    (tmp_path / "stream.yaml").write_text(f"""name: stream
seeds: 1
model: {{source: {encoder_folder}, dtype: float32}}
data:
  train: {{path: "{served.url("part-{0..3}.parquet")}", streaming: true, limit: 90}}
  split: {{test: 30, validation: 12}}
task: {{type: classification, max_length: 32}}
strategy: {{type: full}}
baselines: {{enabled: false}}
train: {{min_steps: 16, learning_rate: 1.0e-2, evaluations: 2, checkpoint_seconds: 0}}
""")

    def command(verb="run", *more: str, hook: str = ""):
        return finetune(verb, "stream.yaml", *more, hook=SMALL + hook)

    return command


def test_killed_while_reading_and_while_training(run, served, tmp_path):
    first, second, study = cached(tmp_path / "one"), cached(tmp_path / "two"), tmp_path / "runs" / "stream"
    assert run("run", "--output", "whole", hook=first).code == 0
    whole = tmp_path / "whole" / "stream"
    fetched, served.ranges[:] = set(served.ranges), []

    killed = run(hook=second + DIE + RENAME.format(target="000003.arrow", when="after"))
    assert killed.code == -signal.SIGKILL, killed.text
    before, served.ranges[:] = set(served.ranges), []
    killed = run(hook=second + DIE + RENAME.format(target="step-00000005", when="after"))
    assert killed.code == -signal.SIGKILL, killed.text
    footers = {each for each in fetched if each[2] == max(end for name, _, end in fetched if name == each[0])}
    assert before | set(served.ranges) == fetched
    assert before & set(served.ranges) == footers

    done = run(hook=cached(tmp_path / "three"))  # of what was read nothing is left
    assert done.code == 0, done.text
    assert_as_if_nothing_had_happened(study, whole)
    assert predictions(study)


def test_data_that_have_changed_are_refused(run, served, tmp_path):
    assert run().code == 0
    write_parquet(tmp_path / "far" / "part-1.parquet", tiny.sentences(100, seed=3))
    done = run("run", "seeds=2")
    assert done.code == 2
    assert "the examples of 'train' are not those that" in done.text and "restore the data" in done.text


def test_asked_to_stop_while_reading(run, served, tmp_path):
    stopped = run(hook=cached(tmp_path / "one") + STOPPED)
    assert stopped.code == 130, stopped.text
    assert stopped.err.endswith("stopped while reading data.train\ninterrupted; run the same command again to resume\n")
    assert run(hook=cached(tmp_path / "one")).code == 0


def test_a_check_shows_what_would_be_read_and_finds_what_is_wrong(run, served, tmp_path):
    done = run("check")
    assert done.code == 0 and "data.train: 90 of 400 rows, out of 16 of 40 row groups in 4 files" in done.text
    for override, said in {
        "data.train.limit=null": "stream.yaml:5: data.train: streaming asks for a limit",
        "data.train.path=news.csv": "streaming is for parquet files and hub datasets",
        "data.train.path=" + served.url("none.parquet"): "data.train.path: there is no 'http",
        "data.train.path=" + served.url("a.parquet?token=word"): "`token` in the address of",
        "task.text=body": "task.text: data.train has no column 'body'",
    }.items():
        done = run("check", override)
        assert done.code == 2 and said in done.text and "word" not in done.text.replace("a word", ""), done.text


def test_what_is_behind_the_address_is_in_no_report(run, served, tmp_path):
    hook = "import os; os.environ['READING'] = 'hidden-word'\n"
    done = run("run", "data.train.path=" + served.url("part-{0..3}.parquet?token=${READING}"), hook=hook)
    assert done.code == 0 and "hidden-word" not in done.text
    study = tmp_path / "runs" / "stream"
    assert results(study)["tasks"]
    assert not [path for path in study.rglob("*") if path.is_file() and b"hidden-word" in path.read_bytes()]
    assert "READING" not in (study / "data.json").read_text()
    assert "${READING}" in (study / "resolved.yaml").read_text()
