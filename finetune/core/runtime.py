"""The environment of a run: processes and device (through Accelerate), arithmetic, folder, progress, stop requests."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from finetune.core.arithmetic import PARTS
from finetune.core.env_vars import CUBLAS, Asked, overruled
from finetune.core.errors import Interrupted, bad_input
from finetune.core.memory import keep_memory, taken_by_others
from finetune.core.progress import Progress
from finetune.core.signals import StopRequest
from finetune.core.watch import Watch, patience

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """Handed from the study to its runs, and from a run to training and evaluation."""

    accelerator: Accelerator
    dtype: torch.dtype
    """Of the forward and backward pass."""
    cache: Path
    """Folder for what is too large for memory, and not needed afterwards."""
    title: str = ""
    """What the progress line calls the run."""
    part_tokens: int = PARTS[0]
    """Tokens that pass through the model at once on a CPU where the recipe does not say. On two cores MiniLM and
    SmolLM2-135M are as fast with 1,000 as with 2,000, and slower below; larger parts cost memory, which costs time."""
    shards: bool = False
    """Models are sharded over the processes, of which there are several."""
    watch: Watch | None = None
    """Over the others, where several processes do a run together."""
    progress: Progress = field(default_factory=Progress)
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def at(self, title: str, dtype: torch.dtype) -> Runtime:
        """The same for another run."""
        return replace(self, title=title, dtype=dtype)

    def sharding(self, wanted: bool) -> Runtime:
        """The same for models that are sharded, if that is ``wanted`` and there are processes to share them."""
        return replace(self, shards=wanted and self.accelerator.num_processes > 1)

    def autocast(self) -> Any:
        """Autocast to the compute dtype; weights that learn stay float32.

        Ours rather than the accelerator's, which fixes one dtype for the whole process where variants may differ.
        """
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def must_stop(self) -> bool:
        """Tell whether any process was asked to stop; all of them get the same answer."""
        return self.all_reduce_sum(self.stop.requested) > 0

    def track(self, items: Collection[T], title: str) -> Iterator[T]:
        """The ``items`` one by one, as a phase; after each of them a request to any process stops all of them.

        Every process has to have as many. Raises Interrupted.
        """
        with self.progress.phase(title, len(items)) as phase:
            for number, item in enumerate(items, start=1):
                yield item
                phase.step(number)
                if self.must_stop():
                    raise Interrupted(f"stopped while {title}")

    def close(self) -> None:
        """Watch over the other processes no longer."""
        if self.watch is not None:
            self.watch.stop()
            _watches.clear()

    def move(self) -> None:
        """Note that all processes are about to do something together: see :mod:`finetune.core.watch`."""
        if self.watch is not None:
            self.watch.move()

    def all_reduce_sum(self, value: float) -> float:
        """The sum of every process's ``value``; all of them get it, so all have to ask."""
        if self.accelerator.num_processes == 1:
            return value
        self.move()
        own = torch.tensor(value, dtype=torch.float64, device=self.device)
        return self.accelerator.reduce(own, "sum").item()

    def broadcast(self, value: Any) -> Any:
        """The first process's ``value``; all of them get it, so all have to ask."""
        if self.accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        self.move()
        return broadcast_object_list([value])[0]


def make_deterministic(wanted: bool) -> None:
    """Use only deterministic kernels, or whichever are fastest."""
    os.environ.setdefault(*CUBLAS)
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # Filling fresh memory finds reads of uninitialised values; it costs time and we have none.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def allow_tf32(wanted: bool) -> None:
    """Multiply float32 matrices on a GPU in TF32, or in full."""
    torch.backends.cuda.matmul.fp32_precision = "tf32" if wanted else "ieee"


def asked_of(device: torch.device, dtype: torch.dtype, compiled: bool | str = False, tf32: bool = False) -> Asked:
    """Collect the settings that an environment variable could contradict, spelt as such variables spell them."""
    return Asked(str(device), str(dtype).removeprefix("torch."), compiled, tf32)


def open_runtime(
    device: torch.device, dtype: torch.dtype, progress: Progress, stop: StopRequest, cache: Path
) -> Runtime:
    """Find the processes that this one belongs to. Only the first process shows anything."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    accelerator = _accelerator(device)
    shown = progress if accelerator.is_main_process else Progress()
    for line in overruled(asked_of(device, dtype)):
        shown.say(line)
    if device.type == "cuda" and (others := taken_by_others(device)):
        shown.say(f"{device}: other processes have {others / 1e9:.1f} GB of its memory, and may slow it down")
    keep_memory()
    return Runtime(accelerator, dtype, cache, watch=watch_over(accelerator), progress=shown, stop=stop)


_watches: dict[int, Watch] = {}
"""By process group: one for all studies of a process."""


def watch_over(accelerator: Accelerator) -> Watch | None:
    """Begin to watch over the other processes, where there are any."""
    if accelerator.num_processes == 1 or not torch.distributed.is_initialized():
        return None
    store: Any = torch.distributed.distributed_c10d._get_default_store()
    if id(store) not in _watches:
        own = Watch(store, accelerator.process_index, accelerator.num_processes, patience())
        accelerator.wait_for_everyone()
        own.start()
        _watches[id(store)] = own
    return _watches[id(store)]


def _accelerator(device: torch.device) -> Accelerator:
    """Make Accelerate's view of the processes, in which nothing from outside changes arithmetic or steps.

    What is not said here it would read from the environment, or take from an Accelerator that this process has had.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, GradientAccumulationPlugin, InitProcessGroupKwargs

    # Our own watch, which says who it was, comes first.
    kept = InitProcessGroupKwargs(timeout=timedelta(seconds=2 * patience()))
    try:
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="no",
            dynamo_backend="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[kept],
        )
    except ValueError as error:
        found = f"Accelerate cannot do what the recipe asks for: {error}"
        raise bad_input(None, found, "start finetune in a process of its own, without accelerate's settings") from error
    others = int(os.environ.get("WORLD_SIZE") or 1)
    if others > accelerator.num_processes:
        found = f"WORLD_SIZE={others} is set in the environment, and this process is alone: LOCAL_RANK is not set"
        raise bad_input(None, found, "start all processes with torchrun, or unset WORLD_SIZE")
    plain = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if accelerator.device.type != device.type or accelerator.distributed_type not in plain:
        found = f"Accelerate runs on {accelerator.device}, distributed as {accelerator.distributed_type.value}"
        advice = f"this recipe runs on {device.type}, each process with the whole model; unset accelerate's settings"
        raise bad_input("model.device", found, advice)
    return accelerator
