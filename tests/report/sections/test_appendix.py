"""What a reader needs to run a study again: data, groups, versions, and the weights it started from."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.report.reading import read_study
from finetune.report.sections import appendix


def facts(study):
    [_, table] = appendix.environment_section(read_study(study.path)).blocks
    return {row[0].text: row[1].text for row in table.rows}


def test_the_environment_names_versions_device_and_commit(study):
    study.json(
        "environment.json",
        {
            "format": 1,
            "git": "abc-dirty",
            "dtype": "bfloat16",
            "threads": 2,
            "packages": {"torch": "2.13", "numpy": "2"},
        },
    )
    assert facts(study) == {
        "commit of finetune": "abc-dirty",
        "arithmetic": "bfloat16",
        "threads a process": "2",
        "packages": "torch 2.13, numpy 2",
    }


def test_the_base_model_and_its_weights_are_told(study):
    text = (study.path / "resolved.yaml").read_text()
    source = "strategy:\n        type: full"
    assert source in text
    (study.path / "resolved.yaml").write_text(text.replace(source, f"model: {{source: org/name@v1}}\n      {source}"))
    path = study.path / "full/seed-1/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base": "0123456789abcdef"}))
    found = facts(study)
    assert found["base model"] == "org/name@v1" and found["fingerprint of its weights"] == "0123456789ab"


def test_no_environment_is_told(study):
    (study.path / "environment.json").unlink()
    [text] = appendix.environment_section(read_study(study.path)).blocks
    assert text.text == "No environment was recorded."


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
    assert said in appendix.data_section(read_study(study.path)).blocks[1].text


def test_what_has_to_be_known_about_the_data_stands_there_once(study):
    facts, splits = study.data(), {}
    for name, split in facts["splits"].items():
        splits[name] = {**split, "facts": {**split.get("facts", {}), "notes": ["2 answers were changed"]}}
    study.json("data.json", {**facts, "splits": splits})
    texts = [getattr(block, "text", "") for block in appendix.data_section(read_study(study.path)).blocks]
    assert len(splits) > 1 and texts.count("2 answers were changed") == 1


def test_groups_are_counted_beside_examples(study):
    (study.path / "examples").mkdir()
    groups = {"example": [0, 1, 2], "input": ["a"] * 3, "reference": ["b"] * 3, "group": ["x", "y", "x"]}
    pq.write_table(pa.table(groups), study.path / "examples/test.parquet")
    rows = appendix.data_section(read_study(study.path)).blocks[0].rows
    assert {row[0].text: row[1].small for row in rows} == {"train": "", "validation": "", "test": "2 groups"}
