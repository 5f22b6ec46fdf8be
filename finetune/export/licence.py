"""The licence of a base model, as its own files say it: what is made of it has to bear it too."""

from __future__ import annotations

from pathlib import Path

import yaml

from finetune.models.places import ModelOptions, locate

FIELD = "general.license"
"""Where GGUF files have it."""


def licence_of(options: ModelOptions) -> str | None:
    """Read the licence of the base model that ``options`` name: from the card beside it, or a GGUF file's own words;
    None where neither says it. Of a model on the hub, the card that is kept here already; nothing is fetched."""
    place = locate(options.source)
    if place.gguf_file:
        return _of_gguf(Path(place.name) / place.gguf_file)
    card: str | Path | None = Path(place.name) / "README.md"
    if not place.local:
        from transformers.utils.hub import cached_file

        missing = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        card = cached_file(place.name, "README.md", revision=place.revision, local_files_only=True, **missing)
    if card is None or not Path(card).is_file():
        return None
    return licence_in(Path(card).read_text(encoding="utf-8", errors="replace"))


def licence_in(card: str) -> str | None:
    """Read the licence in the metadata of a ``card``: its id, or of a licence that has none its name."""
    if not card.startswith("---\n"):
        return None
    try:
        said = yaml.safe_load(card[4:].partition("\n---")[0])
    except yaml.YAMLError:  # somebody else's file, in which there may be anything
        return None
    if not isinstance(said, dict):
        return None
    named = said.get("license")
    named = said.get("license_name", named) if named == "other" else named
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named) if named else None


def _of_gguf(path: Path) -> str | None:
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(FIELD)
    return None if field is None else str(field.contents()) or None
