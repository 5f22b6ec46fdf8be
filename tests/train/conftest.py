"""Benches that the tests of training share. A bench is never changed: its base model is copied for each run."""

import pytest
import torch

from finetune.core.runtime import make_deterministic
from tests.train import workbench


@pytest.fixture(scope="session")
def topics_bench(encoder_folder):
    """Classification without dropout, so that arithmetic can be compared."""
    return workbench.classification(encoder_folder)


@pytest.fixture(scope="session")
def dropout_bench(encoder_folder):
    """Classification with BERT's own dropout of 0.1."""
    return workbench.classification(encoder_folder, dropout=True)


@pytest.fixture(scope="session")
def chat_bench(decoder_folder):
    """Chat, whose examples have unequal numbers of label tokens."""
    return workbench.chat(decoder_folder)


@pytest.fixture(autouse=True)
def deterministic():
    """As in a study."""
    make_deterministic(True)
    yield
    torch.use_deterministic_algorithms(False)
