"""Multinomial logistic regression with an L2 penalty, many problems at once, solved to convergence.

Each minimises  sum_i m_i (-log softmax(x_i W + b)[y_i]) + |W|^2 / (2 C),  as scikit-learn's LogisticRegression does;
the intercept b is not penalised. Problems share the examples, and differ in C and in which examples count (m_i is 0
or 1, or its weight). L-BFGS (Liu & Nocedal 1989, "On the limited memory BFGS method", section 2) runs in variables in
which the problem is well conditioned: the examples' principal axes, each scaled by the root of its curvature at zero.
Where there are fewer examples than features, there are only as many axes as examples. Shapes: P problems, N examples, F
features, D axes, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

MEMORY = 10
"""Steps that L-BFGS remembers."""

STEPS = 500
"""Steps after which a problem that has not converged is left as it is."""

TOLERANCE = 1e-6
"""Largest slope in the scaled variables, over the root of how many examples count, at which a problem is solved."""

ROOM = 1 << 23
"""Numbers in the largest intermediate array, (P, some of N, K)."""

Room = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]


def in_memory(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Make room for an array."""
    return torch.empty(size, dtype=dtype)


@dataclass(frozen=True)
class Axes:
    """Examples in the variables that problems are solved in."""

    rows: torch.Tensor
    """(N, D + 1) float64: places along the principal axes; last a column of ones, or of zeros without intercept."""
    basis: torch.Tensor
    """(F, D) float64, orthonormal."""
    centre: torch.Tensor
    """(F,) float64, what was subtracted."""
    squares: torch.Tensor
    """(D + 1,) float64: sums of the squares of ``rows``; of the last column always that of ones."""

    @classmethod
    def of(cls, features: torch.Tensor, intercept: bool, room: Room = in_memory) -> Axes:
        """Find the axes of ``features`` (N, F). ``room`` makes arrays, of a size and a dtype: on disk where they are
        large."""
        count, width = features.shape
        parts = range(0, count, max(1, ROOM // width))
        size = parts.step
        centre = torch.zeros(width, dtype=torch.float64)
        if intercept:
            centre = sum((features[at : at + size].double().sum(0) for at in parts), centre) / count
        if count <= width:
            _, lengths, axes = torch.linalg.svd(features.double() - centre, full_matrices=False)
            basis, squares = axes.T, lengths.square()
        else:
            gram = torch.zeros(width, width, dtype=torch.float64)
            for at in parts:
                part = features[at : at + size].double() - centre
                gram += part.T @ part
            squares, basis = torch.linalg.eigh(gram)
        kept = squares > squares.max() * 1e-14
        basis, squares = basis[:, kept].contiguous(), squares[kept]
        rows = room((count, len(squares) + 1), torch.float64)
        for at in parts:
            rows[at : at + size, :-1] = (features[at : at + size].double() - centre) @ basis
        rows[:, -1] = float(intercept)
        return cls(rows, basis, centre, torch.cat([squares, rows.new_tensor([float(count)])]))

    def plain(self, solved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn solutions (P, D + 1, K) into weights (P, K, F) and biases (P, K) over the features."""
        weights = self.basis @ solved[:, :-1]
        return weights.transpose(1, 2), solved[:, -1] - (self.centre @ weights)


@dataclass(frozen=True)
class Problems:
    """P problems over the same examples."""

    axes: Axes
    classes: torch.Tensor
    """(N,) the right one of each example."""
    count: int
    """How many classes there are."""
    counts: torch.Tensor
    """(P, N) boolean, whether an example counts; or what it counts, such as its class's weight."""
    strengths: torch.Tensor
    """(P,) C: the larger, the weaker the penalty."""

    @property
    def scale(self) -> torch.Tensor:
        """Compute the factors (P, D + 1, 1) of the scaled variables: in these each has the curvature 1 at zero, where
        all classes are equally likely."""
        penalty = (1 / self.strengths)[:, None] * torch.ones_like(self.axes.squares)
        penalty[:, -1] = 0
        likely = 1 / self.count
        counted = self.counts.double().mean(1, keepdim=True)
        return (self.axes.squares * counted * likely * (1 - likely) + penalty).rsqrt()[..., None]

    def slope(self, which: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute values (P',) and gradients (P', D + 1, K) of the problems numbered ``which`` at ``at`` (P', D + 1,
        K)."""
        penalised = at.clone()
        penalised[:, -1] = 0
        penalised /= self.strengths[which, None, None]
        value, gradient = (penalised * at).sum((1, 2)) / 2, penalised
        many = at.transpose(0, 1).reshape(at.shape[1], -1)  # one product for all problems: (D + 1, P' K)
        collected = torch.zeros_like(many)
        size = max(1, ROOM // many.shape[1])
        for start in range(0, len(self.classes), size):
            part = slice(start, start + size)
            rows, right = self.axes.rows[part], self.classes[part]
            counted = self.counts[which, part].double().T
            logits = (rows @ many).view(len(rows), len(which), self.count)
            top = logits.logsumexp(-1, keepdim=True)
            chosen = (torch.arange(len(right)), slice(None), right)
            value = value + ((top[..., 0] - logits[chosen]) * counted).sum(0)
            error = logits.sub_(top).exp_()
            error[chosen] -= 1
            collected += rows.T @ error.mul_(counted[..., None]).view(len(rows), -1)
        return value, gradient + collected.view(at.shape[1], len(which), -1).transpose(0, 1)

    def losses(self, solved: torch.Tensor, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute for each problem (P,) the mean negative log-likelihood and the share of right answers over the
        examples ``left`` (P, N), which are those that did not count when it was solved."""
        nll, right = torch.zeros(2, len(solved), dtype=torch.float64)
        for number, (one, own) in enumerate(zip(solved, left, strict=True)):
            logits, classes = self.axes.rows[own] @ one, self.classes[own]
            nll[number] = torch.nn.functional.cross_entropy(logits, classes)
            right[number] = (logits.argmax(-1) == classes).double().mean()
        return nll, right


def solve(
    problems: Problems, start: torch.Tensor | None = None, tolerance: float = TOLERANCE
) -> tuple[torch.Tensor, int]:
    """Solve ``problems``: the solutions (P, D + 1, K), and the steps that the slowest took; from ``start``, or zero."""
    scale = problems.scale
    shape = (len(scale), scale.shape[1], problems.count)
    at = torch.zeros(shape, dtype=torch.float64) if start is None else start.clone()
    live = torch.arange(len(scale))
    limit = tolerance * problems.counts.sum(1).sqrt()
    value, slope = problems.slope(live, at)
    slope = slope * scale
    past: list[tuple[torch.Tensor, torch.Tensor]] = []
    for step in range(STEPS):
        open_ = slope.abs().amax((1, 2)) > limit[live]
        if not open_.all():
            live, value, slope = live[open_], value[open_], slope[open_]
            past = [(moved[open_], turned[open_]) for moved, turned in past]
        if len(live) == 0:
            return at, step
        direction = -_inverse(past, slope)
        found, next_value, next_slope = _search(problems, live, at[live], value, slope, direction, scale[live])
        past = [*past, (found, next_slope - slope)][-MEMORY:]
        at[live] += found * scale[live]
        value, slope = next_value, next_slope
    return at, STEPS


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute inner products, (P, 1, 1)."""
    return (one * other).sum((1, 2), keepdim=True)


def _inverse(past: Sequence[tuple[torch.Tensor, torch.Tensor]], slope: torch.Tensor) -> torch.Tensor:
    """Multiply ``slope`` by the inverse curvature that ``past`` steps (moved, turned) show: the two-loop recursion."""
    result, shares = slope, []
    for moved, turned in reversed(past):
        curved = _dot(moved, turned).clamp(min=1e-300)
        share = _dot(moved, result) / curved
        shares.append((share, curved))
        result = result - share * turned
    if past:
        moved, turned = past[-1]
        factor = _dot(moved, turned) / _dot(turned, turned).clamp(min=1e-300)
        result = result * torch.where(factor > 0, factor, 1.0)
    for (moved, turned), (share, curved) in zip(past, reversed(shares), strict=True):
        result = result + (share - _dot(turned, result) / curved) * moved
    return result


def _search(
    problems: Problems,
    live: torch.Tensor,
    at: torch.Tensor,
    value: torch.Tensor,
    slope: torch.Tensor,
    direction: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find a step along ``direction`` that lowers each problem's value enough (Armijo), and the value and slope there.

    A problem in which nothing is lower any more, but for rounding, gets a step of zero and a slope of zero: solved.
    """
    length = torch.ones(len(live), 1, 1, dtype=torch.float64)
    falls = _dot(direction, slope)
    moved, new_value, new_slope = torch.zeros_like(at), value.clone(), torch.zeros_like(slope)
    trying = torch.arange(len(live))
    for _ in range(30):
        step = length[trying] * direction[trying]
        found, turned = problems.slope(live[trying], at[trying] + step * scale[trying])
        enough = found <= value[trying] + 1e-4 * (length * falls)[trying, 0, 0]
        done = trying[enough]
        moved[done], new_value[done], new_slope[done] = step[enough], found[enough], (turned * scale[trying])[enough]
        trying = trying[~enough]
        if len(trying) == 0:
            break
        length[trying] /= 2
    return moved, new_value, new_slope
