"""The data that a study ran on, in its section: notes, leaks and groups."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.report.sections.data import sections
from tests.results.stores import read


def blocks_of(made):
    [section] = sections(*read(made))
    return section.blocks


@pytest.mark.parametrize(
    ("action", "found", "said"),
    [
        ("refuse", 0, "Of the groups of 'patient', none on both sides."),
        ("drop", 2, "Of the groups of 'patient', 2 on both sides, and dropped from training."),
        ("allow", 2, "Of the groups of 'patient', 2 on both sides, and trained on all the same."),
    ],
)
def test_groups_on_both_sides_are_told(study, action, found, said):
    leaks = {"checked": 9, "found": 0, "action": action, "groups": {"column": "patient", "found": found, "dropped": 0}}
    study.json("data.json", {**study.data(), "leaks": leaks})
    assert said in blocks_of(study)[1].text


def test_what_has_to_be_known_about_the_data_stands_there_once(study):
    facts, splits = study.data(), {}
    for name, split in facts["splits"].items():
        splits[name] = {**split, "facts": {**split.get("facts", {}), "notes": ["2 answers were changed"]}}
    study.json("data.json", {**facts, "splits": splits})
    texts = [getattr(block, "text", "") for block in blocks_of(study)]
    assert len(splits) > 1 and texts.count("2 answers were changed") == 1


def test_numbers_are_summarised_by_split(study):
    facts, splits = study.data(), {}
    numbers = {"mean": 2.7, "sd": 1.5, "min": 0.0, "max": 120000.0}
    for name, split in facts["splits"].items():
        splits[name] = {**split, "facts": {"numbers": numbers} if name == "train" else {}}
    study.json("data.json", {**facts, "splits": splits})
    table = blocks_of(study)[-1]
    assert [column.title for column in table.columns] == ["numbers", "mean", "SD", "lowest", "highest"]
    assert [[cell.text for cell in row] for row in table.rows] == [["train", "2.700", "1.500", "0.000", "120,000"]]


def test_groups_are_counted_beside_examples(study):
    (study.path / "examples").mkdir()
    groups = {"example": range(200), "input": ["a"] * 200, "reference": ["b"] * 200, "group": ["x", "y"] * 100}
    pq.write_table(pa.table(groups), study.path / "examples/test.parquet")
    rows = blocks_of(study)[0].rows
    assert {row[0].text: row[1].small for row in rows} == {"train": "", "validation": "", "test": "2 groups"}
