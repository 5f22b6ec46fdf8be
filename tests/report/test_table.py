"""The README's table of a study says what its results say, and stands between its markers."""

from dataclasses import replace

import pytest

from finetune.report import build
from scripts._table import markers, table, write
from tests.fabricated import with_variant


def test_the_table_ranks_the_variants_by_their_scores(study):
    results = build(study.path)
    head, _, *rows = table(results).splitlines()[: 2 + len(results.variants)]
    means = {v.name: v.estimates["test/accuracy"].mean for v in results.variants if v.estimates}
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows if row.startswith("| ")]
    assert head.startswith("| variant | learns |") and "accuracy, %" in head
    assert names == sorted(means, key=means.__getitem__, reverse=True)
    for name, row in zip(names, rows, strict=False):
        assert f" {100 * means[name]:.1f} " in row


def test_a_variant_without_a_score_stands_last(make):
    made = make(base=None)
    for seed in made.seeds:
        made.run("full", seed, None, status="error", reason="it fell over")
    rows = [row for row in table(build(made.path)).splitlines() if row.startswith("| ")]
    assert rows[-1].startswith("| full | ") and "\N{EN DASH}" in rows[-1] and rows[-1].endswith("| 5 of 5 |")
    assert [row.split(" | ")[0] for row in rows[-3:-1]] == ["| lora", "| linear"]


def test_one_run_that_was_paused_does_not_change_what_a_run_takes(study):
    results = build(study.path)
    for variant in results.tuned:
        first, *others = variant.runs
        paused = [replace(first, seconds=5e4), *others]  # 2.8 hours in the mean of five
        results = with_variant(results, variant.name, runs=paused)
    assert " h |" not in table(results) and " 14 s |" in table(results)


def test_it_takes_the_place_of_the_last_one(study, tmp_path):
    results = build(study.path)
    begin, end = markers(results.study)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{begin}\nan old table\n{end}\nafter\n")
    write(results, readme)
    write(results, readme)
    text = readme.read_text()
    assert text == f"before\n{begin}\n\n{table(results)}\n\n{end}\nafter\n"


def test_a_readme_without_a_place_for_it_is_told(study, tmp_path):
    (tmp_path / "README.md").write_text("no place\n")
    with pytest.raises(SystemExit, match="has no place for it"):
        write(build(study.path), tmp_path / "README.md")
