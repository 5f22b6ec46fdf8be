"""What a task is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core import options
from finetune.core.examples import Encoded, Example, Outputs, Prediction
from finetune.tasks.batching import Batching
from finetune.tasks.messages import readable

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.models.pooling import Pooling


class Task:
    """What is learnt or scored: columns, encoding, model head, loss, predictions, metrics.

    A task is made from its options, then ``fit`` to the training data, which gives it the tokenizer and what it
    learns from the data (such as the set of labels). Shapes below: N examples in a batch, T columns of tokens.
    """

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]
    new_head: ClassVar[bool]
    """True when the task puts a newly initialised head on the base model."""
    example_score: ClassVar[str]
    """The metric that gives each single example its score in the prediction store."""

    tokenizer: PreTrainedTokenizerBase
    config: Callable[[], Any]
    """Reads the base model's configuration, for tasks that fit themselves to it."""
    today: date | None = None
    """The study's date, for what shows one; None: what the clock says."""
    labels: tuple[str, ...] = ()
    """The classes in the order of the head's outputs, for tasks that have classes."""
    batching: Batching = Batching.PACKED
    """What examples may share while they are learnt and scored, as far as the task itself lets them."""
    answering: Batching = Batching.PADDED
    """What prompts may share while they are answered."""
    pairs: bool = False
    """Whether it is to be learnt from pairs of answers: each training example is a pair then, and counts 1."""

    pooling: Pooling | None = None
    """How a head of our own gets one vector of a text's tokens; None: the architecture has its own way, or no head."""

    def __init__(self, options: Any):
        self.options = options

    @property
    def architecture(self) -> str:
        """The transformers Auto class that has the right head; known once the task is fitted."""
        raise NotImplementedError

    @property
    def group(self) -> str | None:
        """The column whose equal values belong together, for tasks with that option."""
        return getattr(self.options, "group", None)

    @property
    def causal(self) -> bool:
        """Whether each token is predicted from those before it."""
        return False

    @property
    def packing(self) -> bool:
        """Whether :meth:`collate` puts several examples into one row."""
        return False

    @property
    def dynamic(self) -> bool:
        """Whether an example is another each time it is seen: then :meth:`resample` says what it is."""
        return False

    def inputs(self) -> list[str]:
        """Columns that make two examples the same one, for duplicates and leaks."""
        raise NotImplementedError

    def converted(self, data: Dataset, at: str) -> Dataset:
        """``data``, read at recipe path ``at``, with the columns that this task works on, before they are checked."""
        return data

    def check(self, data: Dataset, at: str) -> None:
        """Raise :class:`InputError` when ``data``, read at recipe path ``at``, cannot serve this task."""
        raise NotImplementedError

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learn from the training data what encoding needs; refuse splits that do not fit together."""
        self.tokenizer = tokenizer

    def positions(self, example: Example) -> int:
        """How many tokens the model has to have room for to learn or to score ``example``."""
        return example.length

    def check_config(self) -> None:
        """Raise :class:`InputError` when no model of the base's :attr:`config` can learn this task."""

    def check_model(self, model: Any) -> None:
        """Raise :class:`InputError` when ``model``, which may be without weights, cannot learn this task."""

    def model_config(self) -> dict[str, Any]:
        """Overrides of the model's configuration."""
        return {}

    def encode(self, data: Dataset, at: str, training: bool) -> Encoded:
        """Tokenise; only training examples may be dropped."""
        raise NotImplementedError

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        """What a person reads of each example of ``data``, in their order: the columns that are its input."""
        columns = [data[name] for name in self.inputs()]
        return ["\n\n".join(map(readable, row)) for row in zip(*columns, strict=True)]

    def resample(self, example: Example, seed: int) -> Example:
        """A training example as it is seen once, decided by ``seed``; its weight and length stay as they are."""
        return example

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        """Pad and stack: (rows, T) for each model input, `targets`, and `example`.

        ``examples`` come replica by replica, so many each as ``counts`` (R,) says, or are one's; in the batch too the
        rows of each replica stand together. `example` (rows, T) says which of ``examples`` each position belongs to,
        -1: padding.
        """
        raise NotImplementedError

    def way(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        """In words, for the log: how this task runs ``model``, found out by trying where that is necessary.

        To be asked before the first losses of a model of R ``replicas`` side by side, under the arithmetic (autocast)
        that they are computed in; a model of one finds out by itself.
        """
        return self.in_words(None)

    def in_words(self, way: object) -> str | None:
        """``way``, if there is one, and what else examples may not share."""
        shared = [self.batching] if self.batching >= Batching.SAME_LENGTH else []
        return ", ".join(map(str, [*([way] if way else []), *shared])) or None

    def packs(self, model: torch.nn.Module) -> bool:
        """Whether examples that :meth:`collate` has put into one row stay there when ``model`` runs."""
        return False

    def arranged(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A collated batch as ``model`` can take it, which :meth:`losses` does by itself: for who has to know where
        each example stands while the model runs."""
        return batch

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Negative log-likelihood of each example's target, summed over its label tokens: (N,), float32, nats."""
        raise NotImplementedError

    def margins(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """By how much each pair's chosen answer is likelier than its rejected one: the difference of their
        log-likelihoods, each summed over its label tokens, (N,), float32, nats. For tasks that have pairs."""
        raise NotImplementedError

    def outputs(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Outputs:
        """What :meth:`losses` are computed from, for who changes them; takes more memory where labels are many."""
        raise NotImplementedError

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        """The same of one example as a user of plain transformers gets it: from the model, called on its tokens (and
        their types) alone, of a pair on the chosen answer's."""
        raise NotImplementedError

    def predict(
        self, model: torch.nn.Module, examples: Sequence[Example], batch: dict[str, torch.Tensor]
    ) -> list[Prediction]:
        """One prediction for each of ``examples``, which ``batch`` holds; the text is empty where it is generated."""
        raise NotImplementedError

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str] | None:
        """What ``model`` answers to the prompts of ``examples``; None for tasks whose predictions say it already."""
        return None

    def majority(self, examples: Sequence[Example]) -> float | None:
        """Share of ``examples``, those that are scored, that always giving the commonest training answer gets right;
        None: no such thing."""
        return None
