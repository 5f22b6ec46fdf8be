"""Baselines for answers in words: what is copied, and what the untuned model is shown before a question."""

import numpy as np
import pytest

from finetune.core.errors import FinetuneError
from finetune.core.examples import Prediction
from finetune.models import ModelOptions, load_tokenizer
from finetune.tasks.baselines.answers import CopyFirstSentence, FewShot
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.chat import Chat
from finetune.tasks.conversation import IGNORED
from tests import tiny


class Asked:
    """Remembers what the untuned model was asked, and answers nothing."""

    def predict(self, examples):
        self.examples = examples
        return [Prediction("", 0.0) for _ in examples]


@pytest.fixture
def chat(decoder_folder):
    """chat(train=[…], test=[…], system="…") -> a fitted task, and its training and test examples."""

    def make(train, test, **options):
        task = Chat(Chat.Options(type="chat", **options))
        tables = [task.converted(tiny.dataset(**columns), "data") for columns in (train, test)]
        task.fit(tiny.splits(tables[0]), load_tokenizer(ModelOptions(source=str(decoder_folder))))
        places = zip(tables, ("data.train", "data.test"), (True, False), strict=True)
        return task, *(ExampleSet(at, data, task.encode(data, at, training)) for data, at, training in places)

    return make


PROMPTED = {"prompt": "prompt", "completion": "completion"}


def prompted(*pairs):
    return {"prompt": [prompt for prompt, _ in pairs], "completion": [answer for _, answer in pairs]}


def talks(*conversations):
    roles = ("user", "assistant")
    return {
        "messages": [
            [{"role": roles[turn % 2], "content": content} for turn, content in enumerate(said)]
            for said in conversations
        ]
    }


def copied(chat, train, test, **options):
    task, *sets = chat(train, test, **options)
    baseline = CopyFirstSentence(task.columns)
    baseline.fit(sets[0], Asked())
    found = baseline.predict(sets[1])
    assert all(each.loss is None for each in found)
    return [each.text for each in found]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("The bank lent. It was late.", "The bank lent."),
        ("Up 3.5 points! More follows.", "Up 3.5 points!"),
        ("A heading\nand a text.", "A heading"),
        ("  one without an end ", "one without an end"),
        ("月は丸い。星は遠い。", "月は丸い。"),
    ],
)
def test_the_first_sentence_is_copied(chat, text, sentence):
    train = prompted(("a star", "space"), ("the goal", "sport"))
    assert copied(chat, train, prompted((text, "money")), **PROMPTED) == [sentence]


def test_of_the_last_thing_that_the_user_says(chat):
    train = talks(("a", "b"), ("the moon", "space"))
    test = talks(("first. of all.", "yes", "then this. and that.", "no"))
    assert copied(chat, train, test, messages="messages") == ["then this."]


def test_an_instruction_before_all_prompts_is_not_copied(chat):
    train = prompted(("Headline of:\nthe bank lent.", "x"), ("Headline of:\na bear fell.", "y"))
    test = prompted(("Headline of:\nThe moon rose. It set.", "z"), ("Headline of:", "w"), ("Other: text. more.", "v"))
    assert copied(chat, train, test, **PROMPTED) == ["The moon rose.", "Headline of:", "Other: text."]


TRAIN = prompted(("match goal", "sport"), ("bank loan", "money"), ("moon star", "space"), ("cup win", "sport"))
TEST = prompted(("tax fund", "money"), ("orbit crew", "space"))


def asked(chat, shots, train=TRAIN, test=TEST, **options):
    """The task, its test examples as they are, and as the untuned model is asked them."""
    task, training, held_out = chat(train, test, **options)
    baseline, untuned = FewShot(task, shots), Asked()
    baseline.fit(training, untuned)
    assert len(baseline.predict(held_out)) == len(held_out.examples)
    return task, held_out.examples, untuned.examples


def test_the_same_examples_stand_before_every_question_as_turns_of_their_own(chat):
    task, plain, shown = asked(chat, 2, **PROMPTED)
    pairs = list(zip(TRAIN["prompt"], TRAIN["completion"], strict=True))
    written = [f"<|im_start|>user\n{ask}<|im_end|>\n<|im_start|>assistant\n{say}<|im_end|>\n" for ask, say in pairs]
    before = {task.tokenizer.decode(shot.prompt).removesuffix(task.tokenizer.decode(one.prompt))
              for shot, one in zip(shown, plain, strict=True)}  # fmt: skip
    [before] = before
    assert before in {one + other for one in written for other in written if one != other}
    _, _, again = asked(chat, 2, **PROMPTED)
    assert [one.prompt.tolist() for one in again] == [one.prompt.tolist() for one in shown]


@pytest.mark.parametrize("template", ["model", "none"])
def test_what_is_scored_is_the_same_answer(chat, template):
    _, plain, shown = asked(chat, 3, template=template, **PROMPTED)
    for one, other in zip(plain, shown, strict=True):
        assert (other.number, other.reference, other.weight) == (one.number, one.reference, one.weight)
        assert other.target[other.target != IGNORED].tolist() == one.target[one.target != IGNORED].tolist()
        assert other.length > one.length and len(other.prompt) > len(one.prompt)


def test_a_conversations_own_system_message_stays_first(chat):
    task, _, shown = asked(chat, 1, system="be brief", **PROMPTED)
    text = task.tokenizer.decode(shown[0].prompt)
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n") and text.count("be brief") == 1


def test_earlier_turns_are_shown_and_not_scored(chat):
    train = talks(("a cup", "sport", "and a bank", "money"), ("a moon", "space", "a star", "space"))
    test = talks(("a tax", "money", "an orbit", "space"))
    task, [plain], [shown] = asked(chat, 1, train, test, messages="messages")
    assert task.tokenizer.decode(shown.prompt).count("<|im_start|>assistant") == 2 + 2
    assert np.sum(shown.target != IGNORED) == np.sum(plain.target != IGNORED)


def test_more_examples_than_there_are_cannot_be_shown(chat):
    with pytest.raises(FinetuneError, match="asks for 5 examples, and there are 4 to show"):
        asked(chat, 5, **PROMPTED)
