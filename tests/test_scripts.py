"""The scripts that a person runs first: what they install, and that they install it once."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$4/bin"
    for program in python finetune ruff mypy lint-imports pytest; do cp "$0" "$4/bin/$program"; done
fi
"""
"""Says what it was asked to do instead of doing it: `python`, and every program of the virtual environment."""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the scripts read, and ``run(script, ...)``: what it says, and the commands it gave since."""
    for name in ("pyproject.toml", "scripts"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    stub, calls = tmp_path / "stub", tmp_path / "calls"
    stub.write_text(PYTHON)
    stub.chmod(0o755)

    def run(script, *arguments):
        calls.write_text("")
        variables = {**os.environ, "PYTHON": str(stub), "CALLS": str(calls)}
        command = [str(tmp_path / "scripts" / script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd="/", timeout=60)
        return done, calls.read_text().splitlines()

    return tmp_path, run


def installs(calls):
    return [call for call in calls if "pip install" in call]


def test_the_quickstart_installs_once_and_runs_its_recipe(checkout):
    folder, run = checkout
    first, calls = run("quickstart", "seeds=1")
    assert first.returncode == 0, first.stderr
    assert any(f"-e {folder} -c {folder}/scripts/constraints.txt" in call for call in installs(calls))
    assert any(f"--no-deps -r {folder}/scripts/embedded.txt" in call for call in installs(calls))
    assert calls[-1] == f"run {folder}/recipes/quickstart.yaml seeds=1"
    assert "installing finetune" in first.stderr and "making" in first.stderr
    again, calls = run("quickstart")
    assert installs(calls) == [] and "installing" not in again.stderr
    assert calls[-1] == f"run {folder}/recipes/quickstart.yaml"


def test_what_changed_is_installed_again(checkout):
    folder, run = checkout
    run("quickstart")
    (folder / "scripts" / "constraints.txt").write_text("torch==2.13.0\n")
    assert installs(run("quickstart")[1])
    assert not installs(run("quickstart")[1])


@pytest.mark.parametrize(("script", "extra"), [("benchmark", "[benchmark]"), ("simulate", "")])
def test_what_measures_runs_the_checkouts_own_code(checkout, script, extra):
    folder, run = checkout
    done, calls = run(script, "--quick")
    assert done.returncode == 0, done.stderr
    assert any(f"-e {folder}{extra} " in call for call in installs(calls))
    assert calls[-1] == f"-m scripts._{script} --quick"


def test_extras_are_kept_together(checkout):
    folder, run = checkout
    run("quickstart")
    assert any(f"-e {folder}[benchmark] " in call for call in installs(run("benchmark")[1]))
    assert any(f"-e {folder}[benchmark,test] " in call for call in installs(run("test")[1]))
    assert [installs(run(script)[1]) for script in ("quickstart", "benchmark", "test")] == [[], [], []]
    (folder / "scripts" / "constraints.txt").write_text("torch==2.13.0\n")
    assert any(f"-e {folder}[benchmark,test] " in call for call in installs(run("quickstart")[1]))


def test_a_python_that_is_too_old_is_refused(checkout):
    folder, run = checkout
    (folder / "stub").write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.8.1; else exit 1; fi\n')
    done, _ = run("quickstart")
    assert done.returncode == 2
    assert "needs Python 3.10 or later" in done.stderr and "3.8.1" in done.stderr
