"""The options of a recipe's `train:` section."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from finetune.core.options import OPERATIONAL, Options


class EarlyStopping(Options):
    """Stop when the validation score has not improved for a while."""

    patience: int = Field(3, ge=1)
    """Evaluations without improvement before training stops."""
    min_delta: float = Field(0.0, ge=0)
    """Smallest change that counts as an improvement, in the metric's own unit."""


class Divergence(Options):
    """When a run is declared diverged. A loss or gradient that is not finite always is."""

    explode_factor: float = Field(5.0, gt=1)
    """The smoothed loss may reach this many times the mean of the first `window` steps."""
    window: int = Field(20, ge=1)
    """Steps, both for the starting level and for the moving average that is held against it."""


class Plateau(Options):
    """How the rate falls under `schedule: plateau`, by the score that picks the weights to keep (`select`)."""

    factor: float = Field(0.5, gt=0, lt=1)
    """What the rate is multiplied with each time."""
    patience: int = Field(1, ge=1)
    """Evaluations without improvement before the rate falls, counted anew after each fall."""


class Prodigy(Options):
    """How `optimizer: prodigy` works (Mishchenko & Defazio 2024, "Prodigy", algorithm 4); betas, epsilon and decay are
    those of AdamW."""

    d0: float = Field(1.0e-6, gt=0)
    """The first estimate of the rate, which can only rise, and from the default takes some tens of steps to arrive:
    training that is shorter wants a larger one, though none above the right rate."""
    d_coef: float = Field(1.0, gt=0)
    """Scale of the estimate; the authors tune this one first, between 0.5 and 2."""
    safeguard_warmup: bool = True
    """Leave the warmup out of the estimate, which would overshoot otherwise."""
    bias_correction: bool = False
    """Adam's bias correction, which the paper leaves out. With it the first steps are smaller, and the estimate takes
    many times as long to rise."""


OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "schedule-free": {"schedule": "constant"},
    "prodigy": {"learning_rate": 1.0},
    "lion": {"betas": [0.9, 0.99]},
}
"""Defaults of other options that go with an optimizer."""

ALONE = ("prodigy", "plateau")
"""Optimizer and schedule under which the rate depends on what one run has met: runs are not trained side by side."""


