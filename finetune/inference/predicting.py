"""Predicts a whole file, some rows at a time, in bounded memory; goes on where it was, however it was ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from finetune.core.digests import text_digest
from finetune.core.errors import bad_input
from finetune.core.paths import local_path
from finetune.core.run_dir import atomic
from finetune.data.checks import fingerprint
from finetune.data.options import Source
from finetune.data.sources import as_dataset
from finetune.inference.asking import Asker
from finetune.inference.pieces import Pieces, claimed, told_when_unwritten
from finetune.inference.reading import Input, read_input, unasked
from finetune.inference.writing import LineWriter, refuse_unwritable, writer_for


def predict_file(
    asker: Asker, source: Source, output: Path | None, stream: IO[bytes], say: Callable[[str], None]
) -> int:
    """Predict every row of ``source`` into the file ``output``, or as lines of JSON into ``stream``; gives how many
    there are. ``say`` is told what a person ought to know. Raises InputError before anything is predicted."""
    if output is None:
        given, named = _read(asker, source, say)
        writer = LineWriter(stream)
        for start, count in _windows(asker, given):
            said = given.spread(_asked(asker, given, start, count), start, count)
            writer.write(joined(given.written(start, count), said, named))
            stream.flush()
        return given.total
    writer_for(output)
    _refuse_itself(source, output)
    with claimed(output):
        given, named = _read(asker, source, say)
        refuse_unwritable(given.rows.written, output)
        pieces = Pieces(output, _key(asker, given, named))
        with told_when_unwritten(output):
            _make(asker, given, pieces, say)
            _join(asker, given, pieces, named, output)
            pieces.remove()
        return given.total


def _read(asker: Asker, source: Source, say: Callable[[str], None]) -> tuple[Input, dict[str, str]]:
    """Read the file, and say what is to be known of it; with the names that columns of ours get."""
    given = read_input(asker, source, str(source.path))
    if line := unasked(asker, given):
        say(line)
    return given, _names_for(asker, given, say)


def _refuse_itself(source: Source, output: Path) -> None:
    path = local_path(source.place.file)
    if path.exists() and output.exists() and path.samefile(output):
        raise bad_input("--output", f"'{output}' is the file that is read", "name another one")


def _windows(asker: Asker, given: Input) -> Iterator[tuple[int, int]]:
    """Yield where each piece begins, and how many rows it has."""
    with asker.runtime.progress.phase(f"predicting {given.at}", len(given)) as phase:
        for start in range(0, len(given), asker.window):
            count = min(asker.window, len(given) - start)
            yield start, count
            phase.step(start + count)


def _asked(asker: Asker, given: Input, start: int, count: int) -> pa.Table:
    return pa.table(asker.ask(given.part(start, count), given.at))


def _make(asker: Asker, given: Input, pieces: Pieces, say: Callable[[str], None]) -> None:
    """Make every piece that is not there yet."""
    there = pieces.open()
    total = -(-len(given) // asker.window)
    if there:
        say(f"going on: {there:,} of {total:,} parts are there already")
    for start, count in _windows(asker, given):
        if not pieces.has(start):
            pieces.write(start, _asked(asker, given, start, count))


def _join(asker: Asker, given: Input, pieces: Pieces, named: Mapping[str, str], output: Path) -> None:
    """Write the file, of the input's columns and those of the pieces."""
    kind = writer_for(output)
    title = f"writing {output.name}"
    with atomic(output) as temporary, open(temporary, "wb") as file, asker.runtime.progress.phase(title, len(given)):
        writer = kind(file)
        for start in range(0, len(given), asker.window):
            said = given.spread(pieces.read(start), start, asker.window)
            writer.write(joined(given.written(start, asker.window), said, named))
        writer.close()


def joined(written: pa.Table, said: pa.Table, named: Mapping[str, str]) -> pa.Table:
    """Put the columns of predictions behind those of the input, under the names that they are given."""
    table = written.replace_schema_metadata(None)
    for name in said.column_names:
        table = table.append_column(named.get(name, name), said[name])
    return table


COLUMNS = (
    *("prediction", "confidence", "probabilities", "choice", "extracted"),
    *("vector", "similarity", "loss", "tokens"),
)
"""All that :mod:`finetune.inference.columns` gives."""


def _names_for(asker: Asker, given: Input, say: Callable[[str], None]) -> dict[str, str]:
    """Give other names to columns of ours that the input has already, and tell those that are sure to be there."""
    known = given.rows.written.column_names
    found = {name: free_name(name, known) for name in COLUMNS if name in known}
    for name, other in found.items():
        say(f"{given.at} has a column '{name}' already; what the model says stands in '{other}'")
    return found


def free_name(name: str, known: Sequence[str]) -> str:
    """A name like ``name`` that is none of those ``known``."""
    number = 2
    while f"{name}_{number}" in known:
        number += 1
    return f"{name}_{number}"


def _key(asker: Asker, given: Input, named: Mapping[str, str]) -> str:
    """Digest of all that the pieces depend on: the model's files, the input's, and what is asked."""
    opened, source = asker.opened, given.source
    place, path = local_path(opened.source), local_path(source.place.file)
    about = [
        *_stamps(place),
        *(_stamps(opened.run) if opened.run else []),
        # A pipe, and what lies elsewhere, have nothing that would tell what is in them.
        *(_stamps(path) if path.is_file() or path.is_dir() else [fingerprint(as_dataset(given.rows.written))]),
        source.model_dump_json(),
        opened.recipe.model_dump_json(),
        json.dumps(dict(opened.decision), sort_keys=True),
        str([asker.window, asker.probabilities, asker.temperature, str(asker.runtime.dtype)]),
        str(sorted(named.items())),
    ]
    return text_digest("\n".join(map(str, about)))


def _stamps(place: Path) -> list[Any]:
    """Sizes and times of the files at ``place``: another model, or another input, has others."""
    if not place.exists():
        return [str(place)]
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    known = [(each, each.stat()) for each in files if each.is_file()]
    return [(str(each.resolve()), found.st_size, found.st_mtime_ns) for each, found in known]
