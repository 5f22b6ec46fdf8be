"""What the guides show is what happens: their programs run, their sections train, their commands do what they say."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

import finetune
from scripts._outputs import PYTHON, filled
from tests import tiny
from tests.end_to_end.warm import environment_with

RECIPES = Path(__file__).parent.parent / "recipes"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["STATISTICS"])
def test_programs_print_what_stands_below_them(name):
    page = (RECIPES / f"{name}.md").read_text(encoding="utf-8")
    assert len(PYTHON.findall(page)) >= 5
    assert filled(page) == page


def test_what_is_printed_is_written_below_the_program_that_prints_it():
    page = "```python\nx = 2\n```\n\nthen\n\n```python\nprint(x + 1)\n```\n\n```text\nold\n```\n"
    assert filled(page) == page.replace("old\n", "3\n")


def how_tos():
    """Each heading's block: its title, its language and its text."""
    page = (RECIPES / "HOWTO.md").read_text(encoding="utf-8")
    for part in page.split("\n## ")[1:]:
        title = part.partition("\n")[0]
        for language, code in BLOCK.findall(part):
            yield pytest.param(language, code, id=title)


@pytest.fixture(scope="module")
def home(tmp_path_factory, encoder_folder):
    """A folder with `topics.yaml`, `news.csv`, whose rows come from thirty sources, and the study of both."""
    folder = tmp_path_factory.mktemp("home")
    tiny.write_topics(folder, encoder_folder)
    with open(folder / "news.csv", newline="") as file:
        rows = [{**row, "source": f"site {number % 30}"} for number, row in enumerate(csv.DictReader(file))]
    with open(folder / "news.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    called = {"money": "cash"}
    others = [(text, called.get(label, label)) for text, label in tiny.sentences(24, seed=1)]
    tiny.write_csv(folder / "elsewhere.csv", others)
    finetune.run(folder / "topics.yaml", output=folder / "runs")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("language, code", how_tos())
def test_what_a_how_to_shows_works(home, language, code, request):
    if language == "yaml":
        path = home / f"{re.sub('[^a-z]+', '-', request.node.callspec.id.lower())}.yaml"
        path.write_text(f"extends: topics.yaml\nname: {path.stem}\n{code}", encoding="utf-8")
        study = finetune.run(path, output=home / "how-to")
        assert study.results.tuned
        # So few steps teach some of them too little, which is said of them, and is no error.
        assert [reason for *_, reason in study.failed if not reason.startswith("degenerate")] == []
        return
    assert typed(language, code, home).strip()


def typed(language, code, folder):
    """What a block says, typed in a folder."""
    program = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    environment = environment_with(OMP_NUM_THREADS="1", COLUMNS="100")
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run([*program, code], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_ends_with_predictions(tmp_path):
    page = (RECIPES / "TUTORIAL.md").read_text(encoding="utf-8")
    said = [typed(language, code, tmp_path) for language, code in BLOCK.findall(page)]
    assert len(said) == 8
    sections = {"business", "entertainment", "politics", "sports", "tech"}
    shown = [line.split("\t") for line in said[-1].splitlines()]
    assert len(shown) == 3 and {section for section, _ in shown} <= sections
