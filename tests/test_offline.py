"""The suite's own block of the network works: in this process, in one it starts, and for libraries that hide it."""

import os
import socket
import subprocess
import sys

import pytest

OUTSIDE = "example.org"


@pytest.mark.tries_network
def test_connections_are_refused_and_the_test_is_named(network_attempts):
    for reach in (
        lambda: socket.create_connection((OUTSIDE, 443), timeout=1),
        lambda: socket.socket().connect(("192.0.2.1", 443)),
        lambda: socket.socket().connect_ex(("192.0.2.1", 443)),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"?", ("192.0.2.1", 53)),
    ):
        with pytest.raises(OSError, match=r"test_connections_are_refused_and_the_test_is_named.* tried to reach"):
            reach()
    assert len(network_attempts()) == 4


@pytest.mark.tries_network
def test_processes_that_a_test_starts_are_refused_too(network_attempts):
    program = f"import urllib.request; urllib.request.urlopen('https://{OUTSIDE}')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode != 0 and f"tried to reach {OUTSIDE}; tests run offline" in result.stderr
    assert OUTSIDE in network_attempts()[0]


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


def test_a_hidden_attempt_fails_the_test_that_made_it(tmp_path, request):
    hidden = tmp_path / "test_hidden.py"
    hidden.write_text(
        "import socket\n"
        "def test_calls_home():\n"
        "    try:\n"
        f"        socket.create_connection(('{OUTSIDE}', 443))\n"
        "    except OSError:\n"
        "        pass\n"
    )
    conftest = request.config.rootpath / "tests" / "conftest.py"
    arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), f"--confcutdir={tmp_path}"]
    plugin = tmp_path / "offline_conftest.py"
    plugin.write_text(f"import runpy\nglobals().update(runpy.run_path({str(conftest)!r}))\n")
    paths = os.pathsep.join([str(tmp_path), str(request.config.rootpath), os.environ["PYTHONPATH"]])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-p", "offline_conftest", str(hidden)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
    )
    assert "the network was tried" in result.stdout and "1 error" in result.stdout, result.stdout + result.stderr


def test_caches_are_not_those_of_the_home_folder():
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    assert HF_HUB_OFFLINE and not HF_HUB_CACHE.startswith(os.path.expanduser("~/.cache"))
