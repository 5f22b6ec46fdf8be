"""What a study stands on: nothing of it changes under the runs that stand side by side."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune import recipe
from finetune.core.arithmetic import Measured
from finetune.core.errors import InputError
from finetune.core.progress import Progress
from finetune.core.run_dir import StudyDir, read_json, write_json
from finetune.core.runtime import Runtime
from finetune.diagnose.diagnose import diagnose
from finetune.models import devices
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from tests import tiny


class Said(Progress):
    """What a person is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A finished chat study of one seed, with its recipe, data and a base model of its own."""
    place = tmp_path_factory.mktemp("chats")
    tiny.save_decoder(place / "base")
    path = tiny.write_chat_study(place, place / "base")
    run_study(recipe.load(path, ["seeds=1"]), place / "runs")
    return path


@contextmanager
def changed(path: Path, change=None):
    """``path`` with other content inside the context; made by ``change`` where it is not a mere other byte."""
    before, kept = path.read_bytes(), path.stat()
    try:
        change(path) if change else path.write_bytes(before + b"\n")
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


def other_weights(path: Path) -> None:
    """The same model a little off, with the times of the file set back: nothing but its content tells."""
    times = path.stat()
    weights = {name: value + 0.01 * torch.ones_like(value) for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def other_setting(path: Path) -> None:
    write_json(path, {**read_json(path), "model_max_length": 64})


PARTS = {
    "weights": ("model.safetensors", other_weights),
    "configuration": ("config.json", None),
    "tokenizer": ("tokenizer.json", None),
    "tokenizer ": ("tokenizer_config.json", other_setting),
    "chat template": ("chat_template.jinja", None),
}


def study_of(path: Path) -> Path:
    return path.parent / "runs" / path.stem


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


WAYS = {
    "more seeds": lambda path: run_study(recipe.load(path, ["seeds=2"]), path.parent / "runs"),
    "evaluate": lambda path: rescore(study_of(path)),
    "the report again": lambda path: run_study(recipe.load(path, ["seeds=1"]), path.parent / "runs"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", PARTS)
def test_a_base_model_that_changed_is_refused_by_name(chats, part, way):
    file, change = PARTS[part]
    before = snapshot(study_of(chats))
    with changed(chats.parent / "base" / file, change), pytest.raises(InputError) as caught:
        WAYS[way](chats)
    [problem] = caught.value.problems
    assert re.search(rf"the {part.strip()} of variant 'full' is [0-9a-f]{{12}}, and was [0-9a-f]{{12}}", problem.found)
    assert "another name" in problem.advice
    assert snapshot(study_of(chats)) == before


def test_a_template_that_came_later_is_another(chats):
    extra = chats.parent / "base" / "additional_chat_templates" / "tool_use.jinja"
    extra.parent.mkdir()
    extra.write_text("{{ messages }}")
    try:
        with pytest.raises(InputError, match="the chat template of variant 'full'"):
            WAYS["more seeds"](chats)
    finally:
        shutil.rmtree(extra.parent)


def test_what_is_no_part_of_the_model_may_change(chats, tmp_path):
    readme = chats.parent / "base" / "README.md"
    readme.write_text("about")
    try:
        WAYS["evaluate"](chats)
    finally:
        readme.unlink()


def rewritten(folder: Path, **facts) -> None:
    """The environment of a study, with other facts: as if it had been made elsewhere."""
    path = StudyDir(folder).environment
    write_json(path, {**read_json(path), **facts})


@pytest.fixture
def copied(chats, tmp_path):
    """A copy of the study, to be changed."""
    for name in ("chats.yaml", "chats.jsonl"):
        shutil.copy(chats.parent / name, tmp_path / name)
    shutil.copytree(chats.parent / "runs", tmp_path / "runs")
    return tmp_path / "chats.yaml"


ELSEWHERE = {
    "versions": ("torch", lambda found: {"packages": {**found["packages"], "torch": "1.0"}}, "1.0"),
    "devices": ("kind of device", lambda found: {"kind": "cuda"}, "cuda"),
    "devices ": ("processor's arithmetic", lambda found: {"kernels": "AVX9"}, "AVX9"),
}


def test_what_auto_stood_for_it_stands_for_when_a_study_goes_on(topics, tmp_path, monkeypatch):
    """Clocks say one thing today and another tomorrow, and in processes that do other runs of it."""
    used, autocast = [], Runtime.autocast
    monkeypatch.setattr(Runtime, "autocast", lambda self: used.append(self.dtype) or autocast(self))
    options = ["variants=null", "strategy={type: full}", "model.dtype=auto", "train.min_steps=2", "train.max_steps=2"]
    for seeds, measured in ((1, Measured(1.0, 0.2)), (2, Measured(1.0, 5.0))):
        monkeypatch.setattr(devices, "measured_for", lambda width, measured=measured: measured)
        run_study(recipe.load(topics, [*options, f"seeds={seeds}"]), tmp_path / "runs")
    assert set(used) == {torch.bfloat16}
    known = read_json(StudyDir(tmp_path / "runs" / "topics").environment)
    assert known["dtype"] == "bfloat16" and known["dtype_reason"] == "bfloat16 measured 5.0x as fast as float32"


@pytest.mark.parametrize("word", ELSEWHERE)
def test_other_versions_and_devices_are_refused_unless_mixed(copied, word):
    name, change, was = ELSEWHERE[word]
    folder, word = study_of(copied), word.strip()
    rewritten(folder, **change(read_json(StudyDir(folder).environment)))
    before = snapshot(folder)
    for way in WAYS.values():
        with pytest.raises(InputError, match=f"the {name} is .*, and was {was}") as caught:
            way(copied)
        assert f"mix: [{word}]" in caught.value.problems[0].advice
    other = "devices" if word == "versions" else "versions"
    with pytest.raises(InputError, match=f"the {name} is"):
        rescore(folder, [f"mix=[{other}]"])
    assert snapshot(folder) == before
    said = Said()
    digest = read_json(folder / "full" / "seed-0" / "result.json")["digest"]
    outcome = run_study(recipe.load(copied, ["seeds=2", f"mix=[{word}]"]), copied.parent / "runs", said)
    assert not outcome.failed and any(line.startswith("mixed, as the recipe allows") for line in said.lines)
    assert read_json(folder / "full" / "seed-1" / "result.json")["digest"] == digest
    [(_, values)] = outcome.results.to_json()["environment"]["mixed"].items()
    assert values[0] == was and len(values) == 2
    page = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert f"{was} and {values[1]}" in page and "mixed" in page
    run_study(recipe.load(copied, ["seeds=2"]), copied.parent / "runs")  # which stands on the last of them
    assert "mixed" in read_json(StudyDir(folder).environment)


def test_scoring_again_elsewhere_is_told_and_leaves_where_it_was_trained(copied):
    folder = study_of(copied)
    found = read_json(StudyDir(folder).environment)
    rewritten(folder, packages={**found["packages"], "peft": "0.1"})
    outcome = rescore(folder, ["mix=[versions]"])
    environment = outcome.results.to_json()["environment"]
    assert environment["mixed"] == {"peft": ["0.1", found["packages"]["peft"]]}
    assert environment["packages"]["peft"] == "0.1"


def test_studies_that_do_not_say_it_are_told_and_held_to_today(copied):
    folder, said = study_of(copied), Said()
    found = read_json(StudyDir(folder).environment)
    write_json(
        StudyDir(folder).environment,
        {name: value for name, value in found.items() if name not in ("starts", "kind", "kernels", "settings")},
    )
    run_study(recipe.load(copied, ["seeds=2"]), copied.parent / "runs", said)
    assert any("unknown" in line and "base model" in line for line in said.lines)
    assert read_json(StudyDir(folder).environment)["starts"] == found["starts"]


def test_of_those_the_weights_that_runs_have_started_from_still_count(copied):
    folder = study_of(copied)
    StudyDir(folder).environment.unlink()
    path = folder / "full" / "seed-0" / "result.json"
    write_json(path, {**read_json(path), "base": "0" * 32})
    before = read_json(path)
    for way in ("more seeds", "evaluate"):
        with pytest.raises(InputError, match="has started from 000000000000"):
            WAYS[way](copied)
        StudyDir(folder).environment.unlink(missing_ok=True)
    assert read_json(path) == before
    assert not (folder / "full" / "seed-1" / "result.json").exists()


def test_nothing_has_to_stay_while_nothing_was_trained(copied):
    folder = study_of(copied)
    shutil.rmtree(folder / "full")
    shutil.rmtree(folder / "base")
    rewritten(folder, kind="cuda", starts={"full": {"weights": "other"}})
    assert not run_study(recipe.load(copied, ["seeds=1"]), copied.parent / "runs").failed


def test_a_run_that_was_interrupted_does_not_go_on_over_another_base(copied):
    folder = study_of(copied)
    shutil.rmtree(folder / "full")
    shutil.rmtree(folder / "base")
    (folder / "full" / "seed-0" / "checkpoints" / "step-00000004").mkdir(parents=True)
    rewritten(folder, starts={"full": {"weights": "other"}})
    with pytest.raises(InputError, match="the weights of variant 'full'"):
        WAYS["more seeds"](copied)


def test_a_base_that_changes_between_two_runs_ends_the_study(chats, tmp_path, monkeypatch):
    from finetune.study import study

    runs, real = [], study.run

    def then_change(*args, **kwargs):
        runs.append(args[1])
        found = real(*args, **kwargs)
        file.write_bytes(before + b"\n")
        return found

    file = chats.parent / "base" / "config.json"
    before = file.read_bytes()
    monkeypatch.setattr(study, "run", then_change)
    try:
        with pytest.raises(InputError, match="the configuration of variant 'full'"):
            run_study(recipe.load(chats, ["seeds=2", "train.replicas=1"]), tmp_path / "runs")
    finally:
        file.write_bytes(before)
    assert len(runs) == 1


def test_a_diagnosis_stands_on_the_same_too(topics, tmp_path):
    base = tmp_path / "own"
    tiny.save_encoder(base)
    own = recipe.load(topics, [f"model.source={base}", "train.min_steps=4", "train.epochs=0.1"])
    diagnose(own, tmp_path / "runs", "linear", 9, ["init", "order"])
    with changed(base / "config.json"), pytest.raises(InputError, match="the configuration of variant 'linear'"):
        diagnose(own, tmp_path / "runs", "linear", 9, ["init", "order"])


@pytest.fixture
def staged(topics, tmp_path):
    """What makes a stage precede the task; it is in the finished study `topics` of one seed."""
    plain = tiny.write_csv(tmp_path / "plain.csv", tiny.sentences(40, seed=3))
    said = {"data": {"train": {"path": str(plain)}}, "task": {"type": "classification", "max_length": 32}}
    stage = {"name": "before", **said, "train": {"max_steps": 2, "min_steps": 0, "evaluations": 0}}
    overrides = [f"stages={json.dumps([stage])}"]
    run_study(recipe.load(topics, ["seeds=1", *overrides]), tmp_path / "runs")
    return overrides


def test_a_stage_over_other_data_is_refused(topics, staged, tmp_path):
    with changed(tmp_path / "plain.csv", lambda path: tiny.write_csv(path, tiny.sentences(40, seed=8))):
        with pytest.raises(InputError, match=r"the stages of variant 'linear' is before [0-9a-f]{8}"):
            run_study(recipe.load(topics, ["seeds=2", *staged]), tmp_path / "runs")
        with pytest.raises(InputError, match="the stages of variant"):
            rescore(tmp_path / "runs" / "topics")


def test_the_model_of_a_stage_that_changed_is_refused(topics, staged, tmp_path):
    [weights] = (tmp_path / "runs" / "topics" / "stages").glob("*/model/model.safetensors")
    with (
        changed(weights, other_weights),
        pytest.raises(InputError, match="no longer what the stage has trained: its w"),
    ):
        run_study(recipe.load(topics, ["seeds=2", *staged]), tmp_path / "runs")


def test_data_of_seeds_with_splits_of_their_own_are_held_too(topics, tmp_path):
    vary = ["vary=[split, init]", "variants.full.train.min_steps=4"]
    run_study(recipe.load(topics, ["seeds=1", *vary]), tmp_path / "runs")
    run_study(recipe.load(topics, ["seeds=[1, 0]", *vary]), tmp_path / "runs")
    tiny.write_csv(tmp_path / "news.csv", tiny.sentences(90, seed=3))
    with pytest.raises(InputError, match=r"the examples of 'data\.train' are not those"):
        run_study(recipe.load(topics, ["seeds=3", *vary]), tmp_path / "runs")


def test_the_word_belongs_to_the_whole_study(topics):
    with pytest.raises(InputError, match="a variant cannot set 'mix'"):
        recipe.load(topics, ["variants.full.mix=[versions]"])
    plain, mixed = recipe.load(topics), recipe.load(topics, ["mix=[devices, versions]"])
    assert [each.digest for each in plain.variants] == [each.digest for each in mixed.variants]
    assert plain.digest == mixed.digest and "mix" not in plain.to_yaml().split("variants:")[0]
    assert json.dumps(sorted(mixed.mix)) == '["devices", "versions"]'
