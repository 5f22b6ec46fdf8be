"""Reads folders that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` of the datasets library have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import InputError, bad_input, did_you_mean, first_line
from finetune.data.encodings import Written
from finetune.data.formats.base import FORMATS, Format

if TYPE_CHECKING:
    import pyarrow as pa

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
"""The files that tell a dataset, and a folder of several."""

TRAIN = "train"
"""The split that is read where the recipe names none."""


@FORMATS.register
class Saved(Format):
    """What `save_to_disk` of datasets wrote, mapped and not copied; of several splits the one that `split` names.

    Class labels become their names, and a label of -1 (hidden) becomes null, as in hub datasets.
    """

    name: ClassVar[str] = "dataset"
    folder: ClassVar[bool] = True
    holds: ClassVar[str] = "what `save_to_disk` of datasets wrote"
    has_splits: ClassVar[bool] = True
    mapped: ClassVar[bool] = True

    @classmethod
    def owns(cls, folder: Path) -> bool:
        return (folder / SPLITS).is_file() or all((folder / name).is_file() for name in (STATE, INFO))

    @staticmethod
    def read(path: Path, source: Written, at: str) -> pa.Table:
        import datasets

        from finetune.data.arrow_types import named_labels, sound

        try:
            found = datasets.Dataset.load_from_disk(str(_split_of(path, source, at)))
            return sound(named_labels(found))
        except InputError:
            raise
        except Exception as error:  # whatever datasets meets in what it takes for its own
            reason = f"'{path}' is not a readable dataset of `save_to_disk`: {_reason(error)}"
            raise bad_input(f"{at}.path", reason, "copy the whole folder again, or save the dataset again") from error


def _reason(error: Exception) -> str:
    """What is wrong, where an exception is about files; of one that is about code, what that comes of."""
    if isinstance(error, AttributeError | TypeError | LookupError):
        where = f" ({first_line(error)})" if isinstance(error, KeyError) else ""
        return f"{STATE} or {INFO} says something else than it should{where}"
    return first_line(error)


def _split_of(path: Path, source: Written, at: str) -> Path:
    """The folder of the split that is wanted."""
    if not (path / SPLITS).is_file():
        if source.split is not None:
            raise bad_input(f"{at}.split", f"'{path}' is one dataset without splits", "leave `split` out")
        return path
    known = json.loads((path / SPLITS).read_text(encoding="utf-8"))["splits"]
    if not isinstance(known, list) or not all(_is_name(each) for each in known):
        raise ValueError(f"{SPLITS} does not list names of splits")
    wanted = source.split or TRAIN
    if wanted not in known:
        raise _no_split(path, wanted, known, at)
    return path / wanted


def _is_name(found: Any) -> bool:
    """Tell whether a split lies directly in the folder."""
    return isinstance(found, str) and Path(found).name == found and found != ".."


def _no_split(path: Path, wanted: str, known: list[str], at: str) -> InputError:
    advice = f"set `{at}.split`: {did_you_mean(wanted, known)}"
    return bad_input(f"{at}.split", f"'{path}' has no split '{wanted}'", advice)
