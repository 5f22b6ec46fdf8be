"""The recipe as a whole. Each section's options live beside the code that reads them; here they are assembled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from finetune.core.compute import ComputeOptions
from finetune.core.options import OPERATIONAL, Options
from finetune.core.randomness import STREAMS, StreamName, Streams
from finetune.core.registry import ADVICE, MITIGATIONS, STRATEGIES, TASKS, Registry
from finetune.core.tracking import TrackingOptions
from finetune.data.options import DataOptions, Source
from finetune.evaluate.options import BaselineOptions, ScoringOptions
from finetune.models import ModelOptions
from finetune.tasks.harness.options import HarnessOptions
from finetune.train.options import OWN_DEFAULTS, TrainOptions

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$"
"""Names become folders and files, whose systems end at 255 characters."""

MOST_SEEDS = 10_000


def _choice(registry: Registry[Any]) -> Any:
    """The type of a section that chooses one plug-in by `type`."""
    options = tuple(plugin.Options for plugin in registry.all().values())
    if not options:

        def refuse(value: Any) -> Any:
            raise ValueError(f"there is no {registry.kind} to choose from in this version; leave it out")

        return Annotated[dict[str, Any], BeforeValidator(refuse)]
    return options[0] if len(options) == 1 else Annotated[Union[options], Field(discriminator="type")]  # noqa: UP007


def _expand_seeds(value: Any) -> Any:
    if isinstance(value, list | dict | SeedsUntil):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(
            "must be a whole number (how many seeds), a list of whole numbers (the seeds), or a section with `until`"
        )
    if not 1 <= value <= MOST_SEEDS:
        raise ValueError(f"is {value}; at least 1 and at most {MOST_SEEDS} seeds can be asked for")
    return list(range(value))


class Precision(Options):
    """The width of an interval that is narrow enough."""

    ci_width: float = Field(gt=0)
    """Full width, from end to end, of the 95 % interval of the mean over seeds, on the held-out examples as they are:
    of the first held-out task's first metric. In points: 1 is one percentage point, or 0.01 of a coefficient, or one
    point of a score up to 100; of a metric without points, such as a loss, in its own unit."""


class SeedsUntil(Options):
    """Adds seeds until every variant's mean is known well enough. The interval is a confidence sequence, which holds
    although the scores decide how many seeds there are, and is wider than that of a number fixed before. All variants
    have the same seeds, 0, 1, 2, ..., so that they can be compared in pairs; as many are added at once as are trained
    side by side. A confidence sequence is for scores without collapses: it is of the runs that work, and as soon as
    one fails seeds are added up to `at_most`, because how often that happens is then what is not known."""

    until: Precision
    """When to stop."""
    at_least: int = Field(5, ge=2, le=MOST_SEEDS)
    """Seeds after which the widths are looked at for the first time. Under four there is no interval yet."""
    at_most: int = Field(30, ge=2, le=MOST_SEEDS)
    """Seeds at which it ends, however wide the intervals are."""

    @model_validator(mode="after")
    def _in_this_order(self) -> SeedsUntil:
        if self.at_least > self.at_most:
            default = "" if "at_least" in self.model_fields_set else " by default"
            raise ValueError(f"at_least is {self.at_least}{default}, more than at_most, which is {self.at_most}")
        return self


def _in_order(streams: list[StreamName]) -> list[StreamName]:
    return sorted(streams, key=STREAMS.index)


def _distinct(values: list[Any]) -> list[Any]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"names {', '.join(twice)} more than once")
    return values


if TYPE_CHECKING:
    from typing import TypeAlias

    RuleName: TypeAlias = str
    TaskOptions: TypeAlias = Any
    StrategyOptions: TypeAlias = Any
    MitigationOptions: TypeAlias = Any
else:
    RuleName = Literal[tuple(ADVICE.all())]
    TaskOptions, StrategyOptions, MitigationOptions = _choice(TASKS), _choice(STRATEGIES), _choice(MITIGATIONS)

Seeds = Annotated[
    Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)] | SeedsUntil,
    BeforeValidator(_expand_seeds, json_schema_input_type=int | list[int] | SeedsUntil),
]


Vary = Annotated[list[StreamName], Field(min_length=1), AfterValidator(_distinct), AfterValidator(_in_order)]


def _as_the_strategy_trains(section: Any) -> Any:
    """The same section with what its strategy wants of training, where the recipe does not say it."""
    wanted = STRATEGIES.get(section.strategy.type)(section.strategy).training
    filled_in = OWN_DEFAULTS.get(section.train.optimizer, {})  # which nobody has written
    said = section.train.model_dump(exclude_unset=True)
    said = {key: value for key, value in said.items() if key not in filled_in or value != filled_in[key]}
    if wanted.keys() <= said.keys():
        return section
    return section.model_copy(update={"train": TrainOptions.model_validate({**wanted, **said})})


class Stage(Options):
    """Training that precedes the task's own: on unlabelled text, or on another task. It is done once, under one seed,
    and what comes out is shared by all runs that start from it: by those of one split, where it learns from the run's
    own examples and `vary` gives each seed a split."""

    name: str = Field(pattern=NAME)
    """What the stage is called."""
    after: str | None = None
    """Name of the stage that it starts from. Default: the one before it in the list; the first starts from the base
    model."""
    seed: int = Field(0, ge=0)
    """Seed of its own: runs differ by what comes after it."""
    data: DataOptions | None = None
    """What it learns from; nothing has to be held out. Default: the run's own training examples and, to choose weights
    by, its validation examples, as the recipe's `data` splits them: none that is held out."""
    task: TaskOptions
    """What it learns."""
    strategy: StrategyOptions = Field(default_factory=lambda: STRATEGIES.get("full").Options(type="full"))
    """Which parameters learn. What comes out is always a whole model."""
    train: TrainOptions = TrainOptions()
    """How they are fitted."""

    _completed = model_validator(mode="after")(_as_the_strategy_trains)


