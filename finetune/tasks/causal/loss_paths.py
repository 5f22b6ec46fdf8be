"""Loss paths: how to compute the losses of a causal language model, from fast ones that some models cannot take to the
plainest. Which of them give the same as the plainest is found by trying. Shapes: N examples; rows and T columns of a
batch; C columns that carry a label; V tokens in the vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad

from finetune.core.examples import Batch, Outputs
from finetune.core.memory import out_of_memory
from finetune.tasks.causal.label_loss import label_losses
from finetune.tasks.causal.packing import unpacked
from finetune.tasks.conversation import IGNORED

Head = Literal["chunks", "labels", "everywhere"]
HEADS: dict[Head, str] = {
    "chunks": "labels only, in chunks",
    "labels": "labels only",
    "everywhere": "all positions",
}
"""Where logits are computed, in words. `chunks` takes the output layer's work over; the others leave it to it."""

_PLAINEST: Head = "everywhere"


@dataclass(frozen=True)
class LossPath:
    """A way to compute the losses of a model: what shares a row, and where logits are computed."""

    packed: bool
    """Several examples in a row."""
    head: Head

    def __str__(self) -> str:
        return f"{'packed' if self.packed else 'one example a row'}, {HEADS[self.head]}"


def losses_of(model: torch.nn.Module, batch: Batch, head: Head, ahead: bool = True) -> torch.Tensor:
    """Compute the negative log-likelihood of each example's labels, summed: (N,), float32, nats.

    Each position predicts the token ``ahead`` of it, or, in a masked model, its own.
    """
    targets = _wanted(batch, ahead)
    compute = {"chunks": _in_chunks, "labels": _at_labels, "everywhere": _everywhere}[head]
    found, owners = compute(model, batch, targets)
    return found.new_zeros(batch.count).index_add(0, owners.clamp(min=0), found)


def _wanted(batch: Batch, ahead: bool) -> torch.Tensor:
    """Give the token that each position has to predict. The first token of an example is no label: none predicts
    another's."""
    return pad(batch.targets[:, 1:], (0, 1), value=IGNORED) if ahead else batch.targets


def outputs_of(model: torch.nn.Module, batch: Batch, head: Head, ahead: bool = True) -> Outputs:
    """Compute the logits of the labels, all at once."""
    targets = _wanted(batch, ahead)
    learnt = targets != IGNORED
    if head == "everywhere":
        logits = _logits(model, batch)[learnt]
    else:
        output = output_layer(model)
        own, place = output.forward, _columns(learnt)
        with _standing_in(output, lambda hidden: own(hidden[place])):
            logits = _logits(model, batch)[learnt[place]]
    return Outputs(logits.float(), targets[learnt], batch.example[learnt], batch.count)


def plain_outputs(model: torch.nn.Module, ids: np.ndarray, targets: np.ndarray, ahead: bool = True) -> Outputs:
    """Compute the logits of one example's labels, from a model that is given its tokens ``ids`` (T,) and nothing
    else."""
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor(ids).long()[None].to(device)).logits[0].float()
    wanted = torch.tensor(targets).long().to(device)
    wanted = pad(wanted[1:], (0, 1), value=IGNORED) if ahead else wanted
    learnt = wanted != IGNORED
    return Outputs(logits[learnt], wanted[learnt], torch.zeros_like(wanted[learnt]), 1)


