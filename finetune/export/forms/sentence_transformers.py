"""A folder of sentence-transformers: the bare model, how its tokens become one vector, and the head behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.run_dir import write_json
from finetune.export import programs, writing
from finetune.export.forms.base import Form, Snippet
from finetune.export.merging import can_merge

if TYPE_CHECKING:
    from finetune.export.trained import Trained

DENSE = "sentence_transformers.models.Dense"


class SentenceTransformers(Form):
    """A bare model with its pooling, and a linear head as its last module, for `SentenceTransformer`."""

    name: ClassVar[str] = "sentence-transformers"
    engine: ClassVar[str] = "sentence_transformers_engine"
    packages: ClassVar[tuple[str, ...]] = ("sentence_transformers",)
    extra: ClassVar[str | None] = "sentence-transformers"

    def refusal(self, trained: Trained) -> str | None:
        from finetune.models.pooled import pooled_in

        if not can_merge(trained.model):
            return "its adapter puts learnt tokens before every text, which no weights can hold; take form adapter"
        pooled = pooled_in(trained.model)
        if pooled is None:
            return "its head is not put on pooled hidden states; take form transformers"
        if getattr(pooled.config, "is_encoder_decoder", False):
            return "it is half an encoder-decoder, which sentence-transformers has another class for"
        if getattr(trained.task.options, "pair", None) and trained.task.name != "embedding":
            return "it reads pairs of texts at once, and sentence-transformers one; take form transformers"
        if not _is_pooled(trained.model):
            return "strategy and model are of a class of our own; finetune.load_model opens the run as it is"
        return None

    def write(self, trained: Trained, folder: Path) -> None:
        model = writing.write_bare(trained, folder)
        write_modules(trained, model, folder)

    def snippets(self, trained: Trained, folder: Path) -> list[Snippet]:
        return programs.for_sentence_transformers(trained, folder)


def _is_pooled(model: Any) -> bool:
    """Tell whether a model pools by itself, under an adapter or without one, and not inside something else."""
    from finetune.models.pooled import Pooled

    return isinstance(model.get_base_model() if hasattr(model, "peft_config") else model, Pooled)


def write_modules(trained: Trained, model: Any, folder: Path) -> None:
    """Write what sentence-transformers makes of the bare ``model`` in ``folder``: pooling, length one where that is
    asked for, and the head."""
    from safetensors.torch import save_file

    from finetune.models.configuration import width_of
    from finetune.models.pooled import HEAD
    from finetune.models.pooling import MODULES, declare

    declare(model.pooling, width_of(model.config), trained.max_length, folder)
    if trained.task.name == "embedding":
        return
    head = model.get_submodule(HEAD)
    modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    place = f"{len(modules)}_Dense"
    modules.append({"idx": len(modules), "name": str(len(modules)), "path": place, "type": DENSE})
    write_json(folder / MODULES, modules)
    (folder / place).mkdir()
    about = {"in_features": head.in_features, "out_features": head.out_features, "bias": head.bias is not None}
    # Not a word for Identity: former versions want one.
    write_json(folder / place / "config.json", {**about, "activation_function": "torch.nn.modules.linear.Identity"})
    weights = {f"linear.{name}": value.detach().contiguous() for name, value in head.named_parameters()}
    save_file(weights, folder / place / "model.safetensors")