class HeldOut(Options):
    """An evaluation set: the recipe's task on other data, for example of another domain, or another task that the same
    model can be asked, for example what it could do before."""

    name: str = Field(pattern=NAME)
    """Name in reports and file names."""
    data: Source
    """Where its examples come from."""
    task: TaskOptions | None = None
    """What is asked of them, where that differs from the recipe's task: columns, prompt and metrics are laid over those
    of the recipe's task, as in `{text: tweet}`; another `type`, as in `{type: language, text: body}`, says all of its
    own. The model stays as it was trained: it has no place for another new head. Cheap baselines answer only sets
    without this."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of this set that are called otherwise in the training data, by their name here: `{pos: positive}`."""
    role: Literal["shifted", "forgetting"] | None = None
    """What it is asked for. `shifted`: other data, held against the recipe's own test examples. `forgetting`: what the
    untuned model can do, and the tuned one should not have lost: each variant is tested for being not worse by more
    than `margin` (non-inferiority). Default: `forgetting` for a task of another type, else `shifted`."""
    margin: float | None = Field(None, gt=0)
    """How much worse than the untuned model is still acceptable, by the first metric: 1 is one percentage point, or
    0.01 of a coefficient, or one point of a score up to 100; of a metric without points, such as a loss, in its own
    unit, and to be given. Default: 1 point."""

    def role_beside(self, task: Any) -> Literal["shifted", "forgetting"]:
        """Give its role in a recipe of that ``task``."""
        other = self.task is not None and self.task.type != task.type
        return self.role or ("forgetting" if other else "shifted")


class HarnessSet(HarnessOptions):
    __doc__ = HarnessOptions.__doc__

    name: str = Field(default_factory=str, pattern=NAME)
    """Name in reports and file names. Default: the task's."""
    role: Literal["shifted", "forgetting"] | None = None
    """What it is asked for, as in `evaluate`. Default: `forgetting`, what the untuned model can do and the tuned one
    should not have lost."""
    margin: float | None = Field(None, gt=0)
    """How much worse than the untuned model is still acceptable, by the first metric, as in `evaluate`. Default: 1
    point, for the harness's shares: `acc`, `acc_norm`, `acc_bytes`, `acc_mutual_info` and `exact_match`; for other
    metrics it is to be given, in their own unit."""

    def role_beside(self, task: Any) -> Literal["shifted", "forgetting"]:
        """Give its role in a recipe of that ``task``."""
        return self.role or "forgetting"


