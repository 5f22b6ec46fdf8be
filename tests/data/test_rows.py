"""Messages name a row by its number in the file, whatever part of the data it has become."""

import json

import pytest

from finetune import check
from finetune.core.errors import InputError
from finetune.data.rows import places_of
from tests import tiny

TEXTS = [text for text, _ in tiny.sentences(24)]
LONG = "the match " * 16
ASKED = {"choices": ["money", "sport"], "answer": 0}
QUESTION, CHOICE = "question-answering", "multiple-choice"
DECODER = "decoder_folder"
# By task: its options, what a row has beside its text, what one row has instead, and the model.
CASES = {
    "no choice": ({"type": CHOICE}, "question", ASKED, {"answer": 9}, "encoder_folder"),
    "long choice": ({"type": CHOICE, "max_length": 30}, "question", ASKED, {"choices": [LONG, "b"]}, "encoder_folder"),
    "long answer": ({"type": CHOICE, "max_length": 48}, "question", ASKED, {"choices": [LONG, "b"]}, DECODER),
    "long question": ({"type": QUESTION, "max_length": 30}, "context", {"question": "a", "answers": ""},
                      {"question": LONG}, "encoder_folder"),
    "equal pair": ({"type": "chat", "prompt": "p", "completion": "c", "rejected": "r"}, "p", {"c": "a", "r": "b"},
                   {"r": "a"}, DECODER),
    "no room": ({"type": "chat", "prompt": "p", "completion": "c"}, "p", {"c": "a"}, {"c": LONG * 4}, DECODER),
    "no answer found": ({"type": "chat", "prompt": "p", "completion": "c", "answer": {"pattern": "#"}}, "p",
                        {"c": "#"}, {"c": "none"}, DECODER),
    "unknown role": ({"type": "chat"}, None, {}, {"messages": [{"role": "Human", "content": "a"},
                     {"role": "assistant", "content": "b"}]}, DECODER),
}  # fmt: skip


def written(path, case, bad=None, offset=0):
    """24 rows, of which one is ``bad``, counted from 1."""
    _, column, usual, other, _ = CASES[case]
    rows = []
    for number, text in enumerate(TEXTS, 1):
        said = {"messages": [{"role": "user", "content": f"{text} {offset}"}, {"role": "assistant", "content": "b"}]}
        row = said if column is None else {column: f"{text} {offset}", **usual}
        rows.append(json.dumps(row | (other if number == bad else {})))
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def found_in(request, case, data):
    options, model = CASES[case][0], request.getfixturevalue(CASES[case][-1])
    strategy = "preference" if "rejected" in options else "full"
    with pytest.raises(InputError) as caught:
        check({"name": "s", "model": {"source": str(model)}, "data": data, "task": options, "seeds": 1,
               "strategy": {"type": strategy}})  # fmt: skip
    [problem] = caught.value.problems
    return problem.found


@pytest.mark.parametrize("bad", [4, 13, 24])
@pytest.mark.parametrize("case", [case for case in CASES if case != "no answer found"])
def test_of_a_part_that_was_carved_it_is_the_row_of_the_file(request, tmp_path, case, bad):
    data = {"train": {"path": written(tmp_path / "rows.jsonl", case, bad)}, "split": {"test": 0.5, "validation": 0.2}}
    assert f"data.train, row {bad}" in found_in(request, case, data)


def test_of_a_file_of_its_own_it_is_that_files(request, tmp_path):
    case = "no answer found"  # is looked for in what is held out
    train, test = written(tmp_path / "train.jsonl", case), written(tmp_path / "test.jsonl", case, 13, offset=1)
    data = {"train": {"path": train}, "test": {"path": test}}
    assert found_in(request, case, data).startswith("data.test, row 13")


@pytest.mark.parametrize("case", ["no choice", "long question", "unknown role"])
def test_of_a_mixture_it_is_the_row_of_the_source(request, tmp_path, case):
    one, other = written(tmp_path / "one.jsonl", case), written(tmp_path / "other.jsonl", case, 7, offset=1)
    data = {"train": [{"path": one, "weight": 2.5}, {"path": other}], "split": {"test": 0.3}}
    assert found_in(request, case, data).startswith("data.train, row 7 of 'other'")


def test_data_as_they_were_read_have_their_own_numbers():
    data = tiny.dataset(text=["a", "b", "c"]).select([0, 2])
    assert list(places_of(data, "data.test")) == ["data.test, row 1", "data.test, row 3"]
