"""A real model that is split over processes, the number of which changes on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from finetune.train.meters import read_rows
from tests.end_to_end.test_real_models import NEWS
from tests.end_to_end.warm import environment_with

FULL = ["strategy={type: full}", "train.learning_rate=1.0e-4", "data.split.test=200", "compute.shard=true"]
ONE = {"OMP_NUM_THREADS": "1"}


def begin(processes, folder, *options):
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(launcher if processes > 1 else []), "finetune", "run", "news.yaml", *options]
    return subprocess.Popen(
        command, cwd=folder, env=environment_with(**ONE), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def steps(run):
    """How many steps a run's log has."""
    return sum(row["kind"] == "train" for row in read_rows(run / "metrics.jsonl"))


@pytest.mark.slow
def test_minilm_goes_on_in_another_number_of_processes(tmp_path):
    """From two to one to three: of 200 answers at least 99 % are those of a run in one process."""
    (tmp_path / "news.yaml").write_text(NEWS)
    run = tmp_path / "split" / "news" / "full" / "seed-0"
    for processes, until in ((2, 6), (1, 16)):
        doing = begin(processes, tmp_path, *FULL, "--output", "split")
        while steps(run) < until and doing.poll() is None:
            time.sleep(0.05)
        doing.send_signal(signal.SIGTERM)
        said, _ = doing.communicate(timeout=120)
        assert doing.returncode != 0 and until <= steps(run) < 30, said
        *_, kept = sorted((run / "checkpoints").iterdir())
        assert len(list(kept.glob("*.safetensors"))) == processes
    changed = begin(1, tmp_path, *FULL[:-1], "--output", "split")
    said, _ = changed.communicate(timeout=120)
    assert changed.returncode == 1 and "write compute.shard as it was when this run began" in said, said
    assert kept.exists(), "what can be gone on with stays"
    done = begin(3, tmp_path, *FULL, "--output", "split")
    said, _ = done.communicate(timeout=300)
    assert done.returncode == 0, said
    whole = begin(1, tmp_path, *FULL[:-1], "--output", "whole")
    told, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, told
    assert json.loads((run / "result.json").read_text())["training"]["resumed"] == 2
    places = (run, tmp_path / "whole" / "news" / "full" / "seed-0")
    split, alone = (pq.read_table(place / "predictions" / "test.parquet").to_pydict() for place in places)
    assert split["example"] == alone["example"] and len(alone["example"]) == 200
    same = sum(a == b for a, b in zip(split["prediction"], alone["prediction"], strict=True))
    assert same >= 198, f"{same} of 200"
