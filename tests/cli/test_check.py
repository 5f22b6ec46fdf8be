"""A check that found nothing wrong answers the next one, until something changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import cli, recipe
from finetune.cli import check_cache
from finetune.core.errors import bad_input
from finetune.study import preflight, running

ROOT = Path(__file__).parents[2]
UNCHANGED = "nothing has changed since it was checked at "


@pytest.fixture
def checks(monkeypatch, tmp_path):
    """An empty memory; the list grows with each recipe that is really checked."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "memory"))
    made, really = [], preflight.preflight

    def counted(recipe, *shared, **how):
        made.append(recipe.name)
        return really(recipe, *shared, **how)

    monkeypatch.setattr(preflight, "preflight", counted)
    return made


def check(capsys, *args):
    code = cli.main(["check", *map(str, args)])
    printed = capsys.readouterr()
    return code, printed.out.partition("data and parameters\n")[2], printed.err


def test_an_unchanged_recipe_is_checked_once(topics, checks, capsys):
    code, first, _ = check(capsys, topics)
    assert code == 0 and "train: 48 examples" in first and UNCHANGED not in first
    code, second, _ = check(capsys, topics)
    assert code == 0 and checks == ["topics"]
    said, _, note = second.partition(UNCHANGED)
    assert said.strip() == first.strip()
    assert " ".join(note.split()).endswith("--fresh checks it again"), "wherever the line is broken"


def test_it_lists_the_baselines_in_one_line(topics, checks, capsys):
    every = "commonest-label, tfidf-logistic, centroid, frozen-logistic"
    _, said, _ = check(capsys, topics, "baselines.enabled=true")
    assert f"  baselines: {every}\n" in said
    _, said, _ = check(capsys, topics, "baselines.enabled=true", "baselines.limit=0")
    flat = " ".join(said.split())
    assert "baselines: commonest-label; left out: tfidf-logistic (words of" in flat
    assert "centroid, frozen-logistic (features of" in flat
    _, said, _ = check(capsys, topics)
    assert "  baselines: none (baselines.enabled is false)\n" in said


def test_a_fresh_check_is_made_and_remembered(topics, checks, capsys):
    for _ in range(2):
        assert UNCHANGED not in check(capsys, topics, "--fresh")[1]
    assert len(checks) == 2
    assert UNCHANGED in check(capsys, topics)[1]


def test_changed_data_are_checked(topics, checks, capsys):
    check(capsys, topics)
    with open(topics.parent / "news.csv", "a") as news:
        news.write("one more match,sport\n")
    assert "train: 49 examples" in check(capsys, topics)[1]
    assert len(checks) == 2


def test_mistakes_are_not_remembered(topics, checks, capsys):
    for _ in range(2):
        code, out, err = check(capsys, topics, "task.label=gone")
        assert code == 2 and out == "" and "no column 'gone'" in err
    assert len(checks) == 2


def test_what_changes_while_it_is_read_is_not_remembered(topics, checks, capsys, monkeypatch):
    read = preflight.preflight

    def while_someone_writes(recipe):
        found = read(recipe)
        with open(topics.parent / "news.csv", "a") as news:
            news.write("one more match,sport\n")
        return found

    monkeypatch.setattr(preflight, "preflight", while_someone_writes)
    check(capsys, topics)
    assert not check_cache.folder().exists()


def test_switched_off_every_check_is_made(topics, checks, capsys, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", "")
    for _ in range(2):
        assert UNCHANGED not in check(capsys, topics)[1]
    assert len(checks) == 2


def test_a_run_looks_for_itself(topics, checks, capsys, monkeypatch, tmp_path):
    assert check(capsys, topics)[0] == 0

    def refuses(*_):
        raise bad_input("data", "was looked at")

    monkeypatch.setattr(running, "preflight", refuses)
    assert cli.main(["run", str(topics), "--output", str(tmp_path / "runs")]) == 2
    assert "was looked at" in capsys.readouterr().err


def test_a_remembered_check_loads_nothing_heavy(topics, checks):
    # The key depends on which packages Python finds, so the process that asks is the one that remembers.
    code = f"""
import sys
from pathlib import Path
from finetune import recipe
from finetune.cli import check_cache
from finetune.cli import main
found = check_cache.Checked(["train: 7 examples"], [])
check_cache.remember(check_cache.key_of(recipe.load(Path({str(topics)!r}))), found)
main(["check", {str(topics)!r}])
heavy = {{"torch", "transformers", "datasets", "accelerate", "peft", "pyarrow", "scipy", "sklearn"}} & set(sys.modules)
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train: 7 examples" in done.stdout and UNCHANGED in done.stdout


def test_a_key_says_the_same_in_another_process(topics, checks):
    code = f"""
from pathlib import Path
from finetune import recipe
from finetune.cli import check_cache
print(check_cache.key_of(recipe.load(Path({str(topics)!r}))))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    keys = {subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(keys) == 1 and keys != {"None\n"}
    assert check_cache.key_of(recipe.load(topics))
