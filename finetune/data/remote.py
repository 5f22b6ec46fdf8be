"""Files on web servers, in buckets and on the hub: what any `scheme://` of fsspec names, read by ranges of bytes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from finetune.core.errors import InputError, StudyEnded, bad_input, first_line
from finetune.core.progress import say
from finetune.core.signals import stop_here
from finetune.data.addresses import WEB, shown, unbraced, with_variables, without_address, without_values
from finetune.data.spool import temporary_file, told_when_full

T = TypeVar("T")

TRIES, WAIT = 5, 0.5
"""How often something is asked for, and the seconds before the second time; doubled before each further one."""

CONNECT, READ = 20, 60
"""Seconds without an answer, and without another byte of one, after which a web server is asked again."""

MOST = 100_000
"""Files that the braces of one address may stand for."""

TAIL = 1 << 16
"""Bytes that are read first: the end of a parquet file, which says what else there is in it."""

LATER = (408, 425, 429)
"""Answers of a web server from 400 to 499 that ask to come again."""

TAGS = ("ETag", "etag", "blob_id", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "created")
"""What file systems say of a file that is another once its content is."""

RANGES, WHOLE = "finetune.ranges", "finetune.whole"
"""What we add to a file's details: that parts of it can be read, and the open file where they cannot."""


