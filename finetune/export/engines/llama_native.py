"""llama.cpp's C interface, as the package xllamacpp exports it. Imports nothing of `finetune`.

Of its structures only what has kept its place for years is touched: they are longer here than in any version, and
llama.cpp fills them itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_uint32, c_void_p
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


class Parameters(ctypes.Structure):
    """llama_model_params and llama_context_params, which llama.cpp fills; longer than both are in any version.

    The context's first four numbers: tokens, tokens of a batch and of a part of it, sequences.
    """

    _fields_ = (("numbers", c_uint32 * 512),)


class Batch(ctypes.Structure):
    """llama_batch: tokens with their places and sequences, and which of them have outputs."""

    _fields_ = (
        ("count", c_int32),
        ("tokens", POINTER(c_int32)),
        ("embeddings", c_void_p),
        ("places", POINTER(c_int32)),
        ("counts", POINTER(c_int32)),
        ("sequences", POINTER(POINTER(c_int32))),
        ("outputs", POINTER(c_int8)),
    )


class Unfit(Exception):
    """What keeps llama.cpp from answering, in one line."""


class Library:
    """llama.cpp's C interface."""

    def __init__(self) -> None:
        import xllamacpp

        self.errors: list[str] = []
        self.native = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        if not hasattr(self.native, "llama_decode"):
            raise Unfit(f"xllamacpp {version('xllamacpp')} does not export llama.cpp's C interface on this platform")
        note = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
        self.note = note(
            lambda level, text, _: self.errors.append(text.decode(errors="replace")) if level == 4 else None
        )
        self.call("llama_log_set", None, note, c_void_p)(self.note, None)

    def _heard(self, level: int, text: bytes, _: Any) -> None:
        """Keep what llama.cpp logs as an error (level 4), and nothing else."""
        if level == 4:
            self.errors.append(text.decode(errors="replace"))

    def said(self) -> str:
        """The errors so far, in one line."""
        return " ".join(" ".join(self.errors).split()) or "it gives no reason"

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Give the function called ``name``, with the types of its result and arguments."""
        function = getattr(self.native, name)
        function.restype, function.argtypes = result, arguments
        return function


class Model:
    """A GGUF file: its vocabulary at once, and its outputs after :meth:`open`."""

    def __init__(self, path: Path):
        self.library = library = Library()
        parameters = library.call("llama_model_default_params", Parameters)()
        self.model = library.call("llama_model_load_from_file", c_void_p, c_char_p, Parameters)(
            os.fsencode(path), parameters
        )
        if not self.model:
            raise Unfit(f"llama.cpp cannot load {path.name}: {library.said()}")
        self.vocabulary = library.call("llama_model_get_vocab", c_void_p, c_void_p)(self.model)
        self.size = library.call("llama_vocab_n_tokens", c_int32, c_void_p)(self.vocabulary)

    def ends(self) -> list[int]:
        """Tokens at which generation stops."""
        stops = self.library.call("llama_vocab_is_eog", c_bool, c_void_p, c_int32)
        return [token for token in range(self.size) if stops(self.vocabulary, token)]

    def end(self) -> int:
        """The end token."""
        return int(self.library.call("llama_vocab_eos", c_int32, c_void_p)(self.vocabulary))

    def is_control(self, token: int) -> bool:
        """Tell whether a token is none of a text's own."""
        return bool(self.library.call("llama_vocab_is_control", c_bool, c_void_p, c_int32)(self.vocabulary, token))

    def tokens(self, text: str, special: bool) -> list[int]:
        """Cut ``text`` into tokens; ``special``: with what the tokenizer puts around it. Names of special tokens in it
        are these tokens."""
        cut = self.library.call(
            "llama_tokenize", c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool
        )
        raw = text.encode()
        room = (c_int32 * (len(raw) + 8))()
        count = cut(self.vocabulary, raw, len(raw), room, len(room), special, True)
        if count < 0:
            raise Unfit(f"llama.cpp cuts a text of {len(raw)} bytes into more than {len(room)} tokens")
        return list(room[:count])

    def open(self, length: int) -> None:
        """Make room for ``length`` tokens."""
        library = self.library
        parameters = library.call("llama_context_default_params", Parameters)()
        parameters.numbers[:4] = [length, length, min(length, 512), 1]
        make = library.call("llama_init_from_model", c_void_p, c_void_p, Parameters)
        self.context = make(self.model, parameters)
        if not self.context:
            raise Unfit(f"llama.cpp makes no room for {length} tokens: {library.said()}")
        threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
        library.call("llama_set_n_threads", None, c_void_p, c_int32, c_int32)(self.context, threads, threads)
        self.batch = library.call("llama_batch_init", Batch, c_int32, c_int32, c_int32)(length, 0, 1)
        self.memory = library.call("llama_get_memory", c_void_p, c_void_p)(self.context)
        self.clear = library.call("llama_memory_clear", None, c_void_p, c_bool)
        self.decode = library.call("llama_decode", c_int32, c_void_p, Batch)
        self.output = library.call("llama_get_logits_ith", POINTER(c_float), c_void_p, c_int32)

    def logits(self, tokens: list[int], first: int = 0, begun: int = 0) -> Iterator[np.ndarray]:
        """Read ``tokens``, which follow ``begun`` others, and give the logits after each from place ``first``, one row
        (vocabulary,) after the other: of a large vocabulary all together would not fit into a cache."""
        if not begun:
            self.clear(self.memory, True)
        batch = self.batch
        batch.count = len(tokens)
        for place, token in enumerate(tokens):
            batch.tokens[place], batch.places[place] = token, begun + place
            batch.counts[place], batch.sequences[place][0] = 1, 0
            batch.outputs[place] = place >= first
        code = self.decode(self.context, batch)
        if code:
            raise Unfit(f"llama.cpp reads no {begun + len(tokens)} tokens (llama_decode gave {code})")
        for place in range(first, len(tokens)):
            yield np.ctypeslib.as_array(self.output(self.context, place), (self.size,)).astype(np.float64)
