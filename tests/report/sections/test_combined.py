"""What was made of seeds together, on the page."""

from finetune.report import build


def page(study, name="report.md"):
    return (study.path / "report" / name).read_text(encoding="utf-8")


def test_nothing_is_said_where_nothing_was_combined(study):
    build(study.path)
    assert "Soups and ensembles" not in page(study) + page(study, "index.html")


def test_it_stands_on_the_page(study, combine):
    combine("lora", "soup-greedy", 0.97, seeds=[2, 4])
    combine("lora", "soup-uniform", 0.4)
    combine("full", "ensemble", None, seeds=[], status="error", reason="RuntimeError: a <cosmic> ray")
    build(study.path)
    text = page(study)
    section = text[text.index("Soups and ensembles") :]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    greedy = next(row for row in rows if "soup-greedy" in row and "accuracy" in row)
    assert "| seeds 2, 4, of 5 |" in greedy and "**+" in greedy
    uniform = next(row for row in rows if "soup-uniform" in row and "accuracy" in row)
    assert "all 5 that finished" in uniform and "**\N{MINUS SIGN}" in uniform
    assert any("**ensemble**" in row and "**error**" in row for row in rows)
    assert "full, ensemble: RuntimeError: a \\<cosmic\\> ray" in section
    html = page(study, "index.html")
    assert 'id="combined"' in html and "a &lt;cosmic&gt; ray" in html
