"""What a killed export has left goes with the next one to the same place; what another is writing stays."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager

from finetune.export.exporting import _new_folder

WRITING = """
import sys, time
from pathlib import Path
from finetune.export.exporting import _new_folder

with _new_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("half")
    print("written", flush=True)
    time.sleep(600)
"""


@contextmanager
def writing(place):
    """Another process in the middle of writing to ``place``, which is killed in the end."""
    with subprocess.Popen([sys.executable, "-c", WRITING, str(place)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        try:
            yield
        finally:
            process.kill()


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_what_was_killed_goes_and_what_is_written_stays(tmp_path):
    place = tmp_path / "out [1]"  # a name that patterns read otherwise
    with writing(place):
        pass
    killed = names(tmp_path)
    assert {name.rpartition(".")[2] for name in killed} == {"tmp", "lock"} and len(killed) == 2
    with writing(place), writing(tmp_path / "out"):
        alive = names(tmp_path)
        assert not alive & killed and len(alive) == 4
        with _new_folder(place) as folder:
            (folder / "weights").write_text("whole")
        assert names(tmp_path) == alive | {"out [1]"}
    assert (place / "weights").read_text() == "whole"


def test_each_of_two_threads_keeps_its_own(tmp_path):
    """A process may export to two places at once."""
    both = threading.Barrier(2, timeout=60)

    def export(name):
        with _new_folder(tmp_path / name) as folder:
            both.wait()
            (folder / "weights").write_text(name)
            both.wait()

    threads = [threading.Thread(target=export, args=(name,)) for name in ("a", "a.b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == {"a", "a.b"} and (tmp_path / "a" / "weights").read_text() == "a"


def test_without_locks_what_others_write_stays(tmp_path, monkeypatch):
    from finetune.export import exporting

    monkeypatch.setattr(exporting, "locked", lambda lock: False)
    (tmp_path / ".out.1.tmp").mkdir()
    (tmp_path / ".out.1.lock").touch()
    with _new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == {".out.1.tmp", ".out.1.lock", "out"}
