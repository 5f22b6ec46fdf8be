"""Every page in Markdown: its links lead somewhere, and its commands, recipes and names are those of the code."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import finetune
from finetune import cli, recipe
from finetune.core import env_vars, paths, watch
from finetune.core.errors import InputError
from finetune.launch.cluster import ClusterOptions, read_cluster
from finetune.recipe import reference
from finetune.recipe.options import Recipe
from scripts import _pages, _simulate, _table

ROOT = Path(__file__).parent.parent
README, REFERENCE = ROOT / "README.md", ROOT / "recipes" / "REFERENCE.md"
RESULTS, STATS = ROOT / "recipes" / "RESULTS.md", ROOT / "finetune" / "stats" / "README.md"
PAGES = (
    README,
    REFERENCE,
    RESULTS,
    STATS,
    *(
        ROOT / "recipes" / f"{name}.md"
        for name in ("FAMILIES", "GALLERY", "HOWTO", "RELIABILITY", "SECURITY", "STATISTICS", "TUTORIAL")
    ),
)
"""What a user reads."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")


def every_page():
    """All Markdown files of the checkout."""
    folders = [ROOT / name for name in ("finetune", "recipes", "scripts", "tests")]
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def by_hand(page):
    """The text of a page without what a command has written into it."""
    text = page.read_text(encoding="utf-8")
    return re.sub(re.escape(reference.BEGIN) + ".*?" + re.escape(reference.END), "", text, flags=re.DOTALL)


def blocks(page, language):
    """The code blocks in one language."""
    return [code for found, code in FENCE.findall(by_hand(page)) if found == language]


def spans(page):
    """The pieces of code inside sentences, headings and tables."""
    return SPAN.findall(FENCE.sub("", by_hand(page)))


def broken_spans(page):
    """Lines of a page in which code begins or ends that does not end or begin there: :data:`SPAN` would miss it."""
    lines = FENCE.sub("", by_hand(page)).splitlines()
    return [line for line in lines if line.count("`") % 2]


def anchors(page):
    """What stands behind # in links to a page's headings, as GitHub makes it."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


def broken_links(page):
    """Relative links of a page that lead to no file, or to no heading of it."""
    text = SPAN.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in LINK.findall(text):
        if re.match(r"\w+:", link):  # another site's
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", every_page(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One: `two`\n[a](#one-two) [b](#three) [c](page.md#one-two) [d](gone.md) [e](https://f.org/g)\n")
    assert broken_links(page) == ["#three", "gone.md"]


def test_every_page_for_users_can_be_reached_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(README.read_text(encoding="utf-8"))}
    assert set(PAGES) <= linked | {README}
    assert set(PAGES) <= set(every_page())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_not_broken_over_lines(page):
    assert broken_spans(page) == []


def commands(page):
    """What follows `finetune` in a page's commands, as a shell would take it apart."""
    lines = [line for code in blocks(page, "") for line in code.splitlines()]
    for line in [*lines, *spans(page)]:
        if found := re.match(r"(?:\S*bin/|.* -m )?finetune (\S.*)", line):
            yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page):
    for argv in commands(page):
        assert argv[0] in cli.VERBS
        if len(argv) > 1:  # a verb alone is spoken of, not given
            cli._parse(argv)


