"""What steers a terminal becomes a sign before it gets there, from whatever it came."""

import io
import sys

import pytest
from rich.console import Console

from finetune.cli.output import fitted, wrapped
from finetune.core.screen import Screen, raw, seen
from finetune.core.shown import LineProgress

TITLE = "\x1b]0;owned\x07"
STEERING = [TITLE, "\x1b[2J", "a\rb", "\x08", "\x7f", "\x9b31m", "\u202e", "\u2066", "\0"]


@pytest.mark.parametrize("text", STEERING)
def test_nothing_that_steers_is_left(text):
    shown = seen(text)
    assert "\ufffd" in shown
    assert not any(character in shown for character in text if not character.isprintable())


def test_what_is_only_text_stays():
    text = "Zürich\tΣ 日本 🧪\nline two e\u0301\n"
    assert seen(text) == text
    assert seen("one\r\ntwo") == "one\ntwo"


def test_a_stream_shows_all_that_is_printed_to_it_and_gives_the_rest():
    behind = io.StringIO()
    screen = Screen(behind)
    print(TITLE, "text", file=screen)
    screen.writelines([TITLE, "\n"])
    assert behind.getvalue() == "\ufffd]0;owned\ufffd text\n\ufffd]0;owned\ufffd\n"
    assert screen.isatty() is False and raw(screen) is behind and raw(behind) is behind


def test_lines_tables_and_progress_show_it_too():
    assert "\x1b" not in wrapped(f"a label {TITLE}")
    assert "\x1b" not in "".join(fitted([{"run": f"a{TITLE}", "why": f"because\r{TITLE}"}]))
    out = io.StringIO()
    LineProgress(Console(file=out)).say(f"reading {TITLE}")
    assert out.getvalue() == "reading \ufffd]0;owned\ufffd\n"


def test_a_verb_shows_what_it_prints_and_gives_the_streams_back(monkeypatch, capsys):
    from finetune import cli

    class Verb:
        @staticmethod
        def run(args):
            """Print what a label may be."""
            print(f"label {TITLE}")
            raise RuntimeError(f"a library says {TITLE}")

        @staticmethod
        def add_arguments(parser):
            pass

    monkeypatch.setitem(cli.VERBS, "check", Verb)
    streams = sys.stdout, sys.stderr
    assert cli.main(["check"]) == 1
    assert (sys.stdout, sys.stderr) == streams
    said = capsys.readouterr()
    assert said.out == "label \ufffd]0;owned\ufffd\n"
    assert "a library says" in said.err and "\x1b" not in said.err
