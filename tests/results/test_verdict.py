"""The answer in a sentence says what the tables say, and no more than the runs allow."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from finetune import report
from finetune.results.ranking import ranked
from finetune.results.verdict import deciding, gap_of, verdict_of
from tests.results.stores import read


def verdict(made):
    return verdict_of(read(made)[1])


def of(fabricator, *variants, seeds=5, **more):
    """A study of variants, each with its accuracies by seed; None for a run that crashed."""
    made = fabricator(list(range(seeds)), {name: "full" for name, _ in variants}, **more)
    for name, scores in variants:
        for seed, score in enumerate(scores):
            status = ("error", "it fell over") if score is None else ("finished", None)
            made.run(name, seed, score, *status)
    return made


@pytest.mark.parametrize("draw", range(25))
def test_sentence_and_table_never_differ(fabricator, draw):
    """Also where runs crash or failed at chance level, on either side, and seeds are not the same."""
    rng = np.random.default_rng(draw)
    made = fabricator(list(range(5)), {name: "full" for name in "abcd"}, examples=60)
    for name, level in zip("abcd", rng.uniform(0.6, 0.95, 4), strict=True):
        for seed in range(5):
            kind = rng.choice(["finished", "error", "degenerate"], p=[0.7, 0.15, 0.15])
            score = {"finished": level + rng.normal(0, 0.02), "error": None, "degenerate": 0.23}[kind]
            made.run(name, seed, None if score is None else float(min(score, 1)), kind, None)
    results = read(made)[1]
    key, said = results.tasks[0].key, verdict_of(results)
    means = {variant.name: variant.estimates[key].mean for variant in results.tuned}
    for row in results.comparisons:
        if row.metric == "accuracy" and row.difference is not None and row.right != "base":
            assert row.difference == pytest.approx(means[row.left] - means[row.right])
            if row.p_value_adjusted is not None and row.ci is not None:
                assert (row.p_value_adjusted < 0.05) == (not row.ci[0] <= 0 <= row.ci[1])
    best, *others = ranked(results)
    gaps = [gap_of(results, best.name, other.name) for other in others]
    assert all(gap.row.difference is None or gap.verdict != "worse" for gap in gaps)
    assert best.name in said.sentence
    assert (said.state == "decided") == all(gap.verdict == "better" for gap in gaps)
    assert (said.word == f"{best.name} is best") == all(gap.overall == "better" for gap in gaps)


def test_a_leader_whose_runs_crashed_is_not_best(fabricator):
    """Counted at the commonest label's 23 %, two crashed runs of five take the lead away."""
    made = of(fabricator, ("lora", [0.92, 0.91, 0.93, None, None]), ("full", [0.80, 0.81, 0.79, 0.8, 0.8]))
    said = verdict(made)
    assert said.word == "Undecided" and "2 of 5 runs of lora have no score" in said.sentence
    assert "commonest label" in said.sentence and "Of 5 runs of lora 2 failed" in said.sentence
    [row] = [row for row in read(made)[1].comparisons if row.metric == "accuracy"]
    assert row.ci[0] > 0 and row.verdict == "undecided", "what works is better, and that is not all"


def test_runs_that_crash_on_the_worse_side_take_nothing_away(fabricator):
    made = of(fabricator, ("lora", [0.92, 0.91, 0.93, 0.92, 0.92]), ("full", [0.70, 0.71, None, 0.7, 0.7]))
    assert verdict(made).word == "lora is best when it works"


def test_five_seeds_do_not_say_how_often_a_run_fails(fabricator):
    made = of(fabricator, ("lora", [0.95, 0.94, 0.95, 0.95, 0.96]), ("full", [0.80, 0.81, 0.79, 0.8, 0.8]))
    said = verdict(made)
    assert said.word == "lora is best when it works" and "when it works" in said.sentence
    told = "Of 5 runs of lora 0 failed; of new ones up to 45\N{NARROW NO-BREAK SPACE}% could, and so many could cost it"
    assert f"{told} the lead. Of full 0 of 5 failed: no difference in failure rates is shown." in said.sentence


def test_a_lead_that_as_many_failures_as_could_be_do_not_cost_is_best_without_that_word(fabricator):
    made = of(fabricator, ("lora", [0.95] * 20), ("full", [0.60] * 20), seeds=20, examples=1000)
    results = read(made)[1]
    said = verdict_of(results)
    assert said.word == "lora is best" and "when it works" not in said.sentence
    [row] = [row for row in results.comparisons if row.metric == "accuracy"]
    limit, found = results.variant("lora").failures.limit, results.variant("lora").estimates["test/accuracy"]
    assert limit * (found.mean - 0.23) < row.ci[0], "14 % of what a failed run loses"


