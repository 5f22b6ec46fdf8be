"""The page and the Markdown: complete, escaped, self-contained, and equal in every number."""

import base64
import hashlib
import html
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.numbers import fixed
from finetune.report import build, markdown
from finetune.report.blocks import Bullets, Cell, Code, Column, Document, Fold, Section, Table, Text, Verdict
from finetune.report.html import numbers_of, render, sort_value, template, variants_of

VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = '<script>alert("1")</script>&\'|`*'


class Wellformed(HTMLParser):
    """Fails on a tag that is closed out of turn; keeps tags, attributes and text."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


def parsed(path):
    parser = Wellformed()
    parser.feed((path / "report/index.html").read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    return parser


def text(path):
    """What a person reads: without the style and the script."""
    raw = (path / "report/index.html").read_text(encoding="utf-8")
    reader = Wellformed()
    reader.feed(re.sub(r"<(style|script)>.*?</\1>", "", raw, flags=re.DOTALL))
    return " ".join(" ".join(reader.words).split())


def page_of(*blocks, title="study"):
    """The page of one section."""
    return render(
        Document(title, Verdict("undecided", "word", "sentence", []), [], [Section("id", "Heading", [*blocks])])
    )


@pytest.fixture
def messy(fabricator):
    """Everything that can be hostile or go wrong, in one study."""
    evil = EVIL.replace("/", "")  # a variant is a folder
    made = fabricator([1, 2, 3, 4], {evil: "full", "lora": "adapter"}, labels=(EVIL, "plain"), name=EVIL)
    made.run(evil, 1, 0.9)
    made.run(evil, 2, 0.2, "degenerate", EVIL)
    made.run(evil, 3, 0.4, "diverged", EVIL)
    made.run(evil, 4, None, "error", EVIL)
    for seed in (1, 2, 3):
        made.run("lora", seed, 0.9)
    made.metrics(made.path / "lora/seed-4", np.random.default_rng(0))
    (made.path / "recipe.yaml").write_text(f"# {EVIL}\n```\n", encoding="utf-8")
    build(made.path)
    return made


def test_everything_foreign_is_escaped(messy):
    page = parsed(messy.path)
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    raw = (messy.path / "report/index.html").read_text(encoding="utf-8")
    assert raw.count("<script") == raw.count("</script") == 1
    shown = html.unescape(raw)
    assert shown.count(EVIL) >= 5  # study, label, reasons, recipe
    titles = re.findall(r"<title>(.*?)</title>", raw)
    assert any("diverged: &lt;script&gt;" in title for title in titles)  # in the drawings too


def test_markdown_is_escaped(messy):
    lines = (messy.path / "report/report.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# \\<script\\>")
    text = "\n".join(lines)
    code = re.compile(r"^(`{3,})yaml\n.*?\n\1$", re.DOTALL | re.MULTILINE)
    assert "````yaml" in lines  # the recipe holds a fence of three, so its own has four
    known = r"</?details>|</?summary>|&lt;"
    assert not re.search(r"(?<!\\)<", re.sub(known, "", code.sub("", text)))
    assert text.count("<details>") == text.count("</details>") > 3
    for table in re.findall(r"(?:^\|.*\n)+", code.sub("", text), re.MULTILINE):
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(cells) > 2 and len(set(cells)) == 1


def test_nothing_is_fetched_and_only_our_script_runs(study):
    build(study.path)
    page = parsed(study.path)
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "xlink:href")]
    assert links and all(link.startswith("#") for link in links)
    assert not {"link", "iframe", "object", "img", "base", "form"} & set(page.tags)
    raw = (study.path / "report/index.html").read_text(encoding="utf-8")
    assert "url(" not in raw and "@import" not in raw and "http:" not in raw and "https:" not in raw
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', raw)
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy).split("; "))
    assert rules.keys() == {"default-src", "style-src", "script-src", "base-uri", "form-action"}
    assert {rules[name] for name in ("default-src", "base-uri", "form-action")} == {"'none'"}
    for name in ("style", "script"):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", raw, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"


def test_links_lead_somewhere_once(study):
    build(study.path)
    attributes = parsed(study.path).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for name, value in attributes if name == "href"} <= set(ids)


def test_the_page_is_small(study):
    build(study.path)
    assert (study.path / "report/index.html").stat().st_size < 200_000


def test_sections_stand_in_order_and_all_are_there(study):
    build(study.path)
    page = text(study.path)
    raw = (study.path / "report/index.html").read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", raw)
    wanted = ["Scores on test", "Differences", "Training curves", "Failed and unfinished runs",
              "Data", "Size, time, memory and energy", "Recipe", "Environment",
              "How each number was computed"]  # fmt: skip
    assert [heading for heading in headings if heading in wanted] == wanted
    assert re.findall('<a href="#(?!content).*?">(.*?)</a>', raw) == headings
    assert "None failed" in page and re.findall("<h1>(.*?)</h1>", raw) == ["topics"]
    for fact in ("22.7 M", "93.2 k", "0.41", "912 MB", "98 duplicates", "23.0", "politics", "2.13.0", "init, order"):
        assert fact in page, fact


def test_markdown_and_page_show_the_same_numbers(study):
    build(study.path)
    page = text(study.path)
    markdown = (study.path / "report/report.md").read_text(encoding="utf-8")
    rows = [line for line in markdown.splitlines() if line.startswith("|") and "---" not in line]
    numbers = {number for line in rows for number in re.findall(r"[+\u2212]?\d[\d,]*\.\d+", line)}
    assert len(numbers) > 60
    assert [number for number in numbers if number not in page] == []


def test_decided_verdict_names_the_winner(fabricator):
    made = fabricator([1, 2, 3, 4, 5], {"linear": "linear", "full": "full"})
    for seed in made.seeds:
        made.run("linear", seed, 0.5)
        made.run("full", seed, 0.95)
    build(made.path)
    page = text(made.path)
    assert "full is best" in page and "points" in page and "5 seeds are a smoke test" in page
    assert "0.60 to 2.87" in page


def test_close_variants_are_undecided(fabricator):
    made = fabricator([1, 2, 3], {"a": "full", "b": "full"})
    for seed in made.seeds:
        made.run("a", seed, 0.9)
        made.run("b", seed, 0.9)
    build(made.path)
    assert "Undecided" in text(made.path) and "do not show that it is better than" in text(made.path)


def test_lower_is_better_picks_the_lowest(fabricator):
    made = fabricator([1, 2, 3, 4], {"a": "full", "b": "full"})
    data = made.data()
    data["tasks"][0]["headline"] = "nll"
    made.json("data.json", data)
    for seed in made.seeds:
        made.run("a", seed, 0.4)
        made.run("b", seed, 0.9)
    build(made.path)
    assert "b is best" in text(made.path)


def test_one_variant_is_held_against_the_base(fabricator):
    made = fabricator([1, 2, 3], {"lora": "adapter"})
    for seed in made.seeds:
        made.run("lora", seed, 0.9)
    made.base(0.3)
    build(made.path)
    assert "lora is better than the base" in text(made.path)


def test_one_seed_prints_no_interval_and_says_why(make):
    made = make(seeds=1, base=None)
    build(made.path)
    page = text(made.path)
    assert "One seed says nothing about the spread" in page
    task = page[page.index("200 held-out") : page.index("Differences", page.index("200 held-out"))]
    assert not re.search(r"\[[\d.]+, [\d.]+\]", task)


def test_failures_are_named_with_reasons_and_marked(messy):
    page = text(messy.path)
    assert "3 of 7 runs failed" in page and "1 of 8 runs have not ended" in page
    assert "unstable" in page and "no score" in page
    raw = (messy.path / "report/index.html").read_text(encoding="utf-8")
    assert raw.count('class="failed"') == 2 * 3 + 2  # both widths of the seed plot; the diverged loss and gradient norm


def test_unfinished_studies_still_give_a_page(fabricator):
    made = fabricator([1, 2], {"full": "full"})
    build(made.path)
    assert "No run has been scored" in text(made.path)


HEAVY = ["torch", "transformers", "datasets", "accelerate", "peft", "evaluate"]
WITHOUT = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Missing())
from finetune.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_no_torch(study):
    arguments = [sys.executable, "-c", WITHOUT, "report", str(study.path)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in (study.path / "report").iterdir()}
    assert set(written) == {"index.html", "report.md", "model-card.md", "results.json"}
    build(study.path)
    assert {path.name: path.read_bytes() for path in (study.path / "report").iterdir()} == written


@pytest.mark.parametrize(
    ("action", "found", "words"),
    [
        ("refuse", 0, "none found"),
        ("drop", 3, "3 found, and dropped from training"),
        ("allow", 2, "2 found, and trained"),
    ],
)
def test_leaks_are_told(study, action, found, words):
    study.json("data.json", {**study.data(), "leaks": {"checked": 700, "found": found, "action": action}})
    build(study.path)
    assert words in text(study.path)


def test_one_scored_variant_among_two_is_not_compared(fabricator):
    made = fabricator([1, 2, 3], {"a": "full", "b": "full"})
    for seed in made.seeds:
        made.run("a", seed, None, "error", "out of memory")
        made.run("b", seed, 0.9)
    build(made.path)
    assert "Nothing else has been scored" in text(made.path)
    made.base(0.9)
    build(made.path)
    assert "These runs do not show that it is better than the untuned base model" in text(made.path)


SORTED = ["< 0.001", "0.001", "8.4 s", "75 s", "12 min", "3.4 h", "1.5 d"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("93.2", 93.2),
        ("\u22124.7\u202fpoints", -4.7),
        ("+1.20 points", 1.2),
        ("1,234,567.5", 1234567.5),
        ("[\u22120.1, 2.3]", -0.1),
        ("3 of 20", 3),
        ("31, at most 96", 31),
        ("93.2 k", 93_200),
        ("22.7 M", 22_700_000),
        ("1.3 B", 1.3e9),
        ("912 MB", 912e6),
        ("2.0 GB", 2e9),
        ("1.5 PFLOPs", 1.5e15),
        ("3.1 kJ", 3100),
        ("12 min", 720),
        ("3.4 h", 12240),
        ("1.2e-05", 1.2e-5),
        ("5.2\u202f%", 5.2),
        ("12 kinds", 12),
        ("4 Macs", 4),
        ("\u2013", None),
        ("", None),
        ("all 5 that finished", None),
    ],
)
def test_what_a_cell_is_sorted_by(written, value):
    assert sort_value(Cell(written)) == ("" if value is None else f"{value:.12g}")


def test_durations_and_bounds_are_sorted_across_units():
    values = [float(sort_value(Cell(written))) for written in SORTED]
    assert values == sorted(values) and len(set(values)) == len(values)


def test_a_cell_may_say_what_it_is_sorted_by():
    assert sort_value(Cell("many", value=7.25)) == "7.25"


@given(st.floats(-1e9, 1e9), st.integers(0, 4), st.booleans())
def test_what_units_write_is_read_back(value, decimals, signed):
    read = float(sort_value(Cell(fixed(value, decimals, signed))))
    assert read == pytest.approx(round(value, decimals), rel=1e-11, abs=1e-12)


def test_rows_know_their_variants():
    table = Table([Column("v", numeric=False)], [[Cell("b", colour=1)], [Cell("a", colour=0)], [Cell("base")]])
    document = Document("", Verdict("decided", "", "", []), [], [Section("id", "", [Fold("", [table])])])
    variants = variants_of(document)
    assert variants == {"b": 1, "a": 0}
    assert [numbers_of(row, variants) for row in table.rows] == ["0", "1", ""]
    assert numbers_of([Cell("b \u2212 a", about=("b", "a"))], variants) == "0 1"
    assert numbers_of([Cell("b \u2212 base", about=("b", "base"))], variants) == "0"


def test_only_numbers_carry_a_value_and_tables_have_captions():
    table = Table(
        [Column("name", numeric=False), Column("n")], [[Cell("7 dwarfs"), Cell("7")], [Cell("x"), Cell("\u2013")]]
    )
    raw = page_of(table)
    assert raw.count("data-value") - raw.split("<script>")[1].count("data-value") == 1
    assert '<caption class="spoken">Heading, by name</caption>' in raw
    assert '<caption class="spoken">own</caption>' in page_of(Table(table.columns, table.rows, caption="own"))
    assert "<button" not in raw and "<input" not in raw, "buttons come with the script that makes them work"


def test_characters_that_steer_a_screen_are_shown_instead():
    hostile = "a\u202eb\x00c\x1b[31m\u2066d"
    raw = page_of(Text(hostile), title=hostile)
    assert raw.count("a\ufffdb\ufffdc\ufffd[31m\ufffdd") == 3
    assert markdown.escape(hostile) == "a\ufffdb\ufffdc\ufffd[31m\ufffdd"
    assert markdown.escape("one\rtwo\u2028three") == "one two three"


def test_markdown_calls_nobody():
    assert markdown.escape("ask @octocat, mail a@b.c") == "ask @\u2060octocat, mail a@b.c"


def test_the_title_of_a_fold_is_html_in_both():
    fold = Fold("a <b>\n\n| `c` & d", [Text("inside")])
    assert markdown.blocks([fold]) == [
        "<details><summary>a &lt;b&gt; | `c` &amp; d</summary>\n\ninside\n\n</details>",
    ]
    assert "<summary>a &lt;b&gt;" in page_of(fold)


def test_markdown_leaves_the_rest_of_long_tables_and_files_to_the_page():
    rows = [[Cell(f"row {number}")] for number in range(51)]
    table, code = Table([Column("name", numeric=False)], rows), Code("\n".join(f"line {n}" for n in range(152)))
    shown = "\n".join(markdown.blocks([table, code]))
    assert "row 49" in shown and "row 50" not in shown and "*1 more row in [index.html](index.html).*" in shown
    assert "line 149" in shown and "line 150" not in shown and "*2 more lines in" in shown
    assert "row 50" in page_of(table) and "line 151" in page_of(code)


def test_markdown_opens_with_the_verdict_and_the_first_table(study):
    build(study.path)
    lines = (study.path / "report/report.md").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("<details>"))
    assert [line[:4] for line in lines[:first] if line.startswith("#")] == ["# to", "## S"]
    assert re.match(r"\*\*.*\.\*\* full ", lines[2])
    assert "| full |" in "\n".join(lines[:first])
    folds = [number for number, line in enumerate(lines) if line.startswith("<details>")]
    assert all(lines[number + 1] == "" for number in folds), "Markdown begins again after an empty line"
    assert "<details><summary>Differences</summary>" in lines


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2.2's contrast ratio."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_stands_out_in_every_scheme(scheme):
    style = template("drawing.css") + template("report.css")
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark, paper = (dict(re.findall(r"--(\w+): (#\w{6})", root)) for root in roots)
    colours = {"light": light, "dark": {**light, **dark}, "print": {**light, **paper}}[scheme]
    words = {name for name in colours if name not in ("paper", "card", "line", "grid")}
    assert words >= {"ink", "soft", "good", "bad", "open", "link", *(f"c{number}" for number in range(8))}
    found = {(name, ground): contrast(colours[name], colours[ground]) for name in words for ground in ("paper", "card")}
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}


PAYLOADS = [
    "</script><script>alert(1)</script>",
    '"onload="alert(1)',
    "' onmouseover='alert(1)",
    "<img src=x onerror=alert(1)>",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "[x](javascript:alert(1))",
    "![x](https://host/pixel.png)",
    "<https://host/x>",
    "`code` *bold* _it_ ~~no~~",
    "a|b|c",
    "a\n# heading\n- item\n\n| x | y |",
    "a\r\nb",
    "\x1b]0;title\x07\x1b[31mred",
    "@somebody and org/repo#1",
    "</summary></details>",
    "---\nlicense: other\n---",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_the_data_becomes_markup(payload):
    """In every block that shows text, on the page and in Markdown."""
    table = Table([Column(payload, help=payload, numeric=False)], [[Cell(payload, small=payload)]], [payload], payload)
    blocks = [Text(payload), table, Bullets([(payload, payload)]), Fold(payload, [Code(payload)])]
    page = page_of(*blocks, title=payload)
    reader = Wellformed()
    reader.feed(page)
    reader.close()
    assert reader.open == [] and reader.tags.count("script") == 1
    assert not {"img", "b", "iframe"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not [value for _, value in reader.attributes if value and value.startswith("javascript:")]
    assert "\x1b" not in page
    lines = [markdown.escape(payload), *"\n".join(markdown.blocks(blocks[:3])).splitlines()]
    for line in lines:
        assert not re.search(r"(?<!\\)<(?!/?(?:details|summary)>)", line), line
        assert "\x1b" not in line and "\r" not in line and not re.search(r"(?<!\\)\]\(", line)
        assert not line.startswith("# ") and line != "---"
    rows = [line for line in lines if line.startswith("| ")]
    assert rows and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {2}
