"""How long examples are, in tokens of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.init.base_model import Base
from finetune.init.columns import Column
from finetune.init.understood import Understood

ROWS = 1000
"""Examples that are counted."""
SHARE, SHARE_OF_CHATS = 95, 99
"""Percent of the examples that are to fit whole; of conversations, whose answers stand at the end, more."""
STEP = 16
MOST = {"chat": 1024}
USUAL = 256
"""Tokens beyond which a person has to say that more are worth their time, which grows with them: what `max_length` is
by default."""
EACH_TURN = 8
"""Tokens that a chat template puts around a turn."""


def max_length(columns: Sequence[Column], found: Understood, base: Base) -> tuple[int, str, bool]:
    """Give the tokens that an example may have, why, and whether all fit."""
    by_name = {column.name: column for column in columns}
    texts = [*_texts(found, by_name)][:: max(1, len(by_name[found.inputs[0]].values) // ROWS)]
    added = 2 + len(found.inputs)
    counts = np.array(
        [len(ids) + added for ids in base.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    )
    if found.task == "chat":
        counts = counts + 3 * EACH_TURN
    wanted = int(np.percentile(counts, SHARE_OF_CHATS if found.task == "chat" else SHARE))
    length = min(max(-(-wanted // STEP) * STEP, 32), MOST.get(found.task, USUAL), base.positions)
    fits = float((counts <= length).mean())
    why = f"tokens; {fits:.0%} of the examples fit whole (the median has {int(np.median(counts))})"
    return length, why, fits == 1


def _texts(found: Understood, by_name: Mapping[str, Column]) -> Iterator[str]:
    """Yield what the model is shown of each row, as one text."""
    names = [*found.inputs, *(found.answer[:1] if found.task == "chat" and not found.preference else ())]
    names += [found.answer[0]] if found.preference and "completion" in found.options else []
    for row in range(len(by_name[names[0]].values)):
        yield " ".join(_shown(by_name[name].values[row]) for name in dict.fromkeys(names))


def _shown(value: Any) -> str:
    from finetune.data.json_text import listed, parsed

    value = parsed(value) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else listed(value)
    if isinstance(value, dict):
        return max(map(str, value.get("text", value.values())), key=len, default="")
    if isinstance(value, list):
        turns = [each for each in value if isinstance(each, dict)]
        if turns and not any({"role", "from"} & turn.keys() for turn in turns):  # tools, which templates show as JSON
            return json.dumps(value)
        if turns:
            return " ".join(
                f"{turn.get('role', turn.get('from'))} {turn.get('content', turn.get('value'))}" for turn in turns
            )
        return " ".join(map(str, value))
    return "" if value is None else str(value)
