"""The README and the recipe reference say what the code does."""

import re
from pathlib import Path

from finetune import cli
from finetune.recipe import reference

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250


def test_the_recipe_reference_is_what_the_options_say():
    text = (ROOT / "recipes" / "REFERENCE.md").read_text(encoding="utf-8")
    written = text[text.index(reference.BEGIN) : text.index(reference.END) + len(reference.END)]
    assert written == reference.markdown(), "put what `finetune schema --markdown` prints into recipes/REFERENCE.md"


def test_every_option_has_a_meaning():
    rows = [row for row in reference.markdown().splitlines() if row.startswith("| `")]
    silent = [row for row in rows if row.endswith("|  |") and not row.startswith("| `type`")]
    assert len(rows) > 60
    assert silent == []


def test_the_tree_names_every_room_and_nothing_else():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text[text.index("finetune/\n  __init__.py") : text.index("recipes/          recipes")]
    named = {word.rstrip("/") for line in tree.splitlines()[1:] for word in line.split() if word.endswith("/")}
    assert named == {path.parent.name for path in (ROOT / "finetune").glob("*/__init__.py")}


def test_the_shipped_recipes_are_listed():
    text = README.read_text(encoding="utf-8")
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    assert [recipe.name for recipe in recipes if f"](recipes/{recipe.name})" not in text] == []


def test_the_table_of_verbs_has_each_once():
    rows = re.findall(r"^\| `finetune ([a-z]+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(cli.VERBS)


def test_the_table_of_exit_codes_has_each_once():
    rows = re.findall(r"^\| (\d+) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(row) for row in rows] == [cli.OK, cli.FAILED, cli.BAD_INPUT, cli.INTERRUPTED]
