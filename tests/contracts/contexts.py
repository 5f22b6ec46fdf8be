"""Where each option means something: tiny recipes that enable it, and a value for those whose cannot be guessed.

A new option of a model that is here already needs a line only where it means nothing in its model's recipe, or where
its value cannot be guessed; a new plug-in one in RECIPES where it needs more than its name.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from tests import tiny
from tests.contracts.leaves import Leaf, merged
from tests.harness_tasks import write_tasks


@dataclass(frozen=True)
class Case:
    """How one option is shown to matter."""

    given: dict[str, Any] = field(default_factory=dict)
    """What is laid over its model's recipe, so that it means something."""
    value: Any = None
    """Another value; None: one that is guessed."""
    at: tuple[str | int, ...] | None = None
    """Where that value is put, if not at the option itself."""
    refused: bool = False
    """True where what it permits is refused under the other value, by the code that reads it."""
    reported: bool = False
    """True where it is the report that it changes."""


PLAIN: dict[str, Any] = {
    "name": "study",
    "seeds": [1],
    "model": {"source": "encoder", "dtype": "float32", "device": "cpu", "new": ["cls"]},
    "data": {"train": {"path": "rows.csv"}, "split": {"test": 8, "validation": 6}},
    "task": {"type": "classification", "max_length": 16, "metrics": ["accuracy"]},
    "strategy": {"type": "full"},
    "train": {"max_steps": 3, "min_steps": 3, "batch_size": 8, "learning_rate": 0.01, "evaluations": 1},
    "baselines": {"enabled": False},  # which take longer than all the rest
}
CHAT: dict[str, Any] = {
    **PLAIN,
    "model": {"source": "decoder", "dtype": "float32", "device": "cpu"},
    "data": {"train": {"path": "chats.jsonl"}, "split": {"test": 4, "validation": 4}},
    "task": {
        "type": "chat",
        "prompt": "prompt",
        "completion": "completion",
        "max_length": 64,
        "max_new_tokens": 4,
        "metrics": ["rouge_l"],
    },
}
SEQ2SEQ: dict[str, Any] = {
    **PLAIN,
    "model": {"source": "both", "dtype": "float32", "device": "cpu"},
    "task": {
        "type": "seq2seq",
        "source": "text",
        "target": "label",
        "max_length": 16,
        "max_new_tokens": 4,
        "metrics": ["rouge_l"],
    },
}
LANGUAGE: dict[str, Any] = {
    **PLAIN,
    "task": {"type": "language", "max_length": 8, "metrics": ["loss"]},
}
SETS: dict[str, Any] = {
    **PLAIN,
    "task": {
        "type": "multi-label-classification",
        "labels": "label",
        "separator": "|",
        "max_length": 16,
        "metrics": ["subset_accuracy"],
    },
}
UNSEEN = {
    "data": {"split": {"test": 0}, "test": {"path": "others.csv", "columns": {"label": "topic"}}, "leaks": "allow"},
    "task": {"unseen": "other"},
}
"""Held-out labels that no training example has."""
TAGS: dict[str, Any] = {
    **PLAIN,
    "data": {"train": {"path": "tagged.jsonl"}, "split": {"test": 8, "validation": 6}},
    "task": {"type": "token-classification", "max_length": 64, "metrics": ["entity_f1"]},
}
IN_TEXT = {"task": {"text": "text", "spans": "spans"}}
EMBEDDING: dict[str, Any] = {
    **PLAIN,
    "task": {"type": "embedding", "label": "label", "drawn": 3, "max_length": 16, "metrics": ["recall_at_1"]},
}
COMPARED = {"label": None, "pair": "other"}
"""Pairs of texts without a score."""
RATED = {**COMPARED, "score": "rating", "metrics": ["cosine_spearman"]}
REGRESSION: dict[str, Any] = {
    **PLAIN,
    "data": {"train": {"path": "numbers.csv"}, "split": {"test": 8, "validation": 6}},
    "task": {"type": "regression", "target": "size", "max_length": 16, "metrics": ["rmse"]},
}
QUESTIONS: dict[str, Any] = {
    **PLAIN,
    "data": {"train": {"path": "questions.jsonl"}, "split": {"test": 8, "validation": 6}},
    "task": {"type": "question-answering", "max_length": 40, "stride": 8, "metrics": ["squad_f1"]},
}
CHOICES: dict[str, Any] = {
    **PLAIN,
    "data": {"train": {"path": "choices.jsonl"}, "split": {"test": 8, "validation": 6}},
    "task": {"type": "multiple-choice", "max_length": 40, "metrics": ["accuracy"]},
}
COLUMNS = {"task": {"choices": ["one", "two", "three"]}}
DRAWN = {"task": {"draw": 2, "answer": "right"}}
LIKELY = {"model": {"source": "decoder"}, "task": {"head": "likelihood", "max_length": 64}}
WORDED: dict[str, Any] = {
    **PLAIN,
    "model": {"source": "decoder", "dtype": "float32", "device": "cpu"},
    "task": {"type": "label-words", "max_length": 100, "metrics": ["accuracy"]},
}
SOLVED: dict[str, Any] = {**PLAIN, "strategy": {"type": "linear"}, "train": {"save_model": True}}
LONG_ANSWERS = {"task": {"prompt": "kind", "completion": "prompt"}}
"""Prompts of a letter, answers of a sentence."""
PAIRS: dict[str, Any] = merged(
    CHAT,
    {
        "task": {"rejected": "rejected"},
        "strategy": {"type": "preference", "of": {"type": "adapter", "rank": 2}},
        "train": {"learning_rate": 0.05},
    },
)
STAGE = {
    "name": "first",
    "data": {"train": {"path": "rows.csv"}},
    "task": {"type": "language", "max_length": 16},
    "train": {"max_steps": 2, "min_steps": 2, "batch_size": 8, "learning_rate": 0.01},
}
BRIEF = {"max_steps": 1, "min_steps": 1, "evaluations": 0}
PROBED = {
    "strategy": {"mode": "lp-ft", "solver": "steps", "probe_rate": 1.0, "probe_epochs": 6.0, "patience": 1},
    "train": {**PLAIN["train"], "max_steps": None, "min_steps": 0, "epochs": 0.25},
}
PROBES = {"probe_rate": 0.5, "probe_epochs": 1.0, "patience": 3}
LONGER = {"max_steps": 12, "min_steps": 12}
STEADY = {"max_steps": 8, "min_steps": 8, "evaluations": 8, "learning_rate": 1.0}
"""Training that is too fast to improve."""

