"""Small sources on disk, and a way to look at problems."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from finetune.core.errors import InputError
from finetune.data.options import Source
from finetune.data.sources import read


@pytest.fixture
def load(tmp_path):
    """Writes ``content`` into a file of that name and reads it as a source at ``data.train``."""

    def write_and_read(name, content, seed=0, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(Source(path=str(path), **options), "data.train", seed)

    return write_and_read


@pytest.fixture
def refused():
    """A block that must raise one problem, which it hands out."""

    @contextmanager
    def expect(path, *texts):
        seen = SimpleNamespace(problem=None)
        with pytest.raises(InputError) as error:
            yield seen
        (seen.problem,) = error.value.problems
        assert seen.problem.path == path
        for text in texts:
            assert text in str(seen.problem), str(seen.problem)

    return expect
