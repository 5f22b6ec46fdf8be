"""The certificate of an export: what it was made of, and proof that it answers in its own engine as it was scored."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.digests import content_digest, text_digest
from finetune.core.errors import FinetuneError
from finetune.core.run_dir import write_json
from finetune.core.version import VERSION
from finetune.export import agreement
from finetune.export.engine import ask_engine
from finetune.export.writing import in_unit

if TYPE_CHECKING:
    from finetune.export.agreement import Agreement
    from finetune.export.forms.base import Form
    from finetune.export.questions import Asking
    from finetune.export.trained import Trained

NAME = "certificate.json"
FORMAT = 1

OWN = {NAME, "README.md", "adapter_config.json"}
"""Files that are written, or say another place, after the export has been asked."""


class NotCertified(FinetuneError):
    """An export that answers differently from the model that was scored."""


def certify(form: Form, trained: Trained, folder: Path, asking: Asking) -> dict[str, Any]:
    """Ask the export in ``folder``, hold its answers against the trained model's, and give the certificate.

    Raises :class:`NotCertified` where they are not the same, with every objection in one line.
    """
    first, answers = ask_engine(form.engine, folder, asking)
    unit = in_unit(folder)
    answers = [{**answer, "in_unit": unit} for answer in answers]
    found = agreement.compare(asking, first, answers, form.tolerance)
    objections = found.objections(form.exact, form.least, form.same_tokens)
    if objections:
        raise NotCertified(f"the export as {form.name} is not the model that was scored: {'; '.join(objections)}")
    return content(form, trained, folder, first, found)


def content(form: Form, trained: Trained, folder: Path, first: dict[str, Any], found: Agreement) -> dict[str, Any]:
    """Collect what a certificate says."""
    return {
        "format": FORMAT,
        "finetune": VERSION,
        "study": trained.study.name,
        "variant": trained.variant,
        "seed": trained.seed,
        "chosen": trained.chosen,
        "form": form.name,
        "exact": form.exact,
        "digests": {**trained.digests, "weights": weights_of(folder)},
        "files": {name: content_digest(folder / name) for name in files_of(folder)},
        "engine": {"name": first["name"], "versions": first["versions"]},
        "agreement": asdict(found),
        "asked": asked(trained),
        "decision": trained.decision,
        "licence": trained.licence,
    }


def asked(trained: Trained) -> dict[str, Any]:
    """Say what it answers, for whoever asks it: the task with its columns, and what the task has found in the data."""
    task = trained.task
    return {
        "task": trained.recipe.task.model_dump(mode="json"),
        "dtype": trained.recipe.model.dtype,
        "labels": list(task.labels),
        "config": task.model_config(),
        "remembered": task.remembered(),
        "sharing": [task.batching.name, task.answering.name],
        "architecture": task.architecture if isinstance(task.architecture, str) else None,
        "pooling": None if task.pooling is None else task.pooling.model_dump(mode="json"),
    }


def files_of(folder: Path) -> list[str]:
    """List the files of an export that do not change any more, by their names under ``folder``."""
    every = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path.as_posix() for path in every if path.name not in OWN]


def weights_of(folder: Path) -> str:
    """A digest of the files with weights."""
    kinds = (".safetensors", ".gguf", ".onnx", ".data")
    return text_digest(str([content_digest(folder / name) for name in files_of(folder) if name.endswith(kinds)]))


def write_certificate(said: dict[str, Any], folder: Path) -> str:
    """Write the certificate beside the model; give its digest."""
    write_json(folder / NAME, said)
    return content_digest(folder / NAME)


def read_certificate(folder: Path) -> dict[str, Any]:
    """Read the certificate of an export."""
    found: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    return found
