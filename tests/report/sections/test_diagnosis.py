"""A diagnosis in words and in a table."""

from __future__ import annotations

import json

import pytest

from finetune.report.blocks import Document, Verdict
from finetune.report.html import render
from finetune.report.sections.diagnosis import HEADINGS, WORDS, rows, sections, sentences
from tests.diagnosed import TRIAL, content
from tests.results.stores import read


def test_every_source_has_a_row_and_all_together_one():
    table = rows(content())
    assert [row["source"] for row in table] == ["init", "order", "dropout", "interactions", "all"]
    assert all(set(row) == set(HEADINGS) for row in table)
    found = content()["decomposition"]
    shares = [part["share"] for part in (*found["sources"], found["interactions"])]
    assert table[0]["share"] == f"{shares[0]:.0%}" and shares[0] == max(shares)
    clipped = [
        row for row, part in zip(table, [*found["sources"], found["interactions"]], strict=False) if part["clipped"]
    ]
    assert clipped and all(row["share"] == "0% (below zero)" for row in clipped)
    assert table[0]["SD"] == f"{100 * found['sources'][0]['sd']:.2f}"
    assert [row["levels"] for row in table] == ["4", "4", "4", "–", "–"]


def test_what_it_says():
    said = sentences(content())
    assert said[0] == "'init' causes most of it."
    assert (
        said[1].startswith("The SD of a run's accuracy is ")
        and " points [" in said[1]
        and "a test set of this size causes alone" in said[1]
    )
    assert said[2] == "Held still: noise (no strategy or mitigation draws noise in training)."
    assert said[-1] == "To try: strategy: {type: linear, mode: lp-ft}. It starts alike."
    assert (
        sentences(content(cure=None, advice="there is nothing to cure"))[-1]
        == "Nothing to try: there is nothing to cure."
    )
    refused = sentences(content(refused={"mixout": ["nothing learns"]}))
    assert "Not possible here: mixout (nothing learns)." in refused


def test_without_scores_it_says_so():
    said = sentences(content(decomposition=None, reason="3 of 16 runs have no test/loss"))
    assert "By source nothing can be said: 3 of 16 runs have no test/loss." in said


def test_where_no_run_differs_there_is_no_share():
    flat = content()["decomposition"]
    for part in (*flat["sources"], flat["interactions"]):
        part |= {"share": None, "ci": None, "variance": 0.0, "sd": 0.0, "clipped": False, "noise": None}
    flat |= {"sd": 0.0, "sd_ci": None, "noise": None, "noise_share": None}
    table = rows(content(decomposition=flat))
    assert {row["share"] for row in table} == {"–"} and {row["95 % interval"] for row in table} == {"–"}
    assert not any("The SD" in text for text in sentences(content(decomposition=flat)))


def test_what_a_trial_came_to():
    said = sentences(content(trial=TRIAL))[-1]
    assert said.startswith(
        "It helps, on 6 fresh seeds: SD 8.00 before and 2.00 after, 0.25 times [0.10, 0.60] (p = 0.021);"
    )
    assert "mean +2.0\N{NARROW NO-BREAK SPACE}points [−1.0, +5.0] (p = 0.250)" in said
    assert said.endswith("1 of 6 runs failed before and 0 of 6 after.")
    empty = {"sd_ratio": None, "sd_ratio_ci": None, "p_spread": None, "difference": None, "difference_ci": None}
    for verdict, words in WORDS.items():
        assert sentences(content(trial={**TRIAL, **empty, "verdict": verdict}))[-1].startswith(words)


def test_the_page_of_a_design_has_a_section_and_no_other(study):
    assert sections(*read(study)) == []
    (study.path / "diagnosis.json").write_text(json.dumps(content(trial=TRIAL)), encoding="utf-8")
    [made] = sections(*read(study))
    page = render(Document("t", Verdict("undecided", "w", "s", []), [], [made]))
    assert "Where the spread comes from" in page and "It helps, on 6 fresh seeds" in page and "interactions" in page


@pytest.mark.parametrize("text", ["<b>x</b>", "a & b"])
def test_nothing_is_shown_unescaped(study, text):
    (study.path / "diagnosis.json").write_text(json.dumps(content(refused={"mixout": [text]})), encoding="utf-8")
    page = render(Document("t", Verdict("undecided", "w", "s", []), [], sections(*read(study))))
    assert text not in page