class TrainOptions(Options):
    """How the trained parameters are fitted. The defaults are the stable recipe of Mosbach et al. 2021, section 6."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training examples; raised when needed to reach `min_steps`."""
    min_steps: int = Field(100, ge=0)
    """Floor on optimizer steps: with few examples a few epochs are too few steps to converge (Mosbach 2021)."""
    max_steps: int | None = Field(None, ge=1)
    """Ceiling on optimizer steps, whatever `epochs` and `min_steps` say."""
    optimizer: Literal["adamw", "schedule-free", "prodigy", "lion", "adafactor", "muon"] = "adamw"
    """What takes the steps: AdamW with bias correction; its Schedule-Free form, which scores and keeps an average of
    the weights instead of lowering the rate (Defazio et al. 2024); Prodigy, which finds the rate itself; Lion, which
    steps by signs (Chen et al. 2023); Adafactor, which remembers rows and columns (Shazeer & Stern 2018); or Muon for
    the matrices of the blocks, whose steps are made orthogonal (Jordan et al. 2024), and AdamW for the rest."""
    learning_rate: float = Field(5.0e-5, gt=0)
    """Peak learning rate. Full tuning wants about 1e-5 to 5e-5, LoRA 1e-4 to 1e-3, a probe 1e-3 to 1e-2; Schedule-Free
    1 to 10 times as much, Lion 0.1 to 0.3 times as much, Muon as much as AdamW. With Prodigy a scale of the rate that
    it finds; default then 1."""
    chosen_by: str | None = Field(None, min_length=1, json_schema_extra=OPERATIONAL)
    """How the learning rate and the other settings were chosen, in words, such as "12 rates on the validation part": it
    stands beside the report's verdict, which otherwise says that nobody told."""
    schedule: Literal["linear", "cosine", "constant", "plateau"] = "linear"
    """How the rate decays after the warmup: to zero along a line or a half cosine, not at all, or each time that the
    validation score no longer improves. Default with Schedule-Free: constant."""
    plateau: Plateau = Plateau()
    prodigy: Prodigy = Prodigy()
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from zero."""
    batch_size: int = Field(16, ge=1)
    """Examples in one optimizer step, over all processes and accumulated micro-batches."""
    batch_tokens: int | None = Field(None, ge=1)
    """About so many tokens in one optimizer step, instead of `batch_size` examples. Losses are divided by the mean
    batch's weight, so that every example counts the same, whatever its length."""
    micro_batch_size: int | None = Field(None, ge=1, json_schema_extra=OPERATIONAL)
    """Examples that pass through the model at once on one process; the batch is accumulated from such parts. The
    loss does not depend on it. Default: the whole batch, halved as often as memory runs out."""
    micro_batch_tokens: int | None = Field(None, ge=1, json_schema_extra=OPERATIONAL)
    """Tokens that pass through the model at once on one process, padding among them. Default: no limit on a GPU; on a
    CPU 1,536, or what is clearly faster here: that is measured once where a variant has a hundred steps or more; of a
    large model fewer, so that their activations come to 0.75 GB."""
    replicas: int | Literal["auto"] = Field("auto", json_schema_extra=OPERATIONAL)
    """Seeds of a variant that are trained side by side in one process, as one batched computation. `auto` measures
    what is fastest here; 1: one after the other."""
    length_window: int = Field(16, ge=1)
    """Batches within which examples are sorted by length, so that little is padding. 1: plain shuffling."""
    compile: bool | Literal["auto"] = Field("auto", json_schema_extra=OPERATIONAL)
    """Run the model's blocks through `torch.compile`. `auto`: in long training, where measuring shows that it pays for
    the time that compiling takes. Never where dropout is at work, whose masks the compiler would draw otherwise."""
    prefix_cache: bool = Field(True, json_schema_extra=OPERATIONAL)
    """Compute once, for all steps, seeds and evaluations, what the frozen bottom of a model makes of an example."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled decay of AdamW; biases, norms and other one-dimensional parameters are not decayed."""
    betas: tuple[float, float] = Field((0.9, 0.999), strict=False)
    """Decay rates of AdamW's two moments; of Lion's mean, within a step and after it: default then 0.9 and 0.99."""
    epsilon: float = Field(1.0e-6, gt=0)
    """AdamW's denominator constant."""
    clip: float | None = Field(1.0, gt=0)
    """Largest L2 norm of the gradient; null: no clipping."""
    evaluations: int = Field(5, ge=0)
    """How many times the validation split is scored during training, evenly spaced, the last at the end. Fewer when
    there are fewer steps; 0 or no validation split: the last weights are kept."""
    select: str = "loss"
    """Validation metric that picks the weights to keep: `loss`, or a metric of the task."""
    keep: Literal["best", "last"] = "best"
    """Which weights are scored and saved: the best by `select`, or those of the last step."""
    early_stopping: EarlyStopping | None = None
    """Stop early on the validation split; null: never."""
    divergence: Divergence = Divergence()
    checkpoint_seconds: float = Field(120.0, ge=0, json_schema_extra=OPERATIONAL)
    """Shortest time between two checkpoints; 0: after every step. A stop signal writes one at once."""
    save_model: bool = Field(True, json_schema_extra=OPERATIONAL)
    """Write the trained weights to the run's `model/` folder (an adapter or partial run: only what changed)."""
    deterministic: bool = True
    """Use deterministic kernels, so that the same seed gives bit-identical results on the same machine; torch warns
    of the rare one that has no such form."""

    @model_validator(mode="before")
    @classmethod
    def _with_the_optimizers_own(cls, said: Any) -> Any:
        """Fill in the defaults that go with the optimizer, where the recipe does not say."""
        return {**OWN_DEFAULTS.get(str(said.get("optimizer")), {}), **said} if isinstance(said, dict) else said
