"""Every error says where, what was found, and what to do."""

import pytest

from finetune.core.errors import (
    DiskFull,
    FinetuneError,
    InputError,
    Interrupted,
    Problem,
    SameRun,
    StudyEnded,
    bad_input,
    did_you_mean,
    first_line,
    message_of,
)


@pytest.mark.parametrize(
    "problem, text",
    [
        (Problem("is 0", "write 1", "strategy.rank", "a.yaml:3"), "a.yaml:3: strategy.rank: is 0\n    write 1"),
        (Problem("is 0", "write 1", "strategy.rank"), "strategy.rank: is 0\n    write 1"),
        (Problem("is 0", where="data.csv:7"), "data.csv:7: is 0"),
        (Problem("nothing is there"), "nothing is there"),
    ],
)
def test_a_problem_in_words(problem, text):
    assert str(problem) == text


def test_all_problems_are_told():
    error = InputError(Problem(found) for found in ("first", "second"))
    assert str(error) == "first\nsecond" and len(error.problems) == 2


def test_problems_are_located_where_they_were_not():
    problems = [Problem("a", path="task.text"), Problem("b", path="x", where="else:1"), Problem("c")]
    lines = {"task.text": "recipe.yaml:4", "x": "recipe.yaml:9"}
    located = InputError(problems).located(lines.get)
    assert [problem.where for problem in located.problems] == ["recipe.yaml:4", "else:1", None]


@pytest.mark.parametrize(
    "error, code",
    [(InputError([]), 2), (bad_input("a", "b"), 2), (DiskFull(), 1), (SameRun(), 1), (Interrupted(), 130)],
)
def test_exit_codes(error, code):
    assert isinstance(error, FinetuneError) and error.exit_code == code


def test_suggestions():
    assert did_you_mean("rnak", ["rank", "alpha"]) == "did you mean 'rank'? (choose from: alpha, rank)"
    assert did_you_mean("zzz", ["rank", "alpha"]) == "choose from: alpha, rank"
    assert did_you_mean("zzz", []) == "there is nothing to choose from"


def test_what_ends_a_study_and_what_ends_a_run_only():
    assert all(issubclass(kind, StudyEnded) for kind in (InputError, DiskFull, Interrupted))
    assert not issubclass(SameRun, StudyEnded) and issubclass(StudyEnded, FinetuneError)


@pytest.mark.parametrize(
    "error, message, line",
    [
        (ValueError("no\nyes"), "no\nyes", "no"),
        (ValueError("\n  late \n"), "late", "late"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError("\n \n"), "ValueError", "ValueError"),
        (InputError([]), "InputError", "InputError"),
    ],
)
def test_what_an_exception_says_is_never_empty(error, message, line):
    assert message_of(error) == message and first_line(error) == line
