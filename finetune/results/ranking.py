"""Which variant did best, by the first evaluation set's headline metric: what verdict, card and tables go by."""

from __future__ import annotations

from finetune.results.schema import PairResult, Results, VariantResult


def headline_key(results: Results) -> str:
    """ "set/metric" from which the verdict is read."""
    return results.tasks[0].key


def ranked(results: Results) -> list[VariantResult]:
    """List the tuned variants that have a score, best mean first."""
    if not results.tasks:
        return []
    task = results.tasks[0]
    means = [(variant, variant.estimates[task.key].mean) for variant in results.tuned]
    scored = [(variant, mean) for variant, mean in means if mean is not None]
    return [variant for variant, _ in sorted(scored, key=lambda pair: -task.sign * pair[1])]


def best_variant(results: Results) -> VariantResult | None:
    """The first of those; None when nothing has been scored."""
    return next(iter(ranked(results)), None)


def headline_row(results: Results, left: str, right: str) -> PairResult | None:
    """Find the comparison of two variants by the first evaluation set's headline metric, as it is stored."""
    task = results.tasks[0]
    wanted = (task.name, task.metric, left, right)
    rows = results.comparisons
    return next((row for row in rows if (row.task, row.metric, row.left, row.right) == wanted), None)
