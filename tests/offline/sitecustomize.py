"""Refuses every connection that leaves this machine. Python imports it at start, in each process the tests begin.

Attempts are also written to a file, because libraries catch the error and carry on without a word.
"""

import os
import socket

LOG = "FINETUNE_TEST_NETWORK_LOG"
LOCAL = {None, "", "localhost", "0.0.0.0", "::", "::1"}


class NetworkBlocked(OSError):
    """A test, or code under test, tried to reach the network."""


def refuse_unless_local(host):
    host = host.decode() if isinstance(host, bytes) else host
    if host in LOCAL or host.startswith("127.") or host == socket.gethostname():
        return
    message = f"{os.environ.get('PYTEST_CURRENT_TEST', 'the test suite')} tried to reach {host}; tests run offline"
    if LOG in os.environ:
        with open(os.environ[LOG], "a", encoding="utf-8") as log:
            log.write(message + "\n")
    raise NetworkBlocked(message)


def guard(name):
    """Replace ``socket.socket``'s method ``name``, whose last argument is the address to reach."""
    original = getattr(socket.socket, name)

    def guarded(self, *arguments):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            refuse_unless_local(arguments[-1][0])
        return original(self, *arguments)

    setattr(socket.socket, name, guarded)


def block():
    if hasattr(socket, "blocked"):
        return
    socket.blocked = True
    for name in ("connect", "connect_ex", "sendto"):
        guard(name)
    look_up = socket.getaddrinfo

    def guarded(host, *arguments, **named):
        refuse_unless_local(host)
        return look_up(host, *arguments, **named)

    socket.getaddrinfo = guarded


block()
