"""Multiple choice."""

import json

from finetune.tasks.multiple_choice import MultipleChoice
from tests import tiny
from tests.examples import TaskExample


def questions(count, choices=4, seed=0):
    """Texts, each with its topic among words of other kinds."""
    rows = []
    for number, (text, topic) in enumerate(tiny.sentences(count, seed)):
        others = [each for each in (*sorted(tiny.WORDS), *tiny.FILLER[1:4]) if each != topic][: choices - 1]
        place = number % choices
        rows.append({"question": text, "choices": [*others[:place], topic, *others[place:]], "answer": place})
    return rows


def write(folder, count):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions(count)), encoding="utf-8")
    return path


EXAMPLES = {
    "multiple-choice": TaskExample({"max_length": 48}, write, models=("encoder",)),
    "multiple-choice/likelihood": TaskExample(
        {"max_length": 64, "head": "likelihood", "metrics": ["accuracy", "accuracy_norm", "nll"]}, write
    ),
}
