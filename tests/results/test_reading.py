"""What a study's folder says."""

from finetune.core.run_dir import read_json, write_json
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


def test_baselines_stand_in_their_tasks_order_but_for_those_left_out(study):
    for name in ("centroid", "another", "commonest-label", "tfidf-logistic"):
        write_json(
            study.path / "baselines" / name / "result.json", {"status": "finished", "scores": {"test/nll": None}}
        )
    assert list(read_study(study.path).baselines) == ["another", "centroid", "commonest-label", "tfidf-logistic"]
    listed = [("commonest-label", None), ("tfidf-logistic", "it takes too long"), ("centroid", None), ("gone", None)]
    data = {**read_json(study.path / "data.json"), "baselines": [{"name": n, "left_out": why} for n, why in listed]}
    write_json(study.path / "data.json", data)
    found = read_study(study.path).baselines
    assert list(found) == ["commonest-label", "centroid", "another"]
    run = found["centroid"]
    assert (run.variant, run.seed, run.scores, run.metrics) == ("centroid", None, {}, [])
    assert run.folder.predictions("test") == study.path / "baselines/centroid/predictions/test.parquet"


def test_a_study_without_baselines_has_none(study):
    assert read_study(study.path).baselines == {}
