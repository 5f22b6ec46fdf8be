"""The options of learning vectors of texts, and what follows from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from finetune.core.options import OPERATIONAL, Options

SCORED = ["cosine_spearman", "loss"]
RANKED = ["recall_at_1", "recall_at_5", "recall_at_10", "loss"]
"""Metrics where the recipe names none."""

UNKNOWN = "finetune:unknown"
"""The column of scores or labels of texts that nobody knows any of."""

POSSIBLE = {"scored": ("cosine", "cosent"), "pairs": ("ranking",), "labels": ("cosine",)}
"""Losses by what is given, the default first."""


class EmbeddingOptions(Options):
    """Columns, what is learnt from them, and pooling. Given are pairs with a score, pairs of texts that mean the same,
    or texts with a label."""

    type: Literal["embedding"]
    text: str = "text"
    """Column with the text; of pairs, what is searched with."""
    pair: str | None = None
    """Column with the second text of a pair; without a score both mean the same. Null: `label` says which texts do."""
    score: str | None = None
    """Column with the similarity of a pair, a number within `score_range`; held-out pairs are then scored by rank
    correlation."""
    score_range: list[float] = Field([0.0, 1.0], min_length=2, max_length=2)
    """Lowest and highest score: what becomes a cosine of 0 and of 1."""
    negative: str | None = None
    """Column with a text like the second one that does not mean the same, for pairs without a score."""
    label: str | None = None
    """Column with the label of single texts, of which pairs are made: texts of one label mean the same."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    loss: Literal["auto", "cosine", "cosent", "ranking"] = "auto"
    """`cosine`: the squared error of the cosine, for scores (Reimers & Gurevych 2019, section 3) and labels (Tunstall
    et al. 2022, section 3.1). `cosent`: pairs in the order of their scores (Su 2022). `ranking`: the second text among
    those of the pairs that are drawn with it (Henderson et al. 2017, section 4.4). `auto`: `ranking` for pairs without
    a score, else `cosine`. Held-out scored pairs have the loss of `cosine` in either case."""
    scale: float = Field(20.0, gt=0)
    """Factor of cosines before they are compared, the inverse of a temperature: 20 in sentence-transformers (for
    `ranking` and `cosent`)."""
    drawn: int = Field(7, ge=1)
    """Other rows that are drawn with each example, anew each time it is seen, and learnt from together with it as a
    batch of their own: all are compared with all. So neither micro-batches nor processes change any loss; and one
    example has the texts of `drawn` + 1 rows, so `train.batch_size` can be as much smaller (for all but `cosine` with
    scores). Of labels, half of them have the example's own, and equal and unequal pairs count alike."""
    pooling: Literal["auto", "cls", "mean", "last", "max"] = "auto"
    """How a text's tokens become one vector: the first, the mean of all, the last, or the largest value of each
    feature; padding never counts. `auto`: what sentence-transformers' files beside the model say, else the last token
    of causal models and the mean of others."""
    normalise: bool | None = None
    """Divide the saved model's vectors by their length, of which no cosine depends. Default: as those files say; where
    there are none, no."""
    max_length: int = Field(256, ge=4)
    """Tokens a text may have; longer ones are cut at the end, and counted in the data facts."""
    metrics: list[str] = Field(SCORED, min_length=1)
    """Metrics of the held-out tasks, the headline first. Default without scores: recall_at_1, recall_at_5,
    recall_at_10, loss. Recall is of the second text among those of the whole set, or of a text of the same label among
    all others; the prediction is the rank of what is right, and the reference is 1."""

    @model_validator(mode="before")
    @classmethod
    def _metrics_of_what_is_given(cls, values: Any) -> Any:
        if isinstance(values, dict) and "metrics" not in values and not values.get("score"):
            return {**values, "metrics": RANKED}
        return values

    @model_validator(mode="after")
    def _what_fits_together(self) -> EmbeddingOptions:
        if (self.pair is None) == (self.label is None):
            raise ValueError("says neither pair nor label" if self.pair is None else "says both pair and label")
        for name in ("score", "negative"):
            if getattr(self, name) and self.pair is None:
                raise ValueError(f"says {name}, which is about pairs, and no pair")
        if self.score and self.negative:
            raise ValueError("says both score and negative; pairs with a score have no use for more texts")
        low, high = self.score_range
        if low >= high:
            raise ValueError(f"score_range goes from {low:g} to {high:g}; write the lower one first")
        if self.loss not in ("auto", *POSSIBLE[self._given]):
            words = {"scored": "pairs with a score", "pairs": "pairs without a score", "labels": "labels"}
            possible = " or ".join(POSSIBLE[self._given])
            raise ValueError(f"loss is {self.loss}, and {words[self._given]} are learnt with {possible}")
        return self

    @property
    def _given(self) -> str:
        return "labels" if self.label else "scored" if self.score else "pairs"

    @property
    def texts(self) -> list[str]:
        """Name the columns with the texts of a row."""
        return [name for name in (self.text, self.pair, self.negative) if name]

    @property
    def meaning(self) -> str | None:
        """Name the column whose equal values say that rows mean the same; None: scores say it."""
        return None if self.score else self.label or self.pair

    @property
    def objective(self) -> Any:
        """Name the loss, as :mod:`finetune.tasks.contrastive.losses` knows it."""
        if self.label:
            return "labels"
        return POSSIBLE[self._given][0] if self.loss == "auto" else self.loss

    @property
    def others(self) -> Any:
        """Say which other rows are drawn with an example; None: none."""
        return {"labels": "balanced", "ranking": "unlike", "cosent": "any"}.get(self.objective)
