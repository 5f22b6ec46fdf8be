"""Files of one word a line: sentences, further columns, what is passed over, and lines that do not fit."""

import pytest

from finetune.data.formats import base, conll

AT = "data.train.path"

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
. . O O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- -X- O

BRUSSELS NNP B-NP B-LOC
"""


def test_conll_2003(load):
    data = load("eng.conll", CONLL_2003)
    assert data.column_names == ["words", "column_2", "column_3", "tags", "example"]
    assert list(data["words"]) == [["EU", "rejects", "."], ["Peter", "Blackburn"], ["BRUSSELS"]]
    assert list(data["tags"]) == [["B-ORG", "O", "O"], ["B-PER", "I-PER"], ["B-LOC"]]
    assert data["column_2"][1] == ["NNP", "NNP"] and data["column_3"][0] == ["B-NP", "B-VP", "O"]


def test_wnut_with_hashes_that_are_words_and_spaces_within_them(load):
    text = "#hashtag\tO\n@person\tB-person\n#\tO\nNew\u00a0York\tB-loc\nin two\tO\n\n\n\u200b\tO\r\n\r\n#\tO\r\n"
    data = load("wnut.conll", text)
    words = [["#hashtag", "@person", "#", "New\u00a0York", "in two"], ["\u200b"], ["#"]]
    assert list(data["words"]) == words and data["tags"][0] == ["O", "B-person", "O", "B-loc", "O"]


def test_comments_are_passed_over_before_a_sentence_and_words_within_one(load):
    data = load("a.conll", "# id 12 domain=en\n# text: a b\n#\na _ _ O\n# _ _ B-X\n\n#tag _ _ O\n")
    assert list(data["words"]) == [["a", "#"], ["#tag"]] and data["tags"][0] == ["O", "B-X"]


def test_a_single_column_has_no_tags(load):
    data = load("a.conll", "one\ntwo\n\nthree")
    assert data.column_names == ["words", "example"] and list(data["words"]) == [["one", "two"], ["three"]]


def test_spaces_of_any_number_and_at_the_ends(load):
    assert load("a.conll", "  a   O \nb O\t\n")[0] == {"words": ["a", "b"], "tags": ["O", "O"], "example": 0}


@pytest.mark.parametrize(
    "line, what",
    [
        ("c", "1 values, where 2 are expected"),
        ("c X O", "3 values, where 2 are expected"),
        ("c\tX\tO", "3 values"),
        ("\tO", "a value is empty"),
        ("c\t", "1 values"),
        ("c\t\tO", "a value is empty"),
    ],
)
def test_a_line_that_does_not_fit_is_named(load, refused, line, what):
    with refused(AT, what) as seen:
        load("a.conll", f"# a comment\na O\n\nb O\n{line}\nd O\n")
    assert seen.problem.where.endswith("a.conll:5")


def test_sentences_may_lie_in_several_blocks(load, monkeypatch, refused):
    text = "".join(
        f"word{number}\t{'B-X' if number % 2 else 'O'}\n" + "\n" * (number % 5 == 0) for number in range(500)
    )
    whole = load("a.conll", text)
    monkeypatch.setattr(base.text_blocks, "__defaults__", (17,))
    monkeypatch.setattr(conll, "SENTENCES", 7)
    assert load("b.conll", text)[:] == whole[:] and whole.num_rows == 101
    with refused(AT, "3 values") as seen:
        load("c.conll", text + "a\tb\tc\n")
    assert seen.problem.where.endswith(f"c.conll:{text.count(chr(10)) + 1}")


def test_nothing_but_what_is_passed_over(load, refused):
    with refused(AT, "has no examples"):
        load("a.conll", "-DOCSTART- O\n\n# comment\n")
    with refused(AT, "is empty"):
        load("b.conll", "\n\n")


def test_another_name_and_encoding(load):
    content = "café O\n".encode("latin-1")
    assert load("train.txt", content, format="conll", encoding="latin-1")["words"] == [["café"]]
