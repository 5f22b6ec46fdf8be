"""A complete folder of transformers: `AutoModelFor…` and `AutoTokenizer` load it, and nothing else is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.export import programs, writing
from finetune.export.forms.base import Form, Snippet
from finetune.export.merging import can_merge

if TYPE_CHECKING:
    from finetune.export.trained import Trained


class Transformers(Form):
    """Everything in one folder, adapters merged, which plain `AutoModelFor…` loads."""

    name: ClassVar[str] = "transformers"
    engine: ClassVar[str] = "transformers_engine"

    def refusal(self, trained: Trained) -> str | None:
        if not can_merge(trained.model):
            return "its adapter puts learnt tokens before every text, which no weights can hold; take form adapter"
        if trained.task.name == "embedding":
            return None
        model: Any = trained.model
        model = model.get_base_model() if hasattr(model, "peft_config") else model
        if not writing.is_transformers(model):
            kind = type(model).__name__
            if trained.pooled:
                how = f"its head is put on {trained.task.pooling} hidden states"
                return f"{how}, for which transformers has no class; take form sentence-transformers"
            return f"transformers has no class like {kind}; finetune.load_model opens the run as it is"
        return None

    def write(self, trained: Trained, folder: Path) -> None:
        if trained.task.name == "embedding":
            writing.write_bare(trained, folder)
            trained.task.save_beside(folder)
            return
        writing.write_plain(trained, folder)

    def snippets(self, trained: Trained, folder: Path) -> list[Snippet]:
        return programs.for_transformers(trained, folder)
