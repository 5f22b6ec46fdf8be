"""Runs an engine: a program in a process of its own that answers questions with an export."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from finetune.core.errors import FinetuneError
from finetune.core.progress import phase
from finetune.export.questions import Asking, read_answers, write_questions

ENGINES = Path(__file__).parent / "engines"

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""What an export needs lies in its folder: an engine that has to fetch something else has found a fault."""

BOUND = """
import ctypes, runpy, sys
bind = getattr(ctypes.CDLL(None), "prctl", None)
if bind is not None:  # Linux ends it when we die, whatever kills us
    bind(1, 9)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs the program that is named behind it."""


def ask_engine(engine: str, folder: Path, asking: Asking) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask the export in ``folder`` in its own ``engine``, in isolated Python: what it says first, and its answers.

    Raises :class:`FinetuneError` with the engine's own last words where it cannot answer.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-export-") as name:
        questions, answers = Path(name) / "questions.jsonl", Path(name) / "answers.jsonl"
        write_questions(asking, questions)
        command = [sys.executable, "-I", str(ENGINES / f"{engine}.py"), str(folder), str(questions), str(answers)]
        with phase(f"asking the export {len(asking.asked)} questions in its own engine"):
            ended, said = _run(command)
        if ended != 0:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise FinetuneError(
                f"the export cannot be used by its own engine: {lines[-1] if lines else f'code {ended}'}"
            )
        return read_answers(answers, len(asking.asked))


def _run(command: list[str]) -> tuple[int, str]:
    """Run a program to its end: its exit code, and what it wrote to stderr. It ends with us, whatever ends us."""
    python, isolated, *rest = command
    process = subprocess.Popen(
        [python, isolated, "-c", BOUND, *rest],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **OFFLINE},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        _, said = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, said
