"""The options of a task of lm-evaluation-harness, as far as they decide what is asked and how it is scored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune.core.options import Options


class HarnessOptions(Options):
    """A task of EleutherAI's lm-evaluation-harness, which brings its documents, its prompts and its metrics; extra
    `lm-eval`. Its name alone, as in `lm_eval: [arc_easy]`, stands for all defaults. Cheap baselines do not answer."""

    task: str = Field(min_length=1)
    """The harness's name of a task, such as `arc_easy`, or that of a task file in `include`. A group of tasks, such as
    `mmlu`, is refused: name those of its tasks that are to be scored."""
    include: str | None = None
    """Folder of task files of your own (YAML), which are looked at first. The data that they name in
    `dataset_kwargs.data_files` are looked for beside the task file first."""
    run_code: bool = False
    """Let the task run code that did not come with an installed package: Python that task files of your own name
    (`!function`, `class`) or reach from their templates, metrics that are fetched from the hub, and programs that the
    model has written, for tasks such as `humaneval` that run these."""
    examples: int | None = Field(None, ge=0)
    """Solved examples that are shown before each document, drawn with the harness's own seed and the same for all runs.
    Default: as many as the task's file says, or none."""
    limit: int | None = Field(None, ge=1)
    """Score the first so many documents only. Default: all."""
    metrics: list[Annotated[str, Field(min_length=1)]] | None = Field(None, min_length=1)
    """Metrics of the task, the headline first, as the harness calls them: `acc_norm`; of a task with several filters
    of answers with the filter's name, as in `exact_match,strict-match`. Default: all that the task has."""
    apply_chat_template: bool = False
    """Put the prompt into the model's chat template, solved examples as turns before it. The default is the harness's
    own, with which published numbers compare; `true` is for models that have been tuned to chat."""
    max_length: int | None = Field(None, ge=8)
    """Tokens that a prompt may have with its answer: longer prompts lose their beginning, and longer texts are scored
    in several windows, as in the harness. Default: as many as the model has positions; 2048 where it has no limit."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest generated answer, in tokens. Default: what the task's file says, or 256."""
