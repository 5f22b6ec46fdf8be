"""A task of the harness as it is loaded: its documents, what it asks about each, and what it makes of the answers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune.core.digests import file_digest, text_digest
from finetune.core.errors import InputError, bad_input, did_you_mean, first_line
from finetune.core.progress import track
from finetune.metrics.harness import PREFIX, HarnessMetric
from finetune.tasks.harness.files import TaskFile, find, quiet
from finetune.tasks.harness.options import HarnessOptions

SEED = 1234
"""Draws the solved examples before each document: the harness's own default."""
TRIED = 8
"""Documents whose own right answers are scored beforehand, to see what metrics come of it."""
MEASURES_NOTHING = "bypass"
"""The harness's word for an aggregation that aggregates nothing."""

Responses = Sequence[Sequence[Any]]
"""What a model has answered to each request about a document, as often as the task repeats it."""
Render = Callable[..., str]
"""Shows messages in a chat template, as :meth:`lm_eval.api.model.LM.apply_chat_template` does."""


@dataclass(frozen=True)
class Documents:
    """A task's documents. They are asked about and scored by the harness's own code."""

    task: Any
    """The `lm_eval.api.task.Task`."""
    rows: list[Any]
    """The documents, in the harness's order."""
    shots: int
    """Solved examples before each."""
    fingerprint: str
    """Of documents, solved examples, task file, and code beside it."""
    source: str
    """What it is, in words, with the harness's version."""
    metrics: tuple[HarnessMetric, ...]
    """What is scored, the headline first."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> str:
        """Tell what is asked, in the harness's word: `multiple_choice`, `loglikelihood`, `loglikelihood_rolling` or
        `generate_until`."""
        return str(self.task.OUTPUT_TYPE)

    def requests(self, chat: Render | None, title: str) -> list[list[Any]]:
        """Make the requests about each document, as instances of the harness; ``chat`` shows messages in the model's
        chat template, None: prompts are plain text."""
        with quiet():
            self.task.set_config("num_fewshot", self.shots)
            self.task.set_fewshot_seed(SEED)
            return [self._requests(number, row, chat) for number, row in enumerate(track(self.rows, title))]

    def _requests(self, number: int, row: Any, chat: Render | None) -> list[Any]:
        how = {"apply_chat_template": chat is not None, "chat_template": chat}
        asked = {"num_fewshot": self.shots, "system_instruction": None, "fewshot_as_multiturn": True}
        context = self.task.fewshot_context(row, **asked, **how, gen_prefix=self.task.doc_to_prefix(row))
        about = (self.task.task_name, number, self.task.config.repeats)
        found = self.task.construct_requests(doc=row, ctx=context, metadata=about, **how)
        return found if isinstance(found, list) else [found]

    def outcomes(self, asked: Sequence[Sequence[Any]], responses: Sequence[Responses]) -> dict[str, list[Outcome]]:
        """Make of the ``responses`` to the requests ``asked`` about some documents what each of them has come to, by
        the task's filters of answers."""
        groups = [
            [replace(one, resps=list(said), filtered_resps={}) for one, said in zip(own, answers, strict=True)]
            for own, answers in zip(asked, responses, strict=True)
        ]
        with quiet():
            self.task._instances = [one for group in groups for one in group]
            self.task.apply_filters()
            return {name: [self._outcome(group, name) for group in groups] for name in groups[0][0].filtered_resps}

    def _outcome(self, group: Sequence[Any], name: str) -> Outcome:
        answers = [one.filtered_resps[name] for one in sorted(group, key=lambda one: one.idx)]
        return Outcome(answers, self.task.process_results(group[0].doc, answers))

    def text_of(self, row: Any) -> str:
        """Give what a person reads of a document: its question without solved examples, or else its text."""
        asked = self.task.doc_to_text(row)
        return str(asked if asked not in ("", None) else self.task.doc_to_target(row))


@dataclass(frozen=True)
class Outcome:
    """What a document has come to under one filter."""

    answers: list[Any]
    """The answers to its requests, as they are compared."""
    values: Mapping[str, Any]
    """By metric of the harness, its value for the document."""


def load(options: HarnessOptions, at: str) -> Documents:
    """Load the task that ``options`` name. Raises InputError under recipe path ``at``, in one line, for everything that
    is wrong with it: also where its documents cannot be fetched, and where its own code fails."""
    file = find(options, at)
    with quiet(), TemporaryDirectory(prefix="finetune-lm-eval-") as folder, _told(file, at):
        config = _config(file, folder)
        task = _made(config)
        if getattr(task, "MULTIMODAL", False):
            raise bad_input(f"{at}.task", f"'{file.name}' shows pictures or sounds, and the model reads text")
        shots = _shots(task, options, at)
        rows = list(islice(task.eval_docs, options.limit))
        solved = _solved(task) if shots else []
        facts = [_said(file, config), json.dumps([rows, shots, solved], sort_keys=True, default=str)]
        made = Documents(task, rows, shots, text_digest(str(facts)), _source(file), ())
        metrics = _metrics(made, options, at)
    return replace(made, metrics=metrics)