def test_a_command_that_is_not_understood_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```\nfinetune plan x.yaml --detekt 1   # a comment\n```\nand `finetune run`\n")
    assert list(commands(page)) == [["plan", "x.yaml", "--detekt", "1"], ["run"]]
    with pytest.raises(SystemExit):
        cli._parse(["plan", "x.yaml", "--detekt", "1"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_of_commands_exist(page):
    sources = [*(ROOT / "finetune" / "cli").glob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    wanted = [word for span in spans(page) for word in span.split() if re.fullmatch(r"--[a-z-]+", word)]
    assert [option for option in wanted if f'"{option}"' not in code] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    code = "\n".join([*blocks(page, ""), *spans(page)])
    named = re.findall(r"(?:^|\s)((?:scripts|recipes|finetune|tests)/[\w./-]+)", code, re.MULTILINE)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_script_is_named_somewhere():
    text = "\n".join(page.read_text(encoding="utf-8") for page in every_page())
    scripts = [path.name for path in (ROOT / "scripts").iterdir() if "." not in path.name and path.name[0] != "_"]
    assert {"quickstart", "test"} <= set(scripts)
    assert [name for name in scripts if f"scripts/{name}" not in text] == []


@pytest.fixture
def load(tmp_path, monkeypatch):
    """``load(text, *overrides)``: the recipe that some YAML makes, alone or laid over the README's without variants."""
    monkeypatch.chdir(tmp_path)
    (topics,) = [code for code in blocks(README, "yaml") if "model" in yaml.safe_load(code)]
    Path("topics.yaml").write_text(topics, encoding="utf-8")
    Path("base.yaml").write_text(topics.partition("variants:")[0], encoding="utf-8")

    def load(text, *overrides):
        said = yaml.safe_load(text)
        alone = ("model" in said and "data" in said) or "extends" in said
        Path("recipe.yaml").write_text(text if alone else f"extends: base.yaml\n{text}", encoding="utf-8")
        return recipe.load(Path("recipe.yaml"), overrides)

    return load


def is_cluster_file(code):
    """Whether YAML is what `finetune launch --cluster` reads, and no recipe."""
    return set(yaml.safe_load(code)) <= set(ClusterOptions.model_fields)


def test_the_recipes_shown_are_valid(load):
    shown = [code for page in PAGES for code in blocks(page, "yaml") if not is_cluster_file(code)]
    assert len(shown) >= 3
    for code in shown:
        assert load(code).variants


def test_the_cluster_files_shown_are_valid(tmp_path):
    shown = [code for page in PAGES for code in blocks(page, "yaml") if is_cluster_file(code)]
    assert shown
    for number, code in enumerate(shown):
        path = tmp_path / f"{number}.yaml"
        path.write_text(code, encoding="utf-8")
        assert read_cluster(path).options.model_fields_set


def test_the_first_recipe_is_the_one_that_is_explained(load):
    code, *_ = blocks(README, "yaml")
    made = load(code)
    assert [variant.name for variant in made.variants] == ["linear", "lora", "full"]
    assert len(made.variants) * len(made.seeds) == 15  # "fifteen runs"


TOP = (*Recipe.model_fields, "variants")
"""What stands at the top of a recipe."""


def is_section(span):
    """Whether a span is YAML such as `mix: [versions]`, which a recipe may say."""
    return re.match(rf"(?:{'|'.join(TOP)}): \S", span) is not None


def test_the_sections_shown_inside_sentences_are_valid(load):
    shown = [span for page in PAGES for span in spans(page) if is_section(span)]
    assert len(shown) >= 5
    for span in shown:
        assert load(span).variants


def test_the_overrides_shown_are_valid(load):
    shown = [span for page in PAGES for span in spans(page) if re.match(rf"(?:{'|'.join(TOP)})[\w.]*=", span)]
    assert len(shown) >= 3
    for span in shown:
        assert load("extends: topics.yaml", *shlex.split(span)).variants


def test_a_section_that_no_recipe_may_have_is_found(load):
    assert is_section("train: {epoch: 1}") and not is_section("weight: 0")
    with pytest.raises(InputError, match="epoch"):
        load("train: {epoch: 1}")


def option_paths(schema, definitions, depth=5):
    """Every dotted path of a recipe, whichever plug-in a section is for."""
    for key, field in schema.get("properties", {}).items():
        yield key
        for name in re.findall(r"#/\$defs/(\w+)", json.dumps(field)) if depth else ():
            yield from (f"{key}.{inner}" for inner in option_paths(definitions[name], definitions, depth - 1))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_that_are_named_exist(page):
    schema = Recipe.model_json_schema()
    known = set(option_paths(schema, schema["$defs"]))
    assert {"train.plateau.factor", "task.drop_keys", "strategy.rank", "data.split.group"} <= known
    named = [span for span in spans(page) if re.fullmatch(rf"(?:{'|'.join(TOP)})(?:\.[a-z_]+)+(?:: .*)?", span)]
    named = [span.partition(":")[0] for span in named if not span.endswith((".json", ".yaml"))]
    assert [path for path in named if path not in known] == []


def test_what_python_is_shown_exists():
    shown = "\n".join([*blocks(README, "python"), *spans(README)])
    names = re.findall(r"\bfinetune\.([a-z_]+)\b(?!\.md)", shown)
    assert "load_model" in names
    assert [name for name in names if not callable(getattr(finetune, name, None))] == []
    for code in blocks(README, "python"):
        compile(code, "README.md", "exec")


def test_the_environment_variables_are_those_that_are_read():
    table = by_hand(REFERENCE).partition("## Environment variables")[2].partition("\n## ")[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    patterns = {setting.pattern: setting.answer for setting in env_vars.SETTINGS} | {
        paths.CACHE: "folder",
        watch.VARIABLE: "seconds",
        "FINETUNE_SERVE_TOKEN": "token",
    }
    begins = {
        "refused": "refused",
        "overruled": "changes nothing",
        "obeyed": "obeyed",
        "folder": "folder",
        "seconds": "seconds",
        "token": "token",
    }
    named = {name: row[1] for row in rows for name in re.findall(r"`([A-Z_0-9]{4,})`", row[0])}
    assert len(named) > 8
    assert [name for name, said in named.items() if not said.startswith(begins[patterns[name]])] == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "finetune").rglob("*.py"))
    assert set(re.findall(r'"(FINETUNE_[A-Z_]+)"', code)) <= set(named)


def test_every_table_of_results_is_that_of_a_shipped_recipe_and_says_where_it_was_made():
    text = RESULTS.read_text(encoding="utf-8")
    studies = re.findall(r"<!-- table of ([\w-]+): ", text)
    assert {"strategies", "mitigations", "mitigations-pair"} <= set(studies)
    for study in studies:
        assert (ROOT / "recipes" / f"{study}.yaml").exists()
        begin, end = _table.markers(study)
        table = text[text.index(begin) : text.index(end)]
        assert "| variant | learns |" in table and re.search(r"held-out examples; (?:cpu|cuda) \(.+\)", table)


def test_the_scripts_write_where_their_tables_stand():
    assert (_pages.RESULTS, _simulate.PAGE) == (RESULTS, STATS)


def test_the_simulations_shown_are_those_that_are_made():
    text = STATS.read_text(encoding="utf-8")
    table = text[text.index(_simulate.BEGIN) : text.index(_simulate.END)]
    shown = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    made = [[f"**{each.title}**", *each.rows] for each in _simulate.SIMULATIONS]
    assert [row for row in shown if row != "---"] == [row for rows in made for row in rows]
