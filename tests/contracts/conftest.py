"""Every combination of plug-ins is trained once, and each test looks at another side of it."""

import pytest

from tests import tiny
from tests.contracts.battery import Battery


@pytest.fixture(scope="session")
def batteries(tmp_path_factory, encoder_folder, decoder_folder):
    made = {}
    both = tiny.save_encoder_decoder(tmp_path_factory.mktemp("encoder-decoder"))
    folders = {"encoder": encoder_folder, "decoder": decoder_folder, "encoder-decoder": both}
    folders["framed"] = tiny.save_framed(tmp_path_factory.mktemp("framed"))
    folders["masked"] = tiny.save_masked(tmp_path_factory.mktemp("masked"))
    folders["bart"] = tiny.save_bart(tmp_path_factory.mktemp("bart"))

    def make(combination):
        if combination not in made:
            strategy, task, model, mitigation = combination
            made[combination] = Battery(tmp_path_factory.mktemp("run"), folders[model], strategy, task, mitigation)
        return made[combination]

    return make


@pytest.fixture(scope="session")
def outcomes(batteries):
    """Training under a seed, done once and never changed."""
    made = {}

    def train(combination, seed):
        if (combination, seed) not in made:
            made[combination, seed] = batteries(combination).run(seed, f"seed-{seed}")
        return made[combination, seed]

    return train
