"""Do a variant's seeds predict the same? Disagreement, Fleiss' kappa and churn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.results.reading import TEXTS, Run
from finetune.results.schema import AgreementResult, Divided, EvaluationSet
from finetune.stats.agreement import agreement, churn, codes_of

MOST = 5
"""Most divided examples that are named."""


def agreement_of(
    runs: Sequence[Run], task: EvaluationSet, level: float = 0.95, clusters: ArrayLike | None = None
) -> AgreementResult | None:
    """Compute how far a variant's ``runs`` predict the same on the evaluation set ``task``.

    None where no run has predictions, where the task makes none (language modelling), and where runs do not share
    their examples. ``clusters`` (examples,) says which examples belong together.
    """
    tables = [run.predictions(task.name, TEXTS, TEXTS) for run in runs if task.key in run.scores]
    stored = [table for table in tables if table is not None]
    if not stored or len(stored) < len(tables) or any(table["example"] != stored[0]["example"] for table in stored):
        return None
    columns = [table["prediction"].combine_chunks() for table in stored] + [stored[0]["reference"].combine_chunks()]
    texts = [column.dictionary.to_pylist() for column in columns]
    if not any(any(row) for row in texts[:-1]):
        return None
    numbers = codes_of(texts)
    coded = [number[column.indices.to_numpy()] for number, column in zip(numbers, columns, strict=True)]
    codes = np.stack(coded[:-1])
    found = agreement(codes, coded[-1], clusters, level)
    return AgreementResult(**asdict(found), most_divided=_most_divided(codes, stored[0]["example"].to_numpy()))


def _most_divided(codes: NDArray[np.int64], examples: NDArray[np.int64]) -> list[Divided]:
    """Find the examples of the highest churn, by number; not their texts, which a study may have to keep to itself."""
    differ = churn(codes)
    order = np.argsort(-differ, kind="stable")[:MOST]
    return [Divided(int(examples[i]), float(differ[i])) for i in order if differ[i] > 0]