def test_failures_that_differ_are_told_apart(fabricator):
    made = fabricator(list(range(12)), {"lora": "adapter", "full": "full"})
    for seed in range(12):
        made.run("lora", seed, 0.9)
        made.run("full", seed, *((0.23, "degenerate", None) if seed < 7 else (0.7, "finished", None)))
    said = verdict(made)
    assert "Of 12 runs of lora 0 failed" in said.sentence
    assert "Of full 7 of 12 failed: the failure rates differ." in said.sentence


def test_where_no_run_works_there_is_no_best(fabricator):
    made = fabricator([0, 1], {"full": "full"})
    for seed in (0, 1):
        made.run("full", seed, 0.2, "degenerate", "at the commonest label")
    said = verdict(made)
    assert said.word == "No run works" and said.state == "undecided"


def test_what_it_rests_on_stands_beside_it(fabricator):
    made = of(fabricator, ("lora", [0.9, 0.91, 0.9, 0.92, 0.9]), ("full", [0.9, 0.89, 0.91, 0.9, 0.9]))
    said = verdict(made)
    told = " ".join(said.remarks)
    assert "the same 120 training examples" in told
    assert "3 of 120 training texts and 3 of 200 texts of test" in told
    assert "does not say how the settings were chosen (train.chosen_by)" in told
    assert said.word == "Undecided" and "finetune plan runs/topics --detect" in said.sentence


def test_how_settings_were_chosen_is_told(fabricator):
    made = of(fabricator, ("lora", [0.9, 0.91]), ("full", [0.9, 0.89]), seeds=2)
    resolved = yaml.safe_load((made.path / "resolved.yaml").read_text())
    train = resolved["variants"]["lora"]["recipe"]["train"]
    resolved["variants"]["lora"]["recipe"]["train"] = {**train, "learning_rate": 1e-3, "chosen_by": "twelve rates"}
    resolved["variants"]["full"]["recipe"]["train"]["learning_rate"] = 1e-5
    (made.path / "resolved.yaml").write_text(yaml.safe_dump(resolved))
    told = " ".join(verdict(made).remarks)
    assert "The settings of lora were chosen by: twelve rates." in told
    assert "does not say how the settings of full were chosen" in told


def test_interrupted_runs_are_missing_and_do_not_count_as_failed(fabricator):
    made = of(fabricator, ("full", [0.9, 0.91]), seeds=3)
    (made.path / "full" / "seed-2").mkdir()
    assert any("1 of 3 runs have not ended" in remark for remark in verdict(made).remarks)
    assert read(made)[1].variant("full").failures.count == 0


def test_nothing_lies_beyond_what_a_score_can_be(fabricator):
    made = of(fabricator, ("full", [1.0, 1.0, 0.99]), ("lora", [0.98, 1.0, 1.0]), seeds=3, examples=50)
    content = json.loads(json.dumps(read(made)[1].to_json()))
    for variant in content["variants"]:
        for key, found in variant["estimates"].items():
            ends = [found[name] for name in ("ci", "ci_seeds", "prediction") if found[name]]
            ends += [found["expected"]["ci"]] if found["expected"] and found["expected"]["ci"] else []
            assert all(low >= 0 for low, _ in ends), key
            assert key.endswith("nll") or all(high <= 1 for _, high in ends), key


def test_a_cheap_baseline_that_is_as_good_stands_in_the_answer(fabricator):
    made = of(fabricator, ("full", [0.9, 0.91, 0.9, 0.92, 0.9]), ("linear", [0.6, 0.61, 0.6, 0.62, 0.6]))
    assert "not better" not in verdict(made).word
    made.cheap("tfidf-logistic", 0.89)
    results = read(made)[1]
    said = verdict_of(results)
    assert said.word.startswith("full is best") and said.word.endswith(
        ", but not shown to be better than tfidf-logistic"
    )
    assert said.state == "undecided", "else it would stand there in green"
    assert "against tfidf-logistic." in said.sentence
    assert any(remark.startswith("linear is worse than tfidf-logistic") for remark in said.remarks)
    assert any(remark.startswith("full is not shown to be better than tfidf-logistic") for remark in said.remarks)
    [cheap] = results.baselines
    found = cheap.estimates["test/accuracy"]
    low, high = found.ci
    assert low < found.mean < high and found.ci_seeds is None and found.sd is None, "of the examples: it has no seeds"
    assert cheap.name not in [variant.name for variant in results.variants]


