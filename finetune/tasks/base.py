"""The base class of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetune.core import options
from finetune.core.answers import HEAD_KINDS, PIPELINE_TAGS, SOLVED, Column
from finetune.core.encoded import Encoded
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.models import Architecture, OwnHead
from finetune.tasks.batching import Batching
from finetune.tasks.encoding import EncodedRows, encode
from finetune.tasks.judged import Judged
from finetune.tasks.messages import readable
from finetune.tasks.used import Used

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.core.encoded import Examples
    from finetune.data import Splits
    from finetune.models.pooling import Pooling


class Task(Judged, Used):
    """A task, which is learnt or scored: columns, encoding, model head, loss, predictions, metrics.

    A task is made from its options, then ``fit`` to the training data, which gives it the tokenizer and what it
    learns from the data (such as the set of labels). Shapes below: N examples in a batch, T columns of tokens.
    """

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]
    new_head: ClassVar[bool]
    """True when the task puts a newly initialised head on the base model."""

    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...] = ()
    """The classes in the order of the head's outputs, for tasks that have classes."""
    batching: Batching = Batching.PACKED
    """What examples may share while they are learnt and scored, as far as the task itself lets them."""
    answering: Batching = Batching.PADDED
    """What prompts may share while they are answered."""
    asks: ClassVar[bool] = False
    """Whether it asks a model by itself (:meth:`ask`), in passes of its own, and is given no batches."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions its predictions depend on, beside those that all tasks use."""
    pooling: Pooling | None = None
    """How a head of our own gets one vector of a text's tokens; None: the architecture has its own way, or no head."""

    def __init__(
        self,
        options: Any,
        *,
        pairs: bool = False,
        today: date | None = None,
        config: Callable[[], Any] | None = None,
    ):
        """``pairs``: whether it is to be learnt from pairs of answers; each training example is a pair then, and counts
        1. ``today``: the study's date, for what shows one; None: what the clock says. ``config`` reads the base model's
        configuration, for tasks that fit themselves to it."""
        self.options, self.pairs, self.today, self._config = options, pairs, today, config

    @classmethod
    def fitted(
        cls,
        options: Any,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        pooling: Pooling | None,
        pairs: bool,
        config: Callable[[], Any] | None = None,
    ) -> Task:
        """Make the task as a model was trained for it, without the data that it was fitted to."""
        task = cls(options, pairs=pairs, config=config)
        task.tokenizer, task.labels, task.pooling = tokenizer, tuple(labels), pooling
        return task

    def config(self) -> Any:
        """Read the base model's configuration."""
        if self._config is None:
            raise ValueError(f"{type(self).__name__} was made without the base model's configuration")
        return self._config()

    @property
    def architecture(self) -> Architecture:
        """The transformers Auto class that has the right head; known once the task is fitted. Here, a bare model under
        the task's own :meth:`head`."""
        kind = HEAD_KINDS.get(self.answer, "SequenceClassification")
        return OwnHead(f"{self.name.title().replace('-', '')}For{kind}", self.head)

    def head(self, config: Any) -> torch.nn.Module:
        """A new head over the bare model's last hidden states, for tasks without a class of transformers'.

        A module that is called with these (rows, T, features) and a mask (rows, T), 0 at padding; what it returns are
        the model's `logits`. The features are ``width_of(config)`` many. It may depend on the options and on what
        :meth:`model_config` gives, and on nothing else that is learnt from data: a saved model is made again from
        these. Linear layers are drawn anew for each seed as most families draw theirs, modules of your own by their
        `reset_parameters`.
        """
        raise NotImplementedError

    @property
    def pipeline_tag(self) -> str:
        """Give the hub's name for what the trained model does; known once the task is fitted."""
        return PIPELINE_TAGS.get(self.answer, "other")

    @property
    def fills(self) -> frozenset[Column]:
        """Columns of the prediction store that it fills, from which metrics are computed."""
        answers: frozenset[Column] = frozenset(("prediction",) if self.answer else ())
        pairs: frozenset[Column] = frozenset(("margin",) if getattr(self.options, "rejected", None) else ())
        return answers | pairs | {"loss"}

    @property
    def group(self) -> str | None:
        """Name the column whose equal values belong together, for tasks with that option."""
        return getattr(self.options, "group", None)

    @property
    def causal(self) -> bool:
        """Tell whether each token is predicted from those before it."""
        return False

    @property
    def packing(self) -> bool:
        """Tell whether :meth:`collate` puts several examples into one row."""
        return False

    @property
    def dynamic(self) -> bool:
        """Tell whether an example differs each time it is seen: then :meth:`resample` makes it."""
        return False

    def inputs(self) -> list[str]:
        """Name the columns that make two examples the same one, for duplicates and leaks."""
        raise NotImplementedError

    def converted(self, data: Dataset, at: str) -> Dataset:
        """Convert ``data``, read at recipe path ``at``, to the columns that this task works on, before they are
        checked."""
        return data

    def check(self, data: Dataset, at: str) -> None:
        """Raise :class:`InputError` when ``data``, read at recipe path ``at``, cannot serve this task."""
        raise NotImplementedError

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learn from the training data what encoding needs; refuse splits that do not fit together."""
        self.tokenizer = tokenizer

    def adopt(self, fitted: Task) -> None:
        """Take over what ``fitted``, the same task under other options, has learnt from the training data: for an
        evaluation set that is read in its own way."""
        vars(self).update({name: value for name, value in vars(fitted).items() if name not in vars(self)})

    def check_fitted(self, data: Dataset) -> None:
        """Raise :class:`InputError` when ``data`` hold what the fitted task does not know, such as a new label."""

    def positions(self, examples: Examples) -> np.ndarray:
        """Count the tokens that the model needs room for to learn or to score each of ``examples``: (examples,)."""
        return examples.lengths

    def check_config(self) -> None:
        """Raise :class:`InputError` when no model of the base's :attr:`config` can learn this task."""

    def check_model(self, model: Any) -> None:
        """Raise :class:`InputError` when ``model``, which may be without weights, cannot learn this task."""

    def model_config(self) -> dict[str, Any]:
        """Give the overrides of the model's configuration."""
        return {}

    def idle(self, parameter: str) -> bool:
        """Tell whether the parameter called so changes neither losses nor answers. It does not learn: its gradient is
        rounding alone, which optimizers that divide by its size would make steps of."""
        return False

    def encode(self, data: Dataset, at: str, training: bool) -> Encoded:
        """Encode ``data``, read at recipe path ``at``, some rows at a time."""
        return encode(self, data, at, training)

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        """Tokenise some rows; only training examples may be dropped."""
        raise NotImplementedError

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        """Add to what was ``encoded``, of which its token counts are known, the facts that ``counts`` of all rows give.
        Raises :class:`InputError` where nothing is left."""
        return replace(encoded, facts=encoded.facts | counts)

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        """List what a person reads of each example of ``data``, in their order: the columns that are its input."""
        columns = [data[name][:] for name in self.inputs()]
        return ["\n\n".join(map(readable, row)) for row in zip(*columns, strict=True)]

    def resample(self, example: Example, seed: int) -> Example:
        """Make a training example as it is seen once, decided by ``seed``; its weight and length stay as they are."""
        return example

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        """Pad and stack ``examples``, which come replica by replica, as many of each as ``counts`` (R,) says; without
        it, all are one replica's. In the batch too the rows of each replica stand together."""
        raise NotImplementedError

    def pooled(self, pooling: Pooling) -> Task:
        """Give the same task with a head that pools as ``pooling`` says."""
        found = copy(self)
        found.pooling = pooling
        return found

    def sharing(self, batching: Batching, answering: Batching) -> Task:
        """Give the same task with the sharing among examples that is allowed while they are learnt and scored, and
        answered."""
        found = copy(self)
        found.batching, found.answering = batching, answering
        return found

    def uncombined(self) -> Task:
        """Give the same task with what the model itself says as its outputs, for comparing models: here, the task. For
        tasks whose outputs are differences, in which rounding is large beside what is left."""
        return self

    def batch_for(
        self,
        model: torch.nn.Module,
        examples: Sequence[Example],
        device: torch.device,
        counts: Sequence[int] | None = None,
    ) -> Batch:
        """Put ``examples`` into one batch on ``device``, as ``model`` can take it."""
        return self.arranged(model, self.collate(examples, counts).to(device))

    def loss_path(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        """Say in words, for the log, how this task computes the losses of ``model``; found by trying where necessary.

        To be asked before the first losses of a model of R ``replicas`` side by side, under the arithmetic (autocast)
        that they are computed in; a model of one finds out by itself.
        """
        return self.in_words(None)

    def in_words(self, loss_path: object) -> str | None:
        """Join ``loss_path``, if there is one, and what else examples may not share; None where there is neither."""
        shared = [self.batching] if self.batching >= Batching.SAME_LENGTH else []
        return ", ".join(map(str, [*([loss_path] if loss_path else []), *shared])) or None

    def packs(self, model: torch.nn.Module) -> bool:
        """Tell whether examples that :meth:`collate` has put into one row stay there when ``model`` runs."""
        return False

    def arranged(self, model: torch.nn.Module, batch: Batch) -> Batch:
        """Arrange a collated batch as ``model`` can take it, which :meth:`losses` does by itself: for callers that have
        to know where each example stands while the model runs."""
        return batch

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the negative log-likelihood of each example's target, summed over its label tokens: (N,), float32,
        nats."""
        return self.outputs(model, batch).losses()

    def margins(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute by how much each pair's chosen answer is likelier than its rejected one: the difference of their
        log-likelihoods, each summed over its label tokens, (N,), float32, nats. For tasks that have pairs."""
        raise NotImplementedError

    def pair_losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the negative log-likelihoods of each pair's chosen and rejected answer, each summed over its label
        tokens: (N, 2), float32, nats. For tasks that have pairs."""
        raise NotImplementedError

    def pair_tokens(self, batch: Batch) -> torch.Tensor:
        """Count the label tokens of each pair's chosen and rejected answer: (N, 2). For tasks that have pairs."""
        raise NotImplementedError

    def extracted(self, texts: Sequence[str]) -> list[str] | None:
        """Find the answer in each of ``texts``, which a person or a model has written; empty where there is none. None:
        the texts themselves are the answers."""
        return None

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """Compute the logits that :meth:`losses` are made of, for hooks that change the losses; takes more memory where
        labels are many."""
        raise NotImplementedError

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        """Compute the outputs of one example as a user of plain transformers gets them: from the model, called on its
        tokens (and their types) alone, of a pair on the chosen answer's. Here, of a batch of one."""
        device = next(model.parameters()).device
        return self.outputs(model, self.collate([example]).to(device))

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        """Predict each of ``examples``, which ``batch`` holds; the text is empty where it is generated."""
        raise NotImplementedError

    def ask(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[Prediction]:
        """Ask ``model``, of one run, about ``examples``, as many at a time as there are: for tasks that ask."""
        raise NotImplementedError

    def save_beside(self, folder: Path) -> None:
        """Write beside the complete model in ``folder`` what other libraries need to use it. Here, nothing."""

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str] | None:
        """Generate the answers of ``model`` to the prompts of ``examples``; None for tasks whose predictions say it
        already."""
        return None

    @property
    def solvable(self) -> bool:
        """Tell whether what a linear head learns best can be solved for: multinomial logistic regression of a label, or
        least squares, with targets that are the numbers themselves."""
        return self.answer in SOLVED

    def handed_over(self, model: torch.nn.Module, config: Mapping[str, Any]) -> torch.nn.Module:
        """Give a trained ``model`` as a person gets it, who asks it without this task. ``config`` is what
        :meth:`model_config` said when it was trained."""
        return model
