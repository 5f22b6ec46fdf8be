"""Reads a base model: its tokenizer, its configuration, its architecture without weights, and its weights."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input, first_line
from finetune.models.base import BaseModel, head_parameters
from finetune.models.configuration import check_class, lay_over
from finetune.models.fit import fit_of
from finetune.models.heads import WARM_STARTED, Architecture, OwnHead, is_ours
from finetune.models.places import Location, ModelOptions, check_files, locate
from finetune.models.weights import stored_dtype, weight_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    if tokenizer.pad_token is None:
        found = "this tokenizer has no padding token, and no end or unknown token that could stand for it"
        raise bad_input(at, found, "name one of its tokens as pad_token in its tokenizer_config.json")
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json"))


def load_base(options: ModelOptions, architecture: Architecture, new_head: bool = False, **config: Any) -> BaseModel:
    """Load weights into ``architecture`` (such as a transformers Auto class); ``config`` overrides its configuration.

    Weights stay in the type that they are stored in, if that has 16 bits.

    With ``new_head`` a head that the checkpoint brings is drawn afresh like one that it lacks: its outputs may stand
    for other labels, or for the same ones in another order. Raises :class:`InputError` when the checkpoint does not
    fit.
    """
    import torch
    import transformers

    check_files(options)
    place = locate(options.source)
    arguments = place.arguments()
    if place.gguf_file and hasattr(transformers, "GgufConfig"):
        # Newer transformers keep GGUF weights packed, which cannot be trained.
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    settings = load_config(options, **config)
    check_class(settings, architecture)
    read = functools.partial(
        class_of(architecture).from_pretrained,
        place.name,
        config=settings,
        trust_remote_code=options.trust_remote_code,
        use_safetensors=None if place.gguf_file or options.allow_pickle else True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **arguments,
    )
    with _loading(place, "model.source") as said:
        dtype = stored_dtype(options)
        model, report = read(dtype=dtype)
        if any(value.is_floating_point() and value.dtype != torch.float32 for value in model.buffers()):
            # What it computes once, such as the frequencies of positions, has lost precision.
            model, report = read(dtype=torch.float32)
    if getattr(model.config, "quantization_config", None) is not None:
        # The weights are plain now; saved with this entry they could not be loaded again.
        del model.config.quantization_config
    fit = fit_of(model, report, _wanted(options, model), options.source, new_head)
    return BaseModel(model, fit.new, (*fit.lines(), *said))


def weightless_base(options: ModelOptions, empty: PreTrainedModel, new_head: bool = False) -> BaseModel:
    """Predict what :func:`load_base` makes of an ``empty`` :func:`skeleton`, from names and shapes of weights alone.

    Raises what it would. Where these do not say (a GGUF file, a model that is still on the hub, weights packed into few
    bits or converted by their values), the loading itself decides.
    """
    import torch

    shapes = None if hasattr(empty.config, "quantization_config") else weight_shapes(options)
    if shapes is None:
        return BaseModel(empty, frozenset(head_parameters(empty)) if new_head else frozenset())
    loader: Any = type(empty)
    with _loading(locate(options.source), "model.source") as said:
        try:
            _, report = loader.from_pretrained(
                None,
                config=empty.config,
                state_dict=shapes,
                device_map={"": "meta"},
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except RuntimeError:
            return BaseModel(empty, frozenset(head_parameters(empty)) if new_head else frozenset())
    fit = fit_of(empty, report, _wanted(options, empty), options.source, new_head)
    return BaseModel(empty, fit.new, (*fit.lines(), *said))


def _wanted(options: ModelOptions, model: PreTrainedModel) -> list[str]:
    """What a checkpoint may lack: what the recipe names, and what the model's class adds to any checkpoint."""
    return [*options.new, *getattr(model, "drawn", ())]


def class_of(architecture: Architecture) -> Any:
    """A transformers Auto class, or one of ours, which are made in the same way."""
    import transformers

    if isinstance(architecture, OwnHead):
        from finetune.models.headed import headed

        return headed(architecture)
    if not is_ours(architecture):
        return getattr(transformers, architecture)
    if architecture == WARM_STARTED:
        from finetune.models.warm_started import WarmStartedEncoderDecoder

        return WarmStartedEncoderDecoder
    from finetune.models import pooled

    return getattr(pooled, architecture)


def skeleton(options: ModelOptions, architecture: Architecture, **config: Any) -> PreTrainedModel:
    """The architecture without weights (on torch's `meta` device): what a dry run needs, at no cost."""
    import torch

    settings = load_config(options, **config)
    check_class(settings, architecture)
    with torch.device("meta"):
        return skeleton_of(options, architecture, settings)


def skeleton_of(options: ModelOptions, architecture: Architecture, config: Any, **settings: Any) -> PreTrainedModel:
    """The same of a configuration that is there, drawn as transformers draws it, on torch's present device."""
    with _loading(locate(options.source), "model.source"):
        make = class_of(architecture).from_config
        return make(config, trust_remote_code=options.trust_remote_code, **settings)


def load_config(options: ModelOptions, **config: Any) -> Any:
    """The base model's configuration, with ``config`` laid over it."""
    check_files(options)
    place = locate(options.source)
    with _loading(place, "model.source"):
        if place.gguf_file:
            # Seconds to read, since the vocabulary stands before the weights; and every variant asks for it.
            state = (Path(place.name) / place.gguf_file).stat()
            found = copy.deepcopy(_read_gguf_config(place, state.st_size, state.st_mtime_ns))
        else:
            found = _read_config(place, options.trust_remote_code)
    return lay_over(found, config)


def _read_config(place: Location, trusted: bool = False) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(place.name, trust_remote_code=trusted, **place.arguments())


@functools.lru_cache(maxsize=8)
def _read_gguf_config(place: Location, size: int, changed: int) -> Any:
    """Read the configuration of a file of that ``size``, last ``changed`` then."""
    return _read_config(place)


class _Listener(logging.Handler):
    """Keeps what transformers warns of, instead of showing it; its tables of what did not fit are kept apart."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []
        self.tables: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "LOAD REPORT" in message or "absent from the checkpoint" in message:
            self.tables.append(message)
        elif (first := message.strip().partition("\n")[0]) not in self.warnings:
            self.warnings.append(first)


@contextmanager
def _loading(place: Location, at: str) -> Iterator[list[str]]:
    """Turn what transformers raises for a model that cannot be had into one clear message; quiet its progress.

    What it warns of is not shown, but in the list that the block gets.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    verbosity, heard = transformers_logging.get_verbosity(), _Listener()
    transformers_logging.set_verbosity_warning()
    transformers_logging.disable_progress_bar()
    logger = logging.getLogger("transformers")
    handlers, logger.handlers = logger.handlers, [heard]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield heard.warnings
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        # Of weights that could not be converted, the table alone says which.
        reasons = [line for line in "\n".join(heard.tables).splitlines() if line.startswith("Error")]
        first = (*reasons, first_line(error))[0]
        where, advice = ("", "check the model's files")
        if not place.local:
            where, advice = " on the hub", "check the name, the revision and the network; a folder is written ./name"
        raise bad_input(at, f"{place.name}{where} could not be loaded: {first}", advice) from error
    finally:
        logger.handlers = handlers
        transformers_logging.set_verbosity(verbosity)
