"""The report in a real browser, as a person opens it."""

import shutil
import struct
import subprocess

import pytest

from finetune import report

pytestmark = pytest.mark.browser


def chromium(page, *arguments):
    """What headless Chromium prints, and what it complains about."""
    program = shutil.which("chromium")
    assert program, "needs Chromium: apt-get install chromium"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0"]
    done = subprocess.run([program, *flags, *arguments, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def page(study):
    report.build(study.path)
    return study.path / "report" / "index.html"


def test_it_is_drawn_without_a_complaint(page):
    shown, complaints = chromium(page, "--dump-dom")
    assert complaints == []
    assert "<h1" in shown and "<svg" in shown


@pytest.mark.parametrize("size", ["1200,2400", "400,2400"])
def test_its_picture_has_the_size_of_the_window(page, tmp_path, size):
    picture = tmp_path / "report.png"
    _, complaints = chromium(page, f"--screenshot={picture}", f"--window-size={size}")
    content = picture.read_bytes()
    assert complaints == []
    assert struct.unpack(">II", content[16:24]) == tuple(map(int, size.split(",")))
    assert len(content) > 20_000, "an empty page is smaller"
