"""Every combination of plug-ins is trained once, and each test looks at another side of it."""

from functools import lru_cache

import pytest

from tests import tiny
from tests.contracts.battery import Battery

KEPT = 8
"""Combinations that are remembered: the one whose tests follow one another, and what it is held against."""


@pytest.fixture(scope="session")
def batteries(tmp_path_factory, encoder_folder, decoder_folder):
    both = tiny.save_encoder_decoder(tmp_path_factory.mktemp("encoder-decoder"))
    folders = {"encoder": encoder_folder, "decoder": decoder_folder, "encoder-decoder": both}
    folders["framed"] = tiny.save_framed(tmp_path_factory.mktemp("framed"))
    folders["masked"] = tiny.save_masked(tmp_path_factory.mktemp("masked"))
    folders["bart"] = tiny.save_bart(tmp_path_factory.mktemp("bart"))

    @lru_cache(KEPT)
    def make(combination):
        strategy, task, model, mitigation = combination
        return Battery(tmp_path_factory.mktemp("run"), folders[model], strategy, task, mitigation)

    return make


@pytest.fixture(scope="session")
def outcomes(batteries):
    """Training under a seed, done once and never changed."""

    @lru_cache(2 * KEPT)
    def train(combination, seed):
        return batteries(combination).run(seed, f"seed-{seed}")

    return train