LEARNT: dict[str, Any] = {
    "seeds": [1, 2],
    "data": {"split": {"test": 0}, "test": {"path": "others.csv"}, "leaks": "allow"},
    "train": {"max_steps": 24, "min_steps": 24, "evaluations": 1},
}
"""Two seeds that both learn more than the commonest label, by examples enough to tell, so that they can be combined."""
MIXED = merged(PLAIN, {"data": {"leaks": "allow"}})
MIXED["data"]["train"] = [{"path": "rows.csv"}, {"path": "others.csv"}]
KNOWN: dict[str, Any] = {"evaluate": [{"name": "known", "data": {"path": "more-chats.jsonl"}, "role": "forgetting"}]}
"""A set that is about what was known before."""
UNTIL = merged(PLAIN, {**LEARNT, "seeds": {"until": {"ci_width": 1e6}, "at_least": 4, "at_most": 5}})


def _treated(name: str, **options: Any) -> dict[str, Any]:
    return {**PLAIN, "mitigations": [{"type": name, **options}]}


def _tuned(name: str, **options: Any) -> dict[str, Any]:
    return {**PLAIN, "strategy": {"type": name, **options}}


RECIPES: dict[str, tuple[dict[str, Any], tuple[str | int, ...]]] = {
    "Recipe": (PLAIN, ()),
    "SeedsUntil": (UNTIL, ("seeds",)),
    "Precision": (UNTIL, ("seeds", "until")),
    "ModelOptions": (PLAIN, ("model",)),
    "DataOptions": (PLAIN, ("data",)),
    "Source": (PLAIN, ("data", "train")),
    "Portion": (MIXED, ("data", "train", 1)),
    "Split": (PLAIN, ("data", "split")),
    "ChatOptions": (CHAT, ("task",)),
    "SamplingOptions": (merged(CHAT, {"task": {"sampling": {}}}), ("task", "sampling")),
    "AnswerOptions": (merged(CHAT, {"task": {"answer": {"pattern": "(.)"}}}), ("task", "answer")),
    "ClassificationOptions": (PLAIN, ("task",)),
    "LanguageOptions": (LANGUAGE, ("task",)),
    "MultiLabelOptions": (SETS, ("task",)),
    "TokenClassificationOptions": (TAGS, ("task",)),
    "EmbeddingOptions": (EMBEDDING, ("task",)),
    "Seq2SeqOptions": (SEQ2SEQ, ("task",)),
    "QuestionAnsweringOptions": (QUESTIONS, ("task",)),
    "MultipleChoiceOptions": (CHOICES, ("task",)),
    "LabelWordsOptions": (WORDED, ("task",)),
    "AdaptiveOptions": (_tuned("adaptive", method="layerwise"), ("strategy",)),
    "RateGroup": (
        _tuned("adaptive", method="groups", groups=[{"pattern": "*embed*", "factor": 0.1}]),
        ("strategy", "groups", 0),
    ),
    "LinearOptions": (SOLVED, ("strategy",)),
    "PartialOptions": (_tuned("partial", last=1), ("strategy",)),
    "PreferenceOptions": (PAIRS, ("strategy",)),
    "Stage": ({**PLAIN, "stages": [STAGE]}, ("stages", 0)),
    "TrainOptions": (PLAIN, ("train",)),
    "ComputeOptions": (
        merged(PLAIN, {"model": {"dtype": "bfloat16"}, "compute": {"weights": "bfloat16"}}),
        ("compute",),
    ),
    "Plateau": (merged(PLAIN, {"train": {**STEADY, "schedule": "plateau", "keep": "last"}}), ("train", "plateau")),
    "Prodigy": (
        merged(
            PLAIN,
            {"train": {"optimizer": "prodigy", "learning_rate": 1.0, "warmup": 0.5, "max_steps": 12, "min_steps": 12}},
        ),
        ("train", "prodigy"),
    ),
    "EarlyStopping": (
        merged(PLAIN, {"train": {**STEADY, "early_stopping": {"patience": 2}}}),
        ("train", "early_stopping"),
    ),
    "Divergence": (
        merged(PLAIN, {"train": {**STEADY, "divergence": {"explode_factor": 1.5, "window": 2}}}),
        ("train", "divergence"),
    ),
    "ChildTuningOptions": (_treated("child-tuning", fisher_examples=8), ("mitigations", 0)),
    "EMAOptions": (_treated("ema", decay=0.2), ("mitigations", 0)),
    "EnsembleOptions": (merged(_treated("ensemble"), LEARNT), ("mitigations", 0)),
    "L2SPOptions": (_treated("l2-sp", strength=0.1, beta=0.1), ("mitigations", 0)),
    "R3FOptions": (_treated("r3f", eps=0.05), ("mitigations", 0)),
    "R4FOptions": (_treated("r4f", eps=0.05), ("mitigations", 0)),
    "SmartOptions": (_treated("smart", sigma=0.01, eta=0.1, epsilon=0.05), ("mitigations", 0)),
    "SoupOptions": (merged(_treated("soup"), LEARNT), ("mitigations", 0)),
    "RegressionOptions": (REGRESSION, ("task",)),
    "HeldOut": ({**PLAIN, "evaluate": [{"name": "elsewhere", "data": {"path": "others.csv"}}]}, ("evaluate", 0)),
    "HarnessSet": ({**CHAT, "lm_eval": [{"task": "topic_choice", "include": "tasks"}]}, ("lm_eval", 0)),
    "ScoringOptions": (PLAIN, ("scoring",)),
    "TrackingOptions": (PLAIN, ("tracking",)),
    "BaselineOptions": (merged(PLAIN, {"train": BRIEF, "baselines": {"enabled": True}}), ("baselines",)),
}
"""By options model: a recipe that has it, and where it stands there. That of a plug-in which needs nothing beside its
name is made from that."""

