"""A disk that really fills up, in the middle of a study run from the command line. Needs root, to mount a small one."""

import json
import subprocess

import pytest

from finetune.cli import main
from finetune.train import checkpoint

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path, encoder_folder):
    """A file system in memory, and a function that sets its size, in units of the model's weights."""
    place, weights = tmp_path / "disk", (encoder_folder / "model.safetensors").stat().st_size
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True)

    def resize(models):
        subprocess.run(["mount", "-o", f"remount,size={int(models * weights)}", place], check=True)

    yield place, resize
    subprocess.run(["umount", "--lazy", place], check=True)


def one_variant(topics):
    """Leave full tuning alone in the recipe."""
    shared, _, _ = topics.read_text().partition("variants:")
    topics.write_text(shared + "strategy: {type: full}\n")


def result(output):
    return json.loads((output / "topics" / "full" / "seed-0" / "result.json").read_text())


@pytest.mark.parametrize(
    "size, every, step",
    [
        (1.0, 0.0, None),  # no room for the first checkpoint
        (5.5, 0.0, 7),  # after the evaluation at step 6 the best weights are in checkpoints too: two no longer fit
        (1.0, 1000.0, None),  # no checkpoint was asked for, and the model does not fit
    ],
    ids=["first checkpoint", "a later checkpoint", "model"],
)
def test_a_full_disk_is_told_costs_nothing_and_can_be_cured(disk, topics, tmp_path, capsys, size, every, step):
    place, resize = disk
    one_variant(topics)
    options = ["train.max_steps=12", "train.evaluations=2", f"train.checkpoint_seconds={every}"]
    command = ["run", str(topics), "seeds=1", *options, "--output"]
    assert main([*command, str(tmp_path / "elsewhere")]) == 0
    resize(size)
    capsys.readouterr()

    assert main([*command, str(place)]) == 1
    told = capsys.readouterr().err
    assert f"finetune: the disk that holds {place}" in told and "Traceback" not in told
    assert "is full; what was saved before is intact. Free some room and run the same command again" in told
    found = checkpoint.load(place / "topics" / "full" / "seed-0" / "checkpoints")
    assert (found and found[0]["position"]["step"]) == step
    assert not (place / "topics" / "full" / "seed-0" / "result.json").exists()

    resize(100)
    assert main([*command, str(place)]) == 0
    assert result(place)["training"]["resumed"] == (0 if step is None else 1)
    assert result(place)["scores"] == result(tmp_path / "elsewhere")["scores"]


def test_no_room_for_anything_at_all_is_told_too(disk, topics, capsys):
    place, resize = disk
    resize(0.01)
    assert main(["run", str(topics), "--output", str(place)]) == 1
    told = capsys.readouterr().err
    assert f"finetune: the disk that holds {place}" in told and "Traceback" not in told
