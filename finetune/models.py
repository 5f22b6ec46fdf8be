"""A base model from the hub (with a revision), a folder, a GGUF file, or an installed package."""

from __future__ import annotations

import copy
import os
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.digests import weights_digest
from finetune.errors import bad_input
from finetune.locations import resolve_package_path
from finetune.options import Options
from finetune.randomness import Streams

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ModelOptions(Options):
    """Which pretrained model to start from, and where its arithmetic runs."""

    source: str
    """`org/name` or `org/name@revision` on the hub, a folder, a `.gguf` file, or `package:NAME/path` inside an
    installed package (`*` allowed in the last part)."""
    tokenizer: str | None = None
    """Where the tokenizer comes from when it is not beside the model; the same forms as `source`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward and backward pass. `auto` is bfloat16 where the processor has it. Trained weights
    and optimizer statistics are float32 either way."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    trust_remote_code: bool = False
    """Allow the model's own Python code from the hub or folder to run."""
    allow_pickle: bool = False
    """Allow weights stored as pickle (`pytorch_model.bin`), which can run code when loaded."""


@dataclass(frozen=True)
class Location:
    """Where a model or tokenizer lies, in the words of `from_pretrained`."""

    name: str
    """A folder, or a hub id."""
    revision: str | None = None
    gguf_file: str | None = None
    local: bool = True

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`; local files make no hub call."""
        arguments: dict[str, Any] = {"local_files_only": self.local}
        if self.revision:
            arguments["revision"] = self.revision
        if self.gguf_file:
            arguments["gguf_file"] = self.gguf_file
        return arguments


def locate(source: str, at: str = "model.source") -> Location:
    """Find what ``source`` names; raises :class:`InputError` when a local one is not there."""
    if source.startswith("package:"):
        path = resolve_package_path(source, at)
    elif source.startswith((".", "/", "~")) or source.endswith(".gguf") or Path(source).is_dir():
        path = Path(source).expanduser()
    else:
        name, _, revision = source.partition("@")
        return Location(name, revision=revision or None, local=False)
    if not path.exists():
        raise bad_input(at, f"there is no file or folder {path}", "give a model folder, a .gguf file, or org/name")
    if path.suffix == ".gguf":
        return Location(str(path.parent), gguf_file=path.name)
    if not path.is_dir():
        raise bad_input(at, f"{path} is a file, but not a .gguf file", "give the folder that holds the model")
    return Location(str(path))


def check_files(options: ModelOptions) -> None:
    """Refuse a local model that cannot be loaded, before anything is; hub models are checked when they load."""
    place = locate(options.source)
    if not place.local or place.gguf_file:
        return
    folder = Path(place.name)
    if not (folder / "config.json").exists():
        raise bad_input("model.source", f"{folder} has no config.json", "give the folder that holds the model")
    if not any(folder.glob("*.safetensors")):
        pickled = next(iter([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]), None)
        if pickled is None:
            raise bad_input(
                "model.source", f"{folder} holds no weights (*.safetensors)", "give a complete model folder"
            )
        if not options.allow_pickle:
            raise bad_input(
                "model.source",
                f"{pickled.name} in {folder} is a pickle, which can run any code when it is loaded",
                "convert it to safetensors, or, if you trust its origin, write model.allow_pickle: true",
            )


def load_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    """The tokenizer beside the model, or the one named; a padding token is chosen where it has none."""
    from transformers import AutoTokenizer

    at = "model.tokenizer" if options.tokenizer else "model.source"
    place = locate(options.tokenizer or options.source, at)
    if place.local and not place.gguf_file and not _has_tokenizer(Path(place.name)):
        raise bad_input(
            at,
            f"{place.name} has no tokenizer (tokenizer.json, tokenizer.model, vocab.txt or vocab.json)",
            "save it there with tokenizer.save_pretrained, or name another place in model.tokenizer",
        )
    with _loading(place, at):
        tokenizer = AutoTokenizer.from_pretrained(
            place.name, trust_remote_code=options.trust_remote_code, **place.arguments()
        )
    if not tokenizer.is_fast:
        raise bad_input(at, "this tokenizer has no tokenizer.json", "convert it to a fast tokenizer first")
    if tokenizer.pad_token is None:
        # Our losses and masks tell padding by position, so an end token that doubles as padding is still learnt.
        # transformers' decoder classifiers do compare ids: there a text's own trailing end token counts as padding.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json"))


@dataclass
class BaseModel:
    """Pristine weights in float32 on the CPU, from which every run takes a copy."""

    model: PreTrainedModel
    new: frozenset[str]
    """Parameters drawn from each run's `init` stream: the task's head, and what else the checkpoint does not have."""
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What others have computed from these weights, kept as long as they are."""

    @cached_property
    def digest(self) -> str:
        """A hash of the pretrained weights."""
        return weights_digest({name: value for name, value in self.model.named_parameters() if name not in self.new})

    def copy(self, streams: Streams) -> PreTrainedModel:
        """A copy whose new parameters are drawn from ``streams``' `init` stream."""
        model = copy.deepcopy(self.model)
        with streams.globally("init"):
            initialise(model, self.new)
        return model


def initialise(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Draw the named parameters afresh, as the architecture itself initialises them.

    Whole modules are drawn, those that directly own one of the names, because architectures define their
    initialisation per module; then the modules made of such ones, since some say more about their parts (GPT-2 draws
    the layers that write to the residual stream smaller).
    """
    owners = {name.rpartition(".")[0] for name in names}
    drawn = set()
    for name, parameter in model.named_parameters():
        new = name.rpartition(".")[0] in owners
        # transformers marks loaded parameters, and its initialisers leave marked ones alone.
        parameter._is_hf_initialized = not new  # type: ignore[attr-defined]
        drawn |= {id(parameter)} if new else set()
    for name, module in reversed(list(model.named_modules())):
        inside = {id(parameter) for parameter in module.parameters()}
        if name in owners or (inside and inside <= drawn):
            model._init_weights(module)


def load_base(options: ModelOptions, architecture: str, new_head: bool = False, **config: Any) -> BaseModel:
    """Load weights into ``architecture`` (a transformers Auto class); ``config`` overrides its configuration.

    With ``new_head`` a head that the checkpoint brings is drawn afresh like one that it lacks: its outputs may stand
    for other labels, or for the same ones in another order.
    """
    import torch
    import transformers

    check_files(options)
    place = locate(options.source)
    arguments = place.arguments()
    if place.gguf_file and hasattr(transformers, "GgufConfig"):
        # Newer transformers keep GGUF weights packed, which cannot be trained.
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _loading(place, "model.source"):
        model, report = getattr(transformers, architecture).from_pretrained(
            place.name,
            dtype=torch.float32,
            trust_remote_code=options.trust_remote_code,
            use_safetensors=None if place.gguf_file or options.allow_pickle else True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
            **config,
        )
    if getattr(model.config, "quantization_config", None) is not None:
        # The weights are plain now; saved with this entry they could not be loaded again.
        del model.config.quantization_config
    mismatched = {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]}
    new = frozenset(report["missing_keys"]) | mismatched
    return BaseModel(model, new | head_parameters(model) if new_head else new)


def skeleton(options: ModelOptions, architecture: str, **config: Any) -> PreTrainedModel:
    """The architecture without weights (on torch's `meta` device): what a dry run needs, at no cost."""
    import torch
    import transformers

    settings = load_config(options, **config)
    with _loading(locate(options.source), "model.source"), torch.device("meta"):
        return getattr(transformers, architecture).from_config(settings, trust_remote_code=options.trust_remote_code)


def load_config(options: ModelOptions, **config: Any) -> Any:
    """The base model's configuration, with ``config`` laid over it."""
    import transformers

    check_files(options)
    place = locate(options.source)
    with _loading(place, "model.source"):
        return transformers.AutoConfig.from_pretrained(
            place.name, trust_remote_code=options.trust_remote_code, **place.arguments(), **config
        )


@contextmanager
def _loading(place: Location, at: str) -> Iterator[None]:
    """Turns what transformers raises for a model that cannot be had into one clear message; quiets its progress."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Reading a GGUF file draws a bar of its own that no switch turns off.
    muted = redirect_stderr(StringIO()) if place.gguf_file else nullcontext()
    try:
        with muted, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where, advice = ("", "check the model's files")
        if not place.local:
            where, advice = " on the hub", "check the name, the revision and the network; a folder is written ./name"
        raise bad_input(at, f"{place.name}{where} could not be loaded: {first}", advice) from error
    finally:
        logging.set_verbosity(verbosity)


def head_parameters(model: PreTrainedModel, new: Iterable[str] = ()) -> set[str]:
    """Parameters of the task's head: those outside the base model, and those the checkpoint does not have.

    The output layer of a language model is not a head: it is pretrained, and often tied to the embeddings.
    """
    prefix = f"{model.base_model_prefix}."
    output = model.get_output_embeddings()
    language = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    outside = {
        name
        for name, parameter in model.named_parameters()
        if not name.startswith(prefix) and id(parameter) not in language
    }
    return outside | set(new)


def choose_device(options: ModelOptions) -> torch.device:
    """The device asked for, or the best there is; under a launcher each process has its own."""
    import torch

    if options.device == "auto":
        return (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    advice = "write auto, cpu, cuda or cuda:N"
    try:
        device = torch.device(options.device)
    except RuntimeError:
        raise bad_input("model.device", f"there is no device '{options.device}'", advice) from None
    if device.type not in ("cpu", "cuda"):
        raise bad_input("model.device", f"is '{options.device}', which runs cannot use", advice)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise bad_input("model.device", f"is {options.device}, but torch sees no CUDA device here", "write auto or cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise bad_input("model.device", f"is {options.device}, but there are {count} CUDA devices", "they count from 0")
    return device


def choose_dtype(options: ModelOptions, device: torch.device) -> torch.dtype:
    """The arithmetic asked for, or bfloat16 where the processor multiplies it in hardware."""
    import torch

    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX on x86, BF16 on Arm)."""
    flags = set(_cpu_info("flags", "Features").split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_name() -> str:
    """The processor, as the system names it."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(*keys: str) -> str:
    """The first value of one of ``keys`` in Linux's /proc/cpuinfo; empty elsewhere."""
    if platform.system() != "Linux":
        return ""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        pairs = (line.partition(":") for line in info)
        return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")