@contextmanager
def _told(file: TaskFile, at: str) -> Iterator[None]:
    """Within the context, say in one line what is wrong with a task."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the harness's and the task's own code: anything can come out of it
        place = file.config.get("dataset_path")
        advice = "correct its file" if file.own else "update lm-eval, or leave it out"
        if place and not _is_local(str(place)):
            advice = f"its documents are the hub dataset '{place}': check the network, and that you are logged in"
        raise bad_input(f"{at}.task", f"'{file.name}' cannot be loaded: {first_line(error)}", advice) from error


def _config(file: TaskFile, folder: str) -> dict[str, Any]:
    """Read a task's file, with its functions, and data that are found beside it; what `datasets` makes of local data
    goes to ``folder``."""
    from lm_eval.tasks._yaml_loader import load_yaml

    config = dict(load_yaml(file.path))
    given = dict(config.get("dataset_kwargs") or {})
    if "data_files" in given:
        given["data_files"] = _beside(given["data_files"], file.path.parent)
    if _is_local(str(config.get("dataset_path"))):
        given["cache_dir"] = folder
    return {**config, **({"dataset_kwargs": given} if given else {})}


def _beside(files: Any, folder: Path) -> Any:
    """Give the same data files, with the path of each that is found in ``folder``."""
    if isinstance(files, Mapping):
        return {split: _beside(each, folder) for split, each in files.items()}
    if isinstance(files, list):
        return [_beside(each, folder) for each in files]
    return str(folder / files) if (folder / files).exists() else files


def _is_local(place: str) -> bool:
    """Tell whether ``dataset_path`` is a format of files, or a folder, and not a dataset of the hub."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return place in _PACKAGED_DATASETS_MODULES or Path(place).exists()


def _made(config: dict[str, Any]) -> Any:
    """Make the harness's task."""
    from lm_eval.tasks import TaskManager

    [task] = TaskManager(include_defaults=False).load([config])["tasks"].values()
    return task


def _shots(task: Any, options: HarnessOptions, at: str) -> int:
    """Count the solved examples before each document. Raises InputError where there are none to be shown."""
    own, asked = task.get_config("num_fewshot"), options.examples
    shots = int(own or 0) if asked is None else asked
    if not shots:
        return 0
    if asked and own == 0:
        found = f"is {asked}, and '{options.task}' says in its file that no solved examples stand before it"
        raise bad_input(f"{at}.examples", found, "leave it out")
    said = getattr(task, "fewshot_cfg", None)
    if not (task.has_training_docs() or task.has_validation_docs()) and not (said and (said.split or said.samples)):
        found = f"is {shots}, and '{options.task}' has no solved examples beside the documents that are scored"
        raise bad_input(f"{at}.examples", found, "write examples: 0, or name a fewshot_split in the task's file")
    there = len(_solved(task))
    if shots > there:
        found = f"is {shots}, and '{options.task}' has {there} solved examples"
        raise bad_input(f"{at}.examples", found, f"write at most {there}")
    return shots


def _solved(task: Any) -> list[Any]:
    """List the solved examples of which some are shown."""
    sampler = getattr(task, "sampler", None)
    return list(task.fewshot_docs() if sampler is None else sampler.df)


def _said(file: TaskFile, config: dict[str, Any]) -> str:
    """Write down all that a task's file says but where its data lie, and its code, and that of a user's own files
    beside it."""
    kept = {name: value for name, value in config.items() if name not in ("dataset_kwargs", "include")}
    beside = sorted({path for each in file.sources for path in each.parent.glob("*.py")}) if file.own else []
    return json.dumps([kept, *map(file_digest, beside)], sort_keys=True, default=_code)


def _code(value: Any) -> str:
    """Give the source of a function or class that a task's file names."""
    try:
        return inspect.getsource(value)
    except (TypeError, OSError):
        return str(value)


def _source(file: TaskFile) -> str:
    import lm_eval

    version = (file.config.get("metadata") or {}).get("version")
    return f"lm-evaluation-harness {lm_eval.__version__}: {file.name}" + (f", version {version}" if version else "")


def _metrics(documents: Documents, options: HarnessOptions, at: str) -> tuple[HarnessMetric, ...]:
    """Find what is scored, by scoring right answers to a few documents. Raises InputError for metrics that the task has
    not, and for those that give no number."""
    from lm_eval.api.registry import get_aggregation

    tried = replace(documents, rows=documents.rows[:TRIED])
    asked = tried.requests(None, f"trying {options.task}")
    responses = [[_right(one, documents) for one in own] for own in asked]
    outcomes = tried.outcomes(asked, responses)
    aggregations, higher = documents.task.aggregation(), documents.task.higher_is_better()
    nothing = {name for name, aggregate in aggregations.items() if aggregate is get_aggregation(MEASURES_NOTHING)}
    known: dict[str, HarnessMetric] = {}
    for name, found in outcomes.items():
        given = dict.fromkeys(metric for each in found for metric in each.values if metric not in nothing)
        # In the order of the task's file, as far as it names them.
        for metric in dict.fromkeys([*(each for each in aggregations if each in given), *given]):
            # What has no aggregation is a mean, as in the harness.
            made = HarnessMetric(metric, name, aggregations.get(metric, _mean), bool(higher.get(metric, True)))
            known[made.name.removeprefix(PREFIX)] = made
            made.made_of([each.values for each in found])
    if not known:
        raise bad_input(f"{at}.task", f"'{options.task}' has no metric by which answers could be scored")
    for number, wanted in enumerate(options.metrics or ()):
        if wanted not in known:
            found_not = f"'{options.task}' has no metric '{wanted}'"
            raise bad_input(f"{at}.metrics.{number}", found_not, did_you_mean(wanted, known))
    return tuple(known[name] for name in options.metrics or known)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _right(request: Any, documents: Documents) -> list[Any]:
    """Answer a request as a model would that is right, as often as the task repeats it."""
    kind = request.request_type
    answer: Any = {"loglikelihood": (-1.0, True), "loglikelihood_rolling": -1.0}.get(kind)
    if kind == "generate_until":
        target = documents.task.doc_to_target(request.doc)
        answer = str(target[0] if isinstance(target, list) and target else target)
    return [answer] * request.repeats
