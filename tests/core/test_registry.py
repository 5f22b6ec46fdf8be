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


@pytest.fixture
def others(package, tmp_path):
    """How another package brings plug-ins, by its code and its entry points; gives the registry that finds them."""
    _, registry, _ = package

    def install(code, **entries):
        about = tmp_path / "others-0.3.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 0.3\n")
        lines = [f"{name} = others_plugins:{place}" for name, place in entries.items()]
        (about / "entry_points.txt").write_text("\n".join(["[made_up_plugins]", *lines]) + "\n")
        (tmp_path / "others_plugins.py").write_text(textwrap.dedent(code))
        return registry

    yield install
    sys.modules.pop("others_plugins", None)


GOOD = """
class Good:
    '''Is a shape.'''
    name = "good"
"""


def test_other_packages_bring_plugins_by_entry_points(others):
    registry = others(GOOD, good="Good")
    assert list(registry.all()) == ["good"] and registry.origin("good") == "others 0.3"
    assert registry.file("good").name == "others_plugins.py" and registry.left_out == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("class Bad:\n    '''Nameless.'''\n", "TypeError: <class 'others_plugins.Bad'> is no class with a name"),
        ("Bad = 3\n", "TypeError: 3 is no class with a name"),
        ("", "AttributeError: module 'others_plugins' has no attribute 'Bad'"),
    ],
)
def test_one_that_is_broken_is_named_and_the_others_stay(others, code, error):
    registry = others(GOOD + code, bad="Bad", good="Good")
    assert list(registry.all()) == ["good"]
    [left_out] = registry.left_out
    assert (left_out.name, left_out.package) == ("bad", "others 0.3") and left_out.error.startswith(error)
    with pytest.raises(InputError, match=r"the shape 'bad' of others 0\.3 cannot be used: "):
        registry.get("bad")


def test_a_package_that_ends_the_process_does_not(others):
    registry = others("raise SystemExit('no licence')", good="Good")
    assert registry.all() == {} and registry.left_out[0].error == "SystemExit: no licence"


@pytest.mark.parametrize("theirs_first", [False, True])
def test_a_name_of_ours_stays_ours_whoever_comes_first(others, package, theirs_first):
    folder, _, add = package
    add("one.py", "good")
    registry = others(GOOD, good="Good")
    with open(folder / "one.py", "a") as file:
        file.write("import made_up_plugins as ours\nours.R.register(Found)\n")
    (folder / "__init__.py").write_text("R = None\n")
    import made_up_plugins

    made_up_plugins.R = registry
    if theirs_first:
        registry.register(__import__("others_plugins").Good)
    assert registry.all()["good"].__module__ == "made_up_plugins.one" and registry.origin("good") is None
    errors = {each.error.removeprefix("ValueError: ").partition(":")[0] for each in registry.left_out}
    assert errors == {"two shape plug-ins are called 'good'"}


HALF = """
from typing import ClassVar, Literal
from finetune.core.options import Options
from finetune.tasks.base import Task

class HalfOptions(Options):
    '''Nothing.'''
    type: Literal["{type}"]

class Half({base}):
    '''Half a task.'''
    name: ClassVar[str] = "half"
    Options = HalfOptions
"""


@pytest.mark.parametrize(
    ("type", "base", "error"),
    [
        ("half", "Task", "TypeError: Half does not say its answer, example_score, new_head"),
        ("half", "object", "TypeError: Half is no subclass of finetune.tasks.base.Task"),
        ("whole", "Task", "TypeError: Half does not say"),
    ],
)
def test_what_does_not_hold_to_the_contract_is_left_out(others, tmp_path, type, base, error):
    others(HALF.format(type=type, base=base), half="Half")
    points = tmp_path / "others-0.3.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("made_up_plugins", "finetune.tasks"))
    registry = Registry("task", "finetune.tasks")
    registry.all()
    [left_out] = registry.left_out
    assert left_out.name == "half" and left_out.error.startswith(error)


def test_options_of_another_type_would_never_be_chosen(others, tmp_path):
    rest = "    new_head = False\n    answer = None\n    example_score = 'loss'\n"
    others(HALF.format(type="whole", base="Task") + rest, half="Half")
    points = tmp_path / "others-0.3.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("made_up_plugins", "finetune.tasks"))
    registry = Registry("task", "finetune.tasks")
    assert "half" not in registry.all()
    assert registry.left_out[0].error == "TypeError: the options of Half have another type than 'half'"
