"""How a server begins and ends, and clients that leave it."""

import gc
import importlib.util
import json
import signal
import socket
import threading
import time

import pytest

from finetune.cli import main
from finetune.inference.served import Served
from tests.inference.servers import serving, serving_here

ASKED = [{"role": "user", "content": "the rocket and the moon"}]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_what_it_has_begun_and_stops(chat_run, tmp_path, number):
    with serving(chat_run, tmp_path) as server:
        found = []
        body = {"prompt": "a", "max_tokens": 100, "temperature": 1.5, "seed": 3, "stop": ["\0"]}
        threads = [threading.Thread(target=lambda: found.append(server.ask("/v1/completions", body))) for _ in range(8)]
        for thread in threads:
            thread.start()
        while server.ask("/health")[1]["taken"] < 8:
            time.sleep(0.01)
        code, said = server.stop(number)
        for thread in threads:
            thread.join()
        assert code == 0 and "Traceback" not in said and "stopped" in said
        assert [status for status, _ in found] == [200] * 8
        assert len({answer["choices"][0]["text"] for _, answer in found}) == 1


def test_a_port_in_use_is_told_at_once(topics_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        begun = time.monotonic()
        assert main(["serve", str(topics_run), "--port", str(port)]) == 2
        assert time.monotonic() - begun < 5
    said = " ".join(capsys.readouterr().err.split())
    assert f"port {port} of 127.0.0.1 cannot be had: Address already in use" in said


def test_other_machines_need_a_token(topics_run, capsys, monkeypatch):
    monkeypatch.delenv("FINETUNE_SERVE_TOKEN", raising=False)
    assert main(["serve", str(topics_run), "--host", "0.0.0.0"]) == 2
    assert "FINETUNE_SERVE_TOKEN" in capsys.readouterr().err


def test_a_missing_package_is_told_with_what_installs_it(topics_run, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else find(name, *more)
    )
    assert main(["serve", str(topics_run)]) == 2
    said = capsys.readouterr().err
    assert "pip install 'finetune[serve]'" in said and "serving needs uvicorn" in said


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_no_error(chat_run, monkeypatch, caplog, stream):
    work, begun, left, said = Served.work, threading.Event(), threading.Event(), []

    def slowly(served, asked):
        begun.set()
        assert left.wait(60)
        return work(served, asked)

    monkeypatch.setattr(Served, "work", slowly)
    body = json.dumps({"messages": ASKED, "stream": stream, "max_tokens": 2}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with serving_here(chat_run, say=said.append) as server:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            assert begun.wait(60) and (not stream or client.recv(100))
        time.sleep(1)  # until it is seen
        left.set()
        assert server.ask("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200
    gc.collect()
    assert "never retrieved" not in caplog.text and "failed" not in "".join(said)
