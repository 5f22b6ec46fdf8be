"""The output is linear in what learns: a probe on frozen features (Alain & Bengio 2016; Kumar et al. 2022, section
2), or the whole model's tangent (Ortiz-Jimenez et al. 2023, section 5)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.registry import STRATEGIES
from finetune.strategies.base import Strategy, single_linear, train_only
from finetune.strategies.tangent import linearise, own_origin
from finetune.strategies.whole_model import restore_whole_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ORIGIN_WEIGHTS = "origin.safetensors"
"""File that holds where the tangent model's own weights started."""


class LinearOptions(Options):
    """What it is that is linear."""

    type: Literal["linear"]
    mode: Literal["probe", "lp-ft", "linearised"] = "probe"
    """`probe`: the task's head learns, on frozen features. `lp-ft`: first a probe, then all weights learn, from the
    head that it found. `linearised`: all weights learn, head included, in the model's tangent at the pretrained weights
    and the head's first draw; learning rates are those of full tuning."""
    solver: Literal["lbfgs", "steps"] = "lbfgs"
    """How a probe is fitted, also the one that `lp-ft` begins with. `lbfgs`: logistic regression with an L2 penalty on
    features that are computed once, solved to convergence; how strong the penalty is, five-fold cross-validation
    inside the training examples decides, among ten strengths (C from 1e-4 to 1e4). Where the answer is a number it is
    ridge regression, in closed form, and leaving out each training example in turn decides among 21 penalties (alpha
    from 1e6 to 1e-4). After a stage that has learnt from the same examples and their labels, leaving some out would
    tell nothing: C and alpha are 1, scikit-learn's defaults. A validation split is not used, and what `train` says of
    steps neither; a seed changes nothing unless `vary` has `split`. `steps`: gradient steps, as `train` says."""
    probe_rate: float = Field(5.0e-3, gt=0)
    """Learning rate of the probe in `lp-ft` with `solver: steps`; `train.learning_rate` is that of full tuning."""
    probe_epochs: float = Field(20.0, gt=0)
    """Passes over the training examples that the probe in `lp-ft` may take with `solver: steps`."""
    patience: int = Field(3, ge=1)
    """Evaluations without improvement on the validation split, one an epoch, after which the probe in `lp-ft` has
    converged with `solver: steps`. Without a validation split it takes all its epochs."""

    @model_validator(mode="after")
    def _said_where_it_means_something(self) -> LinearOptions:
        # By value: a resolved recipe says everything, defaults too.
        said = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        steps = sorted(said & {"probe_rate", "probe_epochs", "patience"})
        if steps and self.solver == "lbfgs" and self.mode == "lp-ft":
            raise ValueError(f"{', '.join(steps)} say how a probe takes steps, and it is solved; write solver: steps")
        if "solver" in said and self.mode == "linearised":
            raise ValueError("solver is for a probe, and what is linearised takes steps; leave it out")
        return self


@STRATEGIES.register
class Linear(Strategy):
    """Trains the task's head on the frozen base model, and after it all weights if asked; or the model's tangent.

    Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    section 2, for the probe, which Alain & Bengio 2016 introduced, and for LP-FT, which they propose; Ortiz-Jimenez et
    al. 2023, "Task Arithmetic in the Tangent Space: Improved Editing of Pre-Trained Models", section 5, for the
    linearised model.

    Not for: a probe, tasks whose answers the pretrained features do not hold, and models without a new head. Kumar et
    al. find full tuning ahead by 2 % in domain, and the probe by 7 % out of it. A linearised model, where the score is
    all that counts: Ortiz-Jimenez et al. find it below full tuning on single tasks. A step takes up to twice as long
    as full tuning's, and scoring three times (MiniLM on a CPU); the weights are there twice, seeds are not trained side
    by side, and what is saved is no model that `from_pretrained` loads.
    """

    name: ClassVar[str] = "linear"
    Options = LinearOptions
    only_chooses: ClassVar[bool] = False

    options: LinearOptions

    @property
    def linearised(self) -> bool:
        """Tell whether the tangent model learns, and not the head alone."""
        return self.options.mode == "linearised"

    def before(self) -> tuple[Any, dict[str, Any]] | None:
        if self.options.mode != "lp-ft":
            return None
        if self.options.solver == "lbfgs":
            return LinearOptions(type="linear"), {}
        probe = {
            "learning_rate": self.options.probe_rate,
            "epochs": self.options.probe_epochs,
            "evaluations": math.ceil(self.options.probe_epochs),
            "early_stopping": {"patience": self.options.patience},
        }
        return LinearOptions(type="linear", solver="steps"), probe

    @property
    def solves(self) -> bool:
        return self.options.mode == "probe" and self.options.solver == "lbfgs"

    @property
    def pooling(self) -> Literal["model", "auto"]:
        return "model" if self.linearised else "auto"

    @property
    def needs_head(self) -> bool:
        return not self.linearised

    @property
    def can_stack(self) -> bool:
        # A stacked module would have to be a function of other weights than its own.
        return not self.linearised

    @property
    def optimizer_only(self) -> bool:
        # The tangent is taken at all weights, and not at those rows only that training meets.
        return super().optimizer_only and not self.linearised

    @property
    def library(self) -> Literal["transformers", "finetune"]:
        return "transformers" if self.options.mode == "lp-ft" else "finetune"

    @property
    def differentiates(self) -> bool:
        return self.linearised

    @property
    def reads_weights(self) -> bool:
        return self.linearised

    @property
    def contradicts(self) -> dict[str, str]:
        reason = "it asks for slopes by the input inside a pass that is derived by the weights"
        return {"smart": f"{reason}; r3f comes close to it"} if self.linearised else {}

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        if self.needs_head and not head:
            raise bad_input("strategy.type", "this model and task have no head to train", "use partial or adapter")
        if self.solves and single_linear(model, head) is None:
            layers = ", ".join(sorted({name.rpartition(".")[0] or name for name in head}))
            found = f"is lbfgs, for one linear layer, and more is new here: {layers}"
            raise bad_input("strategy.solver", found, "write task.pooling: auto where it is model; or solver: steps")
        train_only(model, head if self.options.mode == "probe" else {name for name, _ in model.named_parameters()})
        if self.linearised:
            linearise(model, head | self.changed)
        return model

    def save(self, model: Any, folder: Path) -> None:
        """Write what was trained: after LP-FT, a complete model folder; of a tangent model all weights, and in a second
        file the start of those that did not start at the base model's. A plain base model with these weights would be
        another model."""
        if self.options.mode == "lp-ft":
            return model.save_pretrained(folder)
        super().save(model, folder)
        if self.linearised:
            from safetensors.torch import save_file

            start = {name: value.cpu().contiguous() for name, value in own_origin(model).items()}
            save_file(start, folder / ORIGIN_WEIGHTS)

    def restore(self, model: Any, folder: Path) -> None:
        if self.options.mode == "lp-ft":
            return restore_whole_model(model, folder)
        super().restore(model, folder)
        if self.linearised:
            from safetensors.torch import load_file

            saved = load_file(folder / ORIGIN_WEIGHTS)
            for name, value in own_origin(model).items():
                value.copy_(saved[name])
