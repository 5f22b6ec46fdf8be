"""Where in a model a method is put: full names of layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune.core.errors import bad_input, did_you_mean

OWN = ("adaption_prompt", "beft", "ia3", "trainable_tokens")
"""Methods that go where their papers say, of which peft has a table by model."""


STATE_SPACE = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Families whose state-space blocks hand whole layers to a kernel: peft refuses some of these."""
PASSED_BY = ("conv1d", "dt_proj", "out_proj", "x_proj")
"""The layers of such a block whose weights the kernel reads for itself, so that it would pass by an adapter there."""
SCANNED = ("dt_proj",)
"""The same of any other family's state-space block: what the scan itself multiplies with."""


def places_of(
    method: str, model: PreTrainedModel, heads: Sequence[str], targets: str | Sequence[str] | None
) -> list[str] | None:
    """Find the full names of layers for ``method``, peft's name of it; None: peft knows.

    Never of the head, which learns as a whole, nor the output layer. Raises :class:`InputError` when a target matches
    nothing.
    """
    if targets is None and method in OWN:
        return None
    outside = (*heads, *passed_by(model))
    usual = [name for name in (norms(model) if method == "ln_tuning" else linear(model)) if not inside(name, outside)]
    if targets is None or targets == "all-linear":
        return usual
    wanted = [targets] if isinstance(targets, str) else targets
    embeddings = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)]
    chosen: set[str] = set()
    for target in wanted:
        matching = {name for name in [*usual, *embeddings] if name == target or name.endswith(f".{target}")}
        if not matching:
            endings = {name.rpartition(".")[2] for name in usual}
            if any(f".{name}".endswith(f".{target}") for name in passed_by(model)):
                found = f"'{target}' is read by this {model.config.model_type} model's kernels, past any adapter on it"
                raise bad_input("strategy.targets", found, f"leave it out, or write {', '.join(sorted(endings))}")
            raise bad_input(
                "strategy.targets", f"'{target}' matches no layer of this model", did_you_mean(target, endings)
            )
        chosen |= matching
    return sorted(chosen)


def passed_by(model: PreTrainedModel) -> list[str]:
    """Find the layers whose weights a model uses without running them: an adapter there would learn nothing."""
    layers = PASSED_BY if getattr(model.config, "model_type", None) in STATE_SPACE else SCANNED
    blocks = [name for name, module in model.named_modules() if hasattr(module, "A_log")]
    return [f"{block}.{layer}" for block in blocks for layer in layers if hasattr(model.get_submodule(block), layer)]


def linear(model: PreTrainedModel) -> list[str]:
    """Find all linear layers but the output layer of a language model, sorted."""
    output = model.get_output_embeddings()
    return sorted(
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output
    )


def norms(model: PreTrainedModel) -> list[str]:
    """Find all normalisation layers, sorted: architectures bring their own, which all have the word in their name."""
    return sorted(
        name
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and any(True for _ in module.parameters(recurse=False))
    )


def outermost(model: torch.nn.Module, head: Collection[str]) -> list[str]:
    """Find the largest modules that are made of parameters in ``head`` alone, sorted: peft, which knows the usual names
    of heads, saves them whole, and cannot load what is saved in parts as well."""
    found = {name.rpartition(".")[0] for name in head}
    for name in sorted(found):
        while parent := name.rpartition(".")[0]:
            module = model.get_submodule(parent)
            inside = {f"{parent}.{own}" for own, _ in module.named_parameters()}
            if not inside <= set(head) or isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict):
                break
            found = {one for one in found if not one.startswith(f"{parent}.")} | {parent}
            name = parent
    # A language model's output layer is no head, and is often the embeddings' own: what only its module holds, a bias
    # that begins at zero, stays as it is.
    output = _output(model)
    return sorted(name for name in found if all(module is not output for module in model.get_submodule(name).modules()))


def _output(model: torch.nn.Module) -> torch.nn.Module | None:
    """Find the output layer of a language model, if it is one."""
    found: torch.nn.Module | None = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return found


def inside(name: str, modules: Sequence[str]) -> bool:
    """Tell whether ``name`` is one of ``modules``, or a part of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
