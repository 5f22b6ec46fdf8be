"""Runs the server of a model: its socket, its signals, and what is said when it begins."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.core.signals import INSISTING, handling
from finetune.inference.service import LOOPBACK

if TYPE_CHECKING:
    from finetune.inference.service import Service

TOKEN = "FINETUNE_SERVE_TOKEN"
"""Environment variable with what requests have to bring as `Authorization: Bearer`."""

BACKLOG = 1024
"""Connections that the system holds until they are taken."""


def token_for(host: str) -> str | None:
    """Give the token that requests have to bring; None: none. Raises InputError where there is none and others than
    this machine could ask."""
    token = os.environ.get(TOKEN, "").strip()
    if not token and host not in LOOPBACK:
        found = f"'{host}' can be reached from other machines, and no token protects the model"
        raise bad_input("--host", found, f"set {TOKEN} to a secret that clients send, or leave --host out")
    return token or None


def bound(host: str, port: int) -> socket.socket:
    """Bind to a port before a model is loaded for it. Raises InputError for one that is taken, or cannot be."""
    try:
        [(family, kind, proto, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise bad_input("--host", f"'{host}' is no address of this machine: {error}", "leave it out") from error
    found = socket.socket(family, kind, proto)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        advice = "choose another one, such as --port 8001; --port 0 takes any that is free"
        raise bad_input("--port", f"port {port} of {host} cannot be had: {error.strerror}", advice) from error
    return found


def serve(service: Service, listening: socket.socket, grace: float, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; what has been begun is answered then, for at most ``grace`` seconds. A second
    signal ends it at once."""
    try:
        server_of(service, grace).run(sockets=[listening])
    finally:
        service.engine.close(grace)
        say("stopped")


def server_of(service: Service, grace: float) -> Any:
    """Make the server, which runs in whatever thread it is run in; signals reach it in the main one."""
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn's, with our signals: it would send itself the one that it has been ended by."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            def receive(number: int, frame: FrameType | None) -> None:
                service.engine.refuse()
                self.handle_exit(number, frame)

            with handling(receive, INSISTING):
                yield

    config = uvicorn.Config(
        service.app(),
        log_level="critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(grace)),
        timeout_keep_alive=5,
        backlog=BACKLOG,
    )
    return Server(config)