PLUGINS = (
    (STRATEGIES, _tuned, ("strategy",)),
    (MITIGATIONS, _treated, ("mitigations", 0)),
    (TASKS, lambda name: {**PLAIN, "task": {"type": name}}, ("task",)),
)
PLAIN_STRATEGY, NO_MITIGATION = ({"type": "full"}, ("strategy",)), ([], ("mitigations",))

CASES: dict[str, Case] = {
    "Recipe.lm_eval": Case(CHAT, value=[{"task": "topic_choice", "include": "tasks"}]),
    "Recipe.name": Case(value="other"),
    "Recipe.seeds": Case(value=[1, 2]),
    "Recipe.vary": Case(value=["init"]),
    "Recipe.task": Case(value={"type": "language", "max_length": 16}),
    "Recipe.strategy": Case(value={"type": "partial", "last": 1}),
    "Recipe.stages": Case(value=[STAGE]),
    "Recipe.mitigations": Case(value=[{"type": "mixout"}]),
    "Recipe.evaluate": Case(value=[{"name": "elsewhere", "data": {"path": "others.csv"}}]),
    "Precision.ci_width": Case(value=1e-6),
    "SeedsUntil.at_most": Case({"seeds": {"until": {"ci_width": 1e-6}}}, value=4),
    "ModelOptions.source": Case(value="wider"),
    "ModelOptions.tokenizer": Case(merged(CHAT, {"task": {"template": "none"}}), value="encoder"),
    "ModelOptions.dtype": Case(value="bfloat16"),
    "ModelOptions.allow_pickle": Case({"model": {"source": "pickled", "allow_pickle": True}}, refused=True),
    "ModelOptions.new": Case({"model": {"source": "lacking", "new": ["word_embeddings"]}}, value=[], refused=True),
    "DataOptions.validation": Case({"data": {"split": {"validation": 0}}}, value={"path": "others.csv"}),
    "DataOptions.test": Case(
        {"data": {"split": {"test": 0}}, "evaluate": [{"name": "elsewhere", "data": {"path": "others.csv"}}]},
        value={"path": "others.csv", "limit": 8},
    ),
    "DataOptions.duplicates": Case({"data": {"train": {"path": "twice.csv"}, "leaks": "allow"}}, value="keep"),
    "DataOptions.leaks": Case(
        {"data": {"test": {"path": "rows.csv", "limit": 8}, "split": {"test": 0}, "leaks": "drop"}}, value="allow"
    ),
    "DataOptions.train": Case(value={"path": "others.csv"}),
    "Portion.name": Case(value="elsewhere"),
    "Portion.weight": Case(value=0.5),
    "Source.path": Case(value="others.csv"),
    "Source.format": Case({**LANGUAGE, "data": {"train": {"path": "quoted.txt", "format": "csv"}}}, value="tsv"),
    "Source.columns": Case(value={"text": "other"}),
    "Source.names": Case(
        {"data": {"train": {"path": "bare.csv", "names": ["text", "other", "label", "kind", "topic", "rating"]}}},
        value=["other", "text", "label", "kind", "topic", "rating"],
    ),
    "Source.subset": Case({"data": {"train": {"path": "hub:./hub", "subset": "one"}}}, value="two"),
    "Source.split": Case({"data": {"train": {"path": "hub:./hub", "subset": "one"}}}, value="more"),
    "Source.encoding": Case({"data": {"train": {"path": "western.csv", "encoding": "cp1252"}}}, value="latin-1"),
    "Source.encoding_errors": Case(
        {"data": {"train": {"path": "western.csv", "encoding_errors": "replace"}}}, value="strict", refused=True
    ),
    "Source.limit": Case(value=30),
    "Source.streaming": Case({"data": {"train": {"path": "rows.parquet", "limit": 30}}}, value=True),
    "Split.validation": Case(value=4),
    "Split.train": Case(value=20),
    "Split.stratify": Case(value="label"),
    "Split.group": Case(value="topic"),
    "ChatOptions.type": Case(value={"type": "language", "text": "prompt", "max_length": 16}, at=("task",)),
    "ChatOptions.messages": Case({"task": {"prompt": None, "completion": None, "messages": "turns"}}, value="others"),
    "ChatOptions.prompt": Case(value="question"),
    "ChatOptions.completion": Case(value="rejected"),
    "ChatOptions.rejected": Case(PAIRS, value="prompt"),
    "ChatOptions.system": Case(value="match goal"),
    "ChatOptions.tools": Case({"model": {"source": "telling"}, "task": {"max_length": 120}}, value="tools"),
    "ChatOptions.drop_keys": Case(
        {"model": {"source": "telling"}, "task": {"prompt": None, "completion": None, "messages": "named"}},
        value=["name"],
    ),
    "ChatOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "ChatOptions.max_length": Case(LONG_ANSWERS, value=24),
    "ChatOptions.too_long": Case(merged(LONG_ANSWERS, {"task": {"max_length": 32}}), value="drop"),
    "ChatOptions.metrics": Case(value=["exact_match"]),
    "ClassificationOptions.type": Case(value={"type": "language", "max_length": 16}, at=("task",)),
    "ClassificationOptions.text": Case(value="other"),
    "ClassificationOptions.pair": Case(value="other"),
    "ClassificationOptions.label": Case(value="kind"),
    "ClassificationOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "ClassificationOptions.pooling": Case(value="mean"),
    "ClassificationOptions.normalise": Case({"task": {"pooling": "mean"}}, value=True),
    "ClassificationOptions.max_length": Case(value=6),
    "ClassificationOptions.metrics": Case(value=["mcc"]),
    "ClassificationOptions.ordinal": Case(value=["money", "space", "sport"]),
    "ClassificationOptions.class_weights": Case(value={"money": 3.0}),
    "ClassificationOptions.unseen": Case(UNSEEN, value="refuse", refused=True),
    "MultiLabelOptions.type": Case(value={"type": "language", "max_length": 16}, at=("task",)),
    "MultiLabelOptions.text": Case(value="other"),
    "MultiLabelOptions.pair": Case(value="other"),
    "MultiLabelOptions.labels": Case(value="kind"),
    "MultiLabelOptions.separator": Case(value="o"),
    "MultiLabelOptions.unseen": Case(UNSEEN, value="refuse", refused=True),
    "MultiLabelOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "MultiLabelOptions.pooling": Case(value="mean"),
    "MultiLabelOptions.normalise": Case({"task": {"pooling": "mean"}}, value=True),
    "MultiLabelOptions.max_length": Case(value=6),
    "MultiLabelOptions.metrics": Case(value=["micro_f1"]),
    "RegressionOptions.type": Case(value={"type": "classification", "max_length": 16}, at=("task",)),
    "RegressionOptions.text": Case(value="other"),
    "RegressionOptions.pair": Case(value="other"),
    "RegressionOptions.target": Case(value="length"),
    "RegressionOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "RegressionOptions.delta": Case({"task": {"loss": "huber"}}, value=0.1),
    "RegressionOptions.pooling": Case(value="mean"),
    "RegressionOptions.normalise": Case({"task": {"pooling": "mean"}}, value=True),
    "RegressionOptions.max_length": Case(value=6),
    "RegressionOptions.metrics": Case(value=["mae"]),
    "LanguageOptions.type": Case(value={"type": "classification", "max_length": 16}, at=("task",)),
    "LanguageOptions.text": Case(value="other"),
    "LanguageOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "LanguageOptions.objective": Case(value="causal", refused=True),
    "LanguageOptions.max_length": Case(value=12),
    "LanguageOptions.share": Case(value=0.6),
    "LanguageOptions.packing": Case({"model": {"source": "decoder"}}),
    "LanguageOptions.metrics": Case(value=["nll"]),
    "TokenClassificationOptions.type": Case(value={"type": "language", "max_length": 16}, at=("task",)),
    "TokenClassificationOptions.words": Case(value="loud"),
    "TokenClassificationOptions.tags": Case(value="others"),
    "TokenClassificationOptions.text": Case(IN_TEXT, value="shout"),
    "TokenClassificationOptions.spans": Case(IN_TEXT, value="first"),
    "TokenClassificationOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "TokenClassificationOptions.max_length": Case(value=6),
    "TokenClassificationOptions.metrics": Case(value=["token_accuracy"]),
    "EmbeddingOptions.type": Case(value={"type": "language", "max_length": 16}, at=("task",)),
    "EmbeddingOptions.text": Case(value="other"),
    "EmbeddingOptions.pair": Case({"task": COMPARED}, value="kind"),
    "EmbeddingOptions.score": Case({"task": COMPARED}, value="rating"),
    "EmbeddingOptions.score_range": Case({"task": RATED}, value=[-1.0, 2.0]),
    "EmbeddingOptions.negative": Case({"task": COMPARED}, value="kind"),
    "EmbeddingOptions.label": Case(value="kind"),
    "EmbeddingOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "EmbeddingOptions.loss": Case({"task": RATED}, value="cosent"),
    "EmbeddingOptions.scale": Case({"task": COMPARED}),
    "EmbeddingOptions.pooling": Case(value="max"),
    "EmbeddingOptions.normalise": Case({"train": {"save_model": True}}, value=True),
    "EmbeddingOptions.max_length": Case(value=6),
    "EmbeddingOptions.metrics": Case(value=["recall_at_5"]),
    "LanguageOptions.span": Case({"model": {"source": "both"}, "task": {"max_length": 16}}, value=1.0),
    "Seq2SeqOptions.type": Case(value={"type": "classification", "max_length": 16}, at=("task",)),
    "Seq2SeqOptions.source": Case(value="other"),
    "Seq2SeqOptions.target": Case(value="other"),
    "Seq2SeqOptions.prefix": Case(value="match goal "),
    "Seq2SeqOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "Seq2SeqOptions.max_length": Case(value=6),
    "Seq2SeqOptions.max_target_length": Case({"task": {"target": "other"}}, value=3),
    "Seq2SeqOptions.max_new_tokens": Case(value=2),
    "Seq2SeqOptions.num_beams": Case(value=3),
    "Seq2SeqOptions.metrics": Case(value=["chrf"]),
    "ChatOptions.learn": Case({"task": {"prompt": None, "completion": None, "messages": "long"}}, value="last"),
    "ChatOptions.sampling": Case(value={"temperature": 2.0}),
    "ChatOptions.stop": Case(LONG_ANSWERS, value=["e"]),
    "ChatOptions.answer": Case(value={"pattern": "(.)"}),
    "SamplingOptions.temperature": Case(value=5.0),
    "SamplingOptions.top_k": Case(value=2),
    "SamplingOptions.top_p": Case(value=0.1),
    "SamplingOptions.seed": Case(value=7),
    "AnswerOptions.pattern": Case(value="(..)"),
    "AnswerOptions.numbers": Case({"task": {"answer": {"pattern": "([0-9,]+)$"}, "completion": "figure"}}, value=True),
    "PreferenceOptions.gamma": Case({"strategy": {"method": "simpo"}, "task": {"metrics": ["loss"]}}, value=3.0),
    "PreferenceOptions.desirable": Case({"strategy": {"method": "kto"}}, value=3.0),
    "PreferenceOptions.undesirable": Case({"strategy": {"method": "kto"}}, value=3.0),
    "MultipleChoiceOptions.type": Case(value={"type": "language", "text": "question", "max_length": 16}, at=("task",)),
    "MultipleChoiceOptions.question": Case(value="asked"),
    "MultipleChoiceOptions.context": Case(value="context"),
    "MultipleChoiceOptions.choices": Case(value=["three", "one", "two"]),
    "MultipleChoiceOptions.draw": Case(DRAWN, value=3),
    "MultipleChoiceOptions.draw_within": Case(DRAWN, value="kind"),
    "MultipleChoiceOptions.answer": Case(value="other"),
    "MultipleChoiceOptions.answer_is": Case({"task": {"answer": "place", "answer_is": "index"}}, value="number"),
    "MultipleChoiceOptions.head": Case(
        {"model": {"source": "decoder"}, "task": {"head": "likelihood", "max_length": 64}}, value="model", refused=True
    ),
    "MultipleChoiceOptions.likelihood": Case(LIKELY, value="mean"),
    "MultipleChoiceOptions.prompt": Case(LIKELY, value="Say: {question}"),
    "MultipleChoiceOptions.template": Case(LIKELY, value="none"),
    "MultipleChoiceOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "MultipleChoiceOptions.max_length": Case({"task": {"context": "context"}}, value=20),
    "MultipleChoiceOptions.metrics": Case(value=["nll"]),
    "LabelWordsOptions.type": Case(value={"type": "language", "max_length": 16}, at=("task",)),
    "LabelWordsOptions.text": Case(value="other"),
    "LabelWordsOptions.label": Case(value="kind"),
    "LabelWordsOptions.verbaliser": Case(value={"sport": "match and goal"}),
    "LabelWordsOptions.prompt": Case(value="Topic of {text}:"),
    "LabelWordsOptions.template": Case(value="none"),
    "LabelWordsOptions.calibrate": Case(value="contextual"),
    "LabelWordsOptions.content_free": Case({"task": {"calibrate": "contextual"}}, value="nothing"),
    "LabelWordsOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "LabelWordsOptions.max_length": Case(value=80),
    "LabelWordsOptions.metrics": Case(value=["macro_f1"]),
    "QuestionAnsweringOptions.type": Case(
        value={"type": "language", "text": "question", "max_length": 16}, at=("task",)
    ),
    "QuestionAnsweringOptions.question": Case(value="asked"),
    "QuestionAnsweringOptions.context": Case(value="text"),
    "QuestionAnsweringOptions.answers": Case(value="others"),
    "QuestionAnsweringOptions.group": Case({"data": {"split": {"group": "topic"}}}, value="topic", reported=True),
    "QuestionAnsweringOptions.max_length": Case(value=32),
    "QuestionAnsweringOptions.stride": Case({"task": {"max_length": 16}}, value=1),
    "QuestionAnsweringOptions.max_answer_length": Case(value=1),
    "QuestionAnsweringOptions.metrics": Case(value=["squad_em"]),
    "AdapterOptions.method": Case(value="ia3"),
    "AdapterOptions.targets": Case(value=["query"]),
    "AdapterOptions.ratio": Case({"strategy": {"method": "lora+"}}),
    "AdapterOptions.quantize": Case(value="8bit", refused=True),
    "AdapterOptions.options": Case(value={"use_rslora": True}),
    "AdaptiveOptions.method": Case(value="schedule-free"),
    "AdaptiveOptions.groups": Case(
        {"strategy": {"method": "groups", "groups": [{"pattern": "*", "factor": 1.0}]}},
        value=[{"pattern": "*", "factor": 0.5}],
    ),
    "RateGroup.pattern": Case(value="*attention*"),
    "FullOptions.type": Case(value={"type": "partial", "last": 1}, at=("strategy",)),
    **{f"LinearOptions.{name}": Case(PROBED, value) for name, value in PROBES.items()},
    "LinearOptions.mode": Case({"strategy": {"solver": "steps"}, "train": PLAIN["train"]}, value="lp-ft"),
    "PartialOptions.blocks": Case({"strategy": {"last": None, "blocks": [0]}}, value=[1]),
    "PartialOptions.parts": Case({"strategy": {"last": None, "parts": "bias"}}, value="norm"),
    "PartialOptions.patterns": Case({"strategy": {"last": None, "patterns": ["*.bias"]}}, value=["*.weight"]),
    "PartialOptions.unfreeze": Case({"strategy": {"last": None, "patterns": ["*"]}}, value=0.9),
    "PreferenceOptions.type": Case(value={"type": "full"}, at=("strategy",)),
    "PreferenceOptions.of": Case(value={"type": "full"}),
    "Stage.name": Case(value="second"),
    "Stage.data": Case(value={"train": {"path": "others.csv"}}),
    "Stage.task": Case(value={"type": "classification", "max_length": 16}),
    "Stage.strategy": Case(value={"type": "partial", "last": 1}),
    "TrainOptions.epochs": Case({"train": {"max_steps": None, "min_steps": 0, "epochs": 1.0}}),
    "TrainOptions.min_steps": Case({"train": {"max_steps": None, "epochs": 1.0}}, value=6),
    "TrainOptions.max_steps": Case(value=2),
    "TrainOptions.batch_tokens": Case(value=40),
    "TrainOptions.micro_batch_tokens": Case(value=32),
    "TrainOptions.replicas": Case({"seeds": [1, 2], "train": {"replicas": 1}}, value=2),
    "TrainOptions.length_window": Case(value=1),
    "TrainOptions.prefix_cache": Case({"strategy": {"type": "partial", "last": 1}, "train": LONGER}),
    "TrainOptions.schedule": Case(value="constant"),
    "SWAOptions.start": Case(value=0.0),
    "TrainOptions.betas": Case(value=(0.5, 0.9)),
    "TrainOptions.clip": Case(value=0.01),
    "TrainOptions.select": Case({"train": STEADY}, value="accuracy"),
    "TrainOptions.keep": Case({"train": STEADY}),
    "TrainOptions.early_stopping": Case({"train": STEADY}, value={"patience": 1}),
    "TrainOptions.checkpoint_seconds": Case(value=0.0),
    "TrainOptions.chosen_by": Case(value="twelve rates", reported=True),
    "ComputeOptions.attention": Case(value="eager"),
    "ComputeOptions.tf32": Case(value=True, refused=True),
    "ComputeOptions.weights": Case(value="float32"),
    "ComputeOptions.moe_auxiliary_loss": Case({"model": {"source": "moe", "new": []}}, value=0.5),
    "EarlyStopping.min_delta": Case({"train": {"learning_rate": 0.001}}, value=50.0),
    "TrainOptions.warmup": Case(value=0.5),
    "ReinitOptions.layers": Case(value=1),
    "SmartOptions.steps": Case(value=2),
    "SoupOptions.method": Case(value="both"),
    "HeldOut.name": Case(value="beyond"),
    "HeldOut.task": Case(value={"max_length": 8}),
    "HeldOut.labels": Case(value={"sport": "money"}),
    "HeldOut.role": Case(merged(CHAT, KNOWN), value="shifted"),
    "HeldOut.margin": Case(merged(CHAT, KNOWN), value=3.0),
    "HarnessSet.task": Case(value="topic_words"),
    "HarnessSet.include": Case(value="fewer-tasks"),
    "HarnessSet.run_code": Case(
        {"lm_eval": [{"task": "topic_code", "include": "tasks", "run_code": True}]}, value=False, refused=True
    ),
    "HarnessSet.examples": Case(value=1),
    "HarnessSet.metrics": Case(value=["acc_norm"]),
    "HarnessSet.max_length": Case(value=16),
    "HarnessSet.max_new_tokens": Case({"lm_eval": [{"task": "topic_answers", "include": "tasks"}]}, value=2),
    "HarnessSet.name": Case(value="beyond"),
    "HarnessSet.role": Case(value="shifted"),
    "HarnessSet.margin": Case(value=3.0),
    "ScoringOptions.base": Case(CHAT),
    "BaselineOptions.limit": Case(value=0),
    "BaselineOptions.shots": Case({**CHAT, "baselines": {"enabled": True}}, value=1),
    "ScoringOptions.batch_size": Case(value=3),
    "ScoringOptions.baseline": Case(
        {
            "variants": {"one": {}, "two": {"train": {"clip": None}}, "three": {"train": {"warmup": 0.5}}},
            "seeds": [1, 2],
            "train": BRIEF,
        },
        value="one",
        reported=True,
    ),
}
"""By option. What is not here is laid over its model's recipe with a value that is guessed."""

