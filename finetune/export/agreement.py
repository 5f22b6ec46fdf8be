"""Whether an export answers as the trained model does, example by example, and by how much its scores differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.export.questions import Asked, Asking

LEAST = 0.99
"""The share of answers that have to be the same, and of examples whose numbers have to be near."""

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """One answer held against what the trained model says."""

    same: int
    """How many of its labels, tags, choices or next tokens are the same."""
    of: int
    """How many it has."""
    difference: float
    """The largest difference of a number: probabilities, values in SDs, vectors by their length, log-probabilities of a
    token in nats."""
    read: bool
    """Whether it is the answer to the same tokens; True where the engine does not say."""
    generated: bool | None = None
    """Whether what it has generated is the same; None: nothing was."""
    scores: tuple[float, float] | None = None
    """Of the trained model and of the export, the example's own score, higher being better; None: it has none."""
    seconds: tuple[float, ...] = ()
    """Of next tokens that are not the same but the trained model's second choice: how far that is behind, in nats."""


@dataclass(frozen=True)
class Agreement:
    """How an export's answers compare with the trained model's."""

    examples: int
    """How many were asked."""
    held_out: int
    answers: int
    """Labels, tags, choices or next tokens."""
    same: float
    """Share of these that are the same, ties among them."""
    ties: int
    """Next tokens that are the trained model's second choice, behind its first by no more than the tolerance: which of
    the two comes out is decided by the order of additions."""
    near: float
    """Share of examples whose numbers differ by no more than the tolerance."""
    tolerance: float
    difference: float
    """The largest difference of a number; infinite where one is none."""
    read: float
    """Share of examples of which the engine read the same tokens."""
    generated: float | None
    """Share of the generated answers that are the same; None: none were generated."""
    stops: bool
    """Whether it stops where answers end."""
    score: tuple[float, float] | None
    """Mean scores of the trained model and of the export, on the examples asked."""
    gain: dict[str, Any] | None
    """The export's mean score minus the trained model's, with its interval over examples."""
    left_out: dict[str, int] = field(default_factory=dict)

    def objections(self, exact: bool, least: float = LEAST, same_tokens: bool = True) -> list[str]:
        """List why the export is no good, in words; empty where it is. Of one that is not ``exact`` numbers may differ,
        and at least the share ``least`` of its answers has to be the same."""
        found = []
        if same_tokens and self.read < 1:
            apart = round((1 - self.read) * self.examples)
            found.append(
                f"it reads other tokens than the trained model on {apart} of {self.examples} examples: the tokenizer, "
                "the chat template or the length at which texts are cut is another"
            )
        if self.same < least:
            found.append(f"{self.same:.2%} of {self.answers:,} answers are the same, and {least:.0%} have to be")
        if exact and self.near < LEAST:
            found.append(
                f"on {1 - self.near:.1%} of the examples its numbers differ by more than {self.tolerance:g} (up to "
                f"{self.difference:.3g}): weights, pooling or the order of labels are others"
            )
        if self.generated is not None and self.generated < least:
            found.append(f"{self.generated:.0%} of the answers that it generates are the same")
        if not self.stops:
            found.append("it does not stop at the token with which answers end")
        return found


def compare(asking: Asking, first: Answer, answers: Sequence[Answer], tolerance: float) -> Agreement:
    """Hold an engine's ``answers``, under its ``first`` line, against what the trained model says."""
    judged = [judge(each, answer) for each, answer in zip(asking.asked, answers, strict=True)]
    generated = [each.generated for each in judged if each.generated is not None]
    scores = [each.scores for each in judged if each.scores is not None]
    total = sum(each.of for each in judged)
    ties = sum(behind <= tolerance for each in judged for behind in each.seconds)
    return Agreement(
        examples=len(judged),
        held_out=asking.of,
        answers=total,
        same=(sum(each.same for each in judged) + ties) / max(total, 1),
        ties=ties,
        near=float(np.mean([each.difference <= tolerance for each in judged])),
        tolerance=tolerance,
        difference=max(each.difference for each in judged),
        read=float(np.mean([each.read for each in judged])),
        generated=float(np.mean(generated)) if generated else None,
        stops=asking.ends <= {*first.get("ends", [])},
        score=(float(np.mean([own for own, _ in scores])), float(np.mean([one for _, one in scores])))
        if scores
        else None,
        gain=_gain(scores),
        left_out=dict(asking.left_out),
    )


