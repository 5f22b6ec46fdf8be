"""What cannot be exported is told in one line with an exit code, and nothing is left of it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.cli import main
from finetune.export.forms.transformers import Transformers


@pytest.fixture
def told(capsys, monkeypatch, tmp_path):
    """``told(*arguments)``: exit code and what was said, of a command after which nothing but ``kept`` lies there."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments, kept=()):
        code = main(["export", *map(str, arguments)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
        return code, said

    return run


def test_a_folder_that_exists(told, topics, tmp_path):
    (tmp_path / "out").mkdir()
    code, said = told(topics, "--variant", "full", "--to", tmp_path / "out", kept=["out"])
    assert code == 2 and f"--to: {tmp_path / 'out'} exists already" in said


def test_another_export_that_was_faster(told, topics, tmp_path, monkeypatch):
    from finetune.export import certificate

    plain = certificate.certify

    def meanwhile(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "README.md").write_text("another's")
        return plain(*arguments)

    monkeypatch.setattr(certificate, "certify", meanwhile)
    code, said = told(topics, "--variant", "full", "--seed", "0", "--to", tmp_path / "out", kept=["out"])
    assert code == 2 and f"--to: {tmp_path / 'out'} exists already" in said
    assert (tmp_path / "out" / "README.md").read_text() == "another's"


def test_a_place_that_cannot_be_written_to(told, topics, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, said = told(topics, "--variant", "full", "--to", tmp_path / "file" / "out", kept=["file"])
    assert code == 2 and "cannot be written to" in said


def test_no_such_form(told, topics, tmp_path):
    code, said = told(topics, "--variant", "full", "--form", "transformer", "--to", tmp_path / "out")
    assert code == 2 and "there is no form 'transformer'" in said and "did you mean 'transformers'?" in said


def test_a_package_that_is_missing(told, topics, tmp_path, monkeypatch):
    from finetune.export.forms.sentence_transformers import SentenceTransformers

    monkeypatch.setattr(SentenceTransformers, "packages", ("not_a_package",))
    code, said = told(topics, "--variant", "mean", "--form", "sentence-transformers", "--to", tmp_path / "out")
    assert code == 2 and "needs the package not_a_package, which is not installed" in said
    assert 'pip install "finetune[sentence-transformers]"' in said


def test_no_study(told, tmp_path):
    code, said = told(tmp_path / "nothing", "--to", tmp_path / "out")
    assert code == 2 and "is not a study" in said


@pytest.mark.parametrize("count", ["0", "-3"])
def test_no_examples(count, told, topics, tmp_path):
    code, said = told(topics, "--variant", "full", f"--examples={count}", "--to", tmp_path / "out")
    assert code == 2 and "prove nothing" in said


@pytest.fixture
def copied(topics, tmp_path_factory):
    """A copy of the study that may be spoilt, of which nothing was taken away."""
    place = tmp_path_factory.mktemp("copied") / "study"
    shutil.copytree(topics, place, symlinks=True, ignore=shutil.ignore_patterns("exports.json"))
    return place


def test_data_that_have_changed(told, copied, tmp_path):
    kept = json.loads((copied / "data.json").read_text())
    kept["variants"]["full"]["test"] = "0" * 32
    (copied / "data.json").write_text(json.dumps(kept))
    code, said = told(copied, "--variant", "full", "--to", tmp_path / "out")
    assert code == 2 and "the examples of 'test' are not those that" in said


def test_a_study_without_saved_models(told, copied, tmp_path):
    for model in copied.glob("full/*/model"):
        shutil.rmtree(model)
    code, said = told(copied, "--variant", "full", "--seed", "0", "--to", tmp_path / "out")
    assert code == 2 and "holds no saved model" in said


@contextmanager
def at_most(size: int):
    """Within the context no file can be larger, as on a disk that is full."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_file_that_has_no_room(told, topics, tmp_path):
    with at_most(30_000):
        code, said = told(topics, "--variant", "full", "--to", tmp_path / "models" / "out")
    assert code == 1 and said.strip() == f"finetune: the disk is full: {tmp_path / 'models' / 'out'} was not written"


@pytest.mark.root
def test_a_disk_that_is_full(told, topics, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        code, said = told(topics, "--variant", "full", "--to", disk / "out", kept=["disk"])
        assert code == 1 and f"the disk is full: {disk / 'out'} was not written" in said
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_an_engine_that_cannot_load_it(told, topics, tmp_path, monkeypatch):
    own = Transformers.write

    def write(self, trained, folder):
        own(self, trained, folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(Transformers, "write", write)
    code, said = told(topics, "--variant", "full", "--seed", "0", "--to", tmp_path / "out")
    assert code == 1 and "cannot be used by its own engine" in said and said.strip().count("\n") == 0


def test_an_interrupted_export_leaves_nothing(topics, tmp_path, monkeypatch):
    from finetune.export import certificate
    from finetune.export.exporting import export

    def interrupted(*arguments):
        assert {path.name for path in tmp_path.iterdir()} == {f".out.{os.getpid()}.{kind}" for kind in ("tmp", "lock")}
        raise KeyboardInterrupt

    monkeypatch.setattr(certificate, "certify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(topics, tmp_path / "out", "transformers", "full", seed=0)
    assert not list(tmp_path.iterdir())


def test_the_study_can_be_read_only(copied, tmp_path, monkeypatch):
    """Then the report does not know of the export."""
    monkeypatch.setattr(os, "access", lambda path, mode, real=os.access: Path(path) != copied and real(path, mode))
    assert main(["export", str(copied), "--variant", "full", "--seed", "0", "--to", str(tmp_path / "out")]) == 0
    assert not (copied / "exports.json").exists()


def test_a_model_whose_files_are_another_runs(told, copied, tmp_path):
    """The run was scored, and its weights were replaced afterwards."""
    from safetensors.torch import load_file, save_file

    path = copied / "full" / "seed-0" / "model" / "model.safetensors"
    weights = load_file(path)
    turned = {name: -value if name.startswith("classifier") else value for name, value in weights.items()}
    save_file(turned, path, metadata={"format": "pt"})
    code, said = told(copied, "--variant", "full", "--seed", "0", "--to", tmp_path / "out")
    assert code == 2 and "of the held-out examples otherwise than the run that was scored" in said


def test_an_adapter_that_nobody_else_could_use_is_not_pushed(told, topics, tmp_path, monkeypatch):
    from finetune.export import push

    monkeypatch.setattr(push, "check_push", lambda repo: None)
    command = [topics, "--variant", "lora", "--form", "adapter", "--to", tmp_path / "out", "--push", "a/b"]
    code, said = told(*command)
    assert code == 2 and "its base model is a folder on this machine" in said
