"""What clients of OpenAI's API send, and what they are sent: its chat, its completions, its models and its errors.

https://platform.openai.com/docs/api-reference. Beside it stands `/v1/classify`, for models that choose, tag, count or
embed and do not talk.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from finetune.core.errors import InputError

if TYPE_CHECKING:
    from finetune.inference.talking import Request, Settings

Stop = Annotated[str, Field(min_length=1, max_length=500)]

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
}
"""What would change an answer and is not done here, and the values that ask for nothing."""

COLD = 1e-3
"""A temperature below which the likeliest token is as good as certain, and numbers become too large to be divided."""

DEEPEST = 64
"""Lists and objects inside each other that a body may have."""


class Refused(Exception):
    """A request that is not done: what its sender is told."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Give the error as OpenAI writes it."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class _Body(BaseModel):
    """What both kinds of requests have; keys that change nothing here are let pass."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    model: str | None = Field(None, max_length=1000)


class Answered(_Body):
    """What is said of how an answer is made."""

    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=1, le=1_000_000)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | list[Stop] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    @field_validator("stop")
    @classmethod
    def _few(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > 16:
            raise ValueError("at most 16 texts can end an answer")
        return value

    def settings(self) -> Settings:
        """Give the settings of the answer; a temperature that is not said is 1, as OpenAI has it."""
        from finetune.inference.talking import Settings

        asked = 1.0 if self.temperature is None else self.temperature
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Settings(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=asked if asked >= COLD else 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k,
            seed=None if self.seed is None else self.seed % 2**63,
            stop=stop,
        )

    @property
    def with_usage(self) -> bool:
        """Tell whether a stream is to end with what it has used."""
        return bool((self.stream_options or {}).get("include_usage"))


class ChatBody(Answered):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=10_000)

    @field_validator("messages")
    @classmethod
    def _unnamed(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave out who of several a message is by, which templates do not read; of a tool it is what was called."""
        kept = ("tool", "function")
        return [
            each if each.get("role") in kept else {key: own for key, own in each.items() if key != "name"}
            for each in value
        ]


class CompletionBody(Answered):
    """`POST /v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=256)]


class ClassifyBody(_Body):
    """`POST /v1/classify`: texts, or rows as objects that have the columns which the model's task reads."""

    input: str | dict[str, Any] | Annotated[list[str | dict[str, Any]], Field(min_length=1, max_length=1024)]
    probabilities: bool = False

    @model_validator(mode="after")
    def _of_one_kind(self) -> ClassifyBody:
        if isinstance(self.input, list) and len({type(each) for each in self.input}) > 1:
            raise ValueError("input has texts and objects; send one kind")
        return self


def read_body(content: bytes) -> dict[str, Any]:
    """Read a body as a JSON object. Raises Refused for what is none, or holds what no text can."""

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    try:
        found = json.loads(content.decode("utf-8"), parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        said = str(error) if not isinstance(error, RecursionError) else "too many lists and objects inside each other"
        raise Refused(400, f"the body is no JSON: {said}") from error
    if not isinstance(found, dict):
        raise Refused(400, "the body is no JSON object")
    if _depth(found) > DEEPEST:
        raise Refused(400, f"the body has more than {DEEPEST} lists and objects inside each other")
    if not _is_text(json.dumps(found, ensure_ascii=False)):
        raise Refused(400, "the body has half of a surrogate pair, which is no character")
    for name, allowed in UNSUPPORTED.items():
        value = found.get(name)
        if value is not None and not any(value == each and type(value) is type(each) for each in allowed):
            raise Refused(400, f"'{name}' is not supported here", param=name, code="unsupported_value")
    return found


def _depth(value: Any) -> int:
    """How many lists and objects lie inside each other; looked at no further than matters."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        inside = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [one for each in inside for one in each if isinstance(one, dict | list)]
        depth += 1
    return depth


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def parsed(kind: type[Any], said: Mapping[str, Any]) -> Any:
    """Check a body against its kind. Raises Refused, with the first thing that is wrong."""
    try:
        return kind.model_validate(dict(said))
    except ValidationError as error:
        first, *others = error.errors()
        # Of a choice of several types all say what is wrong; the one that was sent says more than its type.
        same = (each for each in [first, *others] if each["loc"][:1] == first["loc"][:1])
        first = next((each for each in same if not each["type"].endswith("_type")), first)
        # A choice of several types names these too, which no client knows.
        place = ".".join(str(part) for part in first["loc"] if str(part) in said or isinstance(part, int))
        place = place or str(next(iter(first["loc"]), ""))
        raise Refused(400, f"{place}: {first['msg']}" if place else first["msg"], param=place or None) from error


def refused(error: InputError) -> Refused:
    """Tell a client what is wrong with what it has sent."""
    [problem, *_] = error.problems
    said = f"{problem.found}{f'; {problem.advice}' if problem.advice else ''}"
    return Refused(400, said, param=problem.path)


def new_id(kind: str) -> str:
    """Make a name for an answer."""
    return f"{kind}-{uuid.uuid4().hex}"


def usage(requests: list[Request]) -> dict[str, int]:
    """Count the tokens of prompts and answers."""
    asked, said = sum(len(each.prompt.ids) for each in requests), sum(each.tokens for each in requests)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


class Shape:
    """How answers of one kind are written: whole ones, and pieces of one."""

    def __init__(self, kind: Literal["chat", "text"], model: str):
        self.chat = kind == "chat"
        name = "chat.completion" if self.chat else "text_completion"
        self._whole = {"object": name}
        self._piece = {"object": f"{name}.chunk" if self.chat else name}
        named = {"id": new_id("chatcmpl" if self.chat else "cmpl"), "created": int(time.time()), "model": model}
        self._named: dict[str, Any] = named

    def whole(self, requests: list[Request]) -> dict[str, Any]:
        """Give the answers to all ``requests``."""
        choices = [self._choice(number, each.said, each.finish) for number, each in enumerate(requests)]
        return {**self._named, **self._whole, "choices": choices, "usage": usage(requests)}

    def _choice(self, number: int, text: str, finish: str | None) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": number, **said, "logprobs": None, "finish_reason": finish}

    def piece(self, number: int, text: str | None, finish: str | None = None, first: bool = False) -> dict[str, Any]:
        """Give a piece of the answer with this ``number``; ``text`` None: there is none in it."""
        if self.chat:
            role = {"role": "assistant"} if first else {}
            said: dict[str, Any] = {"delta": {**role, **({} if text is None else {"content": text})}}
        else:
            said = {"text": text or ""}
        choice = {"index": number, **said, "logprobs": None, "finish_reason": finish}
        return {**self._named, **self._piece, "choices": [choice]}

    def used(self, requests: list[Request]) -> dict[str, Any]:
        """Give the piece that ends a stream of which usage was asked for."""
        return {**self._named, **self._piece, "choices": [], "usage": usage(requests)}