@dataclass(frozen=True)
class Remote:
    """One file elsewhere."""

    system: Any = field(repr=False)
    """Its file system, as fsspec has it."""
    path: str = field(repr=False)
    """What it is called there."""
    named: str
    """The address, with environment variables in place of what they hold."""
    at: str
    """The recipe path of its source, where errors are told."""
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the file system says of it, and what was found out; filled on first use."""

    @property
    def title(self) -> str:
        """Name it for people."""
        return shown(self.named)

    @property
    def size(self) -> int | None:
        """Give its size in bytes; None: the server does not say."""
        if not self.details:
            self.details.update(self.asked(lambda: self.system.info(self.path)))
        size: int | None = self.details.get("size")
        return size

    @property
    def seal(self) -> list[Any] | None:
        """Give what tells it from the file that may stand there another day; None: nothing does."""
        size = self.size
        tags = [str(self.details[name]) for name in TAGS if self.details.get(name)]
        return [self.named, size, *tags] if tags and size is not None else None

    def refuse_change(self) -> None:
        """Refuse a file that is another than it was when it was first asked for."""
        if Remote(self.system, self.path, self.named, self.at).seal != self.seal:
            found = f"'{self.title}' has changed while it was read"
            raise bad_input(f"{self.at}.path", found, "run the same command again")

    def open(self) -> Any:
        """Open it for its bytes: those that are read are fetched then; of a server that cannot send a part of a file,
        all of them now."""
        known = self.details
        if WHOLE not in known and self.size is not None and known.get("partial", True):
            file = Ranges(self)
            # Of a small file the last bytes are all of it, which says nothing of parts.
            if (known.get(RANGES) and self.size > TAIL) or file.begin():
                known[RANGES] = True
                return file
        if WHOLE not in known:
            known[WHOLE] = self._whole()
        return known[WHOLE]

    def asked(self, action: Callable[[], T]) -> T:
        """What ``action`` gives, which is tried again where the network may be to blame.

        Raises InputError where it is not, or still is.
        """
        wait = WAIT
        for left in reversed(range(TRIES)):
            stop_here(f"reading {self.at}")
            try:
                return action()
            except (StudyEnded, _NoRanges):
                raise
            except Exception as error:  # every protocol's library has its own, which have nothing in common
                real = _real(error)
                if not left or _is_final(real):
                    raise self._unreachable(real) from error
            time.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _unreachable(self, error: BaseException) -> InputError:
        """Turn what went wrong into a problem."""
        status = _status(error)
        if status == 404 or (status is None and isinstance(error, FileNotFoundError)):
            return bad_input(f"{self.at}.path", f"there is no '{self.title}'", "check the address")
        reason = f"the server answers {status}" if status else without_address(first_line(error), self.path, self.named)
        advice = "check the network, and run the same command again"
        if status in (401, 403) or isinstance(error, PermissionError):
            advice = "log in, or write a token as ${NAME} of an environment variable into the address"
        return bad_input(f"{self.at}.path", f"'{self.title}' cannot be read: {reason}", advice)

    def _whole(self) -> Any:
        say(f"{self.title}: the server sends whole files only, so that all of it is fetched")

        def fetched() -> Any:
            file = temporary_file()
            with told_when_full():
                self.system.get_file(self.path, file)
            if self.size is not None and file.tell() != self.size:
                raise EOFError("the file was cut short on its way")
            file.seek(0)
            return file

        return self.asked(fetched)


class _NoRanges(Exception):
    """A server sends all of a file where a part of it was asked for."""


class Ranges(io.RawIOBase):
    """Reads a file elsewhere by ranges."""

    def __init__(self, remote: Remote):
        self.remote, self.size, self.place = remote, remote.size or 0, 0
        self.held = (0, b"")
        """Where bytes begin that were fetched before they were asked for, and the bytes."""
        self.file: Any = None

    def begin(self) -> bool:
        """Fetch the last bytes; tell whether the server sends parts of files."""
        try:
            self.hold(max(self.size - TAIL, 0), self.size)
        except _NoRanges:
            return False
        return True

    def hold(self, start: int, end: int) -> None:
        """Fetch what will be read in parts."""
        first, content = self.held
        if not first <= start <= end <= first + len(content):
            self.held = start, self._fetch(start, end)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def read(self, size: int | None = -1) -> bytes:
        start, self.place = self.place, self.size if size is None or size < 0 else min(self.place + size, self.size)
        first, content = self.held
        if first <= start and self.place <= first + len(content):
            return content[start - first : self.place - first]
        return self._fetch(start, self.place)

    def _fetch(self, start: int, end: int) -> bytes:
        def fetched() -> bytes:
            if self.file is None:
                known = {"size": self.size} if self.remote.path.startswith(WEB) else {}  # which would be asked again
                self.file = self.remote.system.open(self.remote.path, "rb", cache_type="none", **known)
            self.file.seek(start)
            try:
                found = bytes(self.file.read(end - start))
            except ValueError as error:  # what fsspec raises for an answer that begins elsewhere
                if RANGES in self.remote.details:
                    raise
                raise _NoRanges from error
            if len(found) != end - start:
                raise EOFError("the answer was cut short on its way")
            return found

        return self.remote.asked(fetched) if end > start else b""


def remotes(text: str, at: str) -> list[Remote]:
    """The files that an address names: where it has ``{0..9}`` or ``{a,b}``, one for each; where it has ``*``, ``?`` or
    ``[...]``, and the file system can be asked, those that match, in the order of their names.

    ``${NAME}`` is the value of an environment variable. Raises InputError at ``{at}.path``.
    """
    texts = list(islice(unbraced(text), MOST + 1))
    if len(texts) > MOST:
        raise bad_input(f"{at}.path", f"'{shown(text)}' stands for more than {MOST:,} files", "name fewer at a time")
    found = [remote for one in texts for remote in _matching(one, at)]
    if not found:
        raise bad_input(f"{at}.path", f"nothing matches '{shown(text)}'", "check the address")
    return found


def _matching(text: str, at: str) -> list[Remote]:
    """The files that match an address without braces."""
    import fsspec

    scheme = text.partition("://")[0].lower()
    try:
        system, path = fsspec.core.url_to_fs(with_variables(text, at), **_options(scheme))
    except (ImportError, ValueError) as error:  # a package that the protocol needs; a protocol that nobody knows
        raise bad_input(f"{at}.path", f"'{scheme}://' cannot be read here: {first_line(error)}") from error
    one = Remote(system, path, text, at)
    if scheme in WEB or not any(sign in path for sign in "*?["):  # a `?` is part of many web addresses
        return [one]
    found = sorted(one.asked(lambda: system.glob(path)))
    return [Remote(system, each, without_values(system.unstrip_protocol(each), text), at) for each in found]


def _options(scheme: str) -> dict[str, Any]:
    """What a file system is told: the others have patience, and tries, of their own."""
    if scheme not in WEB:
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT, sock_connect=CONNECT, sock_read=READ)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _real(error: BaseException) -> BaseException:
    """The error behind one: fsspec says of whatever goes wrong with a web file that there is none."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and cause is not None else error


def _status(error: BaseException) -> int | None:
    """The number of a web server's answer that an error is about."""
    found = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _is_final(error: BaseException) -> bool:
    """Tell whether asking again would give the same."""
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in LATER
    return isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError | TypeError)
