"""Which variant did best, by the first task's headline metric: what the verdict, the card and the tables go by."""

from __future__ import annotations

from typing import Any

from finetune.core.run_dir import BASE

Results = dict[str, Any]


def headline_key(results: Results) -> str:
    """ "task/metric" from which the verdict is read."""
    return f"{results['tasks'][0]['name']}/{results['tasks'][0]['metric']}"


def ranked(results: Results) -> list[Results]:
    """Tuned variants with a score, best mean first."""
    if not results["tasks"]:
        return []
    key, sign = headline_key(results), -1 if results["tasks"][0]["higher_is_better"] else 1
    scored = [v for v in results["variants"] if v["name"] != BASE and v["estimates"][key]["n"]]
    return sorted(scored, key=lambda variant: sign * variant["estimates"][key]["mean"])


def best_variant(results: Results) -> Results | None:
    """The first of those; None when nothing has been scored."""
    return next(iter(ranked(results)), None)
