"""What a study's folder says."""

from finetune.report import build
from finetune.results.reading import read_study
from tests.results.stores import keep


def test_clusters_are_numbered_in_order_of_examples(pets):
    keep(pets, ["a"] * 5, clusters=["anna", "ben", "anna", "carl", "ben"])
    assert read_study(pets.path).clusters("test").tolist() == [0, 1, 0, 2, 1]
    keep(pets, ["a"] * 5)
    assert read_study(pets.path).clusters("test") is None and read_study(pets.path).clusters("other") is None


def test_half_a_line_and_repeated_steps_of_a_killed_run(study):
    path = study.path / "full/seed-1/metrics.jsonl"
    lines = path.read_text()
    path.write_text(lines + lines.splitlines()[0] + "\n" + '{"kind": "train", "st')
    build(study.path)
    steps = [line["step"] for line in read_study(study.path).variants["full"][0].metrics if line["kind"] == "train"]
    assert steps == sorted(set(steps))
