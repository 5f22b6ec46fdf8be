"""The garbage collector is out of the way for a while only."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from finetune.cli.collecting import uncollected


@pytest.fixture(autouse=True)
def as_it_was():
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


def test_it_is_off_inside_and_on_again_even_after_an_error():
    gc.enable()
    with pytest.raises(KeyError), uncollected():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off():
    gc.disable()
    with uncollected():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_the_process_ends_without_searching_for_garbage():
    code = """
import atexit, gc
atexit.register(lambda: print("set aside at the end:", gc.get_freeze_count() > 1000))
from finetune.cli import main
main(["list"])
print("set aside before:", gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set aside before: False\nset aside at the end: True\n")
