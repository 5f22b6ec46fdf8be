"""Cases are the same for the same seed, and whatever may come of one is told apart."""

import pytest

from scripts._fuzz import page, worker
from scripts._fuzz.__main__ import Worker, run
from scripts._fuzz.cases import DATA, MAKERS, RECIPES, make
from scripts._fuzz.material import gather, save_models

PLACE = "recipe.yaml:3: data.train.path: "
ENDING = "1 problem; nothing was started\n"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    save_models(models)
    return gather(models)


def test_the_same_seed_gives_the_same_cases(material):
    for kind in (RECIPES, DATA):
        for number in range(40):
            one, again = (make(kind, number, 3, material) for _ in range(2))
            assert one.command == again.command and list(one.files) == list(again.files)
            assert one.files["recipe.yaml"] == again.files["recipe.yaml"]
    assert make(RECIPES, 0, 3, material).files != make(RECIPES, 0, 4, material).files


def test_every_group_and_every_task_comes(material):
    cases = [make(kind, number, 0, material) for kind in MAKERS for number in range(150)]
    assert {(case.kind, case.group) for case in cases} == {(kind, name) for kind in MAKERS for name in MAKERS[kind]}
    assert len(material.studies) >= 18 and len(material.shipped) >= 15 and len(material.keys) > 150


@pytest.mark.parametrize(
    ("code", "out", "err", "result"),
    [
        (0, "all well", "checking data: 1/2\n", worker.ACCEPTED),
        (2, "", f"{PLACE}there is no 'x.csv'\n    check the path\n{ENDING}", worker.REFUSED),
        (2, "", f"{PLACE}column 'label' has one class only: 'x'\n{ENDING}", worker.REFUSED),
        (1, "", "Traceback (most recent call last):\nKeyError: 'x'\n", worker.TRACEBACK),
        (2, "", f"recipe.yaml:4: \u2028: there is no key '\u2028'\n{ENDING}", worker.REFUSED),
        (1, "", "finetune: something\n", worker.UNCLEAR),
        (2, "", "", worker.UNCLEAR),
        (2, "", f"{PLACE}'x'\n{ENDING}", worker.UNCLEAR),
        (2, "", f"{PLACE}KeyError\n{ENDING}", worker.UNCLEAR),
        (2, "", f"{PLACE}'x.csv' cannot be read: RuntimeError\n{ENDING}", worker.UNCLEAR),
        (2, "", f"{PLACE}cannot be read: 'NoneType' object is not iterable\n{ENDING}", worker.UNCLEAR),
        (2, "", f"{PLACE}there is no '\x1b]0;x\x07'\n{ENDING}", worker.RAW),
        (0, "a\rb", "", worker.RAW),
    ],
)
def test_what_came_of_a_case(code, out, err, result):
    assert worker.judged(code, out, err).result == result


def test_a_command_that_fails_or_leaves_something_is_noticed(tmp_path, monkeypatch):
    from finetune import cli

    def main(argv):
        (tmp_path / "escaped").touch()
        raise RecursionError("deep")

    monkeypatch.setattr(cli, "main", main)
    assert worker.run(["check"], tmp_path).result == worker.TRACEBACK
    assert worker._left(tmp_path, {"recipe.yaml"}) == ["escaped"]


def hangs(connection, scratch, seed):
    """A process that waits for ever in its first case, works for ever in its second, and dies of its third."""
    import faulthandler
    import os
    import signal
    import time

    stack = open(scratch / "stack", "w+")  # noqa: SIM115  for the life of the process
    connection.send(("stack", {}))
    asked = connection.recv()[1]
    if asked == 0:
        faulthandler.dump_traceback_later(0.2, exit=True, file=stack)
        time.sleep(60)
    if asked == 1:
        faulthandler.register(signal.SIGPROF, stack, chain=True)
        signal.setitimer(signal.ITIMER_PROF, 0.1)
        sorted(range(10**6), key=lambda number: sum(range(number)))
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_case_that_hangs_or_ends_the_process_is_told_and_the_next_one_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts._fuzz.__main__.work", hangs)
    worker_ = Worker(tmp_path, 0)
    assert worker_.do((DATA, 0))[1].result == worker.HANG
    assert worker_.do((DATA, 1))[1].result == worker.HANG
    assert worker_.do((DATA, 2))[1].result == worker.DIED


@pytest.mark.slow
def test_a_few_cases_are_done_and_counted(tmp_path, monkeypatch):
    found = run([(RECIPES, 1), (DATA, 1), (RECIPES, 2)], seed=0, workers=1, minutes=None)
    assert {outcome.result for _, outcome in found.values()} <= {worker.ACCEPTED, worker.REFUSED}
    monkeypatch.setattr(page, "PATH", tmp_path / "SECURITY.md")
    page.PATH.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write(found, 0)
    written = page.PATH.read_text()
    assert written.startswith("before\n") and written.endswith("\nafter\n") and "\nold\n" not in written
    assert "| recipes: all | 2 |" in written and "| data: all | 1 |" in written
