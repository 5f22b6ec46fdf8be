"""One row of the table: a family learns a task, fully and by LoRA, and what the run folder holds is held against it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts._families.zoo import Family, sentences

STRATEGIES = {"full": {"type": "full"}, "LoRA": {"type": "adapter", "rank": 4}}
TASKS: dict[str, dict[str, Any]] = {
    "classification": {"type": "classification", "max_length": 32},
    "language": {"type": "language", "max_length": 32},
    "chat": {"type": "chat", "prompt": "text", "completion": "label", "max_length": 64, "max_new_tokens": 4},
}
TRAIN = {"max_steps": 4, "min_steps": 1, "batch_size": 8, "learning_rate": 5.0e-3, "evaluations": 0}
TOLERANCE = 1e-4
"""Relative, of an example's loss."""
WORKS = "works"


class Differs(Exception):
    """What came out is not what should have."""


@dataclass(frozen=True)
class Refused(Exception):
    """The tool said in one line that it does not do this, and why."""

    why: str


def recipe(folder: Path, task: str, strategies: Sequence[str], model: Path, **train: Any) -> Path:
    """A recipe in ``folder`` and its data: 24 examples to learn, 8 to score in batches of four."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "data.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *sentences(32)])
    content = {
        "name": "study",
        "seeds": 1,
        "model": {"source": str(model), "dtype": "float32", "device": "cpu"},
        "data": {"train": {"path": "data.csv"}, "split": {"test": 8}},
        "task": TASKS[task],
        "scoring": {"batch_size": 4, "base": False},
        "baselines": {"enabled": False},
        "train": {**TRAIN, **train},
        "variants": {name: {"strategy": STRATEGIES[name]} for name in strategies},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML too
    return path


def study(path: Path, output: str = "out") -> Path:
    """Run a recipe; the study's folder. Raises :class:`Refused`, or :class:`Differs` where a run ended in an error."""
    from finetune import recipe as recipes
    from finetune.core.errors import InputError
    from finetune.study.running import run_study

    try:
        outcome = run_study(recipes.load(path), path.parent / output)
    except InputError as error:
        raise Refused(without_paths(error)) from None
    for run in outcome.failed:
        if run["status"] != "degenerate":  # so few steps need not teach anything
            raise Differs(f"{run['variant']}: {run['status']}: {str(run['reason']).splitlines()[0]}")
    return outcome.folder


def without_paths(error: Any) -> str:
    """What an error says, in one line, without the places of files and the model's family."""
    problem = error.problems[0]
    said = f"`{problem.path}`: {problem.found}" if problem.path else problem.found
    placeless = re.sub(r"(?:\w+:)?/[\w./-]*/", "", " ".join(said.split()))
    return re.sub(r"is an? \S+ model", "is a model", placeless)


def row(family: Family, task: str, folder: Path) -> dict[str, str]:
    """For each strategy: it works, or it is refused and why. Raises :class:`Differs` and whatever else went wrong."""
    model = family.make(folder / "model")
    try:
        path = recipe(folder, task, list(STRATEGIES), model)
        done = dict.fromkeys(STRATEGIES, (path, study(path)))
    except Refused:  # the one or the other, or both
        done = {}
    found = {}
    for name in STRATEGIES:
        try:
            if not done:
                path = recipe(folder / name, task, [name], model)
                done_alone = path, study(path)
            compare(*(done.get(name) or done_alone), name, task)
            found[name] = WORKS
        except Refused as refused:
            found[name] = f"refused: {refused.why}"
        except Exception as error:
            found[name] = f"FAILS: {type(error).__name__}: {(str(error).strip() or 'no reason').splitlines()[0]}"
    return found


def compare(path: Path, study: Path, variant: str, task: str) -> None:
    """Hold the predictions that a run wrote, made in batches, against those of the model in its folder, as plain
    transformers and peft load it, one example at a time."""
    from finetune import recipe as recipes
    from finetune.core.run_dir import StudyDir
    from finetune.evaluate.store import read
    from finetune.runner.resources import Resources

    run = StudyDir(study).run(variant, 0)
    resolved = recipes.load(path)
    own = next(each for each in resolved.variants if each.name == variant).recipe
    data = Resources().data(own, own.data.split.seed)
    examples, stored = data.held_out["test"].examples, read(run.predictions("test"))
    model = load(run.model, task, getattr(data.task, "masked", False), variant).eval()
    for number, example in enumerate(examples):
        loss, said = alone(model, example, task, getattr(data.task, "masked", False), data.task)
        if abs(loss - stored.loss[number]) > TOLERANCE * max(abs(loss), 1):
            raise Differs(f"loss {loss:.6g} alone, as plain transformers load it, and {stored.loss[number]:.6g} here")
        if said is not None and said != stored.prediction[number]:
            raise Differs(f"says {said!r} as plain transformers load it, and {stored.prediction[number]!r} here")


def load(folder: Path, task: str, masked: bool, variant: str) -> Any:
    """As a person would who knows neither the recipe nor the base model."""
    import peft
    import transformers

    if task == "classification":
        plain, adapter = transformers.AutoModelForSequenceClassification, peft.AutoPeftModelForSequenceClassification
    elif masked:
        plain, adapter = transformers.AutoModelForMaskedLM, peft.AutoPeftModel
    else:
        plain, adapter = transformers.AutoModelForCausalLM, peft.AutoPeftModelForCausalLM
    return (adapter if variant == "LoRA" else plain).from_pretrained(folder)


def alone(model: Any, example: Any, task: str, masked: bool, own: Any) -> tuple[float, str | None]:
    """The loss of one example, summed over its labels, and what the model says, where that can be told."""
    import torch
    from torch.nn.functional import cross_entropy

    ids = torch.tensor(example.inputs["input_ids"], dtype=torch.int64)[None, : example.rejected]
    with torch.no_grad():
        if task == "classification":
            logits = model(input_ids=ids).logits
            return cross_entropy(logits, torch.tensor([example.target])).item(), own.labels[int(logits.argmax())]
        logits, targets = (
            model(input_ids=ids).logits[0],
            torch.tensor(example.target[: example.rejected], dtype=torch.int64),
        )
        if not masked:
            logits, targets = logits[:-1], targets[1:]
        loss = cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum").item()
        if example.prompt is None:
            return loss, None
        prompt = torch.tensor(example.prompt, dtype=torch.int64)[None]
        ends = [own.tokenizer.eos_token_id, own.tokenizer.convert_tokens_to_ids("<|im_end|>")]
        options = {"do_sample": False, "max_new_tokens": own.options.max_new_tokens, "eos_token_id": ends}
        made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), **options)
        return loss, own.tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True).strip()
