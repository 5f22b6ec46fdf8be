"""The optimizer, its schedule, and the gradient's norm, for one run or several side by side.

R runs trained together keep their parameters stacked, (R, ...); a single run's parameters are its own shape. Both
reshape to (R, everything else), so nothing here asks which it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from finetune.technique import Techniques
from finetune.train.options import TrainOptions


def make_optimizer(
    parameters: Mapping[str, torch.nn.Parameter],
    options: TrainOptions,
    replicas: int = 1,
    techniques: Techniques | None = None,
) -> torch.optim.AdamW:
    """AdamW with bias correction (Kingma & Ba 2015; Loshchilov & Hutter 2019); one-dimensional parameters
    (biases, norms) are not decayed. ``techniques`` have their say in rates and decay."""
    techniques = techniques or Techniques()
    one = 1 if replicas == 1 else 2  # dimensions of a bias, alone or stacked
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decays = parameter.ndim > one and techniques.decays(name)
        groups.setdefault((techniques.rate(name), decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": options.weight_decay if decays else 0.0, "factor": factor}
            for (factor, decays), members in sorted(groups.items(), key=lambda group: group[0], reverse=True)
        ],
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.epsilon,
        fused=True,
    )


def rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate at ``step`` (from 0) of ``total``.

    It rises along a line over the first ``warmup`` share of the steps, reaching 1 at its last, then falls to zero
    just after the last step (linear or cosine), or stays. The first step is never wasted on a rate of zero.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(total - rising, 1)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` for the next step, times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def gradient_norms(parameters: Iterable[torch.nn.Parameter], replicas: int) -> torch.Tensor:
    """L2 norm of each replica's whole gradient, (R,)."""
    norms = [
        torch.linalg.vector_norm(parameter.grad.detach().reshape(replicas, -1), dim=1, dtype=torch.float32)
        for parameter in parameters
        if parameter.grad is not None
    ]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def scale_gradients(parameters: Iterable[torch.nn.Parameter], factors: torch.Tensor) -> None:
    """Multiply each replica's gradient by its factor, (R,), in place."""
    if bool((factors == 1).all()):
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.view(len(factors), -1).mul_(factors[:, None].to(parameter.grad))


Moments = dict[str, dict[str, torch.Tensor]]
"""What the optimizer remembers of each parameter, by the parameter's number."""


def moments_of(optimizer: torch.optim.Optimizer, replica: int, replicas: int) -> Moments:
    """What ``optimizer`` remembers for one replica; counters are the same for all."""
    found = optimizer.state_dict()["state"]
    return {
        str(number): {
            name: value.reshape(replicas, -1)[replica] if value.ndim else value for name, value in entry.items()
        }
        for number, entry in found.items()
    }


def restore_moments(optimizer: torch.optim.Optimizer, moments: Sequence[Moments]) -> None:
    """Give ``optimizer`` what was remembered for each of its replicas."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        int(number): {
            name: torch.stack([own[number][name] for own in moments]).view_as(parameters[int(number)])
            if value.ndim
            else value
            for name, value in entry.items()
        }
        for number, entry in moments[0].items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
