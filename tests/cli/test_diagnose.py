"""`finetune diagnose`: what it prints, in every width, and its exit codes."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest

from finetune import cli
from finetune.cli.diagnose import add_arguments, lines, show
from tests.diagnosed import TRIAL, content


def parsed(*words):
    parser = ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(["recipe.yaml", *words])


def test_arguments():
    args = parsed("--runs", "9", "--sources", "init, order", "--seeds", "8", "--no-test", "--variant", "full")
    assert (args.runs, args.sources, args.seeds, args.no_test, args.variant) == (9, ("init", "order"), 8, True, "full")
    args = parsed()
    assert (args.runs, args.sources, args.seeds, args.no_test, args.variant) == (None, (), 6, False, None)
    assert str(args.output) == "runs"


@pytest.mark.parametrize("words", [("--seeds", "5"), ("--runs", "12"), ("--seeds", "many")])
def test_too_few_seeds_and_other_sizes_are_refused(finetune, words):
    done = finetune("diagnose", "recipe.yaml", *words)
    assert done.returncode == 2 and f"argument {words[0]}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits(width, monkeypatch, capsys):
    table = lines(content(), width)
    assert len(table) == 6 and max(map(len, table)) <= width
    assert table[0].split()[:2] == ["source", "share"] and table[1].startswith("init")
    assert ("95 % interval" in table[0]) == (width >= 60)
    monkeypatch.setenv("COLUMNS", str(width))
    show(content(trial=TRIAL, refused={"mixout": ["there is nothing that it could be mixed with"]}))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "topics, full: accuracy on test, 16 runs" in printed.replace("\n  ", " ")


def test_without_a_decomposition_there_is_no_table():
    assert lines(content(decomposition=None, reason="no score"), 80) == []


RECIPE_ERROR = ["diagnose", "recipe.yaml", "train.epoch=3"]


def test_bad_input_is_2_and_starts_nothing(finetune, folder):
    done = finetune(*RECIPE_ERROR)
    assert done.returncode == 2 and "there is no key 'epoch' in train" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]


def test_it_diagnoses_and_tries(topics, tmp_path, monkeypatch, capsys):
    """From the command line to the verdict; and without the trial, no trial."""
    monkeypatch.chdir(tmp_path)
    words = ["--variant", "full", "--runs", "9", "--sources", "init,order", "train.min_steps=6", "train.evaluations=0"]
    command = ["diagnose", "topics.yaml", "train.learning_rate=1.0e-12", *words]
    assert cli.main([*command, "--no-test"]) == 1  # runs that learn nothing have failed
    printed = capsys.readouterr().out
    assert " of 9 runs failed, which" in printed and "To try: mitigations: " in printed and "fresh seeds" not in printed
    assert not (tmp_path / "runs" / "topics-full-trial").exists()
    assert cli.main(command) == 1
    printed = capsys.readouterr().out
    assert "on 6 fresh seeds" in printed.replace("\n", " ") and "report: runs/topics-full-diagnosis/report" in printed
    assert (tmp_path / "runs" / "topics-full-trial" / "report" / "index.html").exists()
