"""The optimizer, its state, and the gradient's norm, for one run or several side by side.

R runs trained together keep their parameters stacked, (R, ...); a single run's parameters are its own shape. Both
reshape to (R, everything else), so nothing here asks which it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from finetune.core.compute import ComputeOptions
from finetune.core.errors import bad_input
from finetune.core.hooks import TrainingHook, TrainingHooks
from finetune.core.randomness import Streams
from finetune.train.options import TrainOptions
from finetune.train.rule_optimizer import RuleOptimizer
from finetune.train.rules import RULES

OWN = tuple(name for name in RULES if name != "adamw")
"""Optimizers of which torch has none that keeps apart what runs side by side have."""

MOMENTUM = 0.95
"""Of Muon, as its authors have it."""


def make_optimizer(
    parameters: Mapping[str, torch.nn.Parameter],
    options: TrainOptions,
    replicas: int = 1,
    hooks: TrainingHooks | None = None,
    compute: ComputeOptions | None = None,
    streams: Sequence[Streams] = (),
    blocks: Sequence[str] = (),
) -> torch.optim.Optimizer:
    """Make the optimizer that ``options`` name; one-dimensional parameters (biases, norms) are not decayed. ``hooks``
    have their say in rates and decay; ``compute`` says how weights are kept, for which the runs' ``streams`` (R,) may
    be needed; ``blocks`` are the names of the model's blocks, whose matrices Muon trains.

    AdamW corrects the bias of its moments (Kingma & Ba 2015; Loshchilov & Hutter 2019). Schedule-Free and Prodigy are
    their authors' own.
    """
    hooks, compute = hooks or TrainingHooks(), compute or ComputeOptions()
    one = 1 if replicas == 1 else 2  # dimensions of a bias, alone or stacked
    members: dict[tuple[float, bool, str], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decays = parameter.ndim > one and hooks.decays(name)
        rule = _rule(options.optimizer, name, parameter.ndim == one + 1, blocks)
        members.setdefault((hooks.rate(name), decays, rule), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": own, "weight_decay": options.weight_decay if decays else 0.0, "factor": factor, "rule": rule}
        for (factor, decays, rule), own in sorted(members.items(), key=lambda group: group[0], reverse=True)
    ]
    common: dict[str, Any] = {"lr": options.learning_rate, "betas": options.betas, "eps": options.epsilon}
    if options.optimizer in OWN or compute.compact or compute.offload:
        for group in groups:
            group.update({"betas": (MOMENTUM, MOMENTUM)} if group["rule"] == "muon" else {})
        return RuleOptimizer(groups, compute, streams or [Streams(seed) for seed in range(replicas)], **common)
    for group in groups:
        del group["rule"]
    if options.optimizer == "schedule-free":
        from schedulefree import AdamWScheduleFree

        averaging = _keeps(AdamWScheduleFree(groups, **common), "schedulefree", "betas", "weight_sum", "train_mode")
        averaging.train()  # the weights that learn stay in the model; :func:`averages` computes the others
        return averaging
    if options.optimizer == "prodigy":
        from prodigyopt import Prodigy

        own = options.prodigy
        about = {"d0": own.d0, "d_coef": own.d_coef, "use_bias_correction": own.bias_correction}
        prodigy = Prodigy(groups, **common, **about, safeguard_warmup=own.safeguard_warmup)
        return _keeps(prodigy, "prodigyopt", "d")
    return torch.optim.AdamW(groups, **common, fused=True)


def _rule(optimizer: str, name: str, matrix: bool, blocks: Sequence[str]) -> str:
    """Name the rule by which the ``optimizer`` trains a parameter, which may be a ``matrix``."""
    if optimizer != "muon":
        return optimizer
    return "muon" if matrix and any(name.startswith(f"{block}.") for block in blocks) else "adamw"


def _keeps(optimizer: Any, package: str, *names: str) -> Any:
    """Return ``optimizer`` if its groups hold the values that we read there by name; raise an error otherwise."""
    if missing := [name for name in names if name not in optimizer.param_groups[0]]:
        raise _changed(package, missing[0])
    return optimizer


def _changed(package: str, name: str) -> RuntimeError:
    """Make the error for a library that keeps something else than it did."""
    found = f"{package} {version(package)} no longer keeps '{name}', from which we tell what it has done"
    return RuntimeError(f"{found}: install the version that scripts/constraints.txt names")


def check_optimizer(optimizer: str, hooks: Iterable[tuple[str, TrainingHook]], parameters: Collection[str]) -> None:
    """Raise :class:`InputError` for a hook, each with its place in the recipe, that the optimizer cannot train
    under."""
    for at, hook in hooks:
        if optimizer == "prodigy" and (own := [name for name in parameters if hook.rate(name) != 1]):
            found = f"gives some parameters a rate of their own, such as {own[0]}, and Prodigy finds one for all"
            raise bad_input(at, found, "train with another optimizer, or without this")
        kind = type(hook)
        averages = kind.stepped is not TrainingHook.stepped or kind.scored is not TrainingHook.scored
        if optimizer == "schedule-free" and averages:
            found = f"'{hook.name}' changes or averages weights after a step, as Schedule-Free itself does"
            raise bad_input(at, found, "train with another optimizer, or without this")


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Use ``rate`` for the next step, times each group's factor; give the :func:`used_rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    return used_rate(optimizer, rate)


def used_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Compute the learning rate of the next step when ``rate`` is asked for; Prodigy multiplies it by its estimate."""
    return rate * optimizer.param_groups[0].get("d", 1.0)


