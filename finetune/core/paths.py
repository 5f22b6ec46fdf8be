"""Finds files: local paths with a did-you-mean, and `package:NAME/path` inside installed packages."""

from __future__ import annotations

import difflib
import glob
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from finetune.core.errors import bad_input

PACKAGE = "package:"

LISTED = 8
"""How many names an error message lists before it says how many more there are."""


CACHE = "FINETUNE_CACHE"
"""Environment variable with the folder to use instead of `finetune` in the user's cache folder (on Linux
`$XDG_CACHE_HOME`, or `~/.cache`); empty: none."""


def cache_folder() -> Path | None:
    """Find the folder in which facts about files are remembered between calls; None where nothing is remembered."""
    chosen = os.environ.get(CACHE)
    if chosen is not None:
        return Path(chosen).expanduser().absolute() if chosen else None
    from platformdirs import user_cache_path

    try:
        own = user_cache_path("finetune", appauthor=False)
    except RuntimeError:  # a user without a home folder; former versions then give a relative path
        return None
    return own if own.is_absolute() else None


def local_path(text: str) -> Path:
    """The path that a person wrote, with the home folder for ``~``; `~nobody` stays as it is.

    Whether something lies there is asked of `os.path`, which says no to what cannot be a path at all, such as one that
    is too long, or lies in a folder that is not ours to read; pathlib raises an error.
    """
    return Path(os.path.expanduser(text))


def resolve_path(text: str, at: str) -> Path:
    """The existing file or folder that ``text`` names, locally or as ``package:NAME/path``.

    Local paths are relative to the working directory; ``~`` is the home folder.

    Raises:
        InputError: at recipe path ``at``, when there is nothing there.
    """
    if text.startswith(PACKAGE):
        return resolve_package_path(text, at)
    path = local_path(text)
    if not os.path.exists(path):
        raise bad_input(at, f"there is no '{text}'", _nearest(path))
    return path


def resolve_paths(text: str, at: str) -> list[Path]:
    """The existing file or folder that ``text`` names, as :func:`resolve_path` finds it; or, of a local pattern with
    ``*``, ``?``, ``[...]`` or ``**``, the files that match it, in the order of their names.

    Raises:
        InputError: at recipe path ``at``, when there is nothing there.
    """
    path = base = local_path(text)
    if text.startswith(PACKAGE) or not glob.has_magic(text) or os.path.exists(path):
        return [resolve_path(text, at)]
    # Only what does not exist is a pattern: a folder may be called `run[1]`.
    while not os.path.exists(base):
        base = base.parent
    found = glob.glob(str(path.relative_to(base)), root_dir=base, recursive=True)
    return sorted(each for name in found if (each := base / name).is_file()) or [resolve_path(text, at)]


def resolve_package_path(text: str, at: str) -> Path:
    """The file or folder that ``package:NAME/path`` names; the package is found without being imported.

    ``NAME`` may be dotted. The path may hold ``*``, which must then match exactly one file or folder.

    Raises:
        InputError: at recipe path ``at``, when the package is not installed, or nothing or several things match.
    """
    name, _, inner = text.removeprefix(PACKAGE).partition("/")
    top, *nested = name.split(".")
    if ".." in PurePosixPath(inner).parts or inner.startswith("/") or "\0" in inner:
        raise bad_input(at, f"'{text}' leaves its package", "a package path has no '..', and begins with no '/'")
    pattern = "/".join(part for part in (*nested, inner) if part)
    roots = _package_folders(top, text, at)
    if not pattern:
        return roots[0]
    if "*" not in pattern:
        for root in roots:
            if os.path.exists(root / pattern):
                return _inside(root, root / pattern, text, at)
        raise bad_input(at, f"'{text}' is not in the installed package", _nearest(roots[0] / pattern))
    found = sorted({_inside(root, match, text, at) for root in roots for match in root.glob(pattern)})
    if not found:
        raise bad_input(at, f"nothing matches '{text}'", _nearest(roots[0] / pattern))
    if len(found) > 1:
        raise bad_input(at, f"'{text}' matches {len(found)} paths", f"name one of: {_listing(p.name for p in found)}")
    return found[0]


def _inside(root: Path, path: Path, text: str, at: str) -> Path:
    """``path``, unless it is a link to something else than a package's file: where installers link whole packages,
    each file has the same path in theirs."""
    real, own = Path(os.path.realpath(path)), path.relative_to(root).parts
    if real.is_relative_to(os.path.realpath(root)) or real.parts[-len(own) :] == own:
        return path
    raise bad_input(at, f"'{text}' leaves its package: it is a link to '{real}'", "name that file itself")


def _package_folders(top: str, text: str, at: str) -> list[Path]:
    """The folders of an installed top-level package; several for a namespace package."""
    advice = f"install it (the name here is the one Python imports, such as '{top.replace('-', '_')}')"
    if not top.isidentifier():
        raise bad_input(at, f"'{text}' does not name a package that Python could import", advice)
    try:
        # A top-level name only: for a dotted one, find_spec would import the parents.
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None:
        raise bad_input(at, f"the package '{top}' of '{text}' is not installed", advice)
    if not spec.submodule_search_locations:
        raise bad_input(at, f"'{top}' of '{text}' is a single module, which holds no files", "name a package")
    return [Path(folder) for folder in spec.submodule_search_locations]


def _nearest(path: Path) -> str:
    """Say what there is instead of ``path``: a name like it, or the names in the nearest folder that exists."""
    missing = path
    while not os.path.exists(missing.parent):
        missing = missing.parent
    folder = missing.parent
    if not os.path.isdir(folder):
        return f"'{folder}' is a file, not a folder"
    if not os.access(folder, os.R_OK):
        return f"the folder '{folder}' is not yours to read"
    names = sorted(name for name in os.listdir(folder) if not name.startswith((".", "__pycache__")))
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folder / near[0]}'?"
    place = f"the folder '{folder.resolve()}'"
    return f"{place} holds: {_listing(names)}" if names else f"{place} is empty"


def _listing(names: Iterable[str]) -> str:
    """``a, b, c and 12 more``."""
    known = list(names)
    shown = ", ".join(known[:LISTED])
    return shown if len(known) <= LISTED else f"{shown} and {len(known) - LISTED} more"
