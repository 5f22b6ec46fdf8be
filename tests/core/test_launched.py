"""Processes that a launcher has started: what is wrong is said once, and results that are written are not a crash."""

from types import SimpleNamespace

import pytest

from finetune.cli import main
from finetune.cli.output import finish
from finetune.core import launched


@pytest.fixture
def slept(monkeypatch):
    """Seconds that were slept."""
    found = []
    monkeypatch.setattr(launched.time, "sleep", found.append)
    return found


@pytest.mark.parametrize("name", launched.RANKS)
def test_each_launchers_number_is_known(monkeypatch, name):
    assert launched.rank() == 0
    monkeypatch.setenv(name, "3")
    assert launched.rank() == 3


@pytest.mark.parametrize("argv", [["explain", "lienar"], ["check", "gone.yaml"], ["run"]])
def test_the_first_process_speaks_first(monkeypatch, capsys, slept, argv):
    def said():
        try:
            assert main(argv) == 2
        except SystemExit as end:
            assert end.code == 2
        return capsys.readouterr().err

    alone = said()
    monkeypatch.setenv("RANK", "0")
    assert said() == alone and slept == []
    monkeypatch.setenv("RANK", "1")
    assert said() == "process 1: " + alone and slept == [launched.PATIENCE]


def test_what_nobody_foresaw_as_well(monkeypatch, capsys, slept):
    def fail(args):
        """Fail."""
        raise RuntimeError("what is this?")

    monkeypatch.setattr("finetune.cli.explain.run", fail)
    monkeypatch.setenv("RANK", "2")
    assert main(["explain", "full"]) == 1 and slept == [launched.PATIENCE]
    assert capsys.readouterr().err.startswith("process 2: Traceback")


def test_an_interruption_is_told_by_the_first(monkeypatch, capsys, slept):
    def stop(args):
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.cli.explain.run", stop)
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        assert main(["explain", "full"]) == 130
        assert ("run the same command again" in capsys.readouterr().err) == (rank == 0)
    assert slept == []


@pytest.mark.parametrize("variable", launched.STARTED)
def test_a_failed_run_whose_results_are_written_is_no_crash(monkeypatch, variable):
    failed = [{"variant": "full", "seed": 0, "status": "degenerate"}]
    outcome = SimpleNamespace(speaks=False, failed=failed, failed_baselines=[])
    assert finish(outcome) == 1
    monkeypatch.setenv(variable, "0")
    assert finish(outcome) == 0


def test_who_is_ended_while_the_first_speaks_says_nothing(monkeypatch):
    def ended(seconds):
        raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(launched.time, "sleep", ended)
    with pytest.raises(SystemExit) as caught:
        launched.let_the_first_speak()
    assert caught.value.code == 130
