"""What a process that helps tells the one that has started it."""

import json
from io import StringIO

from finetune.launch.helping import SentProgress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_everything_is_sent_as_a_line_of_json():
    stream, clock = StringIO(), Clock()
    progress = SentProgress(stream, clock)
    progress.say("lora, seed 0 · accuracy 0.9")
    with progress.phase("run 1", 10) as phase:
        for second in range(1, 5):
            clock.now = second
            phase.step(second, "loss 0.5")
            progress.look()
    sent = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sent[0] == {"say": "lora, seed 0 · accuracy 0.9"}
    assert [each["at"] for each in sent if "at" in each] == [["run 1", n, 10, "loss 0.5"] for n in (2, 3, 4)]
    [line] = [each["line"] for each in sent if "line" in each]
    assert line.startswith("run 1: 2/10 · loss 0.5"), "and in words, now and then"
