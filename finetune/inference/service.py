"""A small server of one model, for trying out and small loads: OpenAI's chat and completions, and classification.

Requests wait in one queue, and those that can be answered together are. For more, `vllm serve` an exported folder.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from finetune.core.errors import InputError, first_line
from finetune.inference.engine import Closed, Engine, Full
from finetune.inference.protocol import (
    ChatBody,
    ClassifyBody,
    CompletionBody,
    Refused,
    Shape,
    parsed,
    read_body,
    refused,
)
from finetune.inference.talking import Request
from finetune.inference.writing import without_nan

if TYPE_CHECKING:
    from finetune.inference.served import Served

RETRY = {"Retry-After": "2"}
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1", "[::1]"))
"""Hosts that are this machine."""

LOOK = 0.5
"""Seconds between two looks whether somebody still waits for an answer."""


@dataclass(frozen=True)
class Limits:
    """What a server takes."""

    body: int = 1 << 20
    """Bytes of a request."""
    waiting: int = 512
    """Requests that wait for their turn."""


class Service:
    """Answers requests about one model."""

    def __init__(self, served: Served, token: str | None, limits: Limits, local: bool, say: Callable[[str], None]):
        """``token``: what requests have to bring; ``local``: only names of this machine are answered to, so that no
        page in a browser can reach the model under a name of its own."""
        self.served, self.token, self.limits, self.local, self.say = served, token, limits, local, say
        self.engine = Engine(served.work, limits.waiting)
        self.begun = int(time.time())

    def app(self) -> Starlette:
        """Make the application."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/v1/models", self._safe(self.models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._safe(self.one_model), methods=["GET"]),
            Route("/v1/chat/completions", self._safe(self.chat), methods=["POST"]),
            Route("/v1/completions", self._safe(self.complete), methods=["POST"]),
            Route("/v1/classify", self._safe(self.classify), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={404: _unknown, 405: _unknown})

    def _safe(self, handler: Callable[[WebRequest], Any]) -> Callable[[WebRequest], Any]:
        """Answer what ``handler`` raises in OpenAI's form, and only whom it concerns."""

        async def answer(request: WebRequest) -> Response:
            try:
                self._admit(request)
                found: Response = await handler(request)
                return found
            except Refused as error:
                return JSONResponse(error.body(), error.status, headers=error.headers)
            except InputError as error:
                own = refused(error)
                return JSONResponse(own.body(), own.status)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:  # whatever it is, the server goes on
                self.say(f"a request failed: {type(error).__name__}: {first_line(error)}")
                own = Refused(500, "the model failed at this request; the server's output says how", "server_error")
                return JSONResponse(own.body(), own.status)

        return answer

    def _admit(self, request: WebRequest) -> None:
        """Refuse those who may not ask."""
        host = (request.headers.get("host") or "").strip()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.local and not self.token and name.lower() not in LOOPBACK:
            raise Refused(403, f"this server is not called '{name[:100]}': it answers to this machine alone")
        if self.token is None:
            return
        kind, _, given = (request.headers.get("authorization") or "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        if kind.lower() != "bearer" or not same:
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refused(
                401, "a token is needed: Authorization: Bearer TOKEN", code="invalid_api_key", headers=headers
            )

    async def _said(self, request: WebRequest) -> dict[str, Any]:
        """Read the body, as long as it may be."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which no page in a browser sends elsewhere unasked
            raise Refused(415, "send JSON: Content-Type: application/json")
        most, content = self.limits.body, bytearray()
        async for part in request.stream():
            content += part
            if len(content) > most:
                raise Refused(413, f"the body has more than {most:,} bytes")
        said = read_body(bytes(content))
        if said.get("model") not in (None, self.served.name, self.served.source):
            found = f"there is no model '{str(said['model'])[:100]}' here, but '{self.served.name}'"
            raise Refused(404, found, param="model", code="model_not_found")
        return said

    def submit(self, key: Any, what: Any) -> Future[Any]:
        """Put a job into the queue."""
        try:
            return self.engine.submit(key, what)
        except Full as error:
            found = f"{self.limits.waiting} requests are waiting already; come again"
            raise Refused(429, found, "rate_limit_error", code="rate_limit_exceeded", headers=RETRY) from error
        except Closed as error:
            raise Refused(503, "the server is stopping", "server_error", headers=RETRY) from error

    def _submit_all(self, key: Any, asked: Sequence[Request]) -> list[Future[Any]]:
        """Put all of several prompts into the queue, or none."""
        jobs: list[Future[Any]] = []
        try:
            for each in asked:
                jobs.append(self.submit(key, each))
        except Refused:
            for each, job in zip(asked, jobs, strict=False):
                each.cancelled = True
                job.cancel()
            raise
        return jobs

    async def health(self, request: WebRequest) -> Response:
        """`ok` while requests are taken."""
        status = "stopping" if self.engine.closed else "ok"
        said = {"status": status, "model": self.served.name, "waiting": self.engine.waiting, "taken": self.engine.taken}
        return JSONResponse(said, 503 if self.engine.closed else 200)

    def _model(self) -> dict[str, Any]:
        about = {"task": self.served.task, "endpoints": self.served.endpoints}
        return {"id": self.served.name, "object": "model", "created": self.begun, "owned_by": "finetune", **about}

    async def models(self, request: WebRequest) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one_model(self, request: WebRequest) -> Response:
        name = request.path_params["name"]
        if name != self.served.name:
            raise Refused(404, f"there is no model '{name[:100]}' here", param="model", code="model_not_found")
        return JSONResponse(self._model())

    async def chat(self, request: WebRequest) -> Response:
        said = await self._said(request)
        talker = self.served.talker("/v1/chat/completions")
        body = parsed(ChatBody, said)
        prompt = await asyncio.to_thread(talker.chat, body.messages)
        return await self._answer(request, body, [prompt], Shape("chat", self.served.name))

    async def complete(self, request: WebRequest) -> Response:
        said = await self._said(request)
        talker = self.served.talker("/v1/completions")
        body = parsed(CompletionBody, said)
        texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        prompts = [await asyncio.to_thread(talker.text, text) for text in texts]
        return await self._answer(request, body, prompts, Shape("text", self.served.name))

    async def _answer(self, request: WebRequest, body: Any, prompts: Sequence[Any], shape: Shape) -> Response:
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[tuple[int, str]]()

        def tell(number: int, text: str) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, (number, text))

        settings = body.settings()
        asked = [Request(each, settings, partial(tell, number)) for number, each in enumerate(prompts)]
        talker = self.served.talker(request.url.path)
        for each in asked:
            talker.most(each)  # which refuses what is too long
        jobs = self._submit_all(("talk", *settings.together), asked)
        if body.stream:
            pieces = self._stream(asked, jobs, heard, shape, body.with_usage)
            return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        await self._wait(request, jobs, asked)
        return JSONResponse(shape.whole(asked))

    async def _wait(self, request: WebRequest, jobs: Sequence[Future[Any]], asked: Sequence[Request] = ()) -> list[Any]:
        """Wait for jobs, and give them up when nobody waits for them any more."""
        both = asyncio.gather(*map(asyncio.wrap_future, jobs))
        both.add_done_callback(_heard)
        try:
            while not both.done():
                await asyncio.wait([both], timeout=LOOK)
                if not both.done() and await request.is_disconnected():
                    raise ClientDisconnect
            return list(both.result())
        finally:
            for each in asked:
                each.cancelled = True
            both.cancel()

    async def _stream(
        self, asked: list[Request], jobs: Sequence[Future[Any]], heard: Any, shape: Shape, with_usage: bool
    ) -> AsyncIterator[bytes]:
        """Yield an answer as it is made, as server-sent events."""
        done = asyncio.gather(*map(asyncio.wrap_future, jobs))
        done.add_done_callback(_heard)
        done.add_done_callback(lambda _: heard.put_nowait((-1, "")))
        try:
            for number in range(len(asked) if shape.chat else 0):
                yield _event(shape.piece(number, "", first=True))
            while (told := await heard.get())[0] >= 0:
                yield _event(shape.piece(*told))
            try:
                done.result()
            except Exception as error:  # it has begun, so that no status can tell it
                self.say(f"a request failed: {type(error).__name__}: {first_line(error)}")
                yield _event(Refused(500, "the model failed at this request", "server_error").body())
                return
            for number, each in enumerate(asked):
                yield _event(shape.piece(number, None, each.finish))
            if with_usage:
                yield _event(shape.used(asked))
            yield b"data: [DONE]\n\n"
        finally:
            for each in asked:
                each.cancelled = True
            done.cancel()

    async def classify(self, request: WebRequest) -> Response:
        """Predict rows: the same columns as `finetune predict` gives."""
        said = await self._said(request)
        self.served.refuse_talker()
        body = parsed(ClassifyBody, said)
        rows = self.served.rows_of(body.input if isinstance(body.input, list) else [body.input])
        key = ("classify", tuple(sorted(rows[0])))
        [found] = await self._wait(request, [self.submit(key, rows)])
        if not body.probabilities:
            found = [{name: value for name, value in row.items() if name != "probabilities"} for row in found]
        data = [{"index": number, **without_nan(row)} for number, row in enumerate(found)]
        return JSONResponse({"object": "list", "model": self.served.name, "data": data})


def _heard(done: asyncio.Future[Any]) -> None:
    """Take what has become of jobs: asyncio complains of errors that nobody asks for, and those who did may be gone."""
    if not done.cancelled():
        done.exception()


def _event(said: Any) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


async def _unknown(request: WebRequest, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    found = f"there is no {request.method} {request.url.path[:200]} here"
    return JSONResponse(Refused(status, found).body(), status)
