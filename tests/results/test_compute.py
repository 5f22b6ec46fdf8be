"""results.json: its keys are the contract, and its numbers are those of finetune.stats."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import yaml

from finetune import stats
from finetune.core.errors import InputError
from finetune.report import build
from finetune.results.reading import read_study
from finetune.results.schema import from_json
from finetune.results.variant_scores import variant_scores

VARIANT = {"name", "strategy", "parameters", "runs", "estimates", "failures", "stability"}
RUN = {"seed", "status", "reason", "seconds", "peak_memory_bytes", "scores"}
ESTIMATE = {"n", "mean", "sd", "sd_ci", "sd_floor", "sd_corrected", "sd_corrected_ci", "median", "min", "max", "ci",
            "ci_seeds", "prediction", "expected", "level", "method", "reason", "expected_best"}  # fmt: skip
COMPARISON = {"task", "metric", "left", "right", "difference", "ci", "p_value", "p_value_adjusted",
              "probability_of_improvement", "probability_of_improvement_ci", "verdict", "verdict_overall", "method",
              "could_see", "p_failures", "p_permutation", "sd_ratio", "sd_ratio_ci", "p_spread_adjusted",
              "spread_verdict"}  # fmt: skip


def comparison(rows, left, right, metric="accuracy"):
    return next(row for row in rows if (row.left, row.right, row.metric) == (left, right, metric))


def test_keys_are_the_contract(study):
    build(study.path)
    results = json.loads((study.path / "report/results.json").read_text())
    assert {"format", "study", "digest", "environment", "tasks", "variants", "comparisons"} <= results.keys()
    assert results["format"] == 2 and results["study"] == "topics"
    assert {"name", "split", "metric", "higher_is_better", "examples"} <= results["tasks"][0].keys()
    for entry in results["variants"]:
        assert entry.keys() >= VARIANT
        assert all(set(run) == RUN for run in entry["runs"])
        assert set(entry["estimates"]) == {"test/accuracy", "test/macro_f1", "test/nll"}
        assert all(estimate.keys() >= ESTIMATE for estimate in entry["estimates"].values())
        assert set(entry["failures"]) == {"count", "n", "rate", "ci", "limit", "least"}
    assert all(row.keys() >= COMPARISON for row in results["comparisons"])


def test_returns_what_it_writes(study):
    returned = build(study.path)
    written = json.loads((study.path / "report/results.json").read_text())
    assert json.loads(json.dumps(returned.to_json())) == written and from_json(written) == returned


def test_numbers_are_those_of_stats(study):
    results = build(study.path)
    lora, full = (
        {run.seed: run.scores["test/accuracy"] for run in results.variant(name).runs} for name in ("lora", "full")
    )
    found = results.variant("lora").estimates["test/accuracy"]
    read = read_study(study.path).variants
    both = [variant_scores(read[name], "test", "accuracy") for name in ("lora", "full")]
    assert [list(each.scores) for each in both] == [list(lora.values()), list(full.values())]
    assert all(each.contributions.shape == (len(lora), 200) for each in both)
    matrix = both[0].contributions
    expected = asdict(stats.estimate(list(lora.values()), contributions=matrix, bounds=stats.SHARE))
    assert {key: getattr(found, key) for key in expected} == expected
    assert found.expected == stats.expected(list(lora.values()), [], 0.23, matrix, bounds=stats.SHARE)
    names = [("linear", "lora"), ("linear", "full"), ("lora", "full")]
    sides = {name: variant_scores(read[name], "test", "accuracy") for name in read}
    pairs = [stats.difference_of(sides[left], sides[right], np.random.default_rng(0)) for left, right in names]
    means = {name: float(side.scores.mean()) for name, side in sides.items()}
    judged = stats.judge(pairs, stats.family_of(3, 3), names, means)
    for (left, right), one in zip(names, judged, strict=True):
        row, expected = comparison(results.comparisons, left, right), asdict(one)
        assert {key: getattr(row, key) for key in expected} == expected


def test_spread_comes_from_the_predictions_of_every_run(study):
    results = build(study.path)
    import pyarrow.parquet as pq

    rows = []
    for seed in study.seeds:
        table = pq.ParquetFile(study.path / f"full/seed-{seed}/predictions/test.parquet").read().sort_by("example")
        rows.append(table["score"].to_numpy())
    found = results.variant("full").estimates
    assert found["test/accuracy"].sd_floor == stats.spread(np.stack(rows)).sd_floor
    assert found["test/accuracy"].sd_corrected == stats.spread(np.stack(rows)).sd_corrected
    assert found["test/macro_f1"].sd_floor is None  # not a mean of the stored scores


def test_there_is_no_spread_over_examples_that_differ_between_seeds(study):
    resolved = study.path / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("- init\n", "- init\n- split\n", 1))
    found = build(study.path).variant("full").estimates["test/accuracy"]
    assert found.sd is not None
    assert found.sd_floor is None and found.sd_corrected is None
    assert "Each seed has its own split" in (study.path / "report" / "index.html").read_text(encoding="utf-8")


def test_base_is_a_variant_with_one_fixed_score(study):
    results = build(study.path)
    base = results.variant("base")
    assert base.strategy == "none" and base.runs[0].seed is None
    low, high = base.estimates["test/accuracy"].ci  # of the examples: it has no seeds
    assert low < base.estimates["test/accuracy"].mean < high and base.estimates["test/accuracy"].ci_seeds is None
    assert "no seed" in base.estimates["test/accuracy"].reason
    assert comparison(results.comparisons, "lora", "base").verdict == "better"
    assert (
        comparison(results.comparisons, "lora", "base", "nll").verdict == "better"
    )  # lower is better, and it is lower


def test_without_a_base(make):
    results = build(make(base=None).path)
    assert [entry.name for entry in results.variants] == ["linear", "lora", "full"]
    assert {(row.left, row.right) for row in results.comparisons} == {
        ("linear", "lora"), ("linear", "full"), ("lora", "full")}  # fmt: skip


def test_pairs_and_what_needs_no_tuning_are_judged_apart(study):
    for row in build(study.path).comparisons:
        together = "Šidák" if row.right == "base" else "all pairs of 3 variants (Tukey)"
        assert together in row.method, (row.left, row.right)
        assert row.p_value_adjusted >= row.p_value
        assert (row.p_value_adjusted < 0.05) == (row.verdict != "undecided") == (not row.ci[0] <= 0 <= row.ci[1])


def test_a_baseline_takes_the_place_of_all_pairs(study):
    every, asked = build(study.path).comparisons, build(study.path, baseline="lora").comparisons

    def pairs(rows):
        return {(row.left, row.right) for row in rows}

    against_base = {(name, "base") for name in ("linear", "lora", "full")}
    assert pairs(asked) == {("linear", "lora"), ("full", "lora"), *against_base}
    assert len(pairs(every)) == len(pairs(asked)) + 1
    assert comparison(asked, "linear", "lora").difference == comparison(every, "linear", "lora").difference
    resolved = study.path / "resolved.yaml"
    said = yaml.safe_load(resolved.read_text())
    for entry in said["variants"].values():
        entry["recipe"]["scoring"] = {"baseline": "full"}
    resolved.write_text(yaml.safe_dump(said, sort_keys=False))
    assert pairs(build(study.path).comparisons) == {("linear", "full"), ("lora", "full"), *against_base}
    with pytest.raises(InputError, match="no variant called 'lore'"):
        build(study.path, baseline="lore")


def test_a_baseline_that_the_study_has_not_is_none(study):
    """As in the study of one variant that `finetune diagnose` makes of a recipe with several."""
    resolved = study.path / "resolved.yaml"
    said = yaml.safe_load(resolved.read_text())
    for entry in said["variants"].values():
        entry["recipe"]["scoring"] = {"baseline": "elsewhere"}
    resolved.write_text(yaml.safe_dump(said, sort_keys=False))
    results = build(study.path)
    assert results.baseline is None and comparison(results.comparisons, "linear", "lora").verdict


def test_the_verdict_speaks_of_the_baseline_alone(study):
    build(study.path, baseline="linear")
    text = (study.path / "report" / "report.md").read_text(encoding="utf-8")
    answer = text.splitlines()[2]
    assert answer.startswith("**full is best when it works.**") and "against lora" not in answer


def test_the_best_of_more_seeds_is_better(study):
    results = build(study.path)
    found = results.variant("lora").estimates
    up, down = found["test/accuracy"].expected_best, found["test/nll"].expected_best
    assert up[0] == pytest.approx(found["test/accuracy"].mean) and up == sorted(up) and up[-1] > up[0]
    assert down[0] == pytest.approx(found["test/nll"].mean) and down == sorted(down, reverse=True)
    assert "best of 5" in (study.path / "report" / "report.md").read_text(encoding="utf-8")


def test_one_seed_gives_no_interval_and_says_why(make):
    results = build(make(seeds=1, base=None).path)
    found = results.variant("lora").estimates["test/accuracy"]
    assert found.mean is not None and found.sd is None and found.ci is None
    assert "at least two" in found.reason
    row = comparison(results.comparisons, "linear", "lora")
    assert row.p_value is None and row.verdict == "undecided" and row.reason


def test_failed_runs_are_counted_apart_from_the_mean_and_in_the_expected_score(fabricator):
    made = fabricator([1, 2, 3, 4, 5], {"full": "full"})
    made.run("full", 1, 0.9)
    made.run("full", 2, 0.2, "degenerate", "at the majority class")
    made.run("full", 3, 0.3, "diverged", "loss is not finite at step 70")
    made.run("full", 4, None, "error", "CUDA out of memory")
    (made.path / "full/seed-5").mkdir()
    full = build(made.path).variant("full")
    assert (full.failures.count, full.failures.n) == (3, 4)
    assert full.failures.ci == stats.failure_rate(3, 4).ci
    found = full.estimates["test/accuracy"]
    assert found.n == 1 and found.mean == full.runs[0].scores["test/accuracy"]
    scored = [run.scores["test/accuracy"] for run in full.runs[:3]]
    assert found.expected.mean == pytest.approx((sum(scored) + 0.23) / 4), "one without a score: the commonest label's"
    assert full.stability == "unstable" and "at least 25" in full.stability_reason
    assert [run.status for run in full.runs] == ["finished", "degenerate", "diverged", "error", "interrupted"]
    assert "resumes" in full.runs[-1].reason


def test_runs_that_have_not_begun_are_left_out(fabricator):
    made = fabricator([1, 2, 3], {"full": "full", "linear": "linear"})
    made.run("full", 1, 0.9)
    results = build(made.path)
    assert len(results.variant("full").runs) == 1 and results.variant("linear").runs == []
    assert results.variant("linear").estimates["test/accuracy"].n == 0
    assert results.variant("linear").failures == stats.FailureRate(0, 0, None, None)


def test_a_study_that_has_only_just_begun_has_a_report(fabricator):
    made = fabricator([1, 2], {"full": "full"})
    (made.path / "data.json").unlink()
    results = build(made.path)
    assert results.tasks == [] and (made.path / "report/index.html").exists()


def test_null_scores_are_not_counted(study):
    path = study.path / "full/seed-1/result.json"
    result = json.loads(path.read_text())
    result["scores"]["test/nll"] = None
    path.write_text(json.dumps(result))
    found = build(study.path).variant("full").estimates
    assert found["test/nll"].n == 4 and found["test/accuracy"].n == 5


def test_order_on_disk_does_not_matter(study):
    """Seeds come in the recipe's order, whatever the folder's is, and others' folders do not count."""
    resolved = yaml.safe_load((study.path / "resolved.yaml").read_text())
    resolved["seeds"] = [5, 3, 1]
    (study.path / "resolved.yaml").write_text(yaml.safe_dump(resolved))
    assert [run.seed for run in build(study.path).variant("full").runs] == [5, 3, 1]


def test_a_folder_that_is_no_study(tmp_path):
    with pytest.raises(InputError, match="is not a study"):
        build(tmp_path)
