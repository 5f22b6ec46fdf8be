"""Engines asked as exports are: in a process of their own, by their file."""

import json
import subprocess
import sys
from pathlib import Path

import finetune.export.engines

ENGINES = Path(finetune.export.engines.__file__).parent


def ask(engine, folder, questions, **header):
    """What ``engine`` says of itself, and its answers to ``questions`` about what lies in ``folder``."""
    done = run(engine, folder, questions, **header)
    assert done.returncode == 0, done.stderr
    first, *answers = [json.loads(line) for line in (folder.parent / "answers.jsonl").read_text().splitlines()]
    assert first["kind"] == "engine" and [each["id"] for each in answers] == list(range(len(questions)))
    return first, answers


def run(engine, folder, questions, **header):
    """The process that answers."""
    lines = [{"kind": "header", "format": 1, "task": "any", "today": "2026-11-30", **header}]
    lines += [{"id": number, **question} for number, question in enumerate(questions)]
    asked, answers = folder.parent / "questions.jsonl", folder.parent / "answers.jsonl"
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-I", ENGINES / f"{engine}.py", folder, asked, answers]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)
