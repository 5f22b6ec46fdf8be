"""Tables in the terminal, with as many columns as it has room for; what ends `finetune run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from finetune.core.numbers import NONE, THIN, listing, seconds, short_count
from finetune.core.screen import screened
from finetune.metrics import unit
from finetune.results.measure import SOLVED_METHOD
from finetune.results.remarks import forgetting_remarks
from finetune.results.schema import Results, VariantResult
from finetune.results.verdict import NBSP, verdict_of

DISPENSABLE = ("time", "trained", "SD", "seeds", "95 % interval", "failed")
"""Columns in the order in which a narrow terminal loses them."""


def table(results: Results) -> RenderableType:
    """The headline scores, one table per evaluation set; then the verdict, as the page has it."""
    parts: list[RenderableType] = []
    for task in results.tasks:
        # Not the table's own title, which would wrap where a narrow table ends.
        title = f"{task.name}: {unit(task.metric).heading} ({task.examples:,} examples)"
        rows = [_row(variant, task.key, task.metric, variant.is_base) for variant in results.variants]
        cheap = [each for each in results.baselines if each.estimates[task.key].n]
        rows += [_row(each, task.key, task.metric, True) for each in cheap]
        parts += [Text(_plain(title), style="italic"), FittingTable(rows, DISPENSABLE)]
    if results.baselines:
        names = listing([cheap.name for cheap in results.baselines])
        parts.append(Text(_plain(f"No fine-tuning: {names}."), style="italic"))
    parts += map(Text, map(_plain, forgetting_remarks(results)))
    verdict = verdict_of(results)
    # A command stands on a line of its own, to be copied.
    sentence = _plain(verdict.sentence).replace(": finetune ", ":\n  finetune ")
    parts.append(Text.assemble((f"{verdict.word}. ", "bold"), sentence))
    return Group(*parts)


def _plain(text: str) -> str:
    """Plain spaces, since not every terminal font has the thin one, and nothing that steers the terminal."""
    return screened(text).replace(THIN, " ").replace(NBSP, " ")


class FittingTable:
    """A table that leaves columns out until it fits the console: the first to the left, the others to the right."""

    def __init__(self, rows: Sequence[Mapping[str, str | Text]], dispensable: Sequence[str] = ()):
        """``rows``: cells by heading; ``dispensable``: headings in the order in which they are left out."""
        self.rows = rows
        self.dispensable = dispensable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for dropped in range(len(self.dispensable) + 1):
            candidate = self._table(self.dispensable[:dropped])
            if _fits(candidate, console, options):
                break
        yield candidate

    def fits(self, console: Console, options: ConsoleOptions) -> bool:
        """Tell whether there is room for it as it is, with all columns."""
        return _fits(self._table(()), console, options)

    def _table(self, without: Sequence[str]) -> Table:
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        names = [name for name in self.rows[0] if name not in without] if self.rows else []
        for place, name in enumerate(names):
            drawn.add_column(name, justify="right" if place else "left", no_wrap=bool(place))
        for row in self.rows:
            # Text and not markup: a variant's name may hold brackets.
            drawn.add_row(*(cell if isinstance(cell := row[name], Text) else Text(screened(cell)) for name in names))
        return drawn


def _fits(drawn: Table, console: Console, options: ConsoleOptions) -> bool:
    return Measurement.get(console, options.update(max_width=10_000), drawn).maximum <= options.max_width


def _row(variant: VariantResult, key: str, metric: str, untuned: bool) -> dict[str, Text]:
    found, failures, shown = variant.estimates[key], variant.failures, unit(metric)
    times = [run.seconds for run in variant.runs if run.seconds is not None]
    fixed = untuned or found.method == SOLVED_METHOD
    cells = {
        "variant": variant.name,
        "score": shown.number(found.mean),
        "95 % interval": shown.interval(found.ci),
        "seeds": NONE if fixed else str(found.n),
        "SD": shown.number(found.sd, more=1),
        "failed": f"{failures.count}/{failures.n}" if not untuned else NONE,
        "trained": short_count(None if variant.parameters is None else variant.parameters.trainable),
        "time": seconds(fmean(times)) if times else NONE,
    }
    texts = {name: Text(_plain(cell)) for name, cell in cells.items()}
    if failures.count and not untuned:
        texts["failed"].stylize("bold red")
    return texts
