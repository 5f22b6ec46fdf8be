"""What all tests of groups need."""

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_collection():
    """Training ends with a garbage collection, which need not look at all that was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
