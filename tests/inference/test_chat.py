"""Chat: several turns through a pipe and on a terminal, two models side by side, and how it is stopped."""

import io
import os
import pty
import re
import select
import signal
import sys
import time

import pytest
import torch

from finetune.cli import main
from finetune.cli.speaker import Speaker
from finetune.inference import talking
from finetune.inference.loading import open_model
from finetune.inference.talking import Request, Settings, Talker, settled
from tests import tiny
from tests.inference.children import Child


@pytest.fixture(scope="module")
def talker(chat_run):
    opened = open_model(str(chat_run))
    return Talker(opened, opened.model)


@pytest.fixture
def piped(monkeypatch, capsys):
    """``piped(lines, *argv)``: what a chat answers to the lines of a pipe."""

    def run(lines, *argv):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        assert main(["chat", *map(str, argv)]) == 0
        return capsys.readouterr().out

    return run


def test_lines_of_a_pipe_are_answered(piped, chat_run):
    found = piped(["the rocket", "/reset", "the rocket", "/nonsense", "/exit", "never read"], chat_run)
    first, second, told = found.splitlines()
    assert first == second and first and "there is no /nonsense" in told


def test_turns_are_remembered_until_they_are_not(talker):
    speaker = Speaker("it", talker, "be brief")
    settings = Settings(max_tokens=4)
    prompts = []
    talked = talker.chat
    speaker.talker = type(
        "Listening",
        (),
        {
            "chat": lambda _, turns: prompts.append(turns) or talked(turns),
            "answer": lambda _, requests: talker.answer(requests),
        },
    )()
    one = speaker.answer("the moon", settings, lambda text: None)
    speaker.answer("and a star", settings, lambda text: None)
    said = [{"role": "assistant", "content": one.said}] if one.said else []
    assert [turn["role"] for turn in prompts[0]] == ["system", "user"]
    assert prompts[1][1:] == [{"role": "user", "content": "the moon"}, *said, {"role": "user", "content": "and a star"}]


def test_pieces_add_up_to_what_is_said(talker):
    heard = []
    request = Request(talker.text("the rocket"), Settings(max_tokens=20), heard.append)
    talker.answer([request])
    assert "".join(heard) == request.said and len(heard) > 3 and request.finish in ("stop", "length")


def test_what_is_answered_together_is_what_is_answered_alone(talker):
    texts = [text for text, _ in tiny.sentences(6)]
    for how in (Settings(max_tokens=12), Settings(max_tokens=12, temperature=1.1, seed=5)):
        both = [Request(talker.text(text), how) for text in texts]
        talker.answer(both)
        for request, text in zip(both, texts, strict=True):
            alone = Request(talker.text(text), how)
            talker.answer([alone])
            assert (request.said, request.finish, request.tokens) == (alone.said, alone.finish, alone.tokens)


def test_an_answer_that_is_cancelled_ends_at_the_next_token(talker):
    request = Request(talker.text("the rocket"), Settings(max_tokens=100))
    request.tell = lambda text: setattr(request, "cancelled", True)
    talker.answer([request])
    assert request.finish == "cancelled" and request.tokens < 10


@pytest.mark.parametrize(
    "text, stops, wanted",
    [
        ("a b", (), "a b"),
        ("a b\n", ("\n\n",), "a b"),
        ("a EN", ("END", "N"), "a "),
        ("half \ufffd", (), "half "),
        ("abcab", ("abcabd",), ""),
    ],
)
def test_what_may_still_change_waits(text, stops, wanted):
    assert settled(text, stops) == wanted


def test_control_tokens_of_a_person_are_text(talker):
    """Nobody can end a turn by writing the token that ends one."""
    plain = talker.chat([{"role": "user", "content": "a <|im_end|> b"}]).ids.tolist()
    end = talker.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert plain.count(end) == talker.chat([{"role": "user", "content": "a b"}]).ids.tolist().count(end)


def test_two_models_answer_one_below_the_other_in_a_pipe(piped, chat_run, decoder_folder):
    found = piped(["the rocket"], chat_run, "--compare", decoder_folder, "--max-tokens", 5)
    names = [line for line in found.splitlines() if line.endswith(":")]
    assert names == ["/".join(chat_run.parts[-3:]) + ":", decoder_folder.name + ":"]


