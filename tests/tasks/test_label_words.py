"""Labels as words."""

from finetune.tasks.label_words import LabelWords
from tests import tiny
from tests.examples import TaskExample


def write(folder, count):
    return tiny.write_csv(folder / "data.csv", tiny.sentences(count))


PROMPT = {"prompt": "{text}\nTopic:", "max_length": 64}
EXAMPLES = {
    "label-words": TaskExample(PROMPT, write),
    "label-words/calibrated": TaskExample({**PROMPT, "calibrate": "contextual"}, write, alone=True),
}
