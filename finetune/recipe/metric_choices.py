"""Metrics that a task cannot have, or that would say nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune.core.registry import METRICS, STRATEGIES, TASKS
from finetune.metrics import find
from finetune.recipe.explain import Mistake


def margins(task: Any, advice: str = "leave it out") -> Iterator[Mistake]:
    """Metrics of pairs, where there are none."""
    for number, name in enumerate(task.metrics):
        metric = find(name)
        if metric is not None and {"margin", "reward"} & set(metric.columns):
            found = f"'{name}' compares chosen with rejected answers, and this task has no rejected ones"
            yield Mistake(("task", "metrics", number), found, advice)


def rewards(task: Any, strategy: Any) -> Iterator[Mistake]:
    """Metrics of rewards, where the strategy does not compare with the untuned model."""
    if not getattr(task, "rejected", None) or STRATEGIES.get(strategy.type)(strategy).reward_scale is not None:
        return
    how = f"{strategy.type} by {strategy.method}" if hasattr(strategy, "method") else strategy.type
    for number, name in enumerate(task.metrics):
        metric = find(name)
        if metric is not None and "reward" in metric.columns:
            found = f"'{name}' is about rewards against the untuned model, and strategy {how} has none"
            yield Mistake(("task", "metrics", number), found, "write preference_accuracy, which needs no other model")


def extracted(task: Any) -> Iterator[Mistake]:
    """Metrics of answers that are found in texts, where none are looked for."""
    if "extracted" in TASKS.get(task.type)(task).fills:
        return
    for number, name in enumerate(task.metrics):
        metric = find(name)
        if metric is not None and "extracted" in metric.columns:
            found = f"'{name}' counts texts in which an answer is found, and this task looks for none"
            advice = "write task type chat, and what an answer looks like in task.answer.pattern"
            yield Mistake(("task", "metrics", number), found, advice)


def answers(task: Any) -> Iterator[Mistake]:
    """Metrics of answers, where nothing is answered."""
    if "prediction" in TASKS.get(task.type)(task).fills:
        return
    others = [name for name, metric in METRICS.all().items() if set(metric.columns) <= {"loss", "weight", "bytes"}]
    for number, name in enumerate(task.metrics):
        metric = find(name)  # those of others compare answers
        if metric is None or "prediction" in metric.columns:
            found = f"'{name}' compares answers with references, and task {task.type} answers nothing"
            yield Mistake(("task", "metrics", number), found, f"choose from: {', '.join(others)}")


def columns(task: Any) -> Iterator[Mistake]:
    """Metrics of numbers where none is answered, of probabilities that the task does not give, and of another kind of
    answers."""
    known: Any = TASKS.get(task.type)(task)
    for number, name in enumerate(task.metrics if known.answer is not None else ()):
        metric, numbers = find(name), known.answer == "number"
        if metric is None:
            continue
        own = [other for other, each in METRICS.all().items() if each.of is not None and known.answer in each.of]
        if "prediction" in metric.columns and metric.numeric != numbers:
            found = f"'{name}' compares numbers, and task {task.type} answers with none"
            if numbers:
                own = [other for other, each in METRICS.all().items() if each.numeric or "loss" in each.columns]
                found = f"'{name}' compares texts letter by letter, and task {task.type} answers with a number"
        elif metric.of is not None and known.answer not in metric.of:
            found = f"'{name}' is about another kind of answers than those of task {task.type}"
        elif "probabilities" in metric.columns and "probabilities" not in known.fills:
            found = f"'{name}' is about probabilities of answers, and task {task.type} gives none"
        else:
            continue
        yield Mistake(("task", "metrics", number), found, f"choose from: {', '.join(own)}" if own else "leave it out")


def counted_bytes(task: Any) -> Iterator[Mistake]:
    """Metrics of a text's bytes, where no text is predicted."""
    if "bytes" in TASKS.get(task.type)(task).fills:
        return
    for number, name in enumerate(task.metrics):
        metric = find(name)
        if metric is not None and "bytes" in metric.columns:
            found = f"'{name}' is about the bytes of a text, and task {task.type} predicts none that are counted"
            yield Mistake(("task", "metrics", number), found, "leave it out")
