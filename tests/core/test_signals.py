"""The first signal asks a run to stop, the second insists; afterwards signals mean what they meant before."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from finetune.core import signals
from finetune.core.signals import ANSWER, stop_on_signals
from finetune.train import checkpoint
from finetune.train.meters import read_rows

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_stops_at_once(number):
    with stop_on_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_one_signal_of_each_kind_is_two():
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_what_schedulers_send_ahead_only_asks_however_often_it_comes(number):
    """A site's pre-emption sends SIGUSR1 and then SIGTERM, and a batch script hands both on."""
    said = []
    with stop_on_signals(said.append) as stop:
        for each in (number, number, signal.SIGTERM, number):
            os.kill(os.getpid(), each)
            assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert said == [ANSWER]


@pytest.mark.parametrize("number", SIGNALS)
def test_before_there_is_anything_to_save_a_command_ends_as_interrupted(number):
    """While libraries are loaded, which takes seconds; SIGUSR1 by itself kills a process without a word."""
    program = """
import os, sys
from finetune import cli
def run(args):
    "Get a signal."
    try:
        os.kill(os.getpid(), int(args.helper))
    finally:
        for number in (10, 12, 15):  # from several sides, while it is leaving
            os.kill(os.getpid(), number)
cli.run.run = run
sys.exit(cli.main(["run", "recipe.yaml", "--helper", sys.argv[1]]))
"""
    command = [sys.executable, "-c", program, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and "run the same command again to resume" in done.stderr, done


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_signals_mean_what_they_did(fails):
    former = [signal.getsignal(number) for number in SIGNALS]
    try:
        with stop_on_signals():
            assert [signal.getsignal(number) for number in SIGNALS] != former
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [signal.getsignal(number) for number in SIGNALS] == former


def test_in_another_thread_there_is_nothing_to_receive():
    seen = []

    def work():
        with stop_on_signals() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def wait_for(condition, process, seconds=60):
    begun = time.monotonic()
    while not condition():
        assert process.poll() is None and time.monotonic() - begun < seconds, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", SIGNALS[1:])
def test_a_training_process_finishes_its_step_and_saves(encoder_folder, tmp_path, number):
    """What schedulers do before they take a machine away."""
    options = json.dumps({"max_steps": 100_000, "epochs": 1e6})
    command = [sys.executable, "-m", "tests.train.worker", str(encoder_folder), str(tmp_path), options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(read_rows(tmp_path / "metrics.jsonl")) > 0 or process.poll() is not None, process)
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    state, tensors = checkpoint.load(tmp_path / "checkpoints")
    step = state["position"]["step"]
    assert f"stopped after step {step} of 100000, which is saved" in told
    assert tensors["weights"] and tensors["optimizer"]["0"]["step"] == step


def test_a_process_that_does_not_get_there_is_stopped_by_a_second_signal():
    program = """
import time
from finetune.core.signals import stop_on_signals
with stop_on_signals() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    begun = time.monotonic()
    for word in ("ready\n", "asked\n"):
        assert process.stdout.readline() == word and process.poll() is None
        process.send_signal(signal.SIGINT)
    _, problem = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in problem and time.monotonic() - begun < 30


def test_a_request_is_answered_while_other_code_than_pythons_runs_and_insisting_ends_even_that():
    """Handlers of signals wait for such code, which may be a long computation, or a wait for another process."""
    program = """
import hashlib, sys
from finetune.core import signals
signals.PATIENCE = 0.2
with signals.stop_on_signals(lambda text: print(text, flush=True)):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha512", b"long", b"computation", 10**9)
"""
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = time.monotonic()
    for line in ("ready", ANSWER):
        assert process.stdout.readline().strip() == line and process.poll() is None
        process.send_signal(signal.SIGINT)
    _, problem = process.communicate(timeout=30)
    assert process.returncode == 130 and problem == "" and time.monotonic() - begun < 30


def test_what_a_launcher_hands_on_is_no_second_request(monkeypatch):
    """The terminal sends Ctrl-C to all processes, and torchrun sends it to its own once more."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(signals, "TOGETHER", 0.5)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
