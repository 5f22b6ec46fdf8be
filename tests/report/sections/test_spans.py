"""Answers that are parts of a text, on the page."""

from finetune.core.answers import spans_said
from finetune.report.blocks import Table
from finetune.report.sections.mistakes import sections
from finetune.report.sections.spans import marked
from tests.report.sections.test_mistakes import cells, hardest_of, walk
from tests.results.stores import answer, keep, read

TEXT = "Who won?\n\nThe match was won by the team of the north after a late goal."


def asked(fabricator, **facts):
    """Two runs over four questions, the last one without an answer."""
    made = fabricator([1, 2], {"full": "full"}, labels=(), examples=4)
    wanted = [
        spans_said(each) for each in (["the team"], ["goal", "a goal"], ["won by the team of the north after"], [])
    ]
    for seed, said, scores in (
        (1, ["the north", "goal", "the team", ""], [0.0, 1.0, 0.4, 1.0]),
        (2, ["the north", "goal", "", "goal"], [0.0, 1.0, 0.0, 0.0]),
    ):
        answer(made, "full", seed, list(zip(said, wanted, strict=True)), labels=(), scores=scores)
    data = made.data()
    data["tasks"][0] |= {"answer": "span", "example_score": "squad_f1", **facts}
    made.json("data.json", data)
    keep(made, [TEXT] * 4, references=wanted)
    return made


def told(made):
    [section] = sections(*read(made))
    return section


def test_errors_are_by_the_right_answer_with_intervals(fabricator):
    section = told(asked(fabricator))
    [table] = [each for each in walk(section.blocks) if isinstance(each, Table) and "Errors on" in each.caption]
    assert [(row[0].text, row[1].text, row[2].text) for row in table.rows] == [
        ("no answer", "1", "50.0"),
        ("an answer", "3", "60.0"),
        ("1 word", "1", "0.0"),
        ("2 words", "1", "100.0"),
        ("6 words and more", "1", "80.0"),
    ]
    assert table.rows[1][2].small.startswith("[")


def test_the_hardest_show_both_places_in_the_text(fabricator):
    table = hardest_of(told(asked(fabricator)))
    first = cells(table)[0]
    assert first[1] == "Who won? The match was won by [the team] of {the north} after a late goal."
    assert first[2:4] == ["the team", "the north"]
    assert [row[2] for row in cells(table) if row[0] == "3"] == ["no answer"]
    assert [row[3] for row in cells(table) if row[0] == "1"] == ["–"], "an answer that is one of the right ones"


def test_long_texts_are_shown_around_the_answers():
    long = f"Who?\n\n{'x ' * 300}the team{' y' * 300} goal"
    assert marked(long, spans_said(["the team"]), "").startswith("Who? …x x")
    assert "[the team] y" in marked(long, spans_said(["the team"]), "goal")
    assert "{goal}" not in marked(long, spans_said(["the team"]), "goal"), "too far away"
    assert len(marked(long, spans_said(["the team"]), "goal")) < 150
    assert marked(TEXT, spans_said([]), "").startswith("Who won? The match")
    assert marked("Who?\n\nthe team", spans_said(["the team"]), "the team") in (
        "Who? [{the team}]",
        "Who? {[the team}]",
        "Who? [{the team]}",
    )
