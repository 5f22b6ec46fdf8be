"""The files that all forms share: tokenizer, configuration, chat template, generation config, licence."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.run_dir import write_json
from finetune.models.places import locate

if TYPE_CHECKING:
    from finetune.export.trained import Trained

LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*")
"""Names of files beside a base model that have to go with it."""


def write_tokenizer(trained: Trained, folder: Path) -> None:
    """Write the tokenizer, with its chat template, so that whoever lets it cut texts cuts them as they were in
    training: at the same length, at their end. Models that continue texts keep their own length."""
    tokenizer: Any = deepcopy(trained.tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # how it was last called is no part of it
        backend.no_truncation()
        backend.no_padding()
    if not trained.writes:
        tokenizer.model_max_length = trained.max_length
        tokenizer.truncation_side = "right"
    tokenizer.save_pretrained(folder)


def write_generation(trained: Trained, folder: Path, model: Any) -> None:
    """Write a generation config by which answers are generated as they were scored: the likeliest token each time,
    or as the recipe's `sampling` draws them, up to the token that ends them. Nothing for models that generate nothing.

    The base model's own may sample, or stop elsewhere.
    """
    if not trained.generates:
        (folder / "generation_config.json").unlink(missing_ok=True)
        return
    from transformers import GenerationConfig

    task: Any = trained.task
    config = model.config
    settings: dict[str, Any] = {"pad_token_id": trained.tokenizer.pad_token_id, "do_sample": False}
    settings["eos_token_id"] = trained.ends if len(trained.ends) > 1 else trained.ends[0]
    if getattr(config, "bos_token_id", None) is not None:
        settings["bos_token_id"] = config.bos_token_id
    settings["max_new_tokens"] = task.options.max_new_tokens
    if getattr(task.options, "sampling", None) is not None:
        drawn = task.options.sampling
        settings |= {"do_sample": True, "temperature": drawn.temperature, "top_p": drawn.top_p}
        settings["top_k"] = drawn.top_k or 0
    if getattr(config, "is_encoder_decoder", False):
        settings |= {"decoder_start_token_id": config.decoder_start_token_id, **task.generating()}
    GenerationConfig(**settings).save_pretrained(folder)


def write_legal(trained: Trained, folder: Path) -> None:
    """Copy what the base model's makers want to go with it: licence and notices."""
    place = locate(trained.recipe.model.source)
    if not place.local:
        return
    for pattern in LEGAL:
        for file in sorted(Path(place.name).glob(pattern)):
            if file.is_file() and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)


def write_plain(trained: Trained, folder: Path) -> None:
    """Write a complete folder of transformers' own: weights with adapters merged, in float32 safetensors,
    configuration with labels, tokenizer with its chat template, generation config, licence."""
    from transformers import GenerationConfig

    model: Any = trained.plain()
    scale_head(trained, model)
    kind = own_class(model)
    if kind is not type(model):
        model.__class__ = kind  # what it saves is that class's already
    if model.can_generate():  # the base model's own, which may not pass as it is; ours is written below
        model.generation_config = GenerationConfig()
    model.save_pretrained(folder)
    write_tokenizer(trained, folder)
    write_generation(trained, folder, model)
    write_legal(trained, folder)


def own_class(model: Any) -> type:
    """Find the class of transformers that a model is of: its own, or the nearest one above it."""
    return next((kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers.")), object)


def is_transformers(model: Any) -> bool:
    """Tell whether a model is of a class of transformers that can be loaded again, with nothing of ours that counts."""
    from finetune.models.headed import HeadedModel

    return not isinstance(model, HeadedModel) and own_class(model).__name__ not in ("object", "PreTrainedModel")


def scale_head(trained: Trained, model: Any) -> bool:
    """Let a regression's ``model`` give numbers in the data's own unit, where its last layer has a bias that can take
    the mean; tell whether it does. Elsewhere the configuration says how (`target_mean`, `target_sd`)."""
    import torch

    scale = getattr(trained.task, "scale", None)
    last = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each.out_features == 1]
    if scale is None or len(last) != 1 or last[0].bias is None:
        return False
    with torch.no_grad():
        last[0].weight.mul_(scale.sd)
        last[0].bias.mul_(scale.sd).add_(scale.mean)
    for name in ("target_mean", "target_sd"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return True


def in_unit(folder: Path) -> bool:
    """Tell whether a regression's export in ``folder`` gives numbers in the data's unit, and not in SDs."""
    files = (folder / "config.json", folder / "base" / "config.json")
    return not any("target_sd" in json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists())


def amend_json(path: Path, changes: dict[str, Any]) -> None:
    """Change some keys of a JSON file."""
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def write_bare(trained: Trained, folder: Path) -> Any:
    """Write a pooled model's bare part and its tokenizer into ``folder``; give the whole model, merged, whose head is
    still to be written."""
    model: Any = trained.plain()
    scale_head(trained, model)
    bare = model.get_submodule(model.base_model_prefix)
    # Its configuration is the whole model's, with the labels.
    bare.config.architectures = [type(bare).__name__]
    bare.save_pretrained(folder)
    write_tokenizer(trained, folder)
    write_legal(trained, folder)
    return model
