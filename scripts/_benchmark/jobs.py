"""What is compared: cases, contestants with all their settings, targets and sizes. Nothing here measures anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

JOBS = {
    "a": "full tuning of MiniLM-L6 on RTE",
    "b": "LoRA of SmolLM2-135M on GSM8K as chat",
    "c": "a study of several seeds, MiniLM-L6 on RTE",
    "d": "start-up",
    "e": "scoring with a tuned MiniLM-L6",
    "f": "few-shot classification, MiniLM-L6 on BBC News by contrastive tuning (SetFit)",
}

Figure = Literal["tokens_per_second", "seconds", "examples_per_second"]
LOWER_IS_BETTER = frozenset({"seconds", "seconds_after_start"})

# What both sides get. Nothing here is about speed; it only makes the scores comparable.
BATCH = 16
CHAT_BATCH = 8
MAX_LENGTH = 128
CHAT_MAX_LENGTH = 512
RATES = {"linear": 5.0e-3, "partial": 1.0e-4, "lora": 1.0e-3, "full": 5.0e-5, "chat": 1.0e-3}
WARMUP = 0.1
WEIGHT_DECAY = 0.01
RANK, ALPHA = 8, 16
LAST_BLOCKS = 2
STRATEGIES = ("linear", "partial", "lora", "full")
FEW_MAX_LENGTH = 64
TOPICS = 5
"""Classes of BBC News, of which as many examples each are learnt from as a few-shot case says."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything; all in examples where nothing else is said."""

    rounds: int
    tuning: int
    tuning_held_out: int
    chat: int
    chat_held_out: int
    study: int
    study_held_out: int
    study_epochs: int
    study_seeds: int
    strategies: tuple[str, ...]
    scoring: int
    shots: tuple[int, ...]
    """Examples of each class that few-shot cases learn from."""
    few_held_out: int
    few_seeds: int
    """Training sets that few-shot cases draw."""


SIZES = {
    # Shows that everything works; too small and too few rounds for a conclusion.
    "quick": Sizes(1, 64, 32, 8, 4, 32, 32, 1, 2, ("lora",), 100, (4,), 50, 2),
    # About fifty minutes on two CPU cores, most of it spent by the peers.
    "standard": Sizes(3, 320, 200, 32, 16, 64, 64, 3, 5, STRATEGIES, 2000, (8,), 500, 5),
    # The study with enough examples to learn something; hours.
    "long": Sizes(3, 640, 363, 64, 48, 320, 363, 3, 5, STRATEGIES, 2000, (8, 64), 500, 10),
}


@dataclass(frozen=True)
class Contestant:
    """Who is measured, and how it is set."""

    name: str
    program: Literal["finetune", "trainer", "trl", "pipeline", "setfit"]
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the program's defaults, apart from what all contestants of a case share."""
    target: float | None = None
    """Ours should be at least so many times as fast."""
    choices: tuple[tuple[dict[str, Any], ...], ...] = ()
    """Settings of which the fastest combination on the machine at hand is found by measuring: one of each group."""


@dataclass(frozen=True)
class Case:
    """One comparison: the same work, done by ours and by each peer."""

    job: str
    name: str
    figure: Figure
    ours: Contestant
    peers: tuple[Contestant, ...] = ()
    strategy: str = "full"
    examples: int = 0
    held_out: int = 0
    epochs: int = 1
    seeds: int = 1
    """Runs in one measurement; with 1, the round's number is the seed."""
    limit: float | None = None
    """Ours should take at most so many seconds."""
    watch_memory: bool = False
    """Ours should also need less memory than each peer."""

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        return (self.ours, *self.peers)

    @property
    def learning_rate(self) -> float:
        return RATES["chat" if self.job == "b" else "full" if self.job == "f" else self.strategy]

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


OURS = Contestant("ours", "finetune")

THREADS = "threads"
"""The one setting that is not the program's own, but of its process."""

# transformers.Trainer. Its best: autocast to bf16 or not, batches of alike lengths (`group_by_length` before version 5)
# or not.
AUTOCAST = ({"bf16": False}, {"bf16": True})
TRAINER_BEST = {"per_device_eval_batch_size": 32}
TRAINER_CHOICES = (
    AUTOCAST,
    ({"train_sampling_strategy": "random"}, {"train_sampling_strategy": "group_by_length"}),
)

# TRL. Its defaults are bf16 autocast over float32 weights, gradient checkpointing, no packing. Its best: nothing is
# computed twice, all in bf16 or in float32, and examples packed into rows of 512 tokens or not. Three rows hold about
# as many tokens as eight examples, so that a step learns from as much as everybody else's. The rows of a batch are
# joined into one, over which attention is computed as a whole: a CPU is nearly twice as fast with one row at a time.
TRL_BEST = {"gradient_checkpointing": False}
TRL_ARITHMETIC = (
    {"model_init_kwargs": {"dtype": "float32"}, "bf16": False},
    {"model_init_kwargs": {"dtype": "bfloat16"}, "bf16": True},
)
TRL_ROWS = {
    "cpu": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
    "gpu": {"per_device_train_batch_size": 3},
}

