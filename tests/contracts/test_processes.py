"""Every task is trained and scored by two processes as by one."""

import json
import subprocess
import sys

import numpy as np
import pytest

from finetune.core.registry import TASKS
from tests.contracts.battery import combinations
from tests.contracts.test_scores import same
from tests.contracts.worker import came_to

FOUND = {"-".join(filter(None, combination)): combination for combination in combinations(TASKS)}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def of_two(batteries, tmp_path_factory):
    """What each of two processes came to, by the combination."""
    folder = tmp_path_factory.mktemp("processes")
    asked = [(name, combination, str(batteries(combination).model_folder)) for name, combination in FOUND.items()]
    (folder / "combinations.json").write_text(json.dumps(asked))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "tests.contracts.worker", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"came-to-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", FOUND)
def test_two_processes_train_and_score_as_one(batteries, of_two, name):
    first, second = (found[name] for found in of_two)
    assert first == second
    alone = json.loads(json.dumps(came_to(batteries(FOUND[name]))))
    assert len(first["said"]) == len(alone["said"]) == 12
    for ours, theirs in zip(first["said"], alone["said"], strict=True):
        assert same(ours["text"], theirs["text"])
        for key in ("loss", "margin", "probabilities"):
            assert (ours[key] is None) == (theirs[key] is None), key
            if ours[key] is not None:
                np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-3, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=2e-3, atol=1e-4)
