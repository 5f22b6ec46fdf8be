"""How one vector is made of a text's tokens, and what a model's folder says of it (sentence-transformers' files)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.models.places import ModelOptions, locate

Mode = Literal["cls", "mean", "last", "max"]

POOLED = "PooledForSequenceClassification"
"""The architecture with a head of our own, in the place of a transformers Auto class."""

EMBEDDED = "PooledEmbedding"
"""The architecture that gives the pooled vector itself."""

MODULES = "modules.json"
"""Where sentence-transformers lists what a model is made of."""

FLAGS: dict[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
"""Of sentence-transformers' modes those that are offered here."""

WORDS: dict[str, Mode] = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
"""The same, as its newer files write them."""


class Pooling(Options):
    """What becomes of a text's last hidden states, (tokens, features): one vector, (features,)."""

    mode: Mode | Literal["auto"]
    """`cls` takes the first token, `last` the last, `mean` and `max` all of them; padding never counts. `auto` is
    still to be found out."""
    normalise: bool | None = None
    """Whether the vector is divided by its length; None: still to be found out."""
    reason: str = ""
    """Why, in words for a person."""

    @property
    def settled(self) -> bool:
        return self.mode != "auto" and self.normalise is not None

    def __str__(self) -> str:
        return f"{self.mode}{', normalised' if self.normalise else ''}"


def declared(options: ModelOptions) -> Pooling | None:
    """What sentence-transformers' files beside the model say; None where there are none, or they ask for what is not
    offered here. Raises :class:`InputError` for files that cannot be read."""
    modules = _read(options, MODULES)
    if modules is None:
        return None
    kinds = {str(module["type"]).rpartition(".")[2]: module for module in modules}
    if "Pooling" not in kinds:
        return None
    said = _read(options, f"{kinds['Pooling']['path']}/config.json") or {}
    word = said.get("pooling_mode")
    asked = [word] if isinstance(word, str) else list(word or [])
    asked += [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    modes = [WORDS.get(name) or FLAGS.get(name) for name in asked]
    if len(modes) != 1 or modes[0] is None:
        return None
    others = sorted(kinds.keys() - {"Transformer", "Pooling", "Normalize"})
    left_out = f"; {', '.join(others)} left out" if others else ""
    reason = f"as sentence-transformers' files beside the model say{left_out}"
    return Pooling(mode=modes[0], normalise="Normalize" in kinds, reason=reason)


def declare(pooling: Pooling, width: int, max_length: int, folder: Path) -> None:
    """Write beside the model saved in ``folder`` what makes a sentence-transformers folder of it: ``pooling`` over
    vectors of so many features, of texts of at most ``max_length`` tokens."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if pooling.normalise else [])]
    places = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, place) in enumerate(zip(kinds, places, strict=False))
    ]
    about = {"word_embedding_dimension": width, **{flag: mode == pooling.mode for flag, mode in FLAGS.items()}}
    files = {
        MODULES: modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {**about, "include_prompt": True},
    }
    for place in filter(None, places[: len(kinds)]):
        (folder / place).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read(options: ModelOptions, name: str) -> Any:
    """A JSON file beside the model; None where there is none."""
    place = locate(options.source)
    if place.gguf_file:
        return None
    path: str | Path | None = Path(place.name) / name
    if not place.local:
        from transformers.utils.hub import cached_file

        missing = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        path = cached_file(place.name, name, revision=place.revision, **missing)
    if path is None or not Path(path).is_file():
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise bad_input(
            "model.source", f"{path} is no JSON: {error}", "mend or remove it, or say task.pooling: mean"
        ) from error
