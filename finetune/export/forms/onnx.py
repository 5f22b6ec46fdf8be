"""One ONNX graph of the whole model, pooling and head included, as onnxruntime and its kin load it."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import bad_input, first_line
from finetune.export import programs, writing
from finetune.export.forms.base import Form, Snippet
from finetune.export.merging import can_merge

if TYPE_CHECKING:
    import torch

    from finetune.export.trained import Trained

FILE = "model.onnx"
APART = 1_500_000_000
"""Bytes of weights from which they lie in a file of their own: one of ONNX's cannot have 2 GiB (protobuf)."""

ANSWERS = {"label", "labels", "number", "tags", "span", "choice", None}
"""What a model may answer that is written without a cache of what it has read; words of its own are not among them,
but tokens that are given are scored."""

OUTPUTS = {"span": ("start_logits", "end_logits")}
"""Names of outputs by what the task answers; of all others `logits`, and of vectors `sentence_embedding`."""


class Onnx(Form):
    """An ONNX graph for onnxruntime: adapters merged, pooling and head inside, any number of texts of any length."""

    name: ClassVar[str] = "onnx"
    engine: ClassVar[str] = "onnxruntime_engine"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    extra: ClassVar[str | None] = "onnx"

    def refusal(self, trained: Trained) -> str | None:
        task: Any = trained.task
        if not can_merge(trained.model):
            return "its adapter puts learnt tokens before every text, which no graph of it has; take form adapter"
        if getattr(trained.model.config, "is_encoder_decoder", False) and not trained.pooled:
            return "an encoder-decoder is two graphs, one of which is called for each token; take form transformers"
        if task.answer not in ANSWERS and not task.causal:
            return f"it answers by {task.answer}, for which there is no graph; take form transformers"
        return None

    def write(self, trained: Trained, folder: Path) -> None:
        model: Any = trained.plain()
        writing.scale_head(trained, model)
        write_onnx(model, trained.tokenizer, folder / FILE, output_names(trained))
        model.config.architectures = None  # may be a class of ours, which no one else could load; the graph counts
        model.config.save_pretrained(folder)
        writing.write_tokenizer(trained, folder)
        writing.write_generation(trained, folder, model)
        writing.write_legal(trained, folder)

    def snippets(self, trained: Trained, folder: Path) -> list[Snippet]:
        second = ', ["…"]' if getattr(trained.task.options, "pair", None) else ""
        lines = [
            "import json",
            "",
            "import onnxruntime",
            "from transformers import AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
            f'session = onnxruntime.InferenceSession("{{folder}}/{FILE}")',
            f'given = tokenizer(["…"]{second}, truncation=True, padding=True, return_tensors="np")',
            "names = [each.name for each in session.get_inputs()]",
            "found = session.run(None, {name: given[name] for name in names})",
        ]
        if programs.is_ordinal(trained):
            answer = programs.ordinal_answer(trained, programs.SIGMOID.replace("OUTPUTS", "found[0]"))
            lines = ["import numpy", *lines[2:], answer.rstrip()]
        elif trained.task.answer == "label" and not programs.by_likelihood(trained):
            lines += [
                'labels = json.load(open("{folder}/config.json"))["id2label"]',
                "print([labels[str(row.argmax())] for row in found[0]])",
            ]
        else:
            lines += ["print([(each.name, value.shape) for each, value in zip(session.get_outputs(), found)])"]
        return [Snippet("onnxruntime", "\n".join(lines) + "\n")]


def output_names(trained: Trained) -> tuple[str, ...]:
    """Name what the graph gives."""
    if trained.task.name == "embedding":
        return ("sentence_embedding",)
    return OUTPUTS.get(str(trained.task.answer), ("logits",))


def write_onnx(model: Any, tokenizer: Any, path: Path, outputs: tuple[str, ...]) -> None:
    """Write ``model``, which is changed, to ``path``. Its inputs are those of the tokenizer: token numbers, mask, and
    for some models which text a token is of, each (batch, length), of any size. What it gives is called ``outputs``.

    Raises :class:`InputError` where torch cannot make a graph of it.
    """
    import torch

    names = input_names(tokenizer)
    model.set_attn_implementation("eager")  # the other ways have operators that ONNX has not
    model.config.use_cache = False
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    with _quiet(), torch.no_grad():
        try:
            made = torch.onnx.export(
                _graph_of(model),
                _example(model, names),
                dynamo=True,
                dynamic_shapes=dict.fromkeys(names, sizes),
                input_names=list(names),
                output_names=list(outputs),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            found = f"torch makes no ONNX graph of this {type(model).__name__}: {first_line(error.__cause__ or error)}"
            raise bad_input("--form", found, "take form transformers") from error
    assert made is not None
    made.save(path, external_data=weights > APART)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of its own insides from people: warnings, and packages that it could also use."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def input_names(tokenizer: Any) -> tuple[str, ...]:
    """What the graph is given, in order. Raises :class:`InputError` for what no graph of ours takes."""
    known = ("input_ids", "attention_mask", "token_type_ids")
    said = {*tokenizer("a"), "attention_mask"}
    if strange := sorted(said - {*known}):
        found = f"its tokenizer gives {', '.join(strange)}, which no graph of ours takes"
        raise bad_input("--form", found, "take form transformers")
    return tuple(name for name in known if name in said)


def _example(model: Any, names: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    """Two texts of different lengths, the shorter one padded: (2, T) for each input."""
    import torch

    filler = model.config.pad_token_id or 0
    ids, mask = torch.full((2, 7), filler), torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    other = 1 if filler != 1 else 2
    ids[mask > 0] = other
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return tuple(given[name] for name in names)


def _graph_of(model: Any) -> torch.nn.Module:
    """A module of named inputs and tensors alone, as graphs are made of."""
    import torch

    continues = type(model).__name__.endswith("CausalLM") or hasattr(model, "lm_head")
    placed = continues and "position_ids" in inspect.signature(model.forward).parameters
    chooses = type(model).__name__.endswith("MultipleChoice")

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> Any:
            given = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                given["token_type_ids"] = token_type_ids
            if chooses:  # each row is the one choice of its question
                given = {name: value[:, None] for name, value in given.items()}
            if placed:  # whichever side is padded
                given["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            found = self.model(**given)
            if "start_logits" in found:
                return found.start_logits, found.end_logits
            return found.logits

    return Graph().eval()
