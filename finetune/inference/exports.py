"""Opens an export by its certificate, which says what it answers and which columns it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.core.errors import bad_input
from finetune.core.run_dir import read_json
from finetune.export.certificate import FORMAT, NAME
from finetune.export.writing import in_unit

if TYPE_CHECKING:
    import torch

    from finetune.models import ModelOptions
    from finetune.recipe import Recipe
    from finetune.tasks.base import Task

FORMS = ("transformers", "sentence-transformers", "adapter")
"""Those that are opened here; others have engines of their own."""


class Export(NamedTuple):
    """An export that was opened."""

    model: torch.nn.Module
    task: Task
    recipe: Recipe
    decision: Mapping[str, float]


def is_export(place: Path) -> bool:
    """Tell whether a folder holds an export."""
    return (place / NAME).is_file()


def open_export(place: Path, completed: Callable[[Mapping[str, Any], Mapping[str, Any]], Recipe]) -> Export:
    """Open the export in ``place``. ``completed`` makes a recipe of what it says of model and task.

    Raises :class:`InputError` for forms that other engines answer with.
    """
    certificate = read_json(place / NAME)
    if not isinstance(certificate, dict) or certificate.get("format") != FORMAT or "asked" not in certificate:
        found = f"{place / NAME} is no certificate of this version's exports"
        raise bad_input(None, found, "export the model again, or take the file away and name the task with task.type=…")
    form, said = certificate["form"], certificate["asked"]
    if form not in FORMS:
        advice = f"see {place / 'README.md'}; `finetune export --form transformers` writes one that this command reads"
        raise bad_input(None, f"{place} is an export as {form}, which {certificate['engine']['name']} answers", advice)
    tokenizer = {"tokenizer": str(place)} if (place / "tokenizer_config.json").exists() else {}
    source = _base_of(place) if form == "adapter" else str(place)
    # What former versions did not say: the certificate's answers were held against float32.
    recipe = completed({"source": source, "dtype": said.get("dtype", "float32"), **tokenizer}, said["task"])
    config = _config_of(said, place)
    task = _task_of(recipe, said, config, place)
    if certificate["decision"]:
        task.recall({**config, "unanswerable": True})
    return Export(_model_of(recipe.model, said, config, task, place, form), task, recipe, certificate["decision"])


def _base_of(place: Path) -> str:
    """Find the model that an adapter belongs to."""
    said = read_json(place / "adapter_config.json")
    name, revision = said["base_model_name_or_path"], said.get("revision")
    return f"{name}@{revision}" if revision and not Path(name).exists() else str(name)


def _config_of(said: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Give what the model's configuration has to say; without the scale of numbers, where weights have taken it in."""
    config = {name: value for name, value in said["config"].items() if value is not None}
    if "id2label" in config:  # JSON has no numbers for keys
        config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
    if in_unit(place):
        config = {name: value for name, value in config.items() if not name.startswith("target_")}
    return config


def _task_of(recipe: Recipe, said: Mapping[str, Any], config: Mapping[str, Any], place: Path) -> Task:
    from finetune import models
    from finetune.core.registry import TASKS
    from finetune.models.pooling import Pooling
    from finetune.tasks.batching import Batching

    pooling = None if said["pooling"] is None else Pooling.model_validate(said["pooling"])
    read_config = partial(models.load_config, recipe.model)
    kind = TASKS.get(recipe.task.type)
    task: Task = kind.fitted(
        recipe.task, models.load_tokenizer(recipe.model), said["labels"], pooling, False, read_config
    )
    task.recall({**config, **said["remembered"]})
    return task.sharing(*(Batching[name] for name in said["sharing"]))


def _model_of(
    options: ModelOptions, said: Mapping[str, Any], config: Mapping[str, Any], task: Task, place: Path, form: str
) -> torch.nn.Module:
    """Load the model in float32 on the CPU, in evaluation mode."""
    from finetune import models
    from finetune.models.loading import class_of

    architecture = said["architecture"] or task.architecture
    model: Any
    if form == "transformers" and isinstance(architecture, str):  # all that it is lies there
        model = class_of(architecture).from_pretrained(place, dtype="float32", local_files_only=True)
        return model.eval()
    base = models.load_base(options, architecture, task.new_head, **config)
    model = base.model
    if task.pooling is not None:
        model.pooling = task.pooling
    if form == "adapter":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(place))
    elif base.new:
        _load_head(model, place)
    found: torch.nn.Module = model.float().cpu().eval()
    return found


def _load_head(model: Any, place: Path) -> None:
    """Load the head, which is the last module of a sentence-transformers folder."""
    from safetensors.torch import load_file

    from finetune.models.pooled import HEAD

    last = read_json(place / "modules.json")[-1]["path"]
    weights = load_file(place / last / "model.safetensors")
    head = model.get_submodule(HEAD)
    head.load_state_dict({name.removeprefix("linear."): value for name, value in weights.items()})
