"""What a GGUF file in either precision is written with, refused for, and how it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import bad_input
from finetune.export import programs
from finetune.export.forms.base import Form, Snippet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.export.trained import Trained


class Gguf(Form):
    """What both precisions have in common."""

    engine: ClassVar[str] = "llama_cpp_engine"
    packages: ClassVar[tuple[str, ...]] = ("gguf", "xllamacpp")
    extra: ClassVar[str | None] = "gguf"
    tolerance: ClassVar[float] = 0.1
    """llama.cpp multiplies matrices in float16, activations too, and keeps keys and values so."""
    quantised: ClassVar[bool]

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"model-{self.name.removeprefix('gguf-')}.gguf"

    def refusal(self, trained: Trained) -> str | None:
        from finetune.export.forms.gguf.writing import gguf_refusal
        from finetune.export.merging import can_merge

        if trained.pooled or not trained.task.causal:
            return (
                f"llama.cpp continues text, and task {trained.task.name} does something else; use transformers or onnx"
            )
        if not can_merge(trained.model):
            return "virtual tokens cannot be merged into weights, and GGUF holds nothing else; use adapter"
        return gguf_refusal(_base(trained.model), trained.tokenizer)

    def write(self, trained: Trained, folder: Path) -> None:
        from finetune.export.forms.gguf.writing import About, gguf_refusal, write_gguf

        model = trained.plain()
        refused = gguf_refusal(model, trained.tokenizer)
        if refused:  # what merging has made, such as an output layer of its own
            raise bad_input("--form", refused, "use transformers")
        name, sampling = f"{trained.study.name} {trained.variant}", getattr(trained.task.options, "sampling", None)
        about = About(name, trained.licence, _in_turns(trained), tuple(trained.ends), sampling)
        write_gguf(model, trained.tokenizer, folder / self.file, self.quantised, about)
        (folder / "Modelfile").write_text(_modelfile(self.file, trained), encoding="utf-8")

    def snippets(self, trained: Trained, folder: Path) -> list[Snippet]:
        messages = [*programs.system_of(trained), {"role": "user", "content": "…"}]
        asked = (
            f'server.handle_chat_completions({{"messages": {messages!r}}})'
            if _in_turns(trained)
            else 'server.handle_completions({"prompt": "…", "max_tokens": 64})'
        )
        python = [
            "import xllamacpp  # pip install xllamacpp",
            "",
            "parameters = xllamacpp.CommonParams()",
            f'parameters.model.path = "{{folder}}/{self.file}"',
            "server = xllamacpp.Server(parameters)",
            f"print({asked})",
        ]
        return [
            Snippet("Python, with xllamacpp", "\n".join(python)),
            Snippet("llama.cpp", f"llama-server -m {{folder}}/{self.file} --jinja", "sh"),
            Snippet("Ollama", "ollama create mine -f {folder}/Modelfile && ollama run mine", "sh"),
        ]


def _base(model: Any) -> PreTrainedModel:
    """The model under an adapter."""
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def _in_turns(trained: Trained) -> bool:
    """Tell whether what is learnt is shown by the chat template."""
    task: Any = trained.task
    return bool(getattr(task, "shown_by", None) or getattr(getattr(task, "asking", None), "shown_by", None))


def _modelfile(file: str, trained: Trained) -> str:
    """What Ollama makes a model of; it reads the chat template out of the GGUF file."""
    sampling, tokenizer = getattr(trained.task.options, "sampling", None), trained.tokenizer
    lines = [f"FROM ./{file}", f"PARAMETER temperature {0 if sampling is None else sampling.temperature:g}"]
    lines += [f'SYSTEM """{each["content"]}"""' for each in programs.system_of(trained)]
    for end in tokenizer.convert_ids_to_tokens(trained.ends or [tokenizer.eos_token_id]):
        lines.append(f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
