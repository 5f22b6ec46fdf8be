"""Where the files of a source are: on this machine, elsewhere, or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input, did_you_mean, first_line
from finetune.core.paths import resolve_paths
from finetune.core.unchanged import Elsewhere
from finetune.data.addresses import is_remote
from finetune.data.options import HUB, Source
from finetune.data.remote import Remote, remotes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Features

TRAIN = "train"
"""The split that is read where the recipe names none."""


def places_of(source: Source, at: str) -> Sequence[Path | Remote]:
    """The files and folders that ``source`` names, where they can be told one by one.

    Raises:
        InputError: at ``{at}.path``, when there is nothing there.
        Elsewhere: for what only `datasets` finds.
    """
    if source.kind == "hub":
        found = hub_files(source, at) if source.streaming else None
        if found is None:
            raise Elsewhere
        return found[0]
    if source.remote:
        return remotes(source.place.file, at)
    return resolve_paths(source.place.file, f"{at}.path")


def hub_files(source: Source, at: str) -> tuple[list[Path | Remote], Features | None] | None:
    """The parquet files of one split of a hub dataset, at the revision that its name means today, and what the dataset
    says of its columns; None: it has other files."""
    import datasets
    from datasets.packaged_modules.parquet.parquet import Parquet

    name, revision = hub_name(source)
    try:
        builder = datasets.load_dataset_builder(name, source.subset, revision=revision)
    except hub_errors() as error:
        raise not_loaded(name, error, at) from error
    files: Any = builder.config.data_files
    if not isinstance(builder, Parquet) or not files:
        return None
    wanted = source.split or TRAIN
    if wanted not in files:
        advice = f"set `{at}.split`: {did_you_mean(wanted, map(str, files))}"
        raise bad_input(f"{at}.split", f"the hub dataset '{name}' has no split '{wanted}'", advice)
    found: list[Path | Remote] = []
    for each in files[wanted]:
        found += remotes(each, at) if is_remote(each) else [Path(each)]
    return found, builder.info.features


def hub_name(source: Source) -> tuple[str, str | None]:
    """The name and the revision of a hub dataset."""
    name, _, revision = source.path.removeprefix(HUB).partition("@")
    return name, revision or None


def hub_errors() -> tuple[type[Exception], ...]:
    """List what `datasets` raises for what it cannot load."""
    import datasets

    return (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)


def not_loaded(name: str, error: Exception, at: str) -> Exception:
    """The error for a hub dataset that cannot be loaded."""
    advice = "check the name, `subset`, `split`, the network and, for a gated dataset, that you are logged in"
    return bad_input(f"{at}.path", f"the hub dataset '{name}' cannot be loaded: {first_line(error)}", advice)
