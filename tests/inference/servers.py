"""Servers of tiny models: in a thread of the test's own process, or in one of their own, as a person starts them."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from finetune.core.progress import Progress
from finetune.core.signals import StopRequest
from finetune.inference.asking import asking
from finetune.inference.loading import open_model
from finetune.inference.served import Served
from finetune.inference.service import Limits, Service
from finetune.inference.serving import bound, server_of
from tests.inference.children import Child


class Server:
    """One that is running, and where; in a process of its own, that, and the file that it speaks into."""

    def __init__(self, url, child=None, said=None):
        self.url, self.child, self.said = url, child, said

    def ask(self, path, said=None, content=None, **headers):
        """Status and body of one request; ``said`` is sent as JSON."""
        data = content if said is None else json.dumps(said).encode()
        kind = {} if data is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, {**kind, **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def stop(self, number=signal.SIGTERM):
        """Send a signal, and give the exit code and what was said."""
        self.child.kill(number)
        return self.child.wait(), self.said.read_text()


@contextmanager
def serving_here(model, token=None, say=print, **limits):
    """A server of ``model`` in a thread, which loads no libraries again; ``say`` is told what it says."""
    with (
        bound("127.0.0.1", 0) as listening,
        asking(open_model(str(model)), Progress(), StopRequest(), probabilities=True) as asker,
    ):
        service = Service(Served(asker), token, Limits(**limits), local=True, say=say)
        server = server_of(service, grace=60)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()
            service.engine.close(60)


@contextmanager
def serving(model, folder, *options, **environment):
    """A server of ``model`` in a process of its own, from when it answers on; it speaks into a file in ``folder``."""
    said = folder / "said"
    with open(said, "wb") as file:
        child = Child(["serve", model, "--port", "0", *options], err=file.fileno(), **environment)
    try:
        ends = time.monotonic() + 280
        while (found := re.search(r"http://\S+:\d+", said.read_text())) is None:
            assert child.poll() is None and time.monotonic() < ends, said.read_text()
            time.sleep(0.05)
        yield Server(found[0], child, said)
    finally:
        child.kill()
        child.wait()
