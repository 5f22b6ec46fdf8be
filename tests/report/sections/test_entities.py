"""Entities by type, and hardest sentences with their entities marked."""

import pytest

from finetune.report.blocks import Fold, Table
from finetune.report.html import render as page
from finetune.report.markdown import blocks as markdown
from finetune.report.sections import entities, mistakes
from finetune.report.sections.entities import marked
from tests.results.stores import answer, keep, read

WANTED = ["B-place I-place O", "B-person O B-place", "O O", "O B-person"]
SAID = {
    1: ["B-place I-place O", "B-person O O", "O O", "O B-place"],
    2: ["B-place O O", "B-person O O", "O O", "O B-place"],
}


@pytest.fixture
def tags(fabricator):
    """Two seeds of a variant; by hand, found of places 1 and 0, of persons 1 and 1."""
    made = fabricator([1, 2], {"full": "full"}, labels=(), examples=4)
    for seed, said in SAID.items():
        pairs = list(zip(said, WANTED, strict=True))
        answer(made, "full", seed, pairs, labels=(), scores=[float(one == other) for one, other in pairs])
    data = made.data()
    data["tasks"][0] |= {"answer": "tags", "example_score": "sentence_f1"}
    made.json("data.json", data)
    return made


def cells(block):
    return [[cell.text for cell in row] for row in block.rows]


def test_each_type_has_its_scores(tags):
    [section] = entities.sections(*read(tags))
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    # Of all, 2 and 1 of 4 wanted are found; 3 are said by both. Of places 1 and 0 of 2, and 2 said by both.
    assert cells(table) == [
        ["full", "all", "42.9", "50.0", "37.5", "4"],
        ["full", "person", "66.7", "100.0", "50.0", "2"],
        ["full", "place", "25.0", "25.0", "25.0", "2"],
    ]
    assert table.rows[0][2].small.startswith("[")


def test_other_answers_have_none(study):
    assert entities.sections(*read(study)) == []


def hardest(made):
    [section] = mistakes.sections(*read(made))
    return next(
        table for fold in section.blocks if isinstance(fold, Fold) for table in fold.blocks if isinstance(table, Table)
    )


def test_hardest_sentences_have_their_entities_marked_in_page_and_markdown(tags):
    keep(tags, ["New York <b>", "Ann in Rome", "not one", "by *Bob*"], references=WANTED)
    table = hardest(tags)
    assert [column.title for column in table.columns][:3] == ["example", "wanted", "most often said"]
    assert cells(table)[0][1:3] == ["[Ann](person) in [Rome](place)", "[Ann](person) in Rome"]
    assert ["by [*Bob*](person)", "by [*Bob*](place)"] in [row[1:3] for row in cells(table)]
    [text] = markdown([table])
    assert "**Ann** (person) in **Rome** (place)" in text and r"by **\*Bob\*** (place) (2 of 2)" in text
    from finetune.report.content import document

    written = page(document(*read(tags)))
    assert "<mark>Ann <span>person</span></mark> in <mark>Rome <span>place</span></mark>" in written
    assert (
        "New York</mark> &lt;b&gt;" not in written and "<mark>New York <span>place</span></mark> &lt;b&gt;" in written
    )


def test_without_texts_places_are_told(tags):
    keep(tags, [None] * 4, references=WANTED)
    assert cells(hardest(tags))[0][1:3] == ["person: word 1; place: word 3", "person: word 1"]


def test_a_long_sentence_is_shown_from_its_first_mistake():
    words = [f"word{number}" for number in range(100)]
    tags = ["O"] * 100
    tags[50:52] = ["B-x", "I-x"]
    cell = marked(" ".join(words), " ".join(tags), " ".join(["O"] * 100))
    assert cell.text.startswith("… word46 word47 word48 word49 [word50 word51](x) word52") and cell.text.endswith("…")
    assert len(cell.text) < 260
    assert marked("a b", "O O", "O O").text == "a b"