def _whole(value: Any) -> Any:
    """Write out a task that is given by its name alone, and the name of a set that has none."""
    said = {"task": value} if isinstance(value, str) else value
    if isinstance(said, dict) and "name" not in said and isinstance(said.get("task"), str):
        return {**said, "name": said["task"]}
    return said


class Recipe(Options):
    """A recipe of one variant, with every default filled in: what to fine-tune, on what, how, and under which seeds."""

    name: str = Field(pattern=NAME)
    """Name of the study, and of its folder. Default: the recipe file's name."""
    seeds: Seeds = Field(default_factory=lambda: list(range(5)))
    """How many seeds, which are then 0, 1, 2, ...; or a list of seeds; or until when to add seeds, as in
    `{until: {ci_width: 1.0}, at_least: 5, at_most: 30}`. Default: 5."""
    vary: Vary = Field(default_factory=lambda: [stream for stream in STREAMS if stream in Streams.vary])
    """Streams of randomness that change with the seed; the others stay the same in all runs. Default: all but
    `split`."""
    mix: Annotated[list[Literal["versions", "devices"]], AfterValidator(_distinct)] = Field(
        default_factory=list, json_schema_extra=OPERATIONAL
    )
    """What may differ between runs of one study, which the report then says: `versions` of torch, transformers, peft
    and tokenizers; `devices`, and what `dtype: auto` is on them. Default: nothing may."""
    model: ModelOptions
    """The pretrained base model."""
    data: DataOptions
    """What is learnt from, and what is held out."""
    task: TaskOptions
    """What is learnt."""
    strategy: StrategyOptions
    """Which parameters learn, and how."""
    stages: list[Stage] = Field(default_factory=list)
    """What precedes the task: continued pretraining, or an intermediate task. Runs start from the last stage."""
    mitigations: list[MitigationOptions] = Field(default_factory=list)
    """Known cures for unstable fine-tuning."""
    train: TrainOptions = TrainOptions()
    """How the parameters are fitted."""
    compute: ComputeOptions = ComputeOptions()
    """How arithmetic is done, in training and scoring, and of stages too."""
    evaluate: list[HeldOut] = Field(default_factory=list)
    """Further evaluation sets: the same task on other data, or other tasks."""
    lm_eval: list[Annotated[HarnessSet, BeforeValidator(_whole, json_schema_input_type=str | HarnessSet)]] = Field(
        default_factory=list
    )
    """Further evaluation sets: tasks of EleutherAI's lm-evaluation-harness, by name or with options, as in
    `[arc_easy, {task: gsm8k, examples: 5}]`. Each is scored on the tuned model of every seed, one row per document."""
    scoring: ScoringOptions = ScoringOptions()
    """How held-out tasks are scored."""
    baselines: BaselineOptions = Field(BaselineOptions(), json_schema_extra=OPERATIONAL)
    """Cheap baselines beside the runs, once for the study; `{enabled: false}` leaves them out."""
    tracking: TrackingOptions = Field(TrackingOptions(), json_schema_extra=OPERATIONAL)
    """Experiment trackers that hear of every run, as in `{trackers: [tensorboard, mlflow]}`. Default: none."""
    silence: Annotated[list[RuleName], AfterValidator(_distinct)] = Field(
        default_factory=list, json_schema_extra=OPERATIONAL
    )
    """Advice that `finetune check` and `finetune init` are not to give, by its rules' names, as in `[few-seeds]`. It
    changes nothing but what is said. Default: all of it is given."""

    _completed = model_validator(mode="after")(_as_the_strategy_trains)

    @property
    def sets(self) -> list[HeldOut | HarnessSet]:
        """List all further evaluation sets, in the order in which they are scored."""
        return [*self.evaluate, *self.lm_eval]


PLUGIN_SECTIONS: dict[str, Registry[Any]] = {"task": TASKS, "strategy": STRATEGIES, "mitigations": MITIGATIONS}
"""The sections that choose a plug-in, and where it is looked up."""

STUDY_KEYS = ("name", "seeds", "vary", "mix", "baselines", "tracking", "silence")
"""Keys that belong to the whole study and not to one variant."""
