"""Plug-ins are found because their file is there, by the word a recipe uses, without waiting for torch."""

import subprocess
import sys
import textwrap

import pytest

from finetune.core.errors import InputError
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS, Registry, summary


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package of plug-ins, its registry, and how to add one to it."""
    folder = tmp_path / "made_up_plugins"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("shape", "made_up_plugins")

    def add(file, name):
        (folder / file).write_text(f"class Found:\n    '''A {name}.\n\n    More.'''\n    name = {name!r}\n")

    yield folder, registry, add
    for name in [name for name in sys.modules if name.startswith("made_up_plugins")]:
        del sys.modules[name]


def register_found(registry, *modules):
    for module in modules:
        registry.register(__import__(f"made_up_plugins.{module}", fromlist=["Found"]).Found)


def test_a_file_in_the_folder_is_enough(package):
    folder, registry, _ = package
    (folder / "round.py").write_text(
        textwrap.dedent("""
        import made_up_plugins
        class Circle:
            \"\"\"Round.\"\"\"
            name = "circle"
        made_up_plugins.REGISTRY.register(Circle)
        """)
    )
    (folder / "__init__.py").write_text("REGISTRY = None\n")
    import made_up_plugins

    made_up_plugins.REGISTRY = registry
    assert list(registry.all()) == ["circle"] and registry.get("circle").name == "circle"
    assert registry.file("circle") == folder / "round.py"


def test_two_plugins_of_one_name_are_refused_with_both_files(package):
    _, registry, add = package
    add("one.py", "circle")
    add("two.py", "circle")
    with pytest.raises(ValueError, match=r"two shape plug-ins are called 'circle': .*one\.py and .*two\.py"):
        register_found(registry, "one", "two")


def test_registering_one_plugin_twice_is_harmless(package):
    _, registry, add = package
    add("one.py", "circle")
    register_found(registry, "one", "one")
    assert list(registry.all()) == ["circle"]


def test_plugins_are_listed_alphabetically(package):
    _, registry, add = package
    for file, name in (("a.py", "square"), ("b.py", "circle")):
        add(file, name)
    register_found(registry, "a", "b")
    assert list(registry.all()) == ["circle", "square"]


def test_an_unknown_name_is_a_mistake_in_the_recipe_with_a_suggestion():
    with pytest.raises(InputError) as caught:
        STRATEGIES.get("adaptor", "variants.lora.strategy.type")
    [problem] = caught.value.problems
    assert problem.path == "variants.lora.strategy.type"
    assert problem.found == "there is no strategy called 'adaptor'"
    assert problem.advice == f"did you mean 'adapter'? (choose from: {', '.join(STRATEGIES.all())})"


def test_the_plugins_that_ship():
    assert {"adapter", "full", "linear", "partial"} <= set(STRATEGIES.all())
    assert {"chat", "classification"} <= set(TASKS.all())
    for registry in (STRATEGIES, TASKS, MITIGATIONS):
        for name, plugin in registry.all().items():
            assert plugin.name == name and plugin.Options and summary(plugin)


def test_a_summary_is_the_first_line():
    class Plugin:
        """Does this.

        In this way.
        """

    assert summary(Plugin) == "Does this."


def test_finding_plugins_does_not_wait_for_heavy_libraries():
    program = """
    import sys
    from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
    for registry in (STRATEGIES, TASKS, MITIGATIONS):
        registry.all()
    print({"torch", "transformers", "datasets", "peft", "accelerate"} & set(sys.modules) or "none")
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "none\n"
