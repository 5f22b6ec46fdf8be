"""The scripts that a person runs first: what they install, and that they install it once."""

import os
import subprocess
import sys
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
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path, timeout=60)
        return done, calls.read_text().splitlines()

    return tmp_path, run


MODEL = "runs/quickstart-model"


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
    took, tried = (f"export runs/quickstart --variant full --to {MODEL}", f"predict {MODEL} runs/quickstart-new.csv")
    assert calls[-3:] == [f"run {folder}/recipes/quickstart.yaml", took, tried]


def test_what_changed_is_installed_again(checkout):
    folder, run = checkout
    run("quickstart")
    (folder / "scripts" / "constraints.txt").write_text("torch==2.13.0\n")
    assert installs(run("quickstart")[1])
    assert not installs(run("quickstart")[1])


@pytest.mark.parametrize(("script", "extra"), [("benchmark", "[benchmark]"), ("simulate", ""), ("fuzz", "[test]")])
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


AUDITED = """#!/usr/bin/env bash
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    cp "$AUDIT" "$4/bin/pip-audit"
elif [ "$1 $2" = "-m pip" ]; then
    if [ "$CASE" = uninstallable ] && [[ "$*" == *pip-audit ]]; then exit 1; fi
else
    exec "$REAL" "$@"
fi
"""
"""Makes environments and installs as `python` does, in nothing but name; the rest is done by the real one."""

AUDIT = """#!/usr/bin/env bash
while [ "$1" != --output ]; do shift; done
found='{"dependencies": [{"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "CVE-1", "fix_versions": ["3.0"]}]}]}'
nothing='{"dependencies": [{"name": "jinja2", "version": "2.4.1", "vulns": []}]}'
skipped='{"dependencies": [{"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited"}]}'
case $CASE-$3 in
silent-*) exit 1 ;;
skipped-*) echo "$skipped" >"$2" ;;
clean---path) echo "$nothing" >"$2" ;;
*) echo "$found" >"$2"; exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("uninstallable", 0, "could not be looked for: pip-audit cannot be installed"),
        ("silent", 0, "could not be looked for: the list of them says nothing of jinja2"),
        ("skipped", 0, "could not be looked for: the list of them says nothing of jinja2"),
        ("clean", 0, "no known vulnerability in the installed packages"),
        ("found", 1, "jinja2 2.4.1: CVE-1, mended by 3.0"),
    ],
)
def test_vulnerabilities_are_told_from_a_list_that_cannot_be_reached(tmp_path, case, code, said):
    for name in ("pyproject.toml", "scripts"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    for name, text in {"python-stub": AUDITED, "audit-stub": AUDIT}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    variables = {"PYTHON": str(tmp_path / "python-stub"), "AUDIT": str(tmp_path / "audit-stub")}
    variables |= {"CASE": case, "REAL": sys.executable}
    script = str(tmp_path / "scripts" / "audit")
    done = subprocess.run([script], capture_output=True, text=True, env={**os.environ, **variables}, timeout=60)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
