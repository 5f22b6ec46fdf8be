"""Losses of pairs of a chosen and a rejected answer. Shapes: N pairs; columns are the chosen and the rejected answer.

What goes in are sums over an answer's tokens, in nats: log-likelihoods (N, 2), or log-ratios (N, 2), by how much
training has raised them above those of the model that it started from; and the tokens themselves, counted (N, 2). What
comes out is one loss for each pair, (N,), which no other pair has a part in: so it does not matter with which others a
pair shares a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import logsigmoid

LEAST = 1e-7
"""By how many nats a token has to stay below certainty at least, or its odds would be infinite."""


def ipo(ratios: torch.Tensor, tokens: torch.Tensor, options: Any) -> torch.Tensor:
    """(m - 1 / 2τ)² (Azar et al. 2023, eq. 17), where m is the difference of log-ratios, each a mean over its tokens.

    The paper writes sums. With means τ does not depend on how long answers are, and so the authors have computed what
    they report, as trl says, which does the same.
    """
    chosen, rejected = (ratios / tokens).unbind(1)
    return (chosen - rejected - 1 / (2 * options.beta)).square()


def orpo(likelihoods: torch.Tensor, tokens: torch.Tensor, options: Any) -> torch.Tensor:
    """The chosen answer's loss, a mean over its tokens, and λ times -log σ(log odds ratio) (Hong et al. 2024, eq. 6
    and 7), of likelihoods that are geometric means over tokens (eq. 3), with odds p / (1 - p) (eq. 4).

    trl, as the authors' code, learns the prompt's tokens too; as everywhere here, only answers are learnt.
    """
    means = (likelihoods / tokens).clamp(max=-LEAST)
    chosen, rejected = (means - _log_of_the_rest(means)).unbind(1)
    return -likelihoods[:, 0] / tokens[:, 0] - options.beta * logsigmoid(chosen - rejected)


def kto(ratios: torch.Tensor, tokens: torch.Tensor, options: Any) -> torch.Tensor:
    """Half of λ_D (1 - σ(β r)) of the chosen answer, and half of λ_U (1 - σ(-β r)) of the rejected one: a pair is a
    desirable and an undesirable example (Ethayarajh et al. 2024, section 4.2). Each r is a log-ratio above the
    reference point: see :func:`reference_point`."""
    chosen, rejected = ratios.unbind(1)
    good = options.desirable * torch.sigmoid(-options.beta * chosen)
    bad = options.undesirable * torch.sigmoid(options.beta * rejected)
    return (good + bad) / 2


def reference_point(ratios: torch.Tensor) -> torch.Tensor:
    """Estimate KTO's reference point z0, a number, of answers to other prompts than those before them: the mean of
    their log-ratios, and not below 0, as a KL divergence (Ethayarajh et al. 2024, section 4.2)."""
    return ratios.mean().clamp(min=0)


def simpo(likelihoods: torch.Tensor, tokens: torch.Tensor, options: Any) -> torch.Tensor:
    """-log σ(β d - γ), where d is the difference of log-likelihoods, means over tokens (Meng et al. 2024, eq. 6)."""
    chosen, rejected = (likelihoods / tokens).unbind(1)
    return -logsigmoid(options.beta * (chosen - rejected) - options.gamma)


def _log_of_the_rest(logs: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0 (Mächler 2012, "Accurately computing log(1 - exp(-|a|))", eq. 7)."""
    near = logs > -math.log(2)
    return torch.where(near, torch.log(-torch.expm1(logs)), torch.log1p(-torch.exp(logs)))


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]] = {
    "ipo": ipo,
    "orpo": orpo,
    "kto": kto,
    "simpo": simpo,
}
"""By method: of log-ratios, or of log-likelihoods where nothing is compared with, of the tokens, and of the options."""