# transformers.pipeline.
PIPELINE_ARITHMETIC = ({"dtype": "float32"}, {"dtype": "bfloat16"})
PIPELINE_ORDER = ({"sorted": False}, {"sorted": True})

# setfit. It makes all pairs of the examples by default, 1,280 of 40 and 82,000 of 320; its authors' 20 pairs of each
# kind for an example (Tunstall et al. 2022, section 4.1) are what a person with many examples would set.
SETFIT_ALL = 8
"""Examples of a class of which all pairs can be learnt from within minutes."""
SETFIT_ARITHMETIC = ({"use_amp": False}, {"use_amp": True})

STUDY_TARGETS = {"linear": (60, 18), "partial": (8, 2.5), "lora": (6, 2), "full": (5, 1.5)}
REPLICA_TARGETS = {5: 4, 16: 8}


def cases(sizes: Sizes, gpu: bool) -> list[Case]:
    """Every case, in the order of the jobs. A GPU adds the replicas to job c, and has targets of its own in b."""
    study = [_study(strategy, sizes) for strategy in sizes.strategies]
    replicas = [_replicas(strategy, count, sizes) for count in REPLICA_TARGETS for strategy in sizes.strategies]
    few = [_few_shot(shots, sizes) for shots in sizes.shots]
    more = [*(replicas if gpu else []), *_start_up(sizes), _scoring(sizes), *few]
    return [_tuning(sizes), _chat(sizes, gpu), *study, *more]


def _trainer(default: float | None, best: float | None) -> tuple[Contestant, ...]:
    return (
        Contestant("HF Trainer, defaults", "trainer", {}, default),
        Contestant("HF Trainer, best", "trainer", TRAINER_BEST, best, TRAINER_CHOICES),
    )


def _tuning(sizes: Sizes) -> Case:
    return Case(
        "a",
        "full tuning",
        "tokens_per_second",
        OURS,
        _trainer(5, 1.5),
        examples=sizes.tuning,
        held_out=sizes.tuning_held_out,
        watch_memory=True,
    )


def _chat(sizes: Sizes, gpu: bool) -> Case:
    rows = ({"packing": False}, {"packing": True, **TRL_ROWS["gpu" if gpu else "cpu"]})
    peers = (
        Contestant("TRL, defaults", "trl", {}, None if gpu else 4),
        Contestant("TRL, best", "trl", TRL_BEST, 1.5 if gpu else 3, (TRL_ARITHMETIC, rows)),
    )
    return Case(
        "b",
        "chat LoRA",
        "tokens_per_second",
        OURS,
        peers,
        "lora",
        examples=sizes.chat,
        held_out=sizes.chat_held_out,
        watch_memory=True,
    )


def _study(strategy: str, sizes: Sizes) -> Case:
    return Case(
        "c",
        f"{strategy}, {sizes.study_seeds} seeds",
        "seconds",
        OURS,
        _trainer(*STUDY_TARGETS[strategy]),
        strategy,
        sizes.study,
        sizes.study_held_out,
        sizes.study_epochs,
        sizes.study_seeds,
    )


def _replicas(strategy: str, count: int, sizes: Sizes) -> Case:
    together = Contestant(f"ours, {count} replicas", "finetune", {"train.replicas": count})
    single = Contestant("ours, one by one", "finetune", {"train.replicas": 1}, REPLICA_TARGETS[count])
    size = (sizes.study, sizes.study_held_out, sizes.study_epochs, count)
    return Case("c", f"{strategy}, {count} replicas", "seconds", together, (single,), strategy, *size)


def _start_up(sizes: Sizes) -> list[Case]:
    first = Case(
        "d", "finetune check, first time", "seconds", OURS, limit=1.0, examples=sizes.study, held_out=sizes.study
    )
    again = replace(first, name="finetune check, again")
    return [Case("d", "finetune --help", "seconds", OURS, limit=0.3), first, again]


def _scoring(sizes: Sizes) -> Case:
    peers = (
        Contestant("pipeline, defaults", "pipeline", {}, 4),
        Contestant("pipeline, best", "pipeline", {"batch_size": 32}, 1.5, (PIPELINE_ARITHMETIC, PIPELINE_ORDER)),
        Contestant("HF predict, defaults", "trainer", {}, 4),
        Contestant("HF predict, best", "trainer", TRAINER_BEST, 1.5, (AUTOCAST,)),
    )
    return Case("e", "scoring", "examples_per_second", OURS, peers, held_out=sizes.scoring)


def _few_shot(shots: int, sizes: Sizes) -> Case:
    pairs = {} if shots <= SETFIT_ALL else {"num_iterations": 20}
    peers = (
        Contestant("SetFit, defaults", "setfit", pairs, 2),
        Contestant("SetFit, best", "setfit", pairs, 2, (SETFIT_ARITHMETIC,)),
    )
    size = (TOPICS * shots, sizes.few_held_out, 1, sizes.few_seeds)
    return Case("f", f"{shots} examples a class, {sizes.few_seeds} splits", "seconds", OURS, peers, "setfit", *size)
