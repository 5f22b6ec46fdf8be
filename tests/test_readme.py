"""The README says what the code does."""

from pathlib import Path

from finetune.recipe import reference

README = Path(__file__).parent.parent / "README.md"


def test_the_recipe_reference_is_what_the_options_say():
    text = README.read_text(encoding="utf-8")
    written = text[text.index(reference.BEGIN) : text.index(reference.END) + len(reference.END)]
    assert written == reference.markdown(), "run `finetune schema --markdown` and put what it prints into the README"


def test_every_option_has_a_meaning():
    rows = [row for row in reference.markdown().splitlines() if row.startswith("| `")]
    silent = [row for row in rows if row.endswith("|  |") and not row.startswith("| `type`")]
    assert len(rows) > 60
    assert silent == []


def test_the_tree_names_every_room_and_nothing_else():
    root = README.parent
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text[text.index("finetune/\n  cli/") : text.index("recipes/          recipes")]
    named = {word.rstrip("/") for line in tree.splitlines()[1:] for word in line.split() if word.endswith("/")}
    assert named == {path.parent.name for path in (root / "finetune").glob("*/__init__.py")}


def test_the_shipped_recipes_are_listed():
    text = README.read_text(encoding="utf-8")
    recipes = sorted((README.parent / "recipes").glob("*.yaml"))
    assert recipes
    assert [recipe.name for recipe in recipes if f"recipes/{recipe.name}" not in text] == []
