"""Takes a model away: writes it in a form, asks it in its own engine, and moves it to its place if it answers as it was
scored. Whatever goes wrong before leaves nothing behind."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finetune.core.errors import FinetuneError, InputError, bad_input, disk_full, not_writable
from finetune.core.locks import locked
from finetune.core.progress import phase
from finetune.core.run_dir import StudyDir, read_json, sync, write_json
from finetune.export.choosing import Chosen, choose
from finetune.export.forms.base import Form, all_forms, find_form
from finetune.export.questions import Asking

AS_SCORED = 0.9
"""The share of stored predictions that the saved model has to give again: runs are scored in narrower arithmetic."""

PREFERRED = ("transformers", "sentence-transformers", "adapter")
"""Forms that are tried in this order where none is asked for."""

LOCK = ".lock"
"""Of a folder that an export is being written to: held while it is."""


@dataclass(frozen=True)
class Exported:
    """A model that has been taken away."""

    folder: Path
    form: str
    certificate: dict[str, Any]
    title: str
    """Which model it is, in a few words."""


def export(
    study: Path,
    to: Path,
    form: str | None = None,
    variant: str | None = None,
    seed: int | None = None,
    best_validation: bool = False,
    soup: bool = False,
    examples: int | None = None,
    repo: str | None = None,
) -> Exported:
    """Write a model of the ``study`` in a ``form`` to the new folder ``to``, with its certificate and card.

    Which one: see :func:`finetune.export.choosing.choose`. ``form``: by default the first of :data:`PREFERRED` that can
    hold it. ``examples``: held-out examples that it is asked about at most. ``repo``:
    what it will be called on the hub, for its card. Raises :class:`InputError` for what cannot
    be done, and :class:`FinetuneError` where writing fails or the export answers differently; then nothing is left.
    """
    asked = None if form is None else find_form(form)
    place = _free(to)
    chosen = choose(study, variant, seed, best_validation, soup)
    with phase("loading the trained model"):
        from finetune.export.opening import open_trained

        trained = open_trained(chosen)
    found = _fitting(trained) if asked is None else asked
    if repo and (kept := found.keeps(trained)):
        raise bad_input("--push", f"form {found.name} would be of no use to others: {kept}", "take form transformers")
    if refusal := found.refusal(trained):
        raise bad_input("--form", f"form {found.name} cannot hold {chosen.title}: {refusal}", _others(trained, found))
    from finetune.export.asking import ask

    with phase("answering held-out examples in float32"):
        asking = ask(trained, examples)
    stored = as_scored(chosen, asking)
    with _new_folder(place) as folder:
        from finetune.export import card, certificate

        with phase(f"writing the form {found.name}"):
            found.write(trained, folder)
        said = certificate.certify(found, trained, folder, asking) | {"as_scored": stored}
        digest = certificate.write_certificate(said, folder)
        card.write(found, trained, chosen, folder, said, repo or place.name)
        found.placed(trained, folder, place)
    _note(chosen, found, place, said, digest)
    return Exported(place, found.name, said, chosen.title)


def as_scored(chosen: Chosen, asking: Asking) -> dict[str, Any] | None:
    """Hold what the trained model says in float32 against the predictions that the study has stored and scored: the
    share that is the same, and of how many; None where nothing is stored that could be the same.

    Raises :class:`InputError` where less than :data:`AS_SCORED` is: then the model's files are not those of the run.
    """
    table = chosen.run.predictions(asking.name, ["prediction"])
    if table is None:
        return None
    known = dict(zip(table["example"].to_pylist(), table["prediction"].to_pylist(), strict=True))
    both = [(each.says, known.get(each.example)) for each in asking.asked if each.says is not None]
    if not both:
        return None
    same = sum(own == other for own, other in both) / len(both)
    if same < AS_SCORED:
        found = (
            f"the saved model answers {1 - same:.0%} of the held-out examples otherwise than the run that was scored"
        )
        raise bad_input(None, f"{chosen.folder.model}: {found}", "restore its files, or run the recipe again")
    return {"same": same, "of": len(both)}


def _free(to: Path) -> Path:
    """Refuse a place that something stands in, or that cannot be written to."""
    place = to.expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise _taken(to)
    above = next(each for each in place.parents if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise bad_input("--to", f"{above} cannot be written to", "choose another place")
    return place


def _taken(to: Path) -> InputError:
    return bad_input("--to", f"{to} exists already", "name a folder that does not, or remove it first")


def _fitting(trained: Any) -> Form:
    """The first form that can hold the model; where none can, the first one, which says why."""
    known = all_forms()
    return next((known[name] for name in PREFERRED if not known[name].refusal(trained)), known[PREFERRED[0]])


def _others(trained: Any, form: Form) -> str:
    fitting = [each.name for each in all_forms().values() if each is not form and each.refusal(trained) is None]
    return f"forms that can: {', '.join(fitting)}" if fitting else "no form can"


@contextmanager
def _new_folder(place: Path) -> Iterator[Path]:
    """Give a folder beside ``place`` that is moved there when the block ends without error, and is gone otherwise."""
    made = [each for each in place.parents if not each.exists()]
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    lock = FileLock(temporary.with_suffix(LOCK), blocking=False)
    try:
        with _told(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            locked(lock)
            _remove_left(place)
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    sync(file)
            try:
                os.rename(temporary, place)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # another export was faster
                    raise _taken(place) from None
                raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        _give_up(lock)
        for each in made:
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()
        raise
    _give_up(lock)


def _give_up(lock: FileLock) -> None:
    """Release a lock, and leave nothing of it."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _remove_left(place: Path) -> None:
    """Remove what exports to ``place`` have left that were killed: nobody holds their locks any more."""
    for path in place.parent.glob(f".{glob.escape(place.name)}.*{LOCK}"):
        lock = FileLock(path, blocking=False)
        try:
            if locked(lock):
                shutil.rmtree(path.with_suffix(".tmp"), ignore_errors=True)
                _give_up(lock)
        except Timeout:
            continue  # it is still being written


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """Say in one line what the system says where files cannot be written."""
    try:
        yield
    except FinetuneError:
        raise
    except Exception as error:  # libraries wrap what the system says in errors of their own
        if disk_full(error):
            raise FinetuneError(f"the disk is full: {place} was not written") from error
        if said := not_writable(error, place.parent):
            raise FinetuneError(f"{place} cannot be written: {said}") from error
        raise


def _note(chosen: Chosen, form: Form, place: Path, said: dict[str, Any], digest: str) -> None:
    """Enter the export in the study's folder, where the report finds it; not where nothing can be written there."""
    folder = StudyDir(chosen.study.folder.path)
    if not os.access(folder.path, os.W_OK):
        return
    known: Any = read_json(folder.exports) if folder.exports.exists() else {"format": 1, "variants": {}}
    found = said["agreement"]
    entry = {"kind": form.name, "seed": chosen.seed, "certificate": digest, "folder": place.name}
    entry |= {"agreement": found["same"], "asked": found["examples"]}
    known["variants"].setdefault(chosen.variant, []).append(entry)
    write_json(folder.exports, known)
