"""An adapter folder of peft: the small weights that were learnt, and the head, beside a base model that stays as it
is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.export import programs, writing
from finetune.export.forms.base import Form, Snippet
from finetune.models.places import locate

if TYPE_CHECKING:
    from finetune.export.trained import Trained

BASE = "base"
"""The folder inside it with the base model's configuration, which has the labels, and links to its weights."""
AUTO = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "CausalLM", "Seq2SeqLM")
"""The classes that `AutoPeftModelFor…` has."""


class Adapter(Form):
    """What an adapter strategy has learnt, for `AutoPeftModelFor…`; the base model is not in it."""

    name: ClassVar[str] = "adapter"
    engine: ClassVar[str] = "transformers_engine"

    def refusal(self, trained: Trained) -> str | None:
        from peft import PeftModel

        if not isinstance(trained.model, PeftModel):
            return f"strategy {trained.recipe.strategy.type} trains no adapter; take form transformers"
        if getattr(trained.model, "quantised", False) or _quantised(trained):
            return "its base model was quantised in training, and is not here in that form"
        if not writing.is_transformers(trained.model.get_base_model()):
            return "its base model is of no class of transformers; take form sentence-transformers"
        kind = programs.auto_class(trained)
        if kind.removeprefix("AutoModelFor") not in AUTO:
            return f"peft has no class for {kind}; take form transformers"
        if locate(trained.recipe.model.source).gguf_file:
            return "its base model is a GGUF file, which peft cannot put an adapter on; take form transformers"
        return None

    def keeps(self, trained: Trained) -> str | None:
        if locate(trained.recipe.model.source).local:
            return "its base model is a folder on this machine"
        return None

    def write(self, trained: Trained, folder: Path) -> None:
        from finetune.strategies.adapters.base_folder import write_base

        model: Any = trained.model
        place = locate(trained.recipe.model.source)
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's, in which all is still to be filled in
        settings: dict[str, Any] = {
            "base_model_name_or_path": str(Path(place.name).resolve()) if place.local else place.name
        }
        settings |= {"revision": place.revision, "inference_mode": True}
        writing.amend_json(folder / "adapter_config.json", settings)
        write_base(model, folder, folder)
        writing.write_tokenizer(trained, folder)
        writing.write_generation(trained, folder, model.get_base_model())
        writing.write_legal(trained, folder)

    def placed(self, trained: Trained, folder: Path, place: Path) -> None:
        """peft looks for a base model by its path alone, so that the folder's own has to be said as it will be."""
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if settings["base_model_name_or_path"] == str((folder / BASE).resolve()):
            said = {"base_model_name_or_path": str(place.resolve() / BASE)}
            writing.amend_json(folder / "adapter_config.json", said)

    def snippets(self, trained: Trained, folder: Path) -> list[Snippet]:
        return programs.for_adapter(trained, folder)


def _quantised(trained: Trained) -> bool:
    from finetune.runner.build import make_strategy

    return any(each.quantizes for each in make_strategy(trained.recipe.strategy).hooks)
