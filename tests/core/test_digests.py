"""Digests of files: of their content, and of large ones not twice."""

from __future__ import annotations

import os

import pytest

from finetune.core import digests
from finetune.core.digests import file_digest


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file whose digest is worth remembering, last changed long ago; and a cache of its own."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 8)
    monkeypatch.setattr(digests, "SETTLED", -(10**18))
    monkeypatch.setattr(digests, "_known", {})
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    return path


def written(path):
    return [each.read_text() for each in (path.parent / "cache" / "digests").glob("*")]


def test_content_decides(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    assert file_digest(one) == file_digest(other) and len(file_digest(one)) == 32
    other.write_bytes(b"abd")
    assert file_digest(one) != file_digest(other)


def test_a_large_file_is_read_once(large, monkeypatch):
    first = file_digest(large)
    assert written(large) == [first]
    monkeypatch.setattr(digests, "_known", {})
    monkeypatch.setattr(digests, "CHUNK", -2)  # with which no file can be read
    assert file_digest(large) == first
    large.write_bytes(b"another")
    with pytest.raises(ValueError, match="read length"):
        file_digest(large)


def test_its_times_cannot_be_set_back_unseen(large):
    first, times = file_digest(large), large.stat()
    large.write_bytes(b"9876543210")
    os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert large.stat().st_mtime_ns == times.st_mtime_ns
    assert file_digest(large) != first


def test_one_that_changed_just_now_is_read_again(large, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 10**18)
    file_digest(large)
    assert not (large.parent / "cache").exists()


@pytest.mark.parametrize("spoilt", ["", "0" * 31, "x" * 32])
def test_an_entry_that_cannot_be_read_is_made_again(large, monkeypatch, spoilt):
    first = file_digest(large)
    monkeypatch.setattr(digests, "_known", {})
    [entry] = (large.parent / "cache" / "digests").glob("*")
    entry.write_text(spoilt)
    assert file_digest(large) == first and written(large) == [first]


def test_without_a_cache_this_process_alone_remembers(large, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", "")
    assert file_digest(large) == file_digest(large)
    assert list(digests._known.values()) == [file_digest(large)]
