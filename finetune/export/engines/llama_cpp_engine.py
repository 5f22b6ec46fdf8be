"""Answers questions with a GGUF file in llama.cpp, through the package xllamacpp. A program of its own:
`python -I llama_cpp_engine.py FOLDER QUESTIONS ANSWERS` (finetune/export/questions.py says what stands in these files).

Chat templates are applied by llama.cpp's server, as its users have it. The server tells no likelihoods of given tokens
(llama.cpp issues 8942 and 27174), so that these are read through its C interface, which the package's library exports.
The server, which is the package's public interface, has to agree about one prompt before any answer is given.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # which isolated Python leaves out

import answering
from llama_native import Model, Unfit

Pieces = list[tuple[list[int], int]]
"""Token sequences of a question, each with where its answer begins: -1 where it does not begin the tokens read."""

CLOSE = 0.3
"""Two tokens whose log-probabilities are nearer than this, in nats, are too close to call: float32 may see it the other
way round, and all that is generated after them with it."""


class Server:
    """llama.cpp's own server on the loopback interface: chat templates, and one answer to compare with."""

    def __init__(self, path: Path):
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.port = parameters.cache_ram_mib = 0
        parameters.n_parallel, parameters.n_ctx = 1, 256
        parameters.verbosity = -1
        parameters.warmup = parameters.prefill_assistant = False
        self.server = xllamacpp.Server(parameters)

    def post(self, route: str, question: dict[str, Any]) -> dict[str, Any]:
        """Ask the server. Unfit where it says no."""
        body = json.dumps(question).encode()
        asked = urllib.request.Request(
            self.server.listening_address + route, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as reply:
                answer: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:
            raise Unfit(f"llama.cpp's server refuses {route}: {error.read().decode(errors='replace')[:300]}") from error
        return answer

    def rendered(
        self, question: dict[str, Any], messages: list[dict[str, Any]], asks: bool, header: dict[str, Any]
    ) -> str:
        """The chat template over ``messages``; ``asks``: with what asks for an answer at its end."""
        said = {"messages": messages, "add_generation_prompt": asks}
        if "today" in header:
            today = date.fromisoformat(header["today"]).strftime("%d %b %Y")
            said["chat_template_kwargs"] = {"date_string": today}
        if question.get("tools"):
            said["tools"] = question["tools"]
        return str(self.post("/apply-template", said)["prompt"])

    def next(self, tokens: list[int]) -> int | None:
        """The likeliest token after ``tokens``; None: one that ends an answer, which the server does not name."""
        said = {"prompt": tokens, "n_predict": 1, "temperature": 0, "return_tokens": True}
        found = self.post("/completion", said)["tokens"]
        return int(found[0]) if found else None


class Reader:
    """Turns questions into tokens as llama.cpp reads them."""

    def __init__(self, model: Model, server: Server):
        self.model, self.server = model, server
        self.ends = model.ends()

    def pieces(self, question: dict[str, Any], header: dict[str, Any]) -> Pieces:
        """The token sequences of a question, each with where its answer begins."""
        if question["kind"] == "choose":
            return [self._choice(asked, choice, header) for asked, choice in answering.choices(question)]
        if question["kind"] != "continue":
            raise Unfit(f"llama.cpp answers no questions of kind {question['kind']}")
        if "messages" in question:
            whole, asked = self._conversation(question, question["messages"], header)
            return [(whole, len(asked) if whole[: len(asked)] == asked else -1)]
        if "prompt" in question:
            tokens, begin = self._joined(question["prompt"], question["target"])
            return [([*tokens, self.model.end()], begin)]
        tokens, room = self.model.tokens(question["text"], True), header["max_length"] - bool(header["end"])
        closed = header["end"] and len(tokens) <= room
        return [([*tokens, self.model.end()] if closed else tokens[:room], 0)]

    def _choice(self, question: dict[str, Any], choice: str, header: dict[str, Any]) -> tuple[list[int], int]:
        if question.get("beside"):
            raise Unfit("llama.cpp has no head that scores choices beside a question")
        if "messages" in question:
            said = [*question["messages"], {"role": "assistant", "content": choice}]
            whole, asked = self._conversation(question, said, header)
            last = max(place for place, token in enumerate(whole) if self.model.is_control(token))
            return whole[: last + 1], len(asked)
        prompt = question["prompt"]
        return self._joined(prompt, ("" if not prompt or prompt[-1].isspace() else " ") + choice)

    def _conversation(
        self, question: dict[str, Any], messages: list[dict[str, Any]], header: dict[str, Any]
    ) -> tuple[list[int], list[int]]:
        """The tokens of all messages, and of what asks for the last one."""
        texts = [
            self.server.rendered(question, own, asks, header)
            for own, asks in ((messages, False), (messages[:-1], True))
        ]
        whole, asked = (self.model.tokens(text, True) for text in texts)
        return whole, asked

    def _joined(self, before: str, after: str) -> tuple[list[int], int]:
        """Tokens of two texts, and where the second one begins. Where a token spans that place it is split there, since
        whoever asks gives the first text alone."""
        first, whole = self.model.tokens(before, True), self.model.tokens(before + after, True)
        if whole[: len(first)] == first:
            return whole, len(first)
        return first + self.model.tokens(after, False), len(first)


def following(model: Model, tokens: list[int]) -> tuple[list[int], list[float]]:
    """The likeliest token after each of ``tokens``, [T], and the log-probability of the one that does follow, [T - 1],
    in nats."""
    likeliest, logs = [], []
    for place, row in enumerate(model.logits(tokens)):
        likeliest.append(int(row.argmax()))
        if place + 1 < len(tokens):
            peak = row.max()
            logs.append(float(row[tokens[place + 1]] - peak - np.log(np.exp(row - peak).sum())))
    return likeliest, logs


def generated(model: Model, prompt: list[int], count: int, ends: list[int]) -> list[int] | None:
    """The likeliest tokens one after the other, up to ``count`` or an end; None where two are too close to call."""
    found: list[int] = []
    (row,) = model.logits(prompt, len(prompt) - 1)
    while True:
        second, first = np.partition(row, -2)[-2:]
        if first - second < CLOSE:
            return None
        found.append(int(row.argmax()))
        if found[-1] in ends or len(found) == count:
            return found
        (row,) = model.logits(found[-1:], 0, len(prompt) + len(found) - 1)


def answered(model: Model, ends: list[int], question: dict[str, Any], pieces: Pieces) -> dict[str, Any]:
    """Answer one question."""
    if question["kind"] == "choose":
        likely = [following(model, tokens)[1][begin - 1 :] for tokens, begin in pieces]
        return {"scores": answering.scores(question, likely), "tokens": [tokens for tokens, _ in pieces]}
    ((tokens, begin),) = pieces
    likeliest, logs = following(model, tokens)
    answer: dict[str, Any] = {"tokens": tokens, "next": likeliest, "log_probabilities": logs}
    if "text" not in question:
        answer["prompt"] = begin
    if "generate" in question and begin > 0:
        found = generated(model, tokens[:begin], question["generate"], ends)
        answer |= {} if found is None else {"generated": found}
    return answer


def check(model: Model, tokens: list[int], likeliest: int | None, ends: list[int]) -> None:
    """Refuse a library whose C interface does not say what its server does: one of ``ends`` where it names no token."""
    (own,) = model.logits(tokens, len(tokens) - 1)
    if own[ends if likeliest is None else [likeliest]].max() < own.max() - 0.05:
        raise Unfit(f"llama.cpp's C interface and its server disagree in xllamacpp {version('xllamacpp')}")


def main(folder: str, questions: str, answers: str) -> None:
    """Answer all questions."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    paths = sorted(Path(folder).glob("*.gguf"))
    if len(paths) != 1:
        raise Unfit(f"{folder} holds {len(paths)} GGUF files, and one is wanted")
    header, asked = answering.read(questions)
    model, server = Model(paths[0]), Server(paths[0])
    reader = Reader(model, server)
    pieces = [reader.pieces(question, header) for question in asked]
    probe = next((own[0][0][:32] for own in pieces), [model.end()])
    likeliest = server.next(probe)
    del server, reader.server
    room = [
        len(tokens) + question.get("generate", 0)
        for question, own in zip(asked, pieces, strict=True)
        for tokens, _ in own
    ]
    model.open(max([len(probe), *room]) + 1)
    ends = reader.ends
    check(model, probe, likeliest, ends)
    read = {question["id"]: own for question, own in zip(asked, pieces, strict=True)}
    first = answering.opening("llama.cpp", ["xllamacpp"], ends)
    answering.write(answers, first, asked, lambda each: answered(model, ends, each, read[each["id"]]))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Unfit as error:
        sys.exit(str(error))
