"""The section on overfitting."""

from finetune.report.blocks import Table
from finetune.report.sections.overfitting import sections
from tests.results.stores import lose, read


def test_sections_and_table(trained):
    for seed in (1, 2, 3):
        lose(trained, "full", seed, [1.0, 1.0], [1.0 + seed / 10])
    lose(trained, "lora", 1, [1.0, 1.0], [], status="diverged")
    [section] = sections(*read(trained))
    assert section.id == "overfitting"
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    [row] = table.rows
    assert [cell.text for cell in row[:4]] == ["full", "1.000", "1.200", "+0.200"] and row[0].colour == 0
    assert row[3].small == "[\N{MINUS SIGN}0.048, +0.448]" and (row[5].small, row[6].small) == ("at most 0.000", "of 2")


def test_without_validation_there_is_no_section(trained):
    lose(trained, "full", 1, [2.0, 1.0], [])
    assert sections(*read(trained)) == []
