"""Losses over the cosine similarities of texts, one for each example.

Shapes: N examples, each of M rows that were drawn together and of K texts a row; L texts in all; F features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from finetune.core.examples import Outputs

Loss = Literal["cosine", "cosent", "ranking", "labels"]
"""`labels` is the cosine loss over all pairs of the rows of an example, which are equal to each other or not."""


@dataclass(frozen=True)
class Embedded(Outputs):
    """The vectors of texts: L labels in the words of the base class, F choices; ``targets`` (N, M) are the numbers of
    the rows, and not those of a padding row, which are no number."""

    kind: Loss = field(kw_only=True)
    scale: float = field(kw_only=True)
    roles: int = field(kw_only=True)
    """K."""

    def units(self) -> torch.Tensor:
        """Arrange the vectors, each divided by its length: (N, M, K, F), zero where there is no row."""
        unit = torch.nn.functional.normalize(self.logits, dim=-1)
        count = torch.bincount(self.owners, minlength=self.examples)
        place = torch.arange(len(unit), device=unit.device) - (count.cumsum(0) - count)[self.owners]
        rows = self.targets.shape[1]
        placed = unit.new_zeros(self.examples, rows * self.roles, unit.shape[1])
        placed[self.owners, place] = unit
        return placed.view(self.examples, rows, self.roles, -1)

    def cosines(self) -> torch.Tensor:
        """Compute the cosine similarity of the first two texts of every row: (N, M)."""
        units = self.units()
        return (units[:, :, 0] * units[:, :, 1]).sum(-1)

    def losses(self) -> torch.Tensor:
        """Compute the loss of each example: (N,), float32."""
        with torch.autocast(self.logits.device.type, enabled=False):  # bfloat16 has two decimals for a cosine
            present = ~self.targets.isnan()
            if self.kind == "ranking":
                return _ranking(self.units(), self.targets, present, self.scale)
            if self.kind == "labels":
                return _labels(self.units()[:, :, 0], self.targets, present)
            found = self.cosines()
            squared = (found - self.targets).square().where(present, 0).sum(1) / present.sum(1)
            if self.kind == "cosine":
                return squared
            return torch.where(present.sum(1) > 1, _cosent(found, self.targets, present, self.scale), squared)


def _ranking(units: torch.Tensor, codes: torch.Tensor, present: torch.Tensor, scale: float) -> torch.Tensor:
    """Compute the mean cross-entropy of finding each row's second text among those of all rows, and among their third
    ones, which are wrong (van den Oord et al. 2018, equation 4, over cosines). Other rows with an equal second text are
    no candidates."""
    rows = units.shape[1]
    wanted = units[:, :, 1:].flatten(1, 2)  # (N, M (K - 1), F)
    found = scale * units[:, :, 0] @ wanted.mT
    places = torch.arange(wanted.shape[1], device=units.device)
    each = units.shape[2] - 1
    owner, right = places // each, places % each == 0
    mine = owner[None, :] == torch.arange(rows, device=units.device)[:, None]
    again = (codes[:, :, None] == codes[:, owner][:, None, :]) & right & ~mine
    found = found.masked_fill(again | ~present[:, owner][:, None, :], -torch.inf)
    # Of rows that are not there nothing may come, also not from a row of infinities.
    found = torch.where(present[:, :, None], found, 0.0)
    likely = found.log_softmax(-1)[:, :, right].diagonal(dim1=1, dim2=2)
    return -likely.where(present, 0).sum(1) / present.sum(1)


def _labels(units: torch.Tensor, codes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Compute the squared errors of the cosines of all pairs of rows, which ought to be 1 for equal codes and 0 for
    others; both kinds count alike, as oversampling makes them (Tunstall et al. 2022, section 3.1)."""
    found = units @ units.mT
    above = torch.ones(found.shape[1:], dtype=torch.bool, device=found.device).triu(1)
    there = present[:, :, None] & present[:, None, :] & above
    same = codes[:, :, None] == codes[:, None, :]
    kinds = [(there & same, 1.0), (there & ~same, 0.0)]
    means = [((found - right).square() * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1) for pairs, right in kinds]
    count = torch.stack([pairs.any(2).any(1) for pairs, _ in kinds]).sum(0)
    return torch.stack(means).sum(0) / count.clamp(min=1)


def _cosent(found: torch.Tensor, scores: torch.Tensor, present: torch.Tensor, scale: float) -> torch.Tensor:
    """Compute log(1 + Σ exp(scale (cosine of the lower - cosine of the higher))) over all pairs of rows of which one
    has a higher score (Su 2022, "CoSENT")."""
    higher = (scores[:, :, None] > scores[:, None, :]) & present[:, :, None] & present[:, None, :]
    wrong = (scale * (found[:, None, :] - found[:, :, None])).masked_fill(~higher, -torch.inf).flatten(1)
    return torch.cat([wrong.new_zeros(len(wrong), 1), wrong], 1).logsumexp(1)
