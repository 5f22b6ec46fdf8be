"""The features of examples under a frozen model, as a linear head gets them: one vector for each, computed once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from finetune.core.examples import Batch, Example
from finetune.core.memory import out_of_memory
from finetune.core.runtime import Runtime
from finetune.core.sharding import reshard
from finetune.evaluate.predict import batches_of
from finetune.models.pooled import PooledForSequenceClassification, pool
from finetune.replicas.prefix import IN_MEMORY
from finetune.tasks.base import Task


def extract(
    model: torch.nn.Module,
    head: str,
    task: Task,
    examples: Sequence[Example],
    modes: Sequence[str],
    size: int,
    runtime: Runtime,
) -> dict[str, torch.Tensor]:
    """Compute, by pooling mode, the inputs of the linear layer called ``head`` for each of ``examples``: (N, F)
    float32.

    ``modes`` are of a head of our own; of another model the one mode is its own, whatever it is called. Processes
    share the work, and all get all of it. Arrays too large for memory are mapped from disk.
    """
    batches = batches_of(examples, task, size)
    accelerator, found = runtime.accelerator, dict[str, torch.Tensor]()
    model.eval()
    for start in runtime.track(range(0, len(batches), accelerator.num_processes), f"{runtime.title}: features"):
        # A process with nothing left does the last batch once more, so that all have as many.
        batch = batches[min(start + accelerator.process_index, len(batches) - 1)]
        vectors = _vectors(model, head, task, [examples[index] for index in batch], modes, runtime)
        for mode, own in vectors.items():
            if mode not in found:
                found[mode] = room((len(examples), own.shape[1]), torch.float32, runtime.cache).zero_()
            if start + accelerator.process_index < len(batches):
                found[mode][torch.tensor(batch)] = own
    reshard(model)
    if accelerator.num_processes > 1:
        for mode in modes:  # each has its own rows, and zeros in those of others
            found[mode] = accelerator.reduce(found[mode].to(runtime.device), "sum").cpu()
    return found


def room(size: tuple[int, ...], dtype: torch.dtype, folder: Path) -> torch.Tensor:
    """Make room for an array: in memory, or mapped from a file in ``folder`` that vanishes with the process."""
    count = torch.Size(size).numel()
    if count * dtype.itemsize <= IN_MEMORY:
        return torch.empty(size, dtype=dtype)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".features-", delete=False) as file:
        file.truncate(count * dtype.itemsize)
    mapped = torch.from_file(file.name, shared=True, size=count, dtype=dtype)
    Path(file.name).unlink()
    return mapped.reshape(size)


def _vectors(
    model: Any, head: str, task: Task, examples: Sequence[Example], modes: Sequence[str], runtime: Runtime
) -> dict[str, torch.Tensor]:
    """Compute the vectors of one batch, which is halved when memory runs out."""
    try:
        batch = task.collate(examples).to(runtime.device)
        with torch.no_grad(), runtime.autocast():
            if isinstance(model, PooledForSequenceClassification):
                hidden = model.features(**batch.inputs)
                found = {mode: pool(hidden, batch.inputs["attention_mask"], mode) for mode in modes}
            else:
                found = {modes[0]: _before(model, head, batch)}
        return {mode: vectors.float().cpu() for mode, vectors in found.items()}
    except RuntimeError as error:
        if not out_of_memory(error) or len(examples) == 1 or runtime.shards:  # processes pass together
            raise
        half = len(examples) // 2
    parts = [_vectors(model, head, task, part, modes, runtime) for part in (examples[:half], examples[half:])]
    return {mode: torch.cat([part[mode] for part in parts]) for mode in modes}


def _before(model: torch.nn.Module, head: str, batch: Batch) -> torch.Tensor:
    """Compute the inputs of the layer called ``head``: the model's logits, while that layer passes its inputs on."""
    parent, _, name = head.rpartition(".")
    owner = model.get_submodule(parent)
    layer = owner.get_submodule(name)
    setattr(owner, name, torch.nn.Identity())
    try:
        return model(**batch.inputs).logits
    finally:
        setattr(owner, name, layer)


def looks_back_only(model: PooledForSequenceClassification, example: Example, runtime: Runtime) -> bool:
    """Tell whether no token sees a later one: then only the last has seen the whole text."""
    ids = torch.tensor(example.inputs["input_ids"][:64].astype("int64"), device=runtime.device)[None]
    first = ids.shape[1] // 2
    if first == 0:
        return False
    embeddings: Any = model.get_input_embeddings()
    other = torch.cat([ids[:, :first], (ids[:, first:] + 1) % embeddings.num_embeddings], 1)
    model.eval()
    with torch.no_grad(), runtime.autocast():
        one, two = (model.features(given, torch.ones_like(given))[0, :first].float() for given in (ids, other))
    return bool((one - two).abs().max() <= 1e-6 * one.abs().max())


def scaled(vectors: torch.Tensor, normalised: bool) -> torch.Tensor:
    """Divide each of ``vectors`` (N, F) by its length where they are to be ``normalised``."""
    return normalize(vectors, dim=-1) if normalised else vectors
