"""Differences: all of them are on the page, and where they are many those of the best variant come first."""

from finetune.report import build
from finetune.report.sections.differences import MANY


def test_many_differences_are_divided(fabricator):
    names = {f"v{number}": "full" for number in range(8)}
    made = fabricator([0, 1, 2], names)
    for seed in made.seeds:
        for number, name in enumerate(names):
            made.run(name, seed, 0.5 + 0.06 * number)
    results = build(made.path)
    headline = [row for row in results.comparisons if row.family == "headline"]
    assert len(headline) == 28 > MANY
    text = (made.path / "report" / "report.md").read_text(encoding="utf-8")
    first, folded = text.split("The 21 differences without v7", 1)
    opened = [line for line in first.splitlines() if "\N{MINUS SIGN} v7 |" in line]
    rest = folded.split("Whose seeds scatter more")[0].splitlines()
    assert len(opened) == 7 and sum(line.startswith("| v") for line in rest) == 21
    assert not any("v7" in line for line in rest)


def test_few_differences_stand_together(study):
    build(study.path)
    text = (study.path / "report" / "report.md").read_text(encoding="utf-8")
    assert "differences without" not in text and "lowest 0.062" in text


def test_a_verdict_of_the_runs_that_work_says_so_under_it(fabricator):
    made = fabricator([0, 1, 2, 3, 4], {"lora": "adapter", "full": "full"})
    for seed in made.seeds:
        made.run("lora", seed, 0.9 + seed / 1000)
        made.run("full", seed, 0.6 + seed / 1000)
    build(made.path)
    text = (made.path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| **lora is better** (when it works) | " in text
    assert "Left variant minus right, in accuracy on test; failed" in text and "| p | could see |\n" in text


def test_what_the_columns_mean_can_be_read_without_hovering(study):
    build(study.path)
    text = (study.path / "report" / "report.md").read_text(encoding="utf-8")
    assert "- **could see:** How large a true difference has to be" in text
    assert "- **with failures:** The mean score to expect of a new run" in text


def test_a_baseline_is_not_held_against_a_set_that_it_was_not_asked(fabricator):
    """It answers no sets that have a task of their own: there, a row without a number would look like a verdict."""
    made = fabricator([0, 1, 2], {"lora": "adapter", "full": "full"}, tasks=("test", "other"))
    for seed in made.seeds:
        made.run("lora", seed, 0.9)
        made.run("full", seed, 0.6)
    cheap = made.cheap("centroid", 0.5)
    scores = {key: value if key.startswith("test/") else None for key, value in cheap["scores"].items()}
    made.json("baselines/centroid/result.json", {**cheap, "scores": scores})
    (made.path / "baselines/centroid/predictions/other.parquet").unlink()
    build(made.path)
    text = (made.path / "report" / "report.md").read_text(encoding="utf-8")
    differences = text.partition("<summary>Differences")[2]
    opened = differences.partition("What the columns mean")[0]
    rows = [line for line in opened.splitlines() if "centroid |" in line]
    assert len(rows) == 2 and all("on test |" in line for line in rows)
    assert "a side has no run with this score" not in text
    test, _, other = text.partition("<summary>Differences")[0].partition("Scores on other")
    assert "| lora" in other and "centroid" not in other and "| centroid" in test


def test_what_has_no_run_to_compare_is_no_verdict(fabricator):
    made = fabricator([0, 1, 2], {"lora": "adapter", "full": "full"})
    for seed in made.seeds:
        made.run("lora", seed, 0.9)
        made.run("full", seed, 0.3, status="degenerate", reason="nothing was learnt")
    build(made.path)
    text = (made.path / "report" / "report.md").read_text(encoding="utf-8")
    row = next(line for line in text.partition("<summary>Differences")[2].splitlines() if line.startswith("| lora"))
    assert "not compared" in row and "undecided" not in row
