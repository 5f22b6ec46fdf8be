"""What a reader needs to run a study again: versions, device, and the weights it started from."""

import json

from finetune.report.sections.environment import sections
from tests.results.stores import read


def blocks_of(made):
    [section] = sections(*read(made))
    return section.blocks


def facts(study):
    [_, table] = blocks_of(study)
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
    [text] = blocks_of(study)
    assert text.text == "No environment was recorded."
