"""What every task can show of its examples to a person."""

import pytest

from finetune.models import ModelOptions, load_config, load_tokenizer
from finetune.runner.resources import TaskData
from finetune.study.facts import examples
from finetune.tasks.chat import Chat
from finetune.tasks.classification import Classification
from finetune.tasks.language import Language
from finetune.tasks.messages import readable
from tests import tiny


def fitted(task, folder, data):
    """The task fitted to ``data``, which is held out too, and encoded."""
    model = ModelOptions(source=str(folder))
    task.config = lambda: load_config(model)
    task.fit(tiny.splits(data), load_tokenizer(model))
    encoded = task.encode(data, "data.test", training=False)
    return TaskData(task, encoded, None, {"test": encoded}, {"test": data}, {"test": None}, {})


def rows(data, texts=True):
    table = examples(data, "test", texts)
    return {name: table[name].to_pylist() for name in table.schema.names}


def test_of_two_texts_both_are_shown(encoder_folder):
    data = tiny.dataset(text=["a cup", "a bank"], second=["a match", "a tax"], label=["yes", "no"])
    options = Classification.Options(type="classification", pair="second")
    found = rows(fitted(Classification(options), encoder_folder, data))
    assert found["input"] == ["a cup\n\na match", "a bank\n\na tax"] and found["reference"] == ["yes", "no"]


def test_of_messages_what_comes_before_the_last_answer(decoder_folder):
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "goal?"},
        {"role": "assistant", "content": "sport"},
        {"role": "user", "content": "bank?"},
        {"role": "assistant", "content": "money"},
    ]
    data = tiny.dataset(messages=[turns], who=["anna"])
    found = rows(fitted(Chat(Chat.Options(type="chat", messages="messages", group="who")), decoder_folder, data))
    assert found["input"] == ["system: be brief\n\nuser: goal?\n\nassistant: sport\n\nuser: bank?"]
    assert found["reference"] == ["money"] and found["group"] == ["anna"]


def test_what_is_text_already_stays(decoder_folder):
    assert readable("as it is") == "as it is" and readable(3) == "3"


@pytest.mark.parametrize("fixture", ["encoder_folder", "decoder_folder"])
def test_pieces_of_one_text_are_shown_one_by_one_and_belong_together(request, fixture):
    long = " ".join(text for text, _ in tiny.sentences(12))
    data = tiny.dataset(text=["a bank", long])
    made = fitted(Language(Language.Options(type="language", max_length=16)), request.getfixturevalue(fixture), data)
    found = rows(made)
    assert len(found["example"]) > 4 and found["example"] == [each.number for each in made.held_out["test"].examples]
    assert found["input"][0] == "a bank" and "".join(found["input"][1:]) == long, "hidden words are shown"
    assert found["group"] == ["row 0", *["row 1"] * (len(found["example"]) - 1)]
    assert set(found["reference"]) == {""}
    assert rows(made, texts=False)["group"] == ["0", *["1"] * (len(found["example"]) - 1)]


def test_texts_that_are_one_piece_each_have_no_groups(decoder_folder):
    data = tiny.dataset(text=["a bank", "a cup"])
    assert rows(fitted(Language(Language.Options(type="language")), decoder_folder, data))["group"] == [None, None]
