"""What a person sees: plain lines in a pipe, and lines that fit in a narrow terminal."""

from __future__ import annotations

import re

import pytest

STYLE = re.compile(r"\x1b\[[0-9;?]*[mhl]")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def test_a_pipe_gets_plain_lines(topics, finetune):
    done = finetune("run", "topics.yaml", "seeds=1")
    assert done.code == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.out + done.err)
    assert done.out.count("run 1 of 2") == 1


def test_a_narrow_terminal(topics, warm, tmp_path):
    done = warm.run_in_terminal(40, "run", "topics.yaml", cwd=tmp_path)
    assert done.code == 0, done.out
    assert "\x1b[" in done.out  # it was taken for a terminal
    lines = [line.rstrip() for line in CONTROL.sub("\n", STYLE.sub("", done.out)).splitlines() if line.strip()]
    start = next(number for number, line in enumerate(lines) if line.startswith("test: accuracy"))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["variant", "linear", "full"]
    assert [line for line in lines if len(line) > 40] == []
    assert lines[-1] == "report: runs/topics/report/index.html"


@pytest.mark.parametrize("columns", [20, 40])
def test_bad_input_in_a_narrow_terminal(topics, warm, tmp_path, columns):
    done = warm.run_in_terminal(columns, "run", "topics.yaml", "train.epoch=3", cwd=tmp_path)
    lines = CONTROL.sub("", done.out).splitlines()
    assert done.code == 2
    assert lines[-1] == "1 problem; nothing was started"
    assert max(len(line) for line in lines) <= 40
