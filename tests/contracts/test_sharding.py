"""Two processes that split a model come to what one comes to that has all of it; or the plug-in says that it cannot be
split."""

import json
import subprocess
import sys

import numpy as np
import pytest

from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from tests import tiny
from tests.contracts.battery import combinations, example_of
from tests.contracts.sharded import came_to, variant_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WITH = ("classification", "chat")
"""Tasks that strategies and mitigations meet, each with its first model."""

OF_THE_FIRST = {"losses", "norms"}
"""What the first process alone writes down."""

FOUND = {
    "-".join(filter(None, combination)): combination
    for combination in [
        *combinations(TASKS),
        *(one for one in combinations(STRATEGIES) if one[1] in WITH and one[2] == example_of(TASKS, one[1]).models[0]),
        *(one for one in combinations(MITIGATIONS) if one[1] == WITH[0]),
    ]
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, encoder_folder):
    """The folders of tiny models without dropout."""
    folder = tmp_path_factory.mktemp("sharding")
    return {
        "encoder": encoder_folder,
        "decoder": tiny.save_decoder(folder / "model"),
        "encoder-decoder": tiny.save_encoder_decoder(folder / "both"),
        "framed": tiny.save_framed(folder / "framed"),
        "masked": tiny.save_masked(folder / "masked"),
        "bart": tiny.save_bart(folder / "bart"),
    }


@pytest.fixture(scope="module")
def of_two(models, tmp_path_factory):
    """What each of two processes came to, by the combination."""
    folder = tmp_path_factory.mktemp("processes")
    asked = {name: (combination, str(models[combination[2]])) for name, combination in FOUND.items()}
    (folder / "combinations.json").write_text(json.dumps(asked))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.contracts.sharded", str(folder)], capture_output=True, text=True, timeout=1100
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"came-to-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", FOUND)
def test_two_processes_that_split_a_model_come_to_what_one_does(models, of_two, tmp_path, name):
    first, second = (found[name] for found in of_two)
    assert "failed" not in first and all(first[key] == second[key] for key in first.keys() - OF_THE_FIRST)
    if "refused" in first:
        assert "compute.shard: is true, and " in first["refused"]
        return
    combination = FOUND[name]
    alone = json.loads(json.dumps(came_to(variant_of(combination, models[combination[2]], tmp_path, False))))
    allowed = 10 * example_of(TASKS, combination[1]).far
    for key in ("losses", "norms", "scored"):
        np.testing.assert_allclose(first[key], alone[key], rtol=allowed, atol=allowed, err_msg=key)
    assert first["weights"].keys() == alone["weights"].keys()
    for key, values in alone["weights"].items():
        np.testing.assert_allclose(first["weights"][key], values, atol=allowed, err_msg=key)
