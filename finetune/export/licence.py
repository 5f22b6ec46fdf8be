"""The licence of a base model, as its own files say it: what is made of it has to bear it too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune.models.places import ModelOptions, locate

FIELD = "general.license"
"""Where GGUF files have it."""


KEYS = ("license", "license_name", "license_link")
"""Where cards have it: an id of the hub's, or several; `other` with a name and a link where the hub has none."""


def terms_of(options: ModelOptions) -> dict[str, Any]:
    """Read what is said of the licence of the base model that ``options`` name, by the hub's :data:`KEYS`: in the card
    beside it, or a GGUF file; nothing where neither says it. Of a model on the hub, the card that is kept here already;
    nothing is fetched."""
    place = locate(options.source)
    if place.gguf_file:
        said = _of_gguf(Path(place.name) / place.gguf_file)
        return {"license": said} if said else {}
    card: str | Path | None = Path(place.name) / "README.md"
    if not place.local:
        from transformers.utils.hub import cached_file

        missing = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        card = cached_file(place.name, "README.md", revision=place.revision, local_files_only=True, **missing)
    if card is None or not Path(card).is_file():
        return {}
    return terms_in(Path(card).read_text(encoding="utf-8", errors="replace"))


def terms_in(card: str) -> dict[str, Any]:
    """Read the same in the metadata of a ``card``."""
    if not card.startswith("---\n"):
        return {}
    try:
        said = yaml.safe_load(card[4:].partition("\n---")[0])
    except yaml.YAMLError:  # somebody else's file, in which there may be anything
        return {}
    if not isinstance(said, dict) or not said.get("license"):
        return {}
    return {key: said[key] for key in KEYS if key in said}


def in_words(terms: Mapping[str, Any]) -> str | None:
    """Say a licence in words: its id, or of one that has none its name."""
    named = terms.get("license")
    named = terms.get("license_name", named) if named == "other" else named
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named) if named else None


def _of_gguf(path: Path) -> str | None:
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(FIELD)
    return None if field is None else str(field.contents()) or None
