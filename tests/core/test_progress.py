"""Progress: plain lines where nobody watches, one live line that fits the terminal where somebody does."""

import re
import threading
import time
from io import StringIO

import pytest
from rich.console import Console

from finetune.core.errors import Interrupted
from finetune.core.progress import Progress, parts, phase, track
from finetune.core.shown import LineProgress, LiveProgress, make_progress
from finetune.core.signals import stop_on_signals

TITLE = "run 3 of 15: a-rather-long-variant-name, seed 4"
NOTE = "loss 0.123 · 12,345 tokens/s"
SAID = "full, seed 4 [bold] · accuracy 0.93"
ERASE, HIDE_CURSOR, SHOW_CURSOR = "\x1b[2K", "\x1b[?25l", "\x1b[?25h"


def console(width=80, terminal=False):
    return Console(file=StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def lines(progress):
    return progress.console.file.getvalue().splitlines()


def spend(progress, clock, seconds, step=0.25):
    """Let time pass, in which the thread would look every quarter of a second."""
    for _ in range(round(seconds / step)):
        clock.now += step
        progress.look()


# --- lines


def test_a_phase_is_announced_after_two_seconds_and_then_now_and_then(clock):
    """Even one in which nothing moves, such as loading a model; logs are searched, so no line is broken."""
    progress = LineProgress(console(width=20), clock=clock)
    with progress.phase("loading ./model [bold]"):
        spend(progress, clock, 1.75)
        assert lines(progress) == []
        spend(progress, clock, 0.25)
        assert lines(progress) == ["loading ./model [bold]: 0:00:02 so far"]
        spend(progress, clock, 29.75)
        assert len(lines(progress)) == 1
        spend(progress, clock, 0.25)
        assert lines(progress)[1:] == ["loading ./model [bold]: 0:00:32 so far"]
    spend(progress, clock, 100)
    assert len(lines(progress)) == 2, "what is over is not shown"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", progress.console.file.getvalue())


def test_a_line_says_how_far_it_is_and_how_long_it_will_take(clock):
    progress = LineProgress(console(), clock=clock)
    with progress.phase(TITLE, 10) as under_way:
        under_way.step(4)  # resumed here: the steps before it took no time
        clock.now += 60
        under_way.step(7, NOTE)
        progress.look()
    assert lines(progress) == [f"{TITLE}: 7/10 · {NOTE} · 0:01:00 left"]


def test_short_phases_are_never_shown(clock):
    progress = LineProgress(console(), every=0.0, clock=clock)
    for _ in range(10):
        with progress.phase("scoring", 3):
            spend(progress, clock, 1.75)
    assert lines(progress) == []


def test_the_innermost_long_phase_is_shown_and_repeated_ones_once(clock):
    progress = LineProgress(console(), every=30.0, clock=clock)
    with progress.phase("training", 10):
        spend(progress, clock, 2)
        for _ in range(3):
            with progress.phase("validating", 5):
                with progress.phase("a batch"):
                    spend(progress, clock, 1.5)
                spend(progress, clock, 1.5)
        assert lines(progress) == ["training: 0/10", "validating: 0/5"]
        spend(progress, clock, 30)
        assert lines(progress)[2:] == ["training: 0/10"]


def test_a_phase_that_an_error_left_open_is_gone(clock):
    progress = LineProgress(console(), clock=clock)
    left = None
    with pytest.raises(KeyError), progress.phase("outer"):
        left = progress.phase("inner")
        left.__enter__()
        raise KeyError
    spend(progress, clock, 10)
    assert progress.phases == [] and lines(progress) == []
    left.__exit__(None, None, None)


def test_what_is_said_is_not_markup():
    progress = LineProgress(console(width=20))
    progress.say(SAID)
    assert lines(progress) == [SAID]


# --- the live line


def text_of(progress, out):
    shown = out.render_lines(progress.bar.get_renderable(), pad=False)
    assert len(shown) <= 1
    return "".join(segment.text for line in shown for segment in line)


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("note", ["", NOTE])
def test_the_live_line_is_one_line_and_fits(width, note, clock):
    out = console(width, terminal=True)
    progress = LiveProgress(out, clock)
    with progress.phase(TITLE, 12_000) as under_way:
        clock.now += 1
        under_way.step(11_999, note)
        progress.look()
        text = text_of(progress, out)
    progress.close()
    assert 0 < len(text) <= width
    assert width < 40 or "11999/12000" in text, "what changes is what stays when there is little room"
    assert width < 120 or note in text


def test_a_phase_without_steps_shows_its_time(clock):
    out = console(40, terminal=True)
    progress = LiveProgress(out, clock)
    with progress.phase("loading package:some_model/model", None):
        clock.now += 65
        progress.look()
        assert "0:01:05 so far" in text_of(progress, out)
    progress.close()


def test_nothing_flickers(clock):
    """Where phases are short, the one around them is shown all the time."""
    out = console(120, terminal=True)
    progress = LiveProgress(out, clock)
    progress.look()
    with progress.phase("training", 5):
        clock.now += 1
        for _ in range(3):
            with progress.phase("validating"):
                clock.now += 0.9
                progress.look()
                assert "training" in text_of(progress, out)
        with progress.phase("scoring"):
            clock.now += 1
            progress.look()
            assert "scoring" in text_of(progress, out)
    progress.look()
    assert text_of(progress, out) == ""
    assert out.file.getvalue().rstrip().endswith(SHOW_CURSOR) or ERASE in out.file.getvalue()
    progress.close()


def test_what_is_said_stays_and_the_live_line_goes(clock):
    out = console(120, terminal=True)
    progress = LiveProgress(out, clock)
    with progress.phase(TITLE, 3):
        clock.now += 1
        progress.look()
        progress.say(SAID)
        progress.look()
    progress.close()
    written = out.file.getvalue()
    assert SAID in written and ERASE in written.rpartition(TITLE)[2]


def test_the_cursor_comes_back_after_an_error():
    out = console(120, terminal=True)
    progress = LiveProgress(out)
    progress.after = 0.0
    with pytest.raises(KeyError), progress, phase("loading"):
        progress.look()
        raise KeyError
    assert HIDE_CURSOR in out.file.getvalue().rpartition(SHOW_CURSOR)[0]
    assert HIDE_CURSOR not in out.file.getvalue().rpartition(SHOW_CURSOR)[2]


# --- which one, and how code talks to it


def test_the_kind_follows_the_console(monkeypatch):
    assert isinstance(make_progress(console(terminal=True)), LiveProgress)
    assert isinstance(make_progress(console()), LineProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(console(terminal=True)), LineProgress)
    monkeypatch.setenv("RANK", "1")
    assert type(make_progress(console(terminal=True))) is Progress


def test_a_thread_shows_what_blocks_the_main_one():
    progress = LineProgress(console())
    progress.after = 0.05
    with progress, phase("one long call"):
        until = time.monotonic() + 10
        while not lines(progress) and time.monotonic() < until:
            time.sleep(0.02)
    assert lines(progress)[0].startswith("one long call: 0:00:0")
    assert all(thread.name != "progress" for thread in threading.enumerate())


def test_parts_and_items_are_counted():
    heard = []

    class Told(Progress):
        def start(self, title, total):
            heard.append((title, total))

        def step(self, done, note):
            heard.append(done)

    with Told():
        assert [list(rows) for rows in parts(5, "tokenising", 2)] == [[0, 1], [2, 3], [4]]
        assert list(track("ab", "reading")) == ["a", "b"]
    assert heard == [("tokenising", 5), 2, 4, 5, ("reading", 2), 1, 2]


def test_outside_of_any_progress_nothing_is_shown(capsys):
    with phase("alone") as under_way:
        under_way.step(1)
    assert list(track([1, 2], "alone")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_request_to_stop_takes_effect_after_the_item():
    done = []
    with stop_on_signals() as stop, pytest.raises(Interrupted, match="stopped while reading"):
        for item in track([1, 2, 3], "reading"):
            done.append(item)
            stop.requested = item == 2
    assert done == [1, 2]
    with stop_on_signals() as stop, pytest.raises(Interrupted, match="stopped while tokenising"):
        for rows in parts(10, "tokenising", 4):
            done = list(rows)
            stop.requested = True
    assert done == [0, 1, 2, 3]


# --- other processes


def test_lines_of_other_processes_bear_their_names():
    progress = LineProgress(console())
    progress.other("cuda:1", ["run 1", 3, 10, "loss 0.1"])
    progress.other_says("cuda:1", "run 1: 3/10 · loss 0.1")
    assert lines(progress) == ["cuda:1 · run 1: 3/10 · loss 0.1"]


def test_each_process_has_a_line_of_a_live_table(clock):
    shown = console(width=100, terminal=True)
    progress = LiveProgress(shown, clock=clock)
    with progress.phase("waiting"):
        progress.other("cuda:0", ["run 1 of 6: lora, seed 0", 3, 10, "loss 0.1"])
        progress.other("cuda:1", ["loading model", 0, None, ""])
        spend(progress, clock, 1.0)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.file.getvalue())
        assert re.search(r"cuda:0  run 1 of 6: lora, seed 0 +3/10 +loss 0.1", text), text
        assert "cuda:1  loading model" in text
        assert "waiting" not in shown.file.getvalue()
        for name in ("cuda:0", "cuda:1"):
            progress.other(name, None)
        spend(progress, clock, 0.5)
        assert "waiting" in shown.file.getvalue(), "its own line again"
    progress.close()
