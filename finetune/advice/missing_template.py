"""A chat model is asked in the form that it knows."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE


@ADVICE.register
class MissingTemplate(Rule):
    """Ask a model in its own chat template, where it has one."""

    name = "missing-template"
    why = "a chat model knows turns by its template's tokens: without them it has to learn another form first"
    source = "transformers' documentation, Chat templates"

    def look(self, seen: Seen) -> Iterator[Saw]:
        template = getattr(seen.recipe.task, "template", "")
        tokenizer = seen.data.task.tokenizer
        if template == "none" and tokenizer.chat_template:
            yield Saw(
                "task.template is none, and the model has a chat template", "task.template: model, or leave it out"
            )
        elif template is None and not tokenizer.chat_template and seen.data.task.causal:
            found = "the model has no chat template: prompts are plain text that it goes on with"
            yield Saw(
                found, "the instruct variant of the model, where there is one; or task.template: none, which says so"
            )
