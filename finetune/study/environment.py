"""Describes what a study runs on and from, for `environment.json`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from finetune.core.arithmetic import arithmetic_name, cpu_name
from finetune.core.env_vars import recorded
from finetune.core.run_dir import FORMAT
from finetune.core.runtime import Runtime
from finetune.core.version import VERSION
from finetune.study.provenance import kernels


def environment(runtime: Runtime, dtype: Any, today: date, starts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe what the study runs on now, and what each variant ``starts`` from. ``today`` is the day it was begun on,
    which chat templates may print."""
    packages = ("torch", "transformers", "tokenizers", "datasets", "peft", "accelerate", "evaluate", "numpy", "scipy")
    if runtime.device.type == "cuda":
        device = f"cuda ({torch.cuda.get_device_name(runtime.device)}, CUDA {torch.version.cuda})"
    else:
        device = f"{runtime.device.type} ({cpu_name()}, {torch.get_num_threads()} threads)"
    return {
        "format": FORMAT,
        "date": today.isoformat(),
        "finetune": VERSION,
        "git": commit(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in (*packages, "scikit-learn", "safetensors", "pyarrow")},
        "device": device,
        "arithmetic": arithmetic_name() if runtime.device.type == "cpu" else None,
        "kind": runtime.device.type,
        "kernels": kernels(runtime.device),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "processes": runtime.accelerator.num_processes,
        "settings": recorded(),
        "starts": starts or {},
    }


def commit(folder: Path) -> str | None:
    """Find the commit that the code in ``folder`` is of, with `-dirty` where files have been changed since; None where
    it is not kept with git, as an installed package is not."""
    git = shutil.which("git")
    if git is None:
        return None

    def said(*words: str) -> str | None:
        reading = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run([git, "-C", str(folder), *words], capture_output=True, text=True, env=reading)
        return done.stdout.strip() if done.returncode == 0 else None

    # An environment inside somebody's repository is not a part of it.
    kept = said("ls-files", "--error-unmatch", "__init__.py")
    return said("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if kept else None
