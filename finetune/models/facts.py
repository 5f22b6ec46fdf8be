"""Digests of what a base model is made of, by which two loads of it are known to be the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from finetune.core.digests import file_digest, text_digest
from finetune.models.places import Location, ModelOptions, locate

SAFE = ("*.safetensors",)
PICKLED = ("*.bin", "*.pt", "*.pth")
CONFIGURATION = (
    *("config.json", "generation_config.json", "adapter_config.json", "*.safetensors.index.json", "*.bin.index.json"),
    *("modules.json", "config_sentence_transformers.json", "sentence_*_config.json", "[0-9]_*/config.json", "*.py"),
)
"""How the weights are used: a model's own settings and code, and sentence-transformers' files."""
TOKENIZER = (
    *("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
    *("*.tiktoken", "*.vocab", "*.bpe"),
)
TEMPLATE = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
SETTINGS = "tokenizer_config.json"
"""The tokenizer's settings, in which older models keep their chat template."""

Facts = dict[str, str | None]


def facts_of(options: ModelOptions) -> Facts:
    """Digests of the `weights`, their `configuration`, the `tokenizer` and its chat `template`; None: there is none.

    On the hub a commit says all of it; None where nothing of the model has been loaded yet.
    """
    place = locate(options.source)
    own = _weights(place, options) if place.local else dict.fromkeys(("weights", "configuration"), _commit(place))
    other = locate(options.tokenizer, "model.tokenizer") if options.tokenizer else place
    read = _tokenizer(other) if other.local else dict.fromkeys(("tokenizer", "template"), _commit(other))
    return {**own, **read}


def _weights(place: Location, options: ModelOptions) -> Facts:
    folder = Path(place.name)
    if place.gguf_file:
        return {"weights": file_digest(folder / place.gguf_file), "configuration": None}
    found = list(_matching(folder, SAFE)) or (list(_matching(folder, PICKLED)) if options.allow_pickle else [])
    return {"weights": _digest(folder, found), "configuration": _digest(folder, _matching(folder, CONFIGURATION))}


def _tokenizer(place: Location) -> Facts:
    folder = Path(place.name)
    settings = _settings(folder)
    template = settings.pop("chat_template", None)
    inside = [file_digest(folder / place.gguf_file)] if place.gguf_file else []
    said = [json.dumps(settings, sort_keys=True), *inside, _digest(folder, _matching(folder, TOKENIZER))]
    told = [json.dumps(template), _digest(folder, _matching(folder, TEMPLATE)), *inside]
    return {
        "tokenizer": text_digest(str(said)),
        "template": text_digest(str(told)) if any(told[1:]) or template else None,
    }


def _settings(folder: Path) -> dict[str, Any]:
    """Read the tokenizer's settings; empty where there are none, or they are no mapping."""
    try:
        said = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # loading it is the place to complain
        return {}
    return said if isinstance(said, dict) else {}


def _matching(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Files of ``folder`` and of the folders in it whose path inside fits a pattern, in order."""
    wanted = tuple(patterns)
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        inside = path.relative_to(folder).as_posix()
        fits = any(inside.count("/") == each.count("/") and fnmatchcase(inside, each) for each in wanted)
        if fits and path.is_file():
            yield path


def _digest(folder: Path, files: Iterable[Path]) -> str | None:
    """One digest over files and where they lie in ``folder``; None for none."""
    found = [(path.relative_to(folder).as_posix(), file_digest(path)) for path in files]
    return text_digest(str(found)) if found else None


def _commit(place: Location) -> str | None:
    """The commit that a hub model was loaded at; None where that cannot be told."""
    from huggingface_hub import try_to_load_from_cache

    for name in (place.gguf_file or "config.json", SETTINGS, "tokenizer.json"):
        found = try_to_load_from_cache(place.name, name, revision=place.revision)
        if isinstance(found, str):
            parts = Path(found).parts
            return parts[parts.index("snapshots") + 1]
    return None
