"""`finetune plan`: what it says, in every width, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import cli
from tests.fabricated import topics as fabricated

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path) -> Path:
    (tmp_path / "plan.yaml").write_text(
        """\
seeds: 4
model: {source: org/name}
data: {train: {path: news.csv}, split: {test: 300}}
task: {type: classification}
strategy: {type: full}
variants: {linear: {strategy: {type: linear}}, full: {}}
"""
    )
    return tmp_path / "plan.yaml"


@pytest.fixture
def plan(recipe, capsys):
    """plan('--sd', '1') -> (exit code, what was printed on one line, errors on one line)."""

    def run(*args):
        code = cli.main(["plan", str(recipe), *map(str, args)])
        printed = capsys.readouterr()
        return code, " ".join(printed.out.split()), " ".join(printed.err.split())

    return run


@pytest.fixture
def pilot(tmp_path) -> Path:
    return fabricated(tmp_path / "pilot").path


def test_a_stated_sd(plan):
    code, said, _ = plan("--sd", 1)
    assert code == 0
    assert "to see 1 point of accuracy on test with a chance of 80%, two-sided at 5 % " in said
    # G*Power, paired, d = 1 / sqrt(2): 18 pairs.
    assert "18 seeds of each variant are enough; the recipe asks for 4." in said
    assert "Assumed: variants scatter alike, and their seeds do not move together." in said
    assert "choice of the held-out examples matters is not known and left out" in said
    assert "Time, memory and disk are not known without a pilot." in said


def test_overrides_and_detect_change_the_answer(plan):
    assert "7 seeds of each variant are enough; the recipe asks for 9." in plan("--sd", 1, "--detect", 2, "seeds=9")[1]


def test_a_test_set_that_is_too_small(plan):
    _, said, _ = plan("--sd", 1, "--churn", 8)
    assert "no number of seeds is enough on 300 held-out examples" in said
    examples, seeds = re.search(r"At least [\d,]+ are needed; on ([\d,]+), ([\d,]+) seeds are enough", said).groups()
    _, said, _ = plan("--sd", 1, "--churn", 8, "--examples", examples.replace(",", ""))
    assert f"{seeds} seeds of each variant are enough" in said


def test_from_nothing(plan):
    _, said, _ = plan()
    assert "How much seeds move this score is not known, and nothing is assumed of it" in said
    assert "if the SD were, points seeds 0.25" in said
    assert "seeds of each variant" not in said


def test_a_pilot(plan, pilot, tmp_path):
    code, said, _ = plan("--pilot", pilot, "--detect", 10, "--json", tmp_path / "plan.json")
    assert code == 0
    assert "linear - lora" in said and "lora - full" in said
    assert "two-sided at 5 % pair" in said, "the recipe has two variants, which are judged alone"
    assert "From 5 seeds the true SD may be 0.60 to 2.87 times as large" in said
    assert "a run of linear 1 1" in said and "912 MB" in said
    assert "The pilot trained linear, full with other options" in said
    made = json.loads((tmp_path / "plan.json").read_text())
    assert f"{made['seeds']} seeds of each variant" in said
    assert made["detect"] == 0.1 and made["source"] == "pilot" and len(made["pairs"]) == 3


def test_a_pilot_lacks_a_variant(plan, recipe, pilot):
    recipe.write_text(recipe.read_text().replace("full: {}}", "full: {}, half: {}}"))
    _, said, _ = plan("--pilot", pilot, "--detect", 10)
    assert "The pilot has no run of half, so what the study takes in all is not known." in said


def test_several_variants_are_judged_as_the_report_does(plan, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("full: {}}", "full: {}, half: {}}"))
    _, said, _ = plan("--sd", 1, "--json", tmp_path / "plan.json")
    assert "two-sided at 5 %, judged together with all pairs of 3 variants (Tukey)" in said
    made = json.loads((tmp_path / "plan.json").read_text())
    assert f"{made['seeds']} seeds of each variant are enough" in said and made["seeds_to_lead"] < made["seeds"]
    assert f"To see which is best, {made['seeds_to_lead']} are enough where it is 1 point ahead of all others." in said
    _, said, _ = plan("--sd", 1, "seeds={until: {ci_width: 1}, at_least: 3, at_most: 30}")
    assert "judged together with 2 others, by e-values" in said and "3 seeds see" not in said


def test_a_loss_has_no_points(plan):
    code, _, err = plan("task.metrics=[nll]")
    assert code == 2 and "--detect is missing, and NLL has no points" in err
    code, said, _ = plan("task.metrics=[nll]", "--detect", 0.05, "--sd", 0.05)
    assert code == 0 and "to see 0.05 of NLL on test" in said and "18 seeds of each" in said


def test_a_rule_is_told(plan):
    _, said, _ = plan("--sd", 1, "seeds={until: {ci_width: 1}, at_least: 5, at_most: 30}")
    assert "the recipe asks for 5 to 30." in said


@pytest.mark.parametrize(
    "args, found",
    [
        (("--sd", -1), "--sd is -1; it must be greater than 0"),
        (("--detect", 0), "--detect is 0; it must be greater than 0"),
        (("--sd", 1, "--examples", 1), "--examples is 1; it must be at least 2"),
        (("--sd", 1, "--churn", 120), "--churn is 120; it is a share of examples in percent"),
        (("--churn", 5), "--churn is given without --sd"),
        (("--sd", 1, "--churn", 5, "task.metrics=[macro_f1]"), "macro-F1 does not count them"),
        (("--sd", 1, "--churn", 5, "data.split.test=0.2"), "which the recipe does not say"),
        (("--devices", "2"), "--devices is given without --pilot"),
        (("--devices", "0", "--pilot", "nowhere"), "--devices is 0; count from 1"),
        (("--price", "2"), "--price is given without --devices"),
        (("--pilot", "nowhere"), "nowhere is not a study"),
        (("strategy.type=fulll",), "there is no strategy called 'fulll'"),
    ],
)
def test_what_is_refused(plan, args, found):
    code, said, err = plan(*args)
    assert (code, said) == (2, "") and found in err


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_it_fits_the_terminal(recipe, pilot, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for args in ((), ("--sd", "1", "--churn", "9"), ("--pilot", str(pilot))):
        assert cli.main(["plan", str(recipe), *args]) == 0
        printed = capsys.readouterr().out
        assert [line for line in printed.splitlines() if len(line) > width] == []
        assert "\x1b" not in printed


def test_it_waits_for_nothing_heavy(recipe, pilot):
    heavy = "{'torch', 'transformers', 'datasets', 'accelerate', 'peft', 'evaluate', 'sklearn'}"
    for args in (["--pilot", str(pilot)], ["--sd", "1"], []):
        code = f"import sys; from finetune import cli; cli.main(['plan', {str(recipe)!r}, *{args!r}])"
        code += f"; print(*sorted({heavy} & set(sys.modules)), file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stderr.splitlines()[-1] == "", "after what was shown while it took long"


def test_what_a_check_found_is_repeated(topics, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "memory"))
    assert cli.main(["plan", str(topics), "--sd", "1"]) == 0
    assert "`finetune check` tells how many examples there are" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["check", str(topics)]) == 0
    capsys.readouterr()
    assert cli.main(["plan", str(topics), "--sd", "1"]) == 0
    said = capsys.readouterr().out
    assert "test: 30 examples" in said and "parameters learn" in said


def test_a_folder_that_is_no_study_is_no_recipe(tmp_path, capsys):
    assert cli.main(["plan", str(tmp_path)]) == 2
    assert "is not a study" in " ".join(capsys.readouterr().err.split())
