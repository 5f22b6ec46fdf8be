"""What a study's folder says."""

import pytest
import yaml

from finetune.core.run_dir import read_json, write_json
from finetune.report import build
from finetune.results.compute import results_of
from finetune.results.reading import read_study
from finetune.results.remarks import remarks_of
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


@pytest.fixture
def overlap(study):
    """overlap('tweets', options of `data`, examples by part, pool=…) -> how much the seeds' data overlap."""

    def of(task, options, pool=None, vary=("split", "init"), **sizes):
        resolved = yaml.safe_load((study.path / "resolved.yaml").read_text()) | {"vary": list(vary)}
        for variant in resolved["variants"].values():
            variant["recipe"]["data"] = options
        (study.path / "resolved.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
        data = {**study.data(), "splits": {name: {"examples": size} for name, size in sizes.items()}}
        write_json(study.path / "data.json", data if pool is None else {**data, "pool": pool})
        return read_study(study.path).overlap(task)

    return of


FILE = {"path": "other.csv"}


def test_data_that_all_seeds_share_do_not_overlap(overlap):
    assert overlap("test", {}, pool=100, vary=["init"], train=70, test=30) == 0


def test_own_test_parts_overlap_by_their_size(overlap):
    assert overlap("test", {}, pool=100, train=70, test=30) == 3 / 7
    assert overlap("test", {}, pool=100, train=40, validation=10, test=20) == 0.5
    assert overlap("test", {}, pool=1000, train=40, validation=10, test=200) == 0.25  # 750 are left, and 5 too much
    assert overlap("test", {}, train=70, test=30) == 3 / 7


def test_what_no_seed_learnt_from_counts_whether_it_is_used_or_not(overlap):
    """The share r that a draw takes of the pool, as r / (1 - r)."""
    file = {"test": FILE}
    assert overlap("test", file, pool=100, train=80, validation=20, test=500) == 4
    assert overlap("test", file, pool=100, train=20, validation=20, test=500) == 0.25
    assert overlap("test", file, pool=100, train=20, test=500) == 0.25
    # A validation file is no part of the pool, and a test part that is carved out of it is.
    assert overlap("test", {**file, "validation": FILE}, pool=100, train=50, validation=300, test=500) == 1
    assert overlap("tweets", {}, pool=100, train=60, validation=10, test=30, tweets=500) == 1.5


def test_a_held_out_file_of_which_each_seed_draws_its_own_has_own_rows(overlap, study):
    """`limit` draws with the split's seed; which training examples there are has nothing to do with it."""
    resolved = {"test": {**FILE, "limit": 100}}
    assert overlap("test", resolved, pool=100, train=80, validation=20, test=100) == 4
    made = read_study(study.path)
    assert made.own_rows("test") and not made.own_rows("tweets")
    overlap("test", {"test": {**FILE, "limit": None}}, pool=100, train=80, validation=20, test=500)
    assert not read_study(study.path).own_rows("test")
    overlap("tweets", {}, pool=100, train=80, test=20)
    text = yaml.safe_load((study.path / "resolved.yaml").read_text())
    for variant in text["variants"].values():
        variant["recipe"]["evaluate"] = [
            {"name": "tweets", "data": {**FILE, "limit": 50}},
            {"name": "mails", "data": FILE},
        ]
    (study.path / "resolved.yaml").write_text(yaml.safe_dump(text))
    made = read_study(study.path)
    assert [made.own_rows(task) for task in ("test", "tweets", "mails")] == [True, True, False]
    assert made.overlap("tweets") == made.overlap("mails") == 4 and made.overlap("test") == 0.25


def test_where_every_seed_learns_from_everything_no_draw_differs(overlap):
    assert overlap("test", {"test": FILE, "validation": FILE}, pool=100, train=100, validation=30, test=500) == 0


def test_an_earlier_studys_pool_is_all_that_was_carved_from_it(overlap):
    assert overlap("test", {"test": FILE}, train=80, validation=20, test=500) == 4
    assert overlap("tweets", {"validation": FILE}, train=80, validation=50, test=20) == 4


def test_of_a_mixture_the_different_examples_are_what_was_learnt_from(study):
    """Those that a weight repeats are no further ones."""
    data = read_json(study.path / "data.json")
    study.json("data.json", data | {"distinct": 70})
    results = results_of(read_study(study.path))
    assert (results.training.examples, results.training.distinct) == (120, 70)
    assert any("the same 70 training examples" in remark for remark in remarks_of(results))
