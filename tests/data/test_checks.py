"""Repeated examples, leaks and fingerprints."""

import subprocess
import sys

import pyarrow as pa
import pytest

from finetune.core.errors import InputError
from finetune.data import checks
from finetune.data.sources import as_dataset, with_example


def table(texts, **columns):
    return as_dataset(with_example(pa.table({"text": texts, **columns})))


# --- keys


def test_keys_disregard_case_and_spacing_only():
    one, two, other, joined = checks.keys(
        table(["Straße  nach\nRom ", "strasse nach rom", "Rom", "stras se"]), ["text"]
    )
    assert one == two and len({one, other, joined}) == 3


def test_keys_of_pairs_know_where_one_text_ends():
    data = table(["a b", "a", "a b c"], pair=["c", "b c", ""])
    assert len(set(checks.keys(data, ["text", "pair"]))) == 3


def test_keys_of_messages_disregard_order_of_fields_and_absent_ones():
    one = as_dataset(pa.table({"messages": [[{"role": "user", "content": "Hi  there"}]]}))
    two = as_dataset(pa.table({"messages": [[{"content": "hi there", "name": None, "role": "user"}]]}))
    other = as_dataset(pa.table({"messages": [[{"content": "hi there", "role": "system"}]]}))
    assert checks.keys(one, ["messages"]) == checks.keys(two, ["messages"]) != checks.keys(other, ["messages"])


@pytest.mark.parametrize(
    "written, value",
    [
        ('["EU","rejects"]', ["eu", "rejects"]),
        (' [ "EU rejects",\n"[1] a" ]', ["EU  rejects", "[1] a"]),
        ('[{"role":"user","content":"Hi"}]', [{"content": "hi", "role": "user"}]),
        ('{"b":[1,2],"a":"x"}', {"a": "x", "b": [1, 2]}),
    ],
)
def test_keys_of_json_text_are_those_of_the_list_or_object_in_it(written, value):
    [one] = checks.keys(as_dataset(pa.table({"words": [written]})), ["words"])
    assert one == checks.keys(as_dataset(pa.table({"words": [value]})), ["words"])[0]


def test_keys_of_texts_that_begin_with_a_bracket_are_those_of_texts():
    texts = ["[1] says so", "[1]  Says so", "[1] said so", "[sic", "{x}", '["a"]', '["a", "b"]', '["[1]"]', "[[1]]"]
    one, two, *others = checks.keys(table([*texts, r'["\ud800"]']), ["text"])
    assert one == two and len({one, *others}) == len(texts)


# --- duplicates


def test_first_of_repeated_examples_is_kept():
    data = table(["a", "b", "A ", "c", "b", "a"])
    kept, dropped = checks.without_duplicates(data, ["text"], "drop", "data.train")
    assert (list(kept["text"]), list(kept["example"]), dropped) == (["a", "b", "c"], [0, 1, 3], 3)
    kept, dropped = checks.without_duplicates(data, ["text"], "keep", "data.train")
    assert (kept.num_rows, dropped) == (6, 0)


def test_repeated_examples_are_refused(refused):
    with refused("data.train", "2 of 4 examples repeat", "row 3, which repeats row 1: 'A'", "data.duplicates"):
        checks.without_duplicates(table(["a", "b", "A", "b"]), ["text"], "refuse", "data.train")
    checks.without_duplicates(table(["a", "b"]), ["text"], "refuse", "data.train")


# --- leaks

TRAIN = ["a", "b", "c", "b"]


def test_leak_is_refused_with_both_rows_and_an_excerpt():
    long = "word " * 40
    held_out = {"data.test": table(["x", "B"]), "evaluate.tweets.data": table([long]), "data.validation": table(["y"])}
    with pytest.raises(InputError) as error:
        checks.without_leaks(table([*TRAIN, long]), held_out, ["text"], "refuse")
    test, tweets = error.value.problems
    assert test.path == "data.test" and tweets.path == "evaluate.tweets.data"
    assert test.found.startswith("1 of 2 held-out examples are in the training data; the first is row 2")
    assert test.found.endswith("which is row 2 of data.train: 'B'")
    assert len(tweets.found) < 200 and tweets.found.endswith("…'")
    assert "data.leaks" in test.advice


def test_leak_between_lists_and_their_json_text_is_found():
    train = as_dataset(with_example(pa.table({"words": ['["EU","rejects"]', '["a"]']})))
    test = as_dataset(with_example(pa.table({"words": [["EU", "rejects"]]})))
    with pytest.raises(InputError, match="1 of 1 held-out examples are in the training data"):
        checks.without_leaks(train, {"data.test.news": test}, ["words"], "refuse")


def test_leak_between_parts_of_one_file_advises_about_duplicates():
    with pytest.raises(InputError) as error:
        checks.without_leaks(table(TRAIN), {"data.split.test": table(["a"])}, ["text"], "refuse")
    assert "data.duplicates" in error.value.problems[0].advice


def test_leaks_are_dropped_from_training_with_all_their_copies():
    train, facts = checks.without_leaks(table(TRAIN), {"data.test": table(["B", "x", "b"])}, ["text"], "drop")
    assert list(train["text"]) == ["a", "c"] and list(train["example"]) == [0, 2]
    assert facts == {"checked": 3, "found": 2, "action": "drop", "dropped": 2}


def test_leaks_are_allowed_and_recorded():
    train, facts = checks.without_leaks(table(TRAIN), {"data.test": table(["B", "x"])}, ["text"], "allow")
    assert train.num_rows == 4
    assert facts == {"checked": 2, "found": 1, "action": "allow", "dropped": 0}


def test_dropping_everything_is_refused(refused):
    with refused("data.leaks", "leaves none"):
        checks.without_leaks(table(["a"]), {"data.test": table(["a"])}, ["text"], "drop")


def test_overlap_counts_examples_in_any_of_the_others():
    assert checks.overlap(table(["a", "b", "c"]), [table(["A"]), table(["c", "d"])], ["text"]) == 2


# --- fingerprints


def test_fingerprint_is_of_names_values_and_order():
    data = table(["a", "b"], label=[1, 2])
    same = as_dataset(pa.table({"label": [1, 2], "example": [7, 9], "text": ["a", "b"]}))
    assert checks.fingerprint(data) == checks.fingerprint(same)
    others = [table(["b", "a"], label=[1, 2]), table(["a", "b"], label=["1", "2"]), table(["a", "b"], other=[1, 2])]
    assert len({checks.fingerprint(other) for other in [data, *others]}) == 4


def test_fingerprint_does_not_depend_on_chunks():
    chunked = pa.table({"text": pa.chunked_array([["a"], [], ["b", "c"]])})
    assert checks.fingerprint(as_dataset(chunked)) == checks.fingerprint(
        as_dataset(pa.table({"text": ["a", "b", "c"]}))
    )


def test_fingerprint_and_keys_are_the_same_in_another_process():
    code = (
        "import pyarrow as pa; from finetune.data import checks; from finetune.data.sources import as_dataset;"
        "d = as_dataset(pa.table({'text': ['é', None], 'score': [0.1, float('nan')]}));"
        "print(checks.fingerprint(d), checks.keys(d, ['text'])[0].hex())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    data = as_dataset(pa.table({"text": ["é", None], "score": [0.1, float("nan")]}))
    assert said == [checks.fingerprint(data), checks.keys(data, ["text"])[0].hex()]
    assert said[0] == "c226516631de6c5a393ef416bdd0c5dd92ec6510ad86b84e471ba6862814368e"
