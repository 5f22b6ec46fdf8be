"""The cells of the table, and how one is filled."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from scripts._families.extras import EXTRAS, extras_of
from scripts._families.rows import Refused, row
from scripts._families.zoo import FAMILIES

Cell = tuple[str, str]
"""Family and what is tried with it."""


def cells() -> list[Cell]:
    """All that there is to try."""
    return [(name, what) for name, family in FAMILIES.items() for what in (*family.tasks, *extras_of(family))]


def fill(cell: Cell) -> dict[str, str]:
    """What came of one cell: for each strategy, or, in what is tried besides, for all."""
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    family, folder = FAMILIES[cell[0]], Path(tempfile.mkdtemp(prefix="finetune-families-"))
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            if cell[1] in family.tasks:
                return row(family, cell[1], folder)
            return {"": EXTRAS[cell[1]](family, folder)}
    except Refused as refused:
        return {"": f"refused: {refused.why}"}
    except Exception as error:
        return {"": f"FAILS: {type(error).__name__}: {(str(error).strip() or 'no reason').splitlines()[0]}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