INERT = {
    "Recipe.mix": "a permission: what it permits is another machine or version, which a test cannot become",
    "Recipe.silence": "what is said before anything is begun; tests/advice/test_advising.py shows that it is left out",
    "ModelOptions.device": "where it is computed; there is one device here",
    "ModelOptions.trust_remote_code": "a permission, for models that bring code of their own",
    "Seq2SeqOptions.source_language": "needs a multilingual tokenizer, which no tiny model has; others refuse",
    "Seq2SeqOptions.target_language": "the same",
    "Stage.after": "what is valid is what holds without it: each stage but the last has to be used by a later one",
    "ComputeOptions.gradient_checkpointing": "memory only: every bit stays, which tests/train/test_recompute.py shows",
    "ComputeOptions.offload": "memory only, of a GPU; tests/train/test_rules.py shows that every bit stays",
    "ComputeOptions.shard": "memory only, of several processes, which tests/contracts/test_sharding.py shows",
    "TrackingOptions.trackers": "tell other programs; tests/core/test_tracking.py shows it, and that no result changes",
    "TrackingOptions.project": "a name at a service that needs a network",
    "TrainOptions.compile": "speed only, and compiling takes longer than all of these tests",
}
"""Options that cannot show anything here, by design, each with the reason."""


SLOW = {
    *("SeedsUntil", "Precision", "EnsembleOptions", "SoupOptions"),
    *("ScoringOptions.baseline", "LinearOptions.type", "LinearOptions.solver"),
}
"""Models and options whose recipes train several seeds, or solve a probe many times."""


