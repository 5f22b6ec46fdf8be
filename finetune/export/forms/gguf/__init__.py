"""One GGUF file, as llama.cpp, Ollama and LM Studio load it: weights in float16, or in 8 bits a weight."""

from __future__ import annotations

from typing import ClassVar

from finetune.export.forms.gguf.file import Gguf


class GgufF16(Gguf):
    """A GGUF file in float16, for llama.cpp, Ollama and LM Studio."""

    name: ClassVar[str] = "gguf-f16"
    quantised: ClassVar[bool] = False


class GgufQ8(Gguf):
    """A GGUF file with 8 bits a weight (q8_0): half the size of gguf-f16, and not quite the same answers."""

    name: ClassVar[str] = "gguf-q8_0"
    exact: ClassVar[bool] = False
    least: ClassVar[float] = 0.9
    quantised: ClassVar[bool] = True