def averages(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor] | None:
    """Give the weights that Schedule-Free scores and keeps, by name; None where the optimizer has no others.

    It takes gradients at y = (1 - beta) z + beta x, which are the ``parameters``, and keeps z and not x, the average.
    Its own `eval()` puts x in their place, from which `train()` gets y back only nearly.
    """
    if "weight_sum" not in optimizer.param_groups[0]:
        return None
    beta = optimizer.param_groups[0]["betas"][0]
    found = {}
    for name, value in parameters.items():
        found[name] = value.detach()
        if own := optimizer.state.get(value):  # none of a parameter that has taken no step
            if "z" not in own:
                raise _changed("schedulefree", "z")
            found[name] = found[name].lerp(own["z"], 1 - 1 / beta)
    return found


def memory_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Give the state that ``optimizer`` keeps of the parameters, (R, ...) each."""
    for entry in optimizer.state.values():
        yield from (value for name, value in entry.items() if name != STEP)


def gradient_norms(parameters: Iterable[torch.nn.Parameter], replicas: int) -> torch.Tensor:
    """Compute the L2 norm of each replica's whole gradient, (R,)."""
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
"""What the optimizer remembers: of each parameter, by its number, and of each group of them."""

STEP = "step"
"""The one thing that optimizers count by parameter; all else of a parameter is each replica's own."""


def moments_of(optimizer: torch.optim.Optimizer, replica: int, replicas: int) -> Moments:
    """Give the state that ``optimizer`` keeps for one replica; counters are the same for all."""
    found = optimizer.state_dict()
    moments = {
        str(number): {name: value if replicas == 1 or name == STEP else value[replica] for name, value in entry.items()}
        for number, entry in found["state"].items()
    }
    for number, group in enumerate(found["param_groups"]):
        numbers = {name: value for name, value in group.items() if type(value) in (int, float)}
        # In full: how much Schedule-Free has averaged and what Prodigy has found would be rounded to float32.
        moments[f"group {number}"] = {
            name: torch.tensor(value, dtype=torch.float64 if type(value) is float else torch.int64)
            for name, value in numbers.items()
        }
    return moments


def restore_moments(optimizer: torch.optim.Optimizer, moments: Sequence[Moments]) -> None:
    """Give ``optimizer`` the state that was kept for each of its replicas."""
    first = moments[0]
    state = {
        int(number): {
            name: value if len(moments) == 1 or name == STEP else torch.stack([own[number][name] for own in moments])
            for name, value in entry.items()
        }
        for number, entry in first.items()
        if number.isdecimal()
    }
    groups = [
        {**group, **{name: value.item() for name, value in first[f"group {number}"].items()}}
        for number, group in enumerate(optimizer.state_dict()["param_groups"])
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
