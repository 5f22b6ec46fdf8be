"""The server, asked by the `openai` package and by curl: answers, streams, errors, limits, and how it stops."""

import concurrent.futures
import json
import subprocess

import openai
import pytest

import finetune
from tests import tiny
from tests.inference import fuzzed
from tests.inference.servers import serving_here

ASKED = [{"role": "user", "content": "the rocket and the moon"}]


@pytest.fixture(scope="module")
def chat(chat_run):
    with serving_here(chat_run) as server:
        yield server


@pytest.fixture(scope="module")
def topics(topics_run):
    with serving_here(topics_run) as server:
        yield server


@pytest.fixture
def client(chat):
    with openai.OpenAI(base_url=f"{chat.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def model_of(client):
    [model] = client.models.list()
    return model.id


def test_it_says_what_it_serves(chat, client, chat_run):
    model = model_of(client)
    assert model == "/".join(chat_run.parts[-3:]) and client.models.retrieve(model).id == model
    status, said = chat.ask("/health")
    assert status == 200 and said == {"status": "ok", "model": model, "waiting": 0, "taken": said["taken"]}


def test_a_conversation(client):
    found = client.chat.completions.create(model=model_of(client), messages=ASKED, temperature=0, max_tokens=5)
    [choice] = found.choices
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    assert 1 <= found.usage.completion_tokens <= 5 and found.usage.prompt_tokens > 5


def test_it_answers_as_the_run_was_scored(chat_run, client):
    """Word for word what `predictions/` has of the same prompts."""
    import pyarrow.parquet as pq

    stored = pq.ParquetFile(chat_run / "predictions" / "test.parquet").read().sort_by("example")
    model, wanted = model_of(client), stored["prediction"].to_pylist()[:6]
    prompts = [text for text, _ in tiny.sentences(6)]
    said = [
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=4
        )
        for prompt in prompts
    ]
    assert [each.choices[0].message.content for each in said] == wanted


@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 1.3, "top_p": 0.9, "seed": 7}])
def test_a_stream_says_the_same(client, how):
    model = model_of(client)
    whole = client.chat.completions.create(model=model, messages=ASKED, max_tokens=20, **how)
    pieces = list(
        client.chat.completions.create(
            model=model,
            messages=ASKED,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
            **how,
        )
    )
    said = [piece.choices[0] for piece in pieces if piece.choices]
    assert "".join(each.delta.content or "" for each in said) == whole.choices[0].message.content
    assert said[0].delta.role == "assistant" and said[-1].finish_reason == whole.choices[0].finish_reason
    assert pieces[-1].usage == whole.usage and len(pieces) > 4


def test_who_of_several_has_said_something_is_left_out(client):
    model = model_of(client)
    named = [{**ASKED[0], "name": "Ada"}]
    both = [
        client.chat.completions.create(model=model, messages=each, temperature=0, max_tokens=5)
        for each in (ASKED, named)
    ]
    assert both[0].choices[0].message == both[1].choices[0].message and both[0].usage == both[1].usage


def test_completions_continue_text(client):
    model = model_of(client)
    one = client.completions.create(model=model, prompt="the rocket", temperature=0, max_tokens=6)
    both = client.completions.create(model=model, prompt=["the rocket", "a bank"], temperature=0, max_tokens=6)
    assert [choice.index for choice in both.choices] == [0, 1] and both.choices[0].text == one.choices[0].text
    stream = client.completions.create(model=model, prompt="the rocket", temperature=0, max_tokens=6, stream=True)
    assert "".join(piece.choices[0].text for piece in stream) == one.choices[0].text


def test_a_seed_draws_the_same_again_and_another_does_not(client):
    model = model_of(client)

    def drawn(seed):
        found = client.completions.create(model=model, prompt="a", temperature=2, max_tokens=24, seed=seed)
        return found.choices[0].text

    assert drawn(1) == drawn(1) and len({drawn(seed) for seed in range(4)}) > 1


def test_stop_texts_end_answers(client):
    model = model_of(client)
    whole = client.completions.create(model=model, prompt="the rocket", temperature=0, max_tokens=24).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    found = client.completions.create(model=model, prompt="the rocket", temperature=0, max_tokens=24, stop=[stop, "\0"])
    assert found.choices[0].text == whole[: whole.index(stop)] and found.choices[0].finish_reason == "stop"
    stream = client.completions.create(
        model=model, prompt="the rocket", temperature=0, max_tokens=24, stop=stop, stream=True
    )
    assert "".join(piece.choices[0].text for piece in stream) == whole[: whole.index(stop)]


