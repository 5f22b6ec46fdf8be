"""Pairs for preference learning: right answers beside wrong ones of the model's own, the same every time."""

import json

from finetune import load_recipe
from scripts._pairs import pairs_of
from tests import tiny


def test_wrong_answers_stand_beside_right_ones(tmp_path):
    rows = [{"question": text, "answer": f"so\n#### {number}"} for number, (text, _) in enumerate(tiny.sentences(12))]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    content = {
        "model": {"source": str(tiny.save_decoder(tmp_path / "model")), "dtype": "float32", "device": "cpu"},
        "data": {"train": {"path": "train.jsonl"}, "split": {"test": 2}},
        "task": {
            "type": "chat",
            "prompt": "question",
            "completion": "answer",
            "max_new_tokens": 6,
            "sampling": {"temperature": 0.8},
            "answer": {"pattern": r"#### (\d+)", "numbers": True},
        },
        "strategy": {"type": "full"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(content))
    made = pairs_of(load_recipe(path).variants[0].recipe)
    answers = {row["question"]: row["answer"] for row in rows}
    assert 5 < len(made) <= 10 and all(answers[each["prompt"]] == each["completion"] for each in made)
    assert all(each["rejected"] and each["rejected"] != each["completion"] for each in made)
    assert pairs_of(load_recipe(path).variants[0].recipe) == made
