"""The page and the Markdown: complete, escaped, self-contained, and equal in every number."""

import html
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from finetune.report import build

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
    return " ".join(" ".join(parsed(path).words).split())


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
    assert "script" not in page.tags and "b" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    raw = (messy.path / "report/index.html").read_text(encoding="utf-8")
    assert "<script" not in raw
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
    assert not re.search(r"(?<!\\)<", code.sub("", text))
    for table in re.findall(r"(?:^\|.*\n)+", code.sub("", text), re.MULTILINE):
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(cells) > 2 and len(set(cells)) == 1


def test_nothing_is_fetched_and_nothing_runs(study):
    build(study.path)
    page = parsed(study.path)
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "xlink:href")]
    assert links and all(link.startswith("#") for link in links)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    raw = (study.path / "report/index.html").read_text(encoding="utf-8")
    assert "url(" not in raw and "@import" not in raw and "http:" not in raw and "https:" not in raw
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html.unescape(raw)


def test_links_lead_somewhere_once(study):
    build(study.path)
    attributes = parsed(study.path).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for name, value in attributes if name == "href"} <= set(ids)


def test_the_page_is_small(study):
    build(study.path)
    assert (study.path / "report/index.html").stat().st_size < 150_000


def test_sections_stand_in_order_and_all_are_there(study):
    build(study.path)
    page = text(study.path)
    wanted = ["topics", "full is best", "Scores on test", "Differences", "Training curves",
              "Failed and unfinished runs", "None failed", "Size, time and memory", "Data", "Recipe", "Environment",
              "How each number"]  # fmt: skip
    sections = page[page.index("Scores on test", page.index("How each number")) :]
    places = [sections.index(word) for word in wanted[2:]]
    assert places == sorted(places) and all(word in page for word in wanted)
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
    assert "Undecided" in text(made.path) and "do not tell it apart" in text(made.path)


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
    assert raw.count('class="failed"') == 2 * 3 + 1  # both widths of the seed plot, and the diverged curve


def test_unfinished_studies_still_give_a_page(fabricator):
    made = fabricator([1, 2], {"full": "full"})
    build(made.path)
    assert "No run has been scored" in text(made.path)


def test_no_torch(study):
    code = (
        "import sys; from pathlib import Path; from finetune.report import build; from finetune.report import terminal;"
        f"build(Path({str(study.path)!r}));"
        "print(sorted({'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
    assert "These seeds do not tell it apart from the base" in text(made.path)
