"""Imports follow the arrows of the design, which pyproject.toml writes down for import-linter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_contracts_are_kept():
    # A process of its own: import-linter closes the standard streams that pytest looks after.
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and "0 broken" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize(
    "light",
    [
        "import finetune.cli",
        "import finetune.recipe",
        "from finetune.core.registry import STRATEGIES as S, TASKS as T, MITIGATIONS as M; S.all(), T.all(), M.all()",
        "from finetune.core.registry import METRICS; METRICS.all()",
        "import finetune.metrics",
        "import finetune.models, finetune.data.options, finetune.train.options, finetune.evaluate.options",
        "import finetune.evaluate.metrics",
        "import finetune.stats, finetune.report",
        "import finetune.results.compute, finetune.results.compare",
    ],
)
def test_what_answers_at_once_does_not_wait_for_torch(light):
    heavy = {"torch", "transformers", "datasets", "accelerate", "peft", "evaluate", "sklearn"}
    program = f"import sys; {light}; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == []
