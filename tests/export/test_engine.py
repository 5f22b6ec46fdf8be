"""Engines are programs of their own, which know nothing of us."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time

import pytest

from finetune.core.errors import FinetuneError
from finetune.export import engine
from finetune.export.exporting import export
from finetune.export.questions import Asked, Asking


@pytest.mark.parametrize("path", sorted(engine.ENGINES.glob("*.py")), ids=lambda path: path.stem)
def test_they_import_nothing_of_ours(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.partition(".")[0] == "finetune"]


@pytest.mark.parametrize(
    ("form", "variant"), [("transformers", "full"), ("adapter", "lora"), ("sentence-transformers", "mean")]
)
def test_they_answer_in_isolated_python(form, variant, topics, tmp_path, own_process):
    assert export(topics, tmp_path / "out", form, variant, seed=0).certificate["agreement"]["same"] == 1


def test_one_that_fails_is_told_by_its_last_line(tmp_path, own_process, monkeypatch):
    (tmp_path / "bad.py").write_text("raise ValueError('no such thing')")
    monkeypatch.setattr(engine, "ENGINES", tmp_path)
    asking = Asking({}, [Asked({"kind": "classify", "text": "a"}, {})], 1, {})
    with pytest.raises(FinetuneError, match="cannot be used by its own engine: ValueError: no such thing"):
        engine.ask_engine("bad", tmp_path, asking)


def test_one_that_leaves_answers_out_is_told(tmp_path, own_process, monkeypatch):
    code = "import sys; open(sys.argv[3], 'w').write('{\"kind\": \"engine\"}\\n')"
    (tmp_path / "short.py").write_text(code)
    monkeypatch.setattr(engine, "ENGINES", tmp_path)
    asking = Asking({}, [Asked({"kind": "classify", "text": "a"}, {})], 1, {})
    with pytest.raises(FinetuneError, match="gave 0 answers to 1 questions"):
        engine.ask_engine("short", tmp_path, asking)


def test_it_ends_with_us(tmp_path):
    """Whatever kills the command line, no engine goes on."""
    (tmp_path / "long.py").write_text("import time, os; open('pid', 'w').write(str(os.getpid())); time.sleep(600)")
    code = f"from finetune.export import engine; engine._run([{sys.executable!r}, '-I', 'long.py'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    number = int(pid.read_text())
    while time.monotonic() < deadline:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(number, signal.SIGKILL)
    pytest.fail("the engine went on")