def test_a_cheap_baseline_that_is_beaten_is_not_in_the_way(fabricator):
    made = of(fabricator, ("full", [0.9, 0.91, 0.9, 0.92, 0.9]), ("linear", [0.6, 0.61, 0.6, 0.62, 0.6]))
    made.cheap("commonest-label", 0.23)
    said = verdict(made)
    assert said.word == "full is best when it works" and not any("commonest-label" in each for each in said.remarks)


def test_cheap_baselines_stand_below_a_rule(fabricator):
    made = of(fabricator, ("full", [0.9, 0.91]), ("linear", [0.6, 0.61]), seeds=2)
    made.cheap("tfidf-logistic", 0.7)
    report.build(made.path)
    page = (made.path / "report" / "index.html").read_text(encoding="utf-8")
    below = page.partition('<tbody class="below">')[2].partition("</tbody>")[0]
    assert "tfidf-logistic" in below and "linear" not in below
    assert "| tfidf-logistic | " in (made.path / "report" / "report.md").read_text(encoding="utf-8")


def test_the_only_variant_is_held_against_what_needs_no_tuning(fabricator):
    made = of(fabricator, ("full", [0.9, 0.91, 0.9, 0.92, 0.9]))
    assert verdict(made).word == "One variant" and "Nothing else has been scored" in verdict(made).sentence
    made.cheap("commonest-label", 0.23)
    said = verdict(made)
    assert said.word == "full is better than no tuning" and "against commonest-label" in said.sentence
    made.cheap("tfidf-logistic", 0.9)
    said = verdict(made)
    assert (said.word, said.state) == ("full is not shown to be better than tfidf-logistic", "undecided")
    assert "Nothing else" not in said.sentence and "commonest-label" not in said.sentence
    assert not any("tfidf-logistic" in remark for remark in said.remarks), "the answer has said it"


def test_a_cheap_baseline_that_failed_is_told(fabricator):
    made = of(fabricator, ("full", [0.9, 0.91]), ("linear", [0.6, 0.61]), seeds=2)
    result = made.cheap("tfidf-logistic", 0.7)
    failed = {**result, "status": "error", "reason": "MemoryError: too many words", "scores": {}}
    made.json("baselines/tfidf-logistic/result.json", failed)
    report.build(made.path)
    text = (made.path / "report" / "report.md").read_text(encoding="utf-8")
    assert "tfidf-logistic: failed, MemoryError: too many words." in text


@pytest.mark.parametrize(("difference", "asked"), [(0.001, "0.5"), (0.012, "1.2")])
def test_a_plan_is_not_asked_about_less_than_half_a_point(fabricator, difference, asked):
    """Of equals no number of seeds is enough."""
    results = read(of(fabricator, ("ab", [0.9, 0.91, 0.92]), ("ba", [0.92, 0.91, 0.92]), seeds=3))[1]
    rows = [replace(row, difference=difference, ci=(-0.02, 0.03)) for row in results.comparisons]
    rows = [replace(row, verdict="undecided", verdict_overall="undecided") for row in rows]
    assert verdict_of(replace(results, comparisons=rows)).sentence.endswith(f"--detect {asked}")


def test_a_plan_for_a_correlation_says_what_its_points_are(fabricator):
    results = read(of(fabricator, ("ab", [0.9, 0.91, 0.92]), ("ba", [0.92, 0.91, 0.92]), seeds=3))[1]
    gap = gap_of(results, "ab", "ba")
    said = deciding(results, [replace(gap, row=replace(gap.row, metric="pearson", difference=-0.012))])
    assert "to see a difference of 0.012 (1.2 points): " in said and said.endswith("--detect 1.2")


def test_a_worse_leader_is_not_said_to_be_undecided(fabricator):
    made = of(fabricator, ("full", [0.6, 0.61, 0.6, 0.62, 0.6]))
    made.cheap("tfidf-logistic", 0.95)
    assert verdict(made).word == "full is worse than tfidf-logistic"


def test_of_many_rivals_the_nearest_are_named(fabricator):
    made = of(fabricator, *((f"v{place}", [0.9 - place / 500, 0.91, 0.92]) for place in range(7)), seeds=3)
    said = re.search(r"better than (v\d, v\d, v\d or 3 others): each of them may be as good", verdict(made).sentence)
    assert said, "six rivals"
