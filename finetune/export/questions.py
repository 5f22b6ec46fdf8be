"""What an export is asked on held-out examples, raw as a user has it: texts before any tokenizer, messages before any
chat template.

Engines (`finetune/export/engines/`) are run as `python -I ENGINE.py FOLDER QUESTIONS ANSWERS`, and read and write JSON
lines. They do all else by what lies in FOLDER: tokenizer and where it cuts, chat template, generation config, labels,
pooling.

QUESTIONS. The first line is the header: `{"kind": "header", "format": 1, "task": NAME, "today": "2026-11-30"}`
(the date that a chat template may print), and what else every question of the task needs:

- `max_length`: of `continue` with `text` and of `fill`, the tokens of a piece; otherwise the export's own tokenizer
  says where texts are cut (`model_max_length`, `truncation_side`).
- `stride`, `max_answer_length`: of questions about a text, as its windows are made.
- `end`: of `continue` with `text`, whether the end token follows a text that is not cut.

Each other line is a question with an `id`, counted from 0, and a `kind`. Answers have the same `id`.

| kind | question | answer |
| --- | --- | --- |
| `classify` | `text`, or `text` and `pair` | `probabilities`: {label: p}, of which one is right |
| `multi_label` | the same | `probabilities`: {label: p}, each by itself |
| `regress` | the same | `value`: what the head says, without changing its unit |
| `tag` | `text`, `words`: [[from, to], ...] in characters | `tags`: the likeliest tag of each word, by the first token
  that begins in it; `O` where there is none |
| `answer` | `question`, `context` | `answer`: the likeliest span, `margin`: its log-likelihood minus that of none |
| `choose` | `text`, `choices`, `beside`: true | `scores`: of each choice beside the text, by the head |
| `choose` | `prompt` or `messages`, `choices` | `scores`: log-likelihood of each choice after the prompt (after a space
  where the prompt has none at its end), or as the assistant's turn after the messages; see below |
| `embed` | `text` | `vector` |
| `continue` | `messages` (and `tools`) | see below |
| `continue` | `prompt`, `target` | see below: prompt, target and the end token, as they are |
| `continue` | `text` | see below: the first `max_length` - 1 tokens, and the end token where the text is no longer;
  without `end` the first `max_length` |
| `fill` | `text`, `hidden`: places of tokens, to be replaced by the mask token | `next`, `log_probabilities`: of them |
| `translate` | `text`, `target`: of an encoder-decoder | `next`, `log_probabilities`: of each token of the target,
  which does not begin with the decoder's first token and ends with the end token |

`continue` is teacher-forced: one pass over all tokens T of the conversation or text. Its answer has

- `tokens`: [T] what was read,
- `next`: [T] the likeliest token after each,
- `log_probabilities`: [T - 1] of the token that does follow, in nats,
- `prompt`: how many tokens ask for the last answer (the template with what asks for an answer; the prompt alone), where
  it begins the tokens read, else -1; absent for `text`.

Where a `choose` has `mean`: true, its scores are means over the tokens of a choice. Where it has `free`, which is such
a `prompt` or such `messages` of a text without content, the scores of the choices after that are subtracted; their
`tokens` follow those of the question.

Where a question has `generate`: N, the answer also has `generated`: up to N tokens that the export generates after the
prompt under its own generation config, which ends with one of `ends` or is N long; engines that cannot leave it out.

`tokens` may be in every answer: the token numbers that were read, of `choose` a list for each choice, of `answer` one
for each window, of `translate` those of the text, with `target`: [S] those of the target. An engine whose form has
`same_tokens` gives them.

ANSWERS. The first line is `{"kind": "engine", "name": NAME, "versions": {package: version}, "ends": [token, ...]}`:
`ends` are the tokens at which the export stops generating, by its own files; empty where it generates nothing.
An engine that cannot answer ends with an exit code that is not 0 and says why in its last line on stderr.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.errors import FinetuneError

FORMAT = 1
"""Version of the lines."""


@dataclass(frozen=True)
class Asked:
    """A question on a held-out example, and what the trained model says to it by our own code, in float32."""

    question: dict[str, Any]
    """Without its `id`."""
    expected: dict[str, Any]
    """The keys of its answer; `labelled` of texts: the places in `tokens` whose prediction counts; beside `next` the
    `second` choice, and how far it is `behind`, in nats."""
    example: int = -1
    """Its number among the held-out ones, as predictions are stored under."""
    says: str | None = None
    """What the model's prediction is stored as; None: not known, or too long to be the same in other arithmetic."""
    reference: Any = None
    """The right answer, where the form of the answer has one: a label, a number, a list of tags, a choice's place."""


@dataclass(frozen=True)
class Asking:
    """Everything that is asked of an export."""

    header: dict[str, Any]
    asked: list[Asked]
    of: int
    """Examples that are held out."""
    left_out: dict[str, int]
    """Why some examples were not asked, in words, and how many."""
    name: str = ""
    """The held-out set's."""
    ends: frozenset[int] = frozenset()
    """Tokens at which the export has to stop, as the answers that were learnt end with them; empty: no such."""


def write_questions(asking: Asking, path: Path) -> None:
    """Write the lines that an engine reads."""
    lines = [{"kind": "header", "format": FORMAT, **asking.header}]
    lines += [{"id": number, **each.question} for number, each in enumerate(asking.asked)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_answers(path: Path, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the engine's first line, and its answers to ``count`` questions in their order. Raises
    :class:`FinetuneError` where some are missing."""
    lines: Iterable[Mapping[str, Any]] = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    first, *rest = map(dict, lines)
    by_number = {line["id"]: line for line in rest}
    if first.get("kind") != "engine" or by_number.keys() != set(range(count)):
        raise FinetuneError(f"the engine gave {len(by_number)} answers to {count} questions")
    return first, [by_number[number] for number in range(count)]
