"""The base class of strategies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.core import options
from finetune.core.hooks import TrainingHook

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TRAINED_WEIGHTS = "trained.safetensors"
"""File that holds what a run changed, by parameter name."""


class Strategy(TrainingHook):
    """Decides which parameters learn. It never mentions batches, seeds or files of a run."""

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]
    pairs: ClassVar[bool] = False
    """True when it learns from pairs of a chosen and a rejected answer."""
    only_chooses: ClassVar[bool] = True
    """True when all that it decides is which parameters learn, so that it can stand inside a strategy that decides by
    what loss they do."""

    def __init__(self, options: Any, changed: frozenset[str] = frozenset()):
        """``changed`` names parameters of the base model that mitigations have changed before :meth:`prepare`."""
        self.options, self.changed = options, changed

    @property
    def contradicts(self) -> dict[str, str]:
        """Name the mitigations that cannot stand beside it, each with the reason."""
        return {}

    @property
    def needs_head(self) -> bool:
        """Tell whether nothing would learn without a task head that is trained from scratch."""
        return False

    @property
    def pooling(self) -> Literal["model", "auto"]:
        """Name the pooling of a new head, one vector of a text's tokens, where the task does not say it."""
        return "model"

    @property
    def reads_weights(self) -> bool:
        """Tell whether :meth:`prepare` may change weights, or compute with them: they have to be the run's own then, in
        float32."""
        return True

    @property
    def solves(self) -> bool:
        """Tell whether a linear head alone learns, and is solved for instead of trained in steps."""
        return False

    @property
    def hooks(self) -> list[Strategy]:
        """List the hooks that take part in training: itself, and the strategy inside it, if there is one."""
        return [self]

    @property
    def quantizes(self) -> bool:
        """Tell whether it keeps frozen weights in so few bits that nothing can be added to them."""
        return False

    @property
    def reward_scale(self) -> float | None:
        """Give the factor by which log-ratios of the trained model and the untuned one are rewards; None: it does not
        compare the two."""
        return None

    @property
    def last_answers(self) -> bool:
        """Tell whether its loss is about the last answer of a conversation alone, and others must not be in it."""
        return False

    @property
    def library(self) -> Literal["transformers", "peft", "finetune"]:
        """Give the hub's name of the library that opens what :meth:`save` writes: ours, where only parameters are saved
        that training has changed."""
        return "finetune"

    @property
    def training(self) -> dict[str, Any]:
        """Give the options of a recipe's `train:` section that belong to the method: set where the recipe leaves them
        out, and refused where it says otherwise."""
        return {}

    def before(self) -> tuple[options.Options, dict[str, Any]] | None:
        """Give the strategy that each run begins with, where there is one, and what of `train` is different for it:
        this one starts from what it has trained."""
        return None

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        """Mark what learns (``requires_grad``), and return the model, wrapped where the method wraps it.

        ``head`` names the parameters of the task's head, which every strategy trains. Draws (of adapter weights)
        come from torch's global generator, which the caller has set to the run's `init` stream. Raises
        :class:`InputError` when the options match nothing in this model.
        """
        raise NotImplementedError

    def save(self, model: Any, folder: Path) -> None:
        """Write what was trained, and nothing else, to ``folder``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in trained_parameters(model).items()}
        save_file(weights, folder / TRAINED_WEIGHTS)

    def restore(self, model: Any, folder: Path) -> None:
        """Put weights written by :meth:`save` into a freshly prepared model."""
        from safetensors.torch import load_file

        set_trained(model, load_file(folder / TRAINED_WEIGHTS))


def single_linear(model: torch.nn.Module, head: set[str]) -> str | None:
    """Name the linear layer that the parameters named in ``head`` make up; None where they are more than one."""
    import torch

    owners = {name.rpartition(".")[0] for name in head}
    name = owners.pop() if len(owners) == 1 else ""
    return name if name and isinstance(model.get_submodule(name), torch.nn.Linear) else None


def train_only(model: torch.nn.Module, names: set[str]) -> None:
    """Freeze every parameter but the named ones."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in names


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """List the parameters that learn, by name, in the model's own order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def set_trained(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy ``weights`` into the trained parameters; the two must have exactly the same names."""
    import torch

    parameters = trained_parameters(model)
    if parameters.keys() != weights.keys():
        differing = sorted(parameters.keys() ^ weights.keys())
        raise ValueError(f"saved weights and trained parameters differ, for instance in {differing[:3]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def set_training_mode(model: torch.nn.Module) -> None:
    """Set training mode where something learns, and evaluation mode in parts that are frozen throughout.

    Dropout inside a frozen part would only add noise to fixed features. Parts without any parameter (a dropout
    layer) go with what contains them.
    """
    model.train()
    for child in model.children():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            child.eval()
        elif parameters:
            set_training_mode(child)