def recipe_of(model: type[Options]) -> tuple[dict[str, Any], tuple[str | int, ...]]:
    """A recipe that has these options, and where they stand there."""
    if found := RECIPES.get(model.__name__):
        return found
    for registry, make, path in PLUGINS:
        for name, plugin in registry.all().items():
            if plugin.Options is model:
                return make(name), path
    raise LookupError(f"give {model.__name__} a recipe in {__name__}.RECIPES")


def case_of(leaf: Leaf) -> Case:
    """How an option is shown to matter."""
    if found := CASES.get(str(leaf)):
        return found
    if leaf.field == "type":
        value, at = NO_MITIGATION if recipe_of(leaf.model)[1][0] == "mitigations" else PLAIN_STRATEGY
        return Case(value=value, at=at)
    return Case()


def write_files(folder: Path) -> None:
    """The models and data that the recipes name."""
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    tiny.save_encoder(folder / "encoder", **small)
    tiny.save_encoder(folder / "wider", **{**small, "intermediate_size": 48})
    tiny.save_decoder(folder / "decoder", **small)
    tiny.save_encoder_decoder(folder / "both")
    tiny.save_moe(folder / "moe")
    tiny.save_encoder(folder / "broad")
    tiny.save_decoder(folder / "broad-decoder", chat=False)
    _write_models(folder)
    rows = _rows(0)
    for name, found in {"rows": rows, "others": _rows(1), "twice": [*rows, *rows[:9]], "bare": rows}.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([*([] if name == "bare" else [list(rows[0])]), *(row.values() for row in found)])
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=2)
    tiny.write_csv(
        folder / "numbers.csv",
        [(*row.values(), number % 7 / 2, len(row["text"])) for number, row in enumerate(rows)],
        header=(*rows[0], "size", "length"),
    )
    (folder / "quoted.txt").write_text("text\n" + "".join(f'"{row["text"]}"\n' for row in rows), encoding="utf-8")
    western = "text,label\n" + "".join(f"“{row['text']}”,{row['label']}\n" for row in rows)
    (folder / "western.csv").write_bytes(western.encode("cp1252"))
    (folder / "chats.jsonl").write_text("".join(json.dumps(_chat(row)) + "\n" for row in rows), encoding="utf-8")
    more = [_chat(row) for row in _rows(3)]
    (folder / "more-chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more), encoding="utf-8")
    (folder / "tagged.jsonl").write_text("".join(json.dumps(_tagged(row)) + "\n" for row in rows), encoding="utf-8")
    asked = "".join(json.dumps(_question(number, row)) + "\n" for number, row in enumerate(rows))
    (folder / "questions.jsonl").write_text(asked, encoding="utf-8")
    chosen = "".join(json.dumps(_choice(number, row)) + "\n" for number, row in enumerate(rows))
    (folder / "choices.jsonl").write_text(chosen, encoding="utf-8")
    write_tasks(folder / "tasks")
    write_tasks(folder / "fewer-tasks", count=7)
    (folder / "hub").mkdir()
    for number, name in enumerate(("one-train", "one-more", "two-train")):
        tiny.write_csv(folder / "hub" / f"{name}.csv", tiny.sentences(40, seed=number))
    files = "  data_files:\n  - {split: train, path: one-train.csv}\n  - {split: more, path: one-more.csv}\n"
    two = "- config_name: two\n  data_files: two-train.csv\n"
    (folder / "hub" / "README.md").write_text(f"---\nconfigs:\n- config_name: one\n{files}{two}---\n")


def _rows(seed: int) -> list[dict[str, str]]:
    pairs = zip(tiny.sentences(40, seed), tiny.sentences(40, seed + 7), strict=True)
    return [
        {
            "text": text,
            "other": other,
            "label": label,
            "kind": "ab"[number % 5 < 2],
            "topic": f"t{number // 2}",
            "rating": f"{number % 7 / 6:.2f}",
        }
        for number, ((text, label), (other, _)) in enumerate(pairs)
    ]


def _chat(row: dict[str, str]) -> dict[str, Any]:
    def turns(question: str, **more: str) -> list[dict[str, str]]:
        said = {"role": "user", "content": question, **more}
        return [said, {"role": "assistant", "content": row["label"]}]

    tool = {"type": "function", "function": {"name": "goal", "description": "score", "parameters": {}}}
    own = {
        "prompt": row["text"],
        "question": row["other"],
        "completion": row["label"],
        "rejected": row["kind"],
        "kind": row["topic"],
        "figure": f"{row['label']} 1,0{len(row['text']) % 10}",
    }
    talks = {"turns": turns(row["text"]), "others": turns(row["other"]), "named": turns(row["text"], name="team")}
    talks["long"] = turns(row["text"][:12]) + turns(row["text"][-4:])
    return {**own, **talks, "tools": json.dumps([tool]), "topic": row["topic"]}


def _tagged(row: dict[str, str]) -> dict[str, Any]:
    words = row["text"].split()
    tags = ["O" if word in tiny.FILLER else f"B-{row['label']}" for word in words]
    starts = [sum(len(word) + 1 for word in words[:place]) for place in range(len(words))]
    spans = [[str(start), str(start + len(word)), row["label"]] for start, word in zip(starts, words, strict=True)]
    return {
        "words": words,
        "loud": [word.upper() for word in words],
        "tags": tags,
        "others": ["O" if tag == "O" else f"B-{row['label']}"[: 2 + len(row["kind"])] for tag in tags],
        "text": row["text"],
        "shout": row["text"].upper(),
        "spans": spans,
        "first": spans[:1],
        "topic": row["topic"],
    }


def _choice(number: int, row: dict[str, str]) -> dict[str, Any]:
    topics = sorted(tiny.WORDS)
    choices = [topics[(number + step) % 3] for step in range(3)]
    return {
        "question": row["text"],
        "asked": row["other"],
        "context": row["other"],
        "choices": choices,
        "one": choices[0],
        "two": choices[1],
        "three": choices[2],
        "answer": row["label"],
        "other": choices[0],
        "place": 1 + number % 2,
        "right": f"{row['label']} {number}",
        "topic": row["topic"],
        "kind": f"k{number % 2}",
    }


def _question(number: int, row: dict[str, str]) -> dict[str, Any]:
    context = f"{row['text']} {row['other']}"
    words = context.split()
    return {
        "question": f"{row['label']} {number}",
        "asked": f"{row['kind']} {number}",
        "context": context,
        "text": f"{row['other']} {row['text']}",
        "answers": words[number % len(words)] if number % 4 else "",
        "others": words[0] if number % 3 else "",
        "topic": row["topic"],
    }


def _write_models(folder: Path) -> None:
    """A model stored as pickle, one whose checkpoint lacks a weight, and one whose template shows names and tools."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    for name in ("pickled", "lacking"):
        shutil.copytree(folder / "encoder", folder / name)
    weights = load_file(folder / "encoder" / "model.safetensors")
    (folder / "pickled" / "model.safetensors").unlink()
    torch.save(weights, folder / "pickled" / "pytorch_model.bin")
    kept = {name: value for name, value in weights.items() if "word_embeddings" not in name}
    save_file(kept, folder / "lacking" / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(folder / "decoder", folder / "telling")
    tokenizer = AutoTokenizer.from_pretrained(folder / "telling")
    shown = (
        "{{ message['role'] + (' ' + message['name'] if message['name'] else '') }}"  # a block would eat the line end
    )
    template = tiny.CHAT_TEMPLATE.replace("{{ message['role'] }}", shown)
    tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}{% endif %}" + template
    tokenizer.save_pretrained(folder / "telling")
