"""Progress: plain lines where nobody watches, one live line that fits the terminal where somebody does."""

import re
from io import StringIO

import pytest
from rich.console import Console

from finetune.progress import LineProgress, LiveProgress, Progress, make_progress

TITLE = "run 3 of 15: a-rather-long-variant-name, seed 4"
NOTE = "loss 0.123 · 12,345 tokens/s"
ERASE, HIDE_CURSOR, SHOW_CURSOR = "\x1b[2K", "\x1b[?25l", "\x1b[?25h"


def console(width=80, terminal=False):
    return Console(file=StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None)


def use(progress):
    with progress as shown:
        shown.start(TITLE, 120)
        for step in range(121):
            shown.step(step, NOTE)
        shown.say("full, seed 4 [bold] · accuracy 0.93")
        shown.start("scoring test", 3)
        shown.step(3)


def test_lines_are_plain_and_whole():
    """Neither control characters nor markup, and no line is broken: logs are searched."""
    out = console(width=20)
    use(LineProgress(out, every=0.0))
    lines = out.file.getvalue().splitlines()
    assert lines[0] == f"{TITLE}: 1/120 · {NOTE} · 0:00:00 left" and lines[120] == "full, seed 4 [bold] · accuracy 0.93"
    assert len(lines) == 121
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out.file.getvalue())


def test_lines_come_no_more_often_than_asked():
    out = console()
    progress = LineProgress(out, every=1000.0)
    use(progress)
    assert out.file.getvalue() == "full, seed 4 [bold] · accuracy 0.93\n"
    progress.start("late", 10)
    progress.step(4)  # resumed here: the steps before it took no time
    progress.last -= 1001
    progress.begun = (progress.begun[0] - 60, 4)
    progress.step(7, "note")
    progress.step(8, "too soon")
    assert out.file.getvalue().splitlines()[1:] == ["late: 7/10 · note · 0:01:00 left"]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("note", ["", NOTE])
def test_the_live_line_is_one_line_and_fits(width, note):
    out = console(width, terminal=True)
    with LiveProgress(out) as shown:
        shown.start(TITLE, 12_000)
        shown.step(11_999, note)
        lines = out.render_lines(shown.bar.get_renderable(), pad=False)
        assert len(lines) == 1
        text = "".join(segment.text for segment in lines[0])
        assert len(text) <= width
        assert width < 40 or "11999/12000" in text, "what changes is what stays when there is little room"
        assert width < 120 or note in text


def test_only_the_phase_under_way_is_shown():
    out = console(120, terminal=True)
    with LiveProgress(out) as shown:
        shown.step(1)  # before any phase: nothing to show
        for title in ("training", "scoring"):
            shown.start(title, 5)
        [line] = out.render_lines(shown.bar.get_renderable(), pad=False)
        assert "scoring" in "".join(segment.text for segment in line)


def test_what_is_said_stays_and_the_live_line_goes():
    out = console(120, terminal=True)
    use(LiveProgress(out))
    written = out.file.getvalue()
    assert "full, seed 4 [bold] · accuracy 0.93" in written
    assert ERASE in written.rpartition("scoring test")[2]


def test_the_cursor_comes_back_after_an_error():
    out = console(120, terminal=True)
    with pytest.raises(KeyError), LiveProgress(out):
        raise KeyError
    assert HIDE_CURSOR in out.file.getvalue().rpartition(SHOW_CURSOR)[0]
    assert HIDE_CURSOR not in out.file.getvalue().rpartition(SHOW_CURSOR)[2]


def test_the_kind_follows_the_console():
    live = make_progress(console(terminal=True))
    live.close()
    assert isinstance(live, LiveProgress) and isinstance(make_progress(console()), LineProgress)


def test_the_silent_one_accepts_everything(capsys):
    use(Progress())
    assert capsys.readouterr() == ("", "")
