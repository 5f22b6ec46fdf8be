"""Labels as words: prompts, words, calibration, and that batches change nothing."""

import numpy as np
import pytest
import torch

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.tasks.causal.branches import sequences_of
from finetune.tasks.causal.loss_paths import plain_outputs
from finetune.tasks.label_words import LabelWords
from tests import tiny
from tests.examples import TaskExample


def write(folder, count):
    return tiny.write_csv(folder / "data.csv", tiny.sentences(count))


PROMPT = {"prompt": "{text}\nTopic:", "max_length": 64}
EXAMPLES = {
    "label-words": TaskExample({**PROMPT, "template": "none"}, write, far=1e-3),
    "label-words/calibrated": TaskExample({**PROMPT, "calibrate": "contextual"}, write, alone=True),
}

TRAIN = {"text": ["the bank", "a match", "an orbit of a moon", ""], "label": ["money_talk", "sport", "space", "sport"]}


def fitted(folder, data=None, **options):
    """A task fitted to some texts, what it encodes of them, and its model."""
    task = LabelWords(LabelWords.Options(type="label-words", **{**PROMPT, **options}))
    train = tiny.dataset(**(data or TRAIN))
    task.fit(tiny.splits(train), load_tokenizer(ModelOptions(source=str(folder))))
    encoded = task.encode(train, "data.train", training=True)
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return task, encoded, base.copy(Streams(0)).eval()


def texts(task, example):
    """Each candidate with its prompt, as the model reads it."""
    return [task.tokenizer.decode(ids) for ids, _ in sequences_of(example)]


def test_words_are_answers_in_the_chat_template(decoder_folder):
    task, encoded, _ = fitted(decoder_folder, verbaliser={"sport": "games"})
    assert task.labels == ("money_talk", "space", "sport") and task.words == ["money talk", "space", "games"]
    asked = "<|im_start|>user\nthe bank\nTopic:<|im_end|>\n<|im_start|>assistant\n"
    assert texts(task, encoded.examples[0]) == [f"{asked}{words}<|im_end|>" for words in task.words]
    assert [example.target for example in encoded.examples] == [0, 2, 1, 2]
    assert encoded.facts["labels"] == {"money_talk": 1, "space": 1, "sport": 2}


def test_without_a_template_words_follow_a_space(decoder_folder):
    task, encoded, _ = fitted(decoder_folder, template="none")
    assert texts(task, encoded.examples[0]) == [f"the bank\nTopic: {words}" for words in task.words]


def test_long_texts_are_cut_and_their_question_stays(decoder_folder):
    data = {"text": ["the bank " * 40, "a match"], "label": ["money", "sport"]}
    task, encoded, _ = fitted(decoder_folder, data, max_length=40)
    assert encoded.facts["cut"] == 1
    assert task.positions(encoded.examples).tolist()[0] <= 40
    assert all("the bank" in text and "\nTopic:<|im_end|>" in text for text in texts(task, encoded.examples[0]))
    with pytest.raises(InputError, match=r"row 1: prompt and longest answer are .* too long without any"):
        fitted(decoder_folder, data, max_length=8)


@pytest.mark.parametrize("template", ["model", "none"])
@pytest.mark.parametrize("calibrate", ["none", "contextual"])
def test_probabilities_are_the_words_likelihoods_in_any_batch(decoder_folder, template, calibrate):
    """Against each label's text by itself; calibrated, divided by its likelihood after a text without content."""
    task, encoded, model = fitted(decoder_folder, template=template, calibrate=calibrate, content_free="N/A of it")
    _, free, _ = fitted(decoder_folder, {"text": ["N/A of it", "x", "y"], "label": [*task.labels]}, template=template)

    def likelihoods(example):
        found = [plain_outputs(model, ids, labels).losses() for ids, labels in sequences_of(example)]
        return -torch.cat(found)[-len(task.labels) :]

    with torch.no_grad():
        together = task.predict(model, encoded.examples, task.collate(encoded.examples))
        for example, found in zip(encoded.examples, together, strict=True):
            [alone] = task.predict(model, [example], task.collate([example]))
            wanted = likelihoods(example) - (likelihoods(free.examples[0]) if calibrate == "contextual" else 0)
            np.testing.assert_allclose(found.probabilities, wanted.softmax(0).numpy(), rtol=1e-4)
            np.testing.assert_allclose(found.probabilities, alone.probabilities, rtol=1e-4)
            np.testing.assert_allclose(
                task.plain(model, example).logits.softmax(1)[0].numpy(), found.probabilities, rtol=1e-4
            )
            assert found.loss == pytest.approx(-np.log(found.probabilities[example.target]), abs=1e-4)
            assert found.text == task.labels[int(found.probabilities.argmax())]
    assert task.uncombined().outputs(model, task.collate(encoded.examples)).logits.shape[1] == (
        3 if calibrate == "none" else 6
    )


def test_calibration_takes_away_what_is_liked_without_content(decoder_folder):
    """Of a text without content itself, every label is then as likely."""
    task, encoded, model = fitted(decoder_folder, {**TRAIN, "text": ["N/A", "a", "b", "c"]}, calibrate="contextual")
    with torch.no_grad():
        found = task.predict(model, encoded.examples[:1], task.collate(encoded.examples[:1]))
    np.testing.assert_allclose(found[0].probabilities, [1 / 3] * 3, rtol=1e-4)


@pytest.mark.parametrize(
    ("verbaliser", "found"),
    [
        ({"sports": "games"}, "'sports' is no label .*did you mean 'sport'"),
        ({"sport": "space"}, "labels 'space' and 'sport' have the same words, 'space'"),
        ({"sport": "  "}, "label 'sport' has no words"),
    ],
)
def test_words_that_tell_no_labels_apart_are_refused(decoder_folder, verbaliser, found):
    with pytest.raises(InputError, match=f"(?s){found}"):
        fitted(decoder_folder, verbaliser=verbaliser)


def test_a_prompt_needs_a_place_for_the_text():
    with pytest.raises(ValueError, match=r"prompt needs \{text\} once"):
        LabelWords.Options(type="label-words", prompt="Which topic?")


def test_labels_that_are_missing_or_new_are_refused(decoder_folder):
    task = LabelWords(LabelWords.Options(type="label-words"))
    with pytest.raises(InputError, match="has no label in row 2"):
        task.check(tiny.dataset(text=["a", "b"], label=["x", None]), "data.train")
    train, test = tiny.dataset(text=["a", "b"], label=["x", "y"]), tiny.dataset(text=["c"], label=["z"])
    with pytest.raises(InputError, match="'test' has labels that no training example has: z"):
        task.fit(tiny.splits(train, test=test), load_tokenizer(ModelOptions(source=str(decoder_folder))))
    with pytest.raises(InputError, match="one class only"):
        task.fit(tiny.splits(test), load_tokenizer(ModelOptions(source=str(decoder_folder))))


def test_a_masked_model_is_refused(encoder_folder):
    model = load_base(ModelOptions(source=str(encoder_folder)), "AutoModel").model
    with pytest.raises(InputError, match="bert model, which does not continue a text"):
        LabelWords(LabelWords.Options(type="label-words")).check_model(model)
