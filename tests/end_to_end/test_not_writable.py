"""A folder that takes no more files in the middle of a study is told in one line; when it does again, it goes on."""

from __future__ import annotations

import subprocess

from tests.end_to_end.reading import scores

RUN = ("run", "topics.yaml", "seeds=1", "train.min_steps=8", "train.checkpoint_seconds=0")

AS_A_USER = """
import ctypes, os
if os.getuid() == 0:  # who may write to anything, unless it gives that up
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[0] &= ~(1 << 1)
    assert libc.capset(header, sets) == 0
"""
CLOSING = """
import subprocess
from finetune.train import checkpoint
steps = []
def save_file(tensors, path):
    steps.append(path)
    if len(steps) == 3: subprocess.run(["chmod", "-R", "a-w", "runs"], check=True)
    whole(tensors, path)
whole, checkpoint.save_file = checkpoint.save_file, save_file
"""


def test_it_is_told_costs_nothing_and_can_be_cured(topics, finetune, tmp_path):
    assert finetune(*RUN, "--output", "whole").code == 0
    done = finetune(*RUN, hook=AS_A_USER + CLOSING)
    assert done.code == 1 and "Traceback" not in done.text, done.text
    assert "can no longer be written to (Permission denied); what was saved before is intact" in done.text
    again = finetune(*RUN, hook=AS_A_USER)
    assert again.code in (1, 2) and "written to" in again.text and "Traceback" not in again.text, again.text
    subprocess.run(["chmod", "-R", "u+w", "runs"], check=True, cwd=tmp_path)
    done = finetune(*RUN)
    assert done.code == 0, done.text
    assert scores(tmp_path / "runs" / "topics") == scores(tmp_path / "whole" / "topics")
