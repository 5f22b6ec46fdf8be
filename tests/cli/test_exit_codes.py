"""Exit codes and messages of errors that verbs raise."""

from __future__ import annotations

import json

import pytest

from finetune import cli
from finetune.cli.output import finish
from finetune.core.errors import FinetuneError, InputError, Interrupted, Problem
from finetune.report import build
from finetune.runner.result import StudyOutcome
from tests import fabricated


def raising(error: BaseException):
    def run(args):
        """Raise."""
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError(Problem("is wrong", "do better", "a.b", "f:1")), 2, "f:1: a.b: is wrong"),
        (InputError([Problem("x"), Problem("y")]), 2, "2 problems; nothing was started"),
        (FinetuneError("no room on the disk"), 1, "no room on the disk"),
        (KeyboardInterrupt(), 130, "run the same command again to resume"),
        (Interrupted("stopped at step 3"), 130, "stopped at step 3"),
        (RuntimeError("a bug"), 1, "RuntimeError: a bug"),
    ],
)
def test_each_error_has_its_code(monkeypatch, capsys, error, code, said):
    monkeypatch.setattr(cli.schema, "run", raising(error))
    assert cli.main(["schema"]) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert ("Traceback" in printed.err) == isinstance(error, RuntimeError)


def test_success_is_zero(capsys):
    assert cli.main(["list"]) == 0
    assert "strategies" in capsys.readouterr().out


@pytest.fixture
def outcome(tmp_path):
    """outcome(**changes to a cheap baseline's result) -> a study of which every run works."""
    made = fabricated.topics(tmp_path / "topics")
    path = made.path / "baselines/tfidf-logistic/result.json"
    result = made.cheap("tfidf-logistic", 0.5)

    def end(**changes):
        path.write_text(json.dumps({**result, **changes}))
        return StudyOutcome(made.path, build(made.path))

    return end


def test_a_baseline_that_failed_is_told_and_makes_it_1(outcome, capsys):
    assert finish(outcome()) == 0 and "baseline tfidf" not in capsys.readouterr().out
    failed = outcome(status="error", reason="RuntimeError: a cosmic ray", scores={})
    assert failed.failed == [], "it is no run"
    assert finish(failed) == 1
    assert "baseline tfidf-logistic: error: RuntimeError: a cosmic ray" in capsys.readouterr().out
