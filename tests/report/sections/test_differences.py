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