def _gain(scores: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    from finetune import stats

    if not scores:
        return None
    own, others = np.array([one for _, one in scores]), np.array([[own for own, _ in scores]])
    found = stats.gain(own, others)
    return {"mean": found.mean, "ci": found.ci, "level": found.level, "reason": found.reason}


def judge(asked: Asked, answer: Answer) -> Judged:
    """Judge the ``answer`` to one question."""
    return JUDGES[str(asked.question["kind"])](asked, answer)


def _read(asked: Asked, answer: Answer) -> bool:
    named = [name for name in ("tokens", "target", "prompt") if name in answer and name in asked.expected]
    return all(answer[name] == asked.expected[name] for name in named)


def _apart(own: Collection[float], others: Collection[float]) -> float:
    """The largest difference of two lists of numbers; infinite where they are not as long, or hold none."""
    left, right = np.asarray([*own], float), np.asarray([*others], float)
    if left.shape != right.shape or not np.isfinite(right).all():
        return math.inf
    return float(np.abs(left - right).max(initial=0.0))


def _classify(asked: Asked, answer: Answer) -> Judged:
    own, other = asked.expected["probabilities"], answer["probabilities"]
    if own.keys() != other.keys():
        return Judged(0, 1, math.inf, _read(asked, answer))
    labels = [max(each, key=lambda label: each[label]) for each in (own, other)]
    scores = None if asked.reference is None else tuple(float(label == asked.reference) for label in labels)
    apart = _apart(own.values(), [other[label] for label in own])
    return Judged(int(labels[0] == labels[1]), 1, apart, _read(asked, answer), scores=scores)  # type: ignore[arg-type]


def _multi_label(asked: Asked, answer: Answer) -> Judged:
    own, other = asked.expected["probabilities"], answer["probabilities"]
    if own.keys() != other.keys():
        return Judged(0, len(own), math.inf, _read(asked, answer))
    same = sum((own[label] > 0.5) == (other[label] > 0.5) for label in own)
    return Judged(same, len(own), _apart(own.values(), [other[label] for label in own]), _read(asked, answer))


def _regress(asked: Asked, answer: Answer) -> Judged:
    own, mean, sd = (asked.expected[name] for name in ("value", "mean", "sd"))
    unit = bool(answer.get("in_unit", asked.expected.get("in_unit")))
    other = (answer["value"] - mean) / sd if unit else answer["value"]
    apart = _apart([own], [other])
    wanted = (asked.reference - mean) / sd
    scores = (-abs(own - wanted), -abs(other - wanted))
    return Judged(int(apart <= 0.01), 1, apart, _read(asked, answer), scores=scores)


def _tag(asked: Asked, answer: Answer) -> Judged:
    own, other = asked.expected["tags"], answer["tags"]
    if len(own) != len(other):
        return Judged(0, len(own), math.inf, _read(asked, answer))
    same = sum(left == right for left, right in zip(own, other, strict=True))
    right = [
        np.mean([one == wanted for one, wanted in zip(tags, asked.reference, strict=True)]) for tags in (own, other)
    ]
    return Judged(same, len(own), 0.0, _read(asked, answer), scores=(float(right[0]), float(right[1])))


def _answer(asked: Asked, answer: Answer) -> Judged:
    same = asked.expected["answer"] == answer["answer"]
    return Judged(int(same), 1, _apart([asked.expected["margin"]], [answer["margin"]]), _read(asked, answer))


def _choose(asked: Asked, answer: Answer) -> Judged:
    own, other = asked.expected["scores"], answer["scores"]
    apart = _apart(own, other)
    chosen = [int(np.argmax(each)) for each in (own, other)] if apart < math.inf else [0, -1]
    scores = (float(chosen[0] == asked.reference), float(chosen[1] == asked.reference))
    tokens = max((len(each) for each in asked.expected["tokens"]), default=1)
    summed = not (asked.question.get("beside") or asked.question.get("mean"))
    per_token = apart / tokens if summed else apart
    return Judged(int(chosen[0] == chosen[1]), 1, per_token, _read(asked, answer), scores=scores)


def _embed(asked: Asked, answer: Answer) -> Judged:
    own, other = np.array(asked.expected["vector"]), np.array(answer["vector"])
    if own.shape != other.shape or not np.isfinite(other).all():
        return Judged(0, 1, math.inf, _read(asked, answer))
    apart = float(np.linalg.norm(own - other) / max(float(np.linalg.norm(own)), 1e-9))
    return Judged(int(apart <= 0.01), 1, apart, _read(asked, answer))


def _continue(asked: Asked, answer: Answer) -> Judged:
    labelled, own = asked.expected["labelled"], asked.expected
    read = _read(asked, answer)
    said, likely = list(answer["next"]), list(answer["log_probabilities"])
    if not read or len(said) < max(labelled):
        return Judged(0, len(labelled), math.inf, False, _same_text(asked, answer))
    following = [said[place - 1] for place in labelled]
    same, seconds = _next(own, following)
    # What ends an answer may be ours alone, behind what the template writes: then there is nothing to compare there.
    known = [number for number, place in enumerate(labelled) if place - 1 < len(likely)]
    logs = [own["log_probabilities"][number] for number in known]
    others = [likely[labelled[number] - 1] for number in known]
    scores = (float(np.mean(logs)), float(np.mean(others))) if known else None
    return Judged(same, len(labelled), _apart(logs, others), read, _same_text(asked, answer), scores, seconds)


def _next(own: Mapping[str, Any], others: Sequence[int]) -> tuple[int, tuple[float, ...]]:
    """How many next tokens are the same, and of those that are the second choice, how far they are behind."""
    places = [*zip(own["next"], own["second"], own["behind"], others, strict=False)]
    same = sum(first == other for first, _, _, other in places)
    return same, tuple(behind for first, second, behind, other in places if other == second != first)


def _same_text(asked: Asked, answer: Answer) -> bool | None:
    if "generated" not in asked.expected or "generated" not in answer:
        return None
    return bool(asked.expected["generated"] == answer["generated"])


def _forced(asked: Asked, answer: Answer) -> Judged:
    own = asked.expected["next"]
    logs, others = asked.expected["log_probabilities"], answer["log_probabilities"]
    same, seconds = _next(asked.expected, answer["next"])
    apart = _apart(logs, others)
    scores = (float(np.mean(logs)), float(np.mean(others))) if apart < math.inf else None
    return Judged(same, len(own), apart, _read(asked, answer), _same_text(asked, answer), scores, seconds)


JUDGES: dict[str, Callable[[Asked, Answer], Judged]] = {
    "classify": _classify,
    "multi_label": _multi_label,
    "regress": _regress,
    "tag": _tag,
    "answer": _answer,
    "choose": _choose,
    "embed": _embed,
    "continue": _continue,
    "fill": _forced,
    "translate": _forced,
}
"""By the kind of the question."""
