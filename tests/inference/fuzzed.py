"""Requests made of good ones and of everything that is none; the same ones for the same seed."""

from __future__ import annotations

import http.client
import json
import random
import string
from urllib.parse import urlsplit

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/classify", "/v1/models", "/health", "/v1/", "/../etc/passwd")
WORDS = ("a", "the moon", "", " ", "\0", "\ud800", "\U0001f600" * 3, "<|im_end|>", "{{ 7 * 7 }}", "x" * 3000, "\u202e")
NUMBERS = (0, 1, -1, 2, 5, 1.5, 1e308, -0.0, 10**400, 2**63, -(2**63), 1e-320)
KEYS = (
    *("model", "messages", "prompt", "input", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream"),
    *("n", "tools", "logit_bias", "stream_options", "probabilities", "example", "text", "user", "example:row"),
)


def anything(rng, depth=0):
    """Any value of JSON."""
    kinds = [rng.choice(WORDS), rng.choice(NUMBERS), None, True, False]
    if depth < 3 and rng.random() < 0.4:
        return [anything(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if depth < 3 and rng.random() < 0.3:
        return {rng.choice([*KEYS, *WORDS, "role", "content"]): anything(rng, depth + 1) for _ in range(2)}
    return rng.choice(kinds)


def messages(rng):
    """Messages that are nearly good."""
    roles = ("user", "user", "assistant", "system", "tool", "nobody", "")
    contents = (*WORDS, None, 5, [{"type": "text", "text": "a"}], [{"type": "image_url", "image_url": {"url": "x"}}])
    found = [{"role": rng.choice(roles), "content": rng.choice(contents)} for _ in range(rng.randint(0, 4))]
    if found and rng.random() < 0.3:
        rng.choice(found)[rng.choice(("name", "tool_calls", "weight", "train", "role"))] = anything(rng)
    return found


def good(rng, path):
    """A body that is good for a path, or nearly."""
    text = rng.choice(WORDS[:2])
    body = {"max_tokens": rng.randint(1, 6), "temperature": rng.choice((0, 0, 1, 0.5)), "seed": rng.randint(0, 9)}
    if path.endswith("chat/completions"):
        body["messages"] = [{"role": "user", "content": text}] if rng.random() < 0.5 else messages(rng)
    elif path.endswith("completions"):
        body["prompt"] = rng.choice((text, [text, "b"], rng.choice(WORDS)))
    else:
        body = {"input": rng.choice((text, [text, "b"], {"text": text}, [{"text": text}, {"text": "b"}]))}
    if rng.random() < 0.3:
        body["stream"] = rng.choice((True, False, None))
    return body


def spoilt(rng, content):
    """Bytes that were a body."""
    how = rng.randrange(5)
    place = rng.randrange(len(content) + 1)
    if how == 0:
        return content[:place]
    if how == 1:
        return content[:place] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 8))) + content[place:]
    if how == 2:
        return b"[" * rng.choice((10, 2000, 100_000))
    if how == 3:
        return bytes(rng.randrange(256) for _ in range(rng.randint(0, 200)))
    return content.replace(b"1", b"NaN") if b"1" in content else b"Infinity"


def requests(count, seed):
    """Yield (method, path, headers, body)."""
    rng = random.Random(seed)
    for _ in range(count):
        path = rng.choice(PATHS[:3] * 4 + PATHS)
        body = good(rng, path)
        for _ in range(rng.choice((0, 0, 1, 2))):
            body[rng.choice(KEYS)] = anything(rng)
        if rng.random() < 0.1:
            body = anything(rng)
        content = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        if rng.random() < 0.25:
            content = spoilt(rng, content)
        kind = rng.choice(("application/json",) * 8 + ("text/plain", "", "application/json; charset=utf-8", "é"))
        headers = {"Content-Type": kind.encode("latin-1")}
        if rng.random() < 0.05:
            headers["Authorization"] = "".join(rng.choices(string.printable[:90], k=20))
        yield rng.choice(("POST",) * 9 + ("GET", "PUT", "DELETE")), path, headers, content


def send(url, request):
    """Send a request, read the whole answer, and give its status."""
    method, path, headers, content = request
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
