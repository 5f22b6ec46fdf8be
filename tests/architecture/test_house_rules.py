"""Rules that keep the code readable: ceilings, one test file for each plug-in, no swallowed errors, no big files."""

import ast
from pathlib import Path

import pytest

from finetune.core.registry import METRICS, MITIGATIONS, STRATEGIES, TASKS, summary

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "finetune").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MODULE_LINES, FUNCTION_LINES, FILE_BYTES = 330, 60, 1_000_000
NOT_OURS = {"runs", "build", "dist", "__pycache__"}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path, node=None):
    return f"{path.relative_to(ROOT)}:{node.lineno}" if node else str(path.relative_to(ROOT))


def imported(path):
    """Every module that the file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def swallows(handler):
    """True for ``except:`` without a type, and for a handler that does nothing."""
    nothing = all(
        isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in handler.body
    )
    return handler.type is None or nothing


def test_there_is_something_to_look_at():
    assert len(MODULES) > 20 and len(TESTS) > 5


def test_modules_fit_in_a_readers_head():
    long = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: lines for path, lines in long.items() if lines > MODULE_LINES} == {}


def test_functions_fit_on_a_screen():
    functions = [
        (shown(path, node), node.end_lineno - node.lineno + 1)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [(place, lines) for place, lines in functions if lines > FUNCTION_LINES] == []


def test_no_error_is_swallowed():
    handlers = [
        shown(path, node)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert handlers == []


@pytest.mark.parametrize(
    "body, found",
    [("pass", True), ("...", True), ("'why'", True), ("raise", False), ("x = None", False), ("continue", False)],
)
def test_a_swallowed_error_is_recognised(body, found):
    handler = ast.parse(f"for _ in ():\n try: f()\n except OSError: {body}").body[0].body[0].handlers[0]
    assert swallows(handler) is found


def test_nothing_runs_pickle():
    known = {"pickle", "dill", "cloudpickle", "joblib"}
    assert [shown(path) for path in MODULES if imported(path) & known] == []


PLUGINS = [(registry, name) for registry in (STRATEGIES, TASKS, MITIGATIONS, METRICS) for name in registry.all()]


@pytest.mark.parametrize("registry, name", PLUGINS, ids=lambda value: getattr(value, "kind", value))
def test_a_plugin_is_one_file_and_its_test_file(registry, name):
    file = registry.file(name)
    assert file.parent.name == registry.package.rpartition(".")[2]
    assert (ROOT / "tests" / file.parent.name / f"test_{file.stem}.py").is_file()
    assert summary(registry.get(name)), "the first line of its docstring says what it does"


@pytest.mark.parametrize("kind", ["strategies", "tasks", "mitigations", "metrics"])
def test_plugins_do_not_know_each_other(kind):
    """Each imports what its folder's plug-ins share, never another plug-in: so one can be taken out alone."""
    plugins = {f"finetune.{kind}.{registry.file(name).stem}" for registry, name in PLUGINS}
    for path in sorted((ROOT / "finetune" / kind).glob("*.py")):
        assert imported(path) & plugins == set(), shown(path)


def files(folder=ROOT):
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in NOT_OURS and (not path.name.startswith(".") or path.name == ".ci"):
            yield from files(path)
        elif path.is_file():
            yield path


def test_no_file_is_big():
    assert [shown(path) for path in files() if path.stat().st_size > FILE_BYTES] == []