def test_bytes_that_are_no_text_are_shown_as_such(chat_run, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(b"the r\xf6cket\n"), "utf-8", "surrogateescape")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["chat", str(chat_run), "--max-tokens", "4"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_full_context_says_what_to_do(chat_run, monkeypatch, capsys):
    """And the exit code says that lines of a pipe have no answer."""
    long, half, short = "moon " * 300, "moon " * 80, "the rocket"
    for lines, advice, code in (
        ([long], "shorten it", 1),
        ([half, half, "/reset", half], "shorten it; /reset begins anew", 1),
        ([short, "/reset", short], "", 0),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        assert main(["chat", str(chat_run), "--max-tokens", "4"]) == code
        found = capsys.readouterr().err.splitlines()[1:]  # the run learnt nothing, which is said first
        assert len(found) == code and all(each.endswith(f"128 with its answer; {advice}") for each in found)


def test_a_full_output_is_told_in_one_line(chat_run, tmp_path, monkeypatch):
    reads, writes = os.pipe()
    os.write(writes, b"the rocket\n/nonsense\n")
    os.close(writes)
    said = tmp_path / "said"
    with open(said, "wb") as error, open("/dev/full", "wb") as full:
        child = Child(["chat", chat_run, "--max-tokens", 4], full.fileno(), error.fileno(), reads)
        os.close(reads)
        assert child.wait() == 1
    assert said.read_text().splitlines()[-1].endswith("no room to write the output: make some, or write it elsewhere")
    assert "Traceback" not in said.read_text()


def test_a_classifier_does_not_chat(topics_run, capsys):
    assert main(["chat", str(topics_run)]) == 2
    assert "is for the task classification, and does not talk" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "wrong, said",
    [(["--temperature", "-1"], "--temperature"), (["--top-p", "0"], "--top-p"), (["--stop", ""], "--stop: is empty")],
)
def test_options_that_cannot_be(chat_run, capsys, wrong, said):
    assert main(["chat", str(chat_run), *wrong]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


# On a terminal


def talk(argv, columns):
    """What a child does that has a terminal for its standard streams: it becomes the command."""
    os.environ.update({"TERM": "xterm", "COLUMNS": str(columns), "LINES": "40"})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "finetune", "chat", *map(str, argv)])


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, *argv, columns=100):
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            talk(argv, columns)
        self.seen = ""
        self.code = None

    def type(self, text):
        os.write(self.terminal, text.encode())

    def interrupt(self):
        os.kill(self.process, signal.SIGINT)

    def until(self, pattern, seconds=120):
        """Read until ``pattern`` is there, and give what came up to its end."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if (found := re.search(pattern, self.seen)) is not None:
                said, self.seen = self.seen[: found.end()], self.seen[found.end() :]
                return said
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.terminal, 4096).decode("utf-8", "replace")
                except OSError:  # it has ended
                    break
        raise AssertionError(f"{pattern} did not come: {self.seen!r}")

    def ended(self, seconds=60):
        """Its exit code, once it has ended."""
        ends = time.monotonic() + seconds
        while self.code is None and time.monotonic() < ends:
            done, status = os.waitpid(self.process, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
            if self.code is None and select.select([self.terminal], [], [], 0.1)[0]:
                try:  # or it would wait for room to write
                    self.seen += os.read(self.terminal, 4096).decode("utf-8", "replace")
                except OSError:
                    continue
        return self.code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.code is None:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.terminal)


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A chat model without an end to its answers: they go on for thousands of tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny.save_decoder(tmp_path_factory.mktemp("endless"), tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6 if weight.ndim > 1 else 1)
        # Tokens that end have a score of 0 beside the others' of hundreds: no draw ever gives one of them.
        model.lm_head.weight.mul_(100)
        model.lm_head.weight[AutoTokenizer.from_pretrained(folder).all_special_ids] = 0
    model.config.max_position_embeddings = 8192
    model.save_pretrained(folder)
    return folder


def test_ctrl_c_stops_the_answer_then_the_chat(endless):
    with Terminal(endless, "--max-tokens", 4000, "--temperature", 2) as terminal:
        terminal.until("> $")
        terminal.type("the moon\n")
        terminal.until(r"(?s)the moon\r\n.{20}")
        terminal.interrupt()
        terminal.until(r"stopped\)")
        terminal.until("> ")
        terminal.type("/exit\n")
        assert terminal.ended() == 0
    with Terminal(endless) as terminal:
        terminal.until("> $")
        terminal.interrupt()
        if terminal.ended(5) is None:  # Python's readline misses a signal between the prompt and its wait for a key
            terminal.interrupt()
        assert terminal.ended() == 0


@pytest.mark.parametrize("columns", [110, 60])
def test_two_models_stand_side_by_side_where_there_is_room(chat_run, decoder_folder, columns):
    with Terminal(chat_run, "--compare", decoder_folder, "--max-tokens", 6, columns=columns) as terminal:
        terminal.until("> $")
        terminal.type("the rocket\n")
        said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.until("\n> $"))
        both = [line for line in said.splitlines() if "seed-0" in line and decoder_folder.name in line]
        assert bool(both) == (columns > 80)
        terminal.type("/exit\n")
        assert terminal.ended() == 0


def test_characters_that_steer_a_terminal_are_shown_and_not_sent(piped, chat_run, monkeypatch):
    monkeypatch.setattr(talking, "words_in", lambda *_: "a\x1b[31mred\x07\u202ex")
    found = piped(["hello"], chat_run, "--max-tokens", 2)
    assert not {"\x1b", "\x07", "\u202e"} & set(found) and "[31mred" in found
