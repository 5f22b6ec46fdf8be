"""The drawings, the units, and the terminal's table."""

import io
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from finetune.report import build, terminal, units
from finetune.report.drawing import plots
from finetune.report.drawing.svg import Scale, tag
from finetune.report.markdown import escape


@pytest.mark.parametrize("narrow", [False, True])
def test_seed_plot_has_a_dot_for_every_seed_where_its_score_is(study, narrow):
    results = build(study.path)
    drawing = ElementTree.fromstring(plots.seed_plot(results, results["tasks"][0], narrow))
    dots = [element for element in drawing.iter("circle") if element.get("class") == "dot"]
    assert len(dots) == 15
    assert drawing.get("role") == "img" and drawing.get("aria-label") and drawing.find("title") is not None
    shown = {dot.find("title").text: float(dot.get("cx")) for dot in dots}
    tuned = [variant for variant in results["variants"] if variant["name"] != "base"]
    found = {(v["name"], run["seed"]): run["scores"]["test/accuracy"] for v in tuned for run in v["runs"]}
    scores = {f"{name}, seed {seed}: {100 * score:.1f}\u202f%": score for (name, seed), score in found.items()}
    assert shown.keys() == scores.keys()
    by_score = sorted(scores, key=scores.get)
    assert [shown[name] for name in by_score] == sorted(shown.values())
    width = float(drawing.get("viewBox").split()[2])
    assert all(0 < place < width for place in shown.values())


def test_base_line_or_arrow(make):
    results = build(make(base=0.9).path)
    assert 'class="baseline"' in plots.seed_plot(results, results["tasks"][0], narrow=False)
    for variant in results["variants"]:
        if variant["name"] == "base":
            variant["estimates"]["test/accuracy"]["mean"] = 0.01
    drawing = plots.seed_plot(results, results["tasks"][0], narrow=False)
    assert 'class="baseline"' not in drawing and "← untuned base 1.0" in drawing


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_inside_and_few(low, width):
    scale = Scale(low, low + width, 0, 100)
    ticks = scale.ticks()
    slack = 1e-6 * (abs(low) + width)
    assert 1 <= len(ticks) <= 6 and all(low - slack <= tick <= low + width + slack for tick in ticks)
    written = [units.fixed(tick, scale.decimals()) for tick in ticks]
    assert len(set(written)) == len(written)


def test_tags_escape():
    escaped = '<text title="&#34;&gt;&lt;x" class="a">&lt;b&gt;&amp;&#34;</text>'
    assert tag("text", '<b>&"', title='"><x', class_="a") == escaped


@pytest.mark.parametrize(
    ("metric", "value", "written"),
    [("accuracy", 0.9312, "93.1 %"), ("mcc", -0.5, "\u22120.500"), ("nll", 0.1234, "0.123"), ("chrf", 43.21, "43.2"),
     ("rouge_l", 0.5, "50.0 %"), ("hub:own", 1.0, "1.000"), ("accuracy", None, "\u2013")],
)  # fmt: skip
def test_units(metric, value, written):
    assert units.unit(metric).value(value).replace(units.THIN, " ") == written


def test_written_numbers():
    assert units.fixed(-0.0001, 1) == "0.0" and units.fixed(-1.25, 1, signed=True).startswith("\u2212")
    assert (units.p_value(0.0004), units.p_value(0.0421)) == ("< 0.001", "0.042")
    assert [units.seconds(s) for s in (8.44, 75, 720, 12240)] == ["8.4 s", "75 s", "12 min", "3.4 h"]
    assert [units.short_count(n) for n in (1925, 93189, 22713216, 7e9)] == ["1,925", "93.2 k", "22.7 M", "7.0 B"]
    assert units.memory(912e6) == "912 MB" and units.memory(2.5e9) == "2.5 GB"
    assert units.share(1925, 22713216).startswith("0.0085")
    assert units.listing(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(("text", "written"), [("a|b", r"a\|b"), ("snake_case", "snake_case"), ("_x_", r"\_x\_"),
                                               ("[93.1, 94.2]", "[93.1, 94.2]"), ("[a](b)", r"[a\](b)"),
                                               ("a\nb & c", "a b &amp; c")])  # fmt: skip
def test_markdown_escape(text, written):
    assert escape(text) == written


@pytest.mark.parametrize("width", [40, 60, 100])
def test_terminal_table_fits(study, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal.table(build(study.path)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    shown = "\n".join(lines)
    assert all(name in shown for name in ("linear", "lora", "full", "base", "score"))
    assert ("time" in shown) == (width == 100)


def test_terminal_shows_brackets_in_names(fabricator):
    made = fabricator([1], {"[red]": "full"})
    made.run("[red]", 1, 0.9)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.table(build(made.path)))
    assert "[red]" in console.export_text()
