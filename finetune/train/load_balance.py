"""The auxiliary loss of mixture-of-experts models, which keeps a router from sending all tokens to few experts.

Fedus et al. 2022, "Switch Transformers", section 2.2, equations 4 to 6, of one example at a time, which DeepSeek-V3
(2024, section 2.1.2) calls sequence-wise: what else is in its micro-batch does not change an example's loss. Each layer
has its own, as in both papers, and the mean over layers is taken. transformers' models give all layers to
`load_balancing_loss_func` at once, which adds up experts of different layers by their numbers: where one layer prefers
its first expert and another its second, that looks even.

Shapes: N examples; rows and T columns of a batch; L layers with a router; E experts.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune.core.examples import Batch, Example

DEFINED = ("gate_logits", "num_experts", "top_k", "attention_mask")
"""What transformers' `load_balancing_loss_func` is given where it is the loss that is computed here."""


def find_routers(model: torch.nn.Module) -> dict[torch.nn.Module, int]:
    """Find the modules of ``model`` that choose experts, in its order, and where among their outputs the logits stand:
    those of which transformers itself can record them, whose loss it defines as it does Mixtral's."""
    found: dict[torch.nn.Module, int] = {}
    for part in model.modules():
        recorded = (getattr(part, "_can_record_outputs", None) or {}).get("router_logits", [])
        for recorder in recorded if isinstance(recorded, list) else [recorded]:
            for name, module in part.named_modules():
                inside = f".{recorder.layer_name}." in f".{name}." if recorder.layer_name else True
                if inside and isinstance(module, recorder.target_class) and _balanced(module):
                    found[module] = recorder.index
    return found


def _balanced(router: Any) -> bool:
    """Tell whether transformers defines this loss, of the softmax of its logits, for the router's family."""
    defined = getattr(sys.modules[type(router).__module__], "load_balancing_loss_func", None)
    return defined is not None and tuple(inspect.signature(defined).parameters) == DEFINED and hasattr(router, "top_k")


def balance(logits: Sequence[torch.Tensor], top_k: int, batch: Batch) -> torch.Tensor:
    """Compute E times the sum over experts of f * P for each example, its mean over layers: (N,), float32.

    f is the share of its tokens that go to the expert, each to ``top_k``, and P the router's mean probability of it:
    ``top_k`` comes out where every expert is used alike. The slope reaches P alone. ``logits`` are a layer's
    (rows * T, E) each.
    """
    real, (rows, columns) = batch.example >= 0, batch.example.shape
    # A strategy may put virtual tokens before those of a row; they are no example's.
    own = torch.stack([each.reshape(rows, -1, each.shape[-1])[:, -columns:][real] for each in logits])
    shares = own.float().softmax(-1)  # (L, tokens, E)
    chosen = torch.zeros_like(shares).scatter(-1, shares.topk(top_k).indices, 1.0)
    owners = batch.example[real]
    counts = torch.bincount(owners, minlength=batch.count)

    def mean(values: torch.Tensor) -> torch.Tensor:
        found = values.new_zeros(len(values), batch.count, values.shape[-1])
        return found.index_add(1, owners, values) / counts[:, None]

    return own.shape[-1] * (mean(chosen) * mean(shares)).sum(-1).mean(0)


@dataclass
class LoadBalance:
    """Adds to examples' losses how unevenly the routers of a model have used their experts for them."""

    routers: dict[torch.nn.Module, int]
    coefficient: float
    """What it is a multiple of: see :class:`ComputeOptions`."""
    _logits: dict[torch.nn.Module, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: torch.nn.Module, coefficient: float) -> LoadBalance | None:
        """Make that of ``model``; None where there is nothing to add."""
        return cls(find_routers(model), coefficient) if coefficient else None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within the context, keep what the routers say in the first pass: others, with noise, may follow it. What is
        computed again in the backward pass comes after it."""
        self._logits.clear()
        with ExitStack() as stack:
            for router in self.routers:
                stack.callback(router.register_forward_hook(self._keep).remove)
            yield

    def _keep(self, router: torch.nn.Module, _inputs: Any, output: Any) -> None:
        said = output[self.routers[router]] if isinstance(output, tuple) else output
        self._logits.setdefault(router, said)

    def losses(self, batch: Batch, examples: Sequence[Example]) -> torch.Tensor:
        """Compute what is added to the losses of the recorded pass's ``batch``, which holds ``examples``: (N,), nats.

        It counts as much as the example's label tokens, by whose number the sum over the whole batch is divided.
        """
        logits = [self._logits.pop(router) for router in self.routers]
        top_k: Any = next(iter(self.routers)).top_k
        weights = torch.tensor([example.weight for example in examples], device=batch.example.device)
        return self.coefficient * weights * balance(logits, top_k, batch)
