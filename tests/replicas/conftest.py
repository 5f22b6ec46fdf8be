"""What all tests of groups need."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick(quick_collection):
    """All of them train."""