@pytest.mark.parametrize(
    "wrong, kind, said",
    [
        ({"model": "other"}, openai.NotFoundError, "there is no model 'other'"),
        ({"n": 2}, openai.BadRequestError, "'n' is not supported"),
        ({"temperature": 3}, openai.BadRequestError, "less than or equal to 2"),
        ({"max_tokens": 0}, openai.BadRequestError, "greater than or equal to 1"),
        ({"messages": []}, openai.BadRequestError, "at least 1 item"),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError, "role and content"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "a"}]}, openai.BadRequestError, "ends with the assist"),
        ({"messages": [{"role": "user", "content": "moon " * 400}]}, openai.BadRequestError, "the model takes 128"),
        ({"logprobs": True}, openai.BadRequestError, "'logprobs' is not supported"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_are_those_that_the_client_knows(client, wrong, kind, said):
    with pytest.raises(kind) as error:
        client.chat.completions.create(**{"model": model_of(client), "messages": ASKED, **wrong})
    assert said in error.value.message and error.value.body["type"] == "invalid_request_error"


def curl(*argv):
    done = subprocess.run(["curl", "--silent", "--show-error", "--noproxy", "*", *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(chat):
    body = json.dumps({"messages": ASKED, "max_tokens": 4, "temperature": 0})
    json_too = ("--header", "Content-Type: application/json")
    said = json.loads(curl(f"{chat.url}/v1/chat/completions", *json_too, "--data", body))
    assert said["object"] == "chat.completion"
    stream = curl(f"{chat.url}/v1/chat/completions", *json_too, "--data", body[:-1] + ', "stream": true}')
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(pieces) == said["choices"][0]["message"]["content"]
    status = ("--output", "/dev/null", "--write-out", "%{http_code}")
    assert curl(*status, f"{chat.url}/v1/chat/completions", "--data", body) == "415"
    assert curl(*status, f"{chat.url}/v1/unknown") == "404"
    assert curl(*status, f"{chat.url}/v1/completions") == "405"
    assert curl(*status, "--header", "Host: evil.example", f"{chat.url}/v1/models") == "403"


# Classification


def test_texts_are_classified_as_predicted(topics, topics_run):
    texts = [text for text, _ in tiny.sentences(20, seed=9)]
    status, said = topics.ask("/v1/classify", {"input": texts, "probabilities": True})
    assert status == 200
    for row, other in zip(said["data"], finetune.predict(topics_run, texts, probabilities=True), strict=True):
        assert row["prediction"] == other["prediction"]
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
    assert topics.ask("/v1/classify", {"input": texts[0]})[1]["data"][0]["prediction"] == said["data"][0]["prediction"]
    [row] = topics.ask("/v1/classify", {"input": {"text": texts[0], "unread": [1]}})[1]["data"]
    assert set(row) == {"index", "prediction", "confidence"}


def test_a_classifier_does_not_talk_and_a_chat_model_does_not_classify(topics, chat):
    wrong = pytest.raises(openai.BadRequestError, match="for the task classification; ask it at /v1/classify")
    with openai.OpenAI(base_url=f"{topics.url}/v1", api_key="none", max_retries=0) as client, wrong:
        client.chat.completions.create(model=model_of(client), messages=ASKED)
    status, said = chat.ask("/v1/classify", {"input": "a"})
    assert status == 400 and "/v1/chat/completions" in said["error"]["message"]


def test_rows_that_cannot_be_classified_spoil_no_others(topics):
    """They may be done together with good ones, which get their answers."""
    bodies = [{"input": "a match"}, {"input": {"txt": "a"}}, {"input": {"text": None}}, {"input": {"text": 5}}] * 10
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        found = list(pool.map(lambda body: topics.ask("/v1/classify", body), bodies))
    assert [status for status, _ in found] == [200, 400, 400, 400] * 10
    assert "did you mean 'txt'?" in found[1][1]["error"]["message"]


def test_a_number_that_is_none_is_null(topics, monkeypatch):
    from finetune.inference import served

    nan = {"prediction": "sport", "confidence": float("nan"), "probabilities": {"sport": float("nan")}}
    monkeypatch.setattr(served, "predicted", lambda asker, rows: [nan for _ in rows])
    status, said = topics.ask("/v1/classify", {"input": "a", "probabilities": True})
    [row] = said["data"]
    assert status == 200 and row["confidence"] is None and row["probabilities"] == {"sport": None}


def test_nothing_to_classify_or_to_continue_is_told(topics, chat):
    for server, path, name in ((topics, "/v1/classify", "input"), (chat, "/v1/completions", "prompt")):
        status, said = server.ask(path, {name: []})
        assert status == 400 and said["error"]["message"].startswith(f"{name}: List should have at least 1 item")


# Many at once, and limits


def test_two_hundred_clients_lose_no_answer(client):
    """Each gets what it gets alone, though they are answered together."""
    model = model_of(client)
    prompts = [text for text, _ in tiny.sentences(200, seed=4)]

    def ask(prompt):
        found = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=4)
        return found.choices[0].text

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        said = list(pool.map(ask, prompts))
    alone = [ask(prompt) for prompt in prompts[:12]]
    assert len(said) == 200 and said[:12] == alone


def test_a_large_body_and_a_full_queue_are_refused(chat_run):
    with serving_here(chat_run, body=2048, waiting=1) as server:
        assert server.ask("/v1/completions", {"prompt": "a" * 3000})[0] == 413
        long = {"prompt": "a", "max_tokens": 100, "temperature": 1.5}
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda number: server.ask("/v1/completions", {**long, "seed": number}), range(24)))
        statuses = [status for status, _ in found]
        assert set(statuses) == {200, 429}
        refused = found[statuses.index(429)][1]["error"]
        assert refused["code"] == "rate_limit_exceeded"
        assert server.ask("/v1/completions", long)[0] == 200, "it goes on afterwards"


def test_a_token(chat_run):
    with serving_here(chat_run, token="a secret") as server:
        assert server.ask("/v1/models")[0] == 401
        assert server.ask("/v1/models", Authorization="Bearer another")[0] == 401
        assert server.ask("/v1/models", Authorization="Bearer a secret")[0] == 200
        assert server.ask("/health")[0] == 200
        wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with wrong as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


# Anything at all


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_request_breaks_it(chat, topics, count):
    """Made of good ones and of everything that is none: never a 500, and never silence."""
    for number, server in enumerate((chat, topics)):
        requests = list(fuzzed.requests(count // 2, seed=number))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda each, server=server: fuzzed.send(server.url, each), requests))
        assert {each for each in statuses if not (200 <= each < 300 or 400 <= each < 500)} == set()
        assert any(each == 200 for each in statuses) and any(each == 400 for each in statuses)
        assert server.ask("/health")[1]["waiting"] == 0
