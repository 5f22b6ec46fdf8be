"""Files on a web server of this machine, which counts what is fetched and can be told to misbehave."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Fault = Callable[["Handler"], bool]


class Served:
    """A running server: the files in a folder, and what was asked of it."""

    def __init__(self, folder: Path, address: str):
        self.folder, self.address = folder, address
        self.ranges: list[tuple[str, int, int]] = []
        """Name, start and end of each part that was sent."""
        self.fault: Fault | None = None
        """Answers a request itself, where it gives True."""
        self.ignores_ranges = False
        self.tagged = True

    @property
    def bytes(self) -> int:
        """How many bytes were sent."""
        return sum(end - start for _, start, end in self.ranges)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served: Served

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def refuse(self, status: int) -> bool:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def hang_up(self) -> bool:
        self.close_connection = True
        self.connection.close()
        return True

    def answer(self, body: bool) -> None:
        served = self.served
        if served.fault is not None and served.fault(self):
            return
        path = served.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.refuse(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = 0, len(content)
        partial = asked is not None and not served.ignores_ranges
        if partial:
            start, end = int(asked[1]), min(int(asked[2]) + 1, end)
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if served.tagged:
            self.send_header("ETag", f'"{hash(content)}"')
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if body:
            served.ranges.append((path.name, start, end))
            self.wfile.write(content[start:end])


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A server of the files in ``folder`` for as long as the context is open."""
    handler = type("Own", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients that hang up are told nothing
    handler.served = served = Served(folder, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_parquet(path: Path, rows: list[tuple[str, str]], group: int = 10, **more: list) -> Path:
    """Write (text, label) pairs as a parquet file with row groups of so many rows."""
    texts, labels = zip(*rows, strict=True) if rows else ((), ())
    columns = {"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string()), **more}
    pq.write_table(pa.table(columns), path, row_group_size=group, write_statistics=False)
    return path


def numbered(start: int, count: int, padding: int = 0) -> list[tuple[str, str]]:
    """Rows that say their number; the padding cannot be compressed away."""
    import random

    return [
        (f"row {number} " + random.Random(number).randbytes(padding // 2).hex(), "abc"[number % 3])
        for number in range(start, start + count)
    ]


def sometimes(times: int, what: Callable[[Handler], bool]) -> Fault:
    """The first so many requests for bytes are answered by ``what``."""
    left = [times]

    def fault(handler: Handler) -> bool:
        if handler.command != "GET" or not left[0]:
            return False
        left[0] -= 1
        return what(handler)

    return fault


def cut_short(handler: Handler) -> bool:
    """Promise more than is sent."""
    handler.send_response(206)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"half")
    return handler.hang_up()


def silent(handler: Handler) -> bool:
    """Send nothing for a long time."""
    time.sleep(30)
    return handler.hang_up()
