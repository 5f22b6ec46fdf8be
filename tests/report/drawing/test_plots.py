"""The drawings, and the terminal's table."""

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from finetune.core.numbers import fixed
from finetune.report import build, terminal
from finetune.report.drawing import plots
from finetune.report.drawing.svg import Scale, tag
from finetune.report.markdown import escape
from tests.fabricated import with_variant


@pytest.mark.parametrize("narrow", [False, True])
def test_seed_plot_has_a_dot_for_every_seed_where_its_score_is(study, narrow):
    results = build(study.path)
    drawing = ElementTree.fromstring(plots.seed_plot(results, results.tasks[0], narrow))
    dots = [element for element in drawing.iter("circle") if element.get("class") == "dot"]
    assert len(dots) == 15
    assert drawing.get("role") == "img" and drawing.get("aria-label") and drawing.find("title") is not None
    shown = {dot.find("title").text: float(dot.get("cx")) for dot in dots}
    tuned = results.tuned
    found = {(v.name, run.seed): run.scores["test/accuracy"] for v in tuned for run in v.runs}
    scores = {f"{name}, seed {seed}: {100 * score:.1f}\u202f%": score for (name, seed), score in found.items()}
    assert shown.keys() == scores.keys()
    by_score = sorted(scores, key=scores.get)
    assert [shown[name] for name in by_score] == sorted(shown.values())
    width = float(drawing.get("viewBox").split()[2])
    assert all(0 < place < width for place in shown.values())


def test_base_line_or_arrow(make):
    results = build(make(base=0.9).path)
    assert 'class="baseline"' in plots.seed_plot(results, results.tasks[0], narrow=False)
    low = replace(results.variant("base").estimates["test/accuracy"], mean=0.01)
    results = with_variant(results, "base", estimates={"test/accuracy": low})
    drawing = plots.seed_plot(results, results.tasks[0], narrow=False)
    assert 'class="baseline"' not in drawing and "← untuned base 1.0" in drawing


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_inside_and_few(low, width):
    scale = Scale(low, low + width, 0, 100)
    ticks = scale.ticks()
    slack = 1e-6 * (abs(low) + width)
    assert 1 <= len(ticks) <= 6 and all(low - slack <= tick <= low + width + slack for tick in ticks)
    written = [fixed(tick, scale.decimals()) for tick in ticks]
    assert len(set(written)) == len(written)


def test_tags_escape():
    escaped = '<text title="&#34;&gt;&lt;x" class="a">&lt;b&gt;&amp;&#34;</text>'
    assert tag("text", '<b>&"', title='"><x', class_="a") == escaped


@pytest.mark.parametrize(("text", "written"), [("a|b", r"a\|b"), ("snake_case", "snake_case"), ("_x_", r"\_x\_"),
                                               ("[93.1, 94.2]", "[93.1, 94.2]"), ("[a](b)", r"[a\](b)"),
                                               ("a\nb & c", "a b &amp; c")])  # fmt: skip
def test_markdown_escape(text, written):
    assert escape(text) == written


@pytest.mark.parametrize("width", [40, 60, 70, 100])
def test_terminal_table_fits(study, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal.table(build(study.path)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    shown = "\n".join(lines)
    assert all(name in shown for name in ("linear", "lora", "full", "base", "score"))
    assert ("time" in shown) == (width >= 70)


def test_terminal_shows_brackets_in_names(fabricator):
    made = fabricator([1], {"[red]": "full"})
    made.run("[red]", 1, 0.9)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.table(build(made.path)))
    assert "[red]" in console.export_text()
