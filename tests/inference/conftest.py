"""Runs of tiny studies, each made once."""

import pytest

from tests.inference import studies


@pytest.fixture(scope="session")
def topics_run(tmp_path_factory):
    """A classifier of three topics: the run's folder."""
    return studies.run_of(studies.make(tmp_path_factory.mktemp("classifier"), "classification", "encoder"))


@pytest.fixture(scope="session")
def chat_run(tmp_path_factory):
    """A chat model that was trained for a few steps: the run's folder."""
    return studies.run_of(studies.make(tmp_path_factory.mktemp("chat"), "chat", "decoder"))