def _columns(learnt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find rows and columns (rows, C) of the labels of each row, in order, filled up with others where another row has
    more."""
    width = max(int(learnt.sum(1).max()), 1)
    columns = (~learnt).int().argsort(dim=1, stable=True)[:, :width]
    return torch.arange(len(columns), device=columns.device)[:, None], columns


def _in_chunks(model: torch.nn.Module, batch: Batch, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the losses of the labels, and the example that each belongs to, without the output layer's own work."""
    output, place = output_layer(model), (targets != IGNORED).nonzero(as_tuple=True)
    rows, columns = (each[None] for each in place)
    with _standing_in(output, lambda hidden: hidden[rows, columns]):
        hidden = _logits(model, batch)[0]
    return label_losses(hidden, output.weight, output.bias, targets[place]), batch.example[place]


def _at_labels(model: torch.nn.Module, batch: Batch, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same from the model's logits (rows, C, V): of each row the columns with a label, filled up with
    others where another row has more."""
    output, place = output_layer(model), _columns(targets != IGNORED)
    own = output.forward
    with _standing_in(output, lambda hidden: own(hidden[place])):
        logits = _logits(model, batch)
    return _cross_entropies(logits, targets[place]), batch.example[place].flatten()


def _everywhere(model: torch.nn.Module, batch: Batch, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same from logits of every position: (rows, T, V)."""
    return _cross_entropies(_logits(model, batch), targets), batch.example.flatten()


def _logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    inputs: dict[str, Any] = {name: value for name, value in batch.inputs.items() if _accepts(model, name)}
    if "attention_mask" in inputs and _counts_from_padding(model):
        inputs.pop("position_ids", None)  # one example a row, whose positions it counts by itself
    if _accepts(model, "use_cache"):
        inputs["use_cache"] = False  # a cache costs memory, and transformers does not look for packed rows beside one
    return model(**inputs).logits


def _counts_from_padding(model: torch.nn.Module) -> bool:
    """Tell whether positions count from `padding_idx` + 1 and not from 0, as those of RoBERTa and its kin do."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    return any(getattr(getattr(table, "plain", table), "padding_idx", None) is not None for table in tables)


def _cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none")


_found: WeakKeyDictionary[torch.nn.Module, LossPath] = WeakKeyDictionary()


def loss_path_of(model: torch.nn.Module, tokens: Sequence[int], rows: int) -> LossPath:
    """Find the fastest loss path that agrees with the plainest, by trying; it is kept for each model.

    It is tried with ``tokens``, any that differ, on ``rows`` rows (a stack of R replicas takes no fewer than R).
    No random number is drawn.
    """
    model = bare(model)
    if model not in _found:
        with torch.no_grad(), evaluating(model):
            _found[model] = _try(model, tokens, rows)
    return _found[model]


_masked: WeakKeyDictionary[torch.nn.Module, Head] = WeakKeyDictionary()


def masked_head_of(model: torch.nn.Module, tokens: Sequence[int], rows: int) -> Head:
    """Find where a masked model's logits are best computed: like :func:`loss_path_of`, for models that see both
    sides."""
    if bare(model) not in _masked:
        text = torch.tensor(tokens, device=next(model.parameters()).device).expand(rows, -1)
        example = torch.arange(rows, device=text.device)[:, None].expand_as(text)
        targets = text.where(torch.arange(text.shape[1], device=text.device) % 3 == 0, IGNORED)
        return head_on(model, Batch({"input_ids": text, "attention_mask": torch.ones_like(text)}, targets, example))
    return _masked[bare(model)]


def head_on(model: torch.nn.Module, batch: Batch) -> Head:
    """Find where the logits of a model whose positions predict their own labels are best computed, by trying
    ``batch``; it is kept for each model."""
    model = bare(model)
    if model not in _masked:
        with torch.no_grad(), evaluating(model):
            wanted = losses_of(model, batch, _PLAINEST, ahead=False)
            agreeing = (
                head for head in _possible_heads(model, batch) if _right(model, batch, head, wanted, ahead=False)
            )
            _masked[model] = next(agreeing, _PLAINEST)
    return _masked[model]


def _try(model: torch.nn.Module, tokens: Sequence[int], rows: int) -> LossPath:
    text = torch.tensor(tokens, device=next(model.parameters()).device)
    # An example beside a copy of itself: a model that looks across finds all answers there.
    beside_itself, beside_another = _pairs(text, text, rows), _pairs(text.flip(0), text, rows)
    apart = unpacked(beside_itself)
    wanted, tolerance = losses_of(model, apart, _PLAINEST), tolerance_of(model)
    agreeing = (head for head in _possible_heads(model, apart) if _right(model, apart, head, wanted))
    head = next(agreeing, _PLAINEST)
    logging.getLogger("transformers.modeling_utils").addFilter(_not_about_masks)
    packed, other = losses_of(model, beside_itself, head), losses_of(model, beside_another, head)
    # The second of a pair has the same loss, to the last bit, whatever the first one is; and, as attention may round
    # otherwise in longer rows, nearly the same as alone.
    alone = torch.equal(packed[1::2], other[1::2])
    return LossPath(alone and agree(packed, wanted, 4 * tolerance), head)


def _possible_heads(model: torch.nn.Module, batch: Batch) -> list[Head]:
    """List the heads that the structure of ``model`` allows, the fastest first."""
    output = output_layer(model)
    if output is None:
        return []
    own, said = output.forward, []

    def shout(hidden: torch.Tensor) -> torch.Tensor:
        logits = own(hidden)
        said.append(torch.linspace(-100, 100, logits.shape[-1], device=logits.device).expand_as(logits).to(logits))
        return said[-1]

    with _standing_in(output, shout):
        heard = _logits(model, batch)
    if len(said) != 1:
        return []
    # Small logits would hide a model that caps or scales them afterwards, and training can make them large.
    untouched = torch.equal(heard.float(), said[0].float())
    # A model with a forward pass of its own may do more with its weights than its class does.
    own_pass = "forward" in vars(without_adapter(model))
    plain = type(output) is torch.nn.Linear and output.weight.ndim == 2 and not own_pass
    return ["chunks", "labels"] if plain and untouched else ["labels"]


def _pairs(first: torch.Tensor, second: torch.Tensor, rows: int) -> Batch:
    """Make ``rows`` rows, each with two examples, whose every token is a label."""
    ids = torch.cat([first, second]).expand(rows, -1)
    lengths = torch.tensor([len(first), len(second)], device=ids.device)
    positions = torch.cat([torch.arange(len(first)), torch.arange(len(second))]).to(ids.device)
    example = torch.arange(2 * rows, device=ids.device).view(rows, 2).repeat_interleave(lengths, dim=1)
    targets = ids.where(positions > 0, IGNORED)
    return Batch({"input_ids": ids, "position_ids": positions.expand(rows, -1)}, targets, example)


def _right(model: torch.nn.Module, batch: Batch, head: Head, wanted: torch.Tensor, ahead: bool = True) -> bool:
    """Tell whether ``head`` gives the losses ``wanted``. A model that works on what its output layer gives, such as
    ESM's, which adds a bias, fails on hidden states there."""
    try:
        found = losses_of(model, batch, head, ahead)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return False
    return agree(found, wanted, tolerance_of(model))


def agree(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> bool:
    return torch.allclose(found, wanted, rtol=tolerance, atol=0)


def tolerance_of(model: torch.nn.Module) -> float:
    """Choose the relative tolerance of sums over tokens, which round less than each of them."""
    parameter = next(model.parameters())
    kind = parameter.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype
    return max(1e-5, torch.finfo(dtype).eps / 4)


def _not_about_masks(record: logging.LogRecord) -> bool:
    """Drop transformers' advice to pass a mask, which would keep it from separating packed examples."""
    return "passing in an `attention_mask`" not in record.getMessage()


# Hold of a model


def bare(model: torch.nn.Module) -> Any:
    """Take off a process group's wrapper, which hides ``generate`` and the arguments of ``forward``."""
    from torch.nn.parallel import DistributedDataParallel

    return model.module if isinstance(model, DistributedDataParallel) else model


def without_adapter(model: torch.nn.Module) -> Any:
    """Take off peft's wrapper, if there is one: the transformers model inside."""
    inner = bare(model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def output_layer(model: torch.nn.Module) -> Any:
    """Find the layer that turns hidden states into logits; None where the model does not tell."""
    return without_adapter(model).get_output_embeddings()


def _accepts(model: torch.nn.Module, argument: str) -> bool:
    return argument in inspect.signature(without_adapter(model).forward).parameters


@contextmanager
def _standing_in(layer: Any, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within the context, let ``forward`` do the work of ``layer``, whose weights, hooks and place in the model
    stay."""
    before = vars(layer).get("forward")
    vars(layer)["forward"] = forward
    try:
        yield
    finally:
        del vars(layer)["forward"]
        if before is not None:
            vars(layer)["forward"] = before


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Within the context, let nothing be random; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
