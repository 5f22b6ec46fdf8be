"""peft's methods, found in peft itself: methods by their names, and options by peft's own config classes, so that a new
release brings its methods along.

Values of options are checked against the types that the config classes declare; what goes beyond types, peft says.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import TypeAdapter, ValidationError

from finetune.core.errors import InputError, Problem, bad_input, did_you_mean

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rslora": ("lora", {"use_rslora": True}),
    "dora": ("lora", {"use_dora": True}),
    "pissa": ("lora", {"init_lora_weights": "pissa"}),
    "lora+": ("lora", {}),
    "qlora": ("lora", {}),
    "prefix": ("prefix_tuning", {}),
    "prompt": ("prompt_tuning", {}),
}
"""Words of ours: peft's method, and the options that make it the one that is meant."""

DEFAULTS: dict[str, dict[str, Any]] = {
    # As many virtual tokens as bring most of the gain (Lester et al. 2021, figure 3a), which begin as tokens of the
    # vocabulary (section 3.2): peft's own begin, normal with deviation 1, is many times as large as an embedding.
    "prompt_tuning": {"num_virtual_tokens": 20, "prompt_tuning_init": "SAMPLE_VOCAB"},
    "p_tuning": {"num_virtual_tokens": 20},
    # Li & Liang 2021, section 4.3: a prefix that is learnt directly is unstable.
    "prefix_tuning": {"num_virtual_tokens": 20, "prefix_projection": True, "encoder_hidden_size": 512},
    "cartridge": {"num_virtual_tokens": 20},
    "adaption_prompt": {"adapter_len": 10},  # Zhang et al. 2023 ("LLaMA-Adapter"), section 4.1
}
"""Where peft has no default, or one that is not its paper's."""

REFUSED = {
    "xlora": "mixes adapters that have been trained before",
    "poly": "wants to know of every example which of several tasks it belongs to",
    "multitask_prompt_tuning": "wants to know of every example which of several tasks it belongs to",
    "cpt": "wants to know of every token of an example what part it plays",
    "shadow": "trains a second model beside the first, by a loss of its own",
}
"""Methods that cannot be trained here, and why."""

OURS = {
    "target_modules": "write strategy.targets",
    "modules_to_save": "the task's head is always trained and saved",
    "task_type": "it follows from the task",
    "total_step": "it follows from train",
    **dict.fromkeys(
        ("peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
        "it follows from the rest of the recipe",
    ),
}
"""Options that are not a recipe's to give, and what to do instead."""

UNUSED = ("alora", "arrow", "corda", "eva", "kasa", "loftq", "lora_ga", "megatron", "monteclora", "use_asa")
"""Beginnings of options, and ways for LoRA to start, that need a look at the data, steps or a loss of their own."""

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a section"}


@dataclasses.dataclass(frozen=True)
class Method:
    """One of peft's methods as a recipe names it."""

    word: str
    name: str
    """peft's name for it, in lower case."""
    config: type[PeftConfig]
    preset: Mapping[str, Any]
    """Options that the word stands for."""

    @cached_property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """Give peft's options for it."""
        return {field.name: field for field in dataclasses.fields(self.config) if field.init}

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Give the options' types."""
        return typing.get_type_hints(self.config)

    @property
    def prompts(self) -> bool:
        """Tell whether it adds virtual tokens instead of changing layers."""
        return "num_virtual_tokens" in self.fields

    @property
    def options(self) -> list[str]:
        """Name the options that a recipe may give."""
        return sorted(name for name in self.fields if name not in OURS and not name.startswith(UNUSED))

    def option(self, kind: Literal["rank", "alpha", "dropout"]) -> str | None:
        """Give peft's name of the rank, the scale or the dropout here; None where there is no such option."""
        own = [f"{self.name}_{kind}", f"lora_{kind}", kind]
        choices = {"rank": ["target_r", "r"], "alpha": own, "dropout": own}[kind]
        return next((name for name in choices if name in self.fields), None)


def known() -> set[str]:
    """Name peft's methods, those among them that cannot be trained here, and our own words."""
    return {*ALIASES, *(kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING)}


def find(word: str, at: str) -> Method:
    """Find the method that ``word`` names; :class:`InputError` at recipe path ``at`` when there is none."""
    names = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    name, preset = ALIASES.get(word, (word, {}))
    if name in REFUSED:
        raise bad_input(at, f"peft's method '{word}' {REFUSED[name]}", "which is not done here; use another")
    if name not in names:
        choices = {*ALIASES, *names} - REFUSED.keys()
        raise bad_input(at, f"there is no method '{word}' in peft", did_you_mean(word, choices))
    return Method(word, name, names[name], preset)


def checked(method: Method, options: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Check ``options`` against peft's config class; :class:`InputError` with every key or value that it does not
    take."""
    problems, found = [], {}
    for key, value in options.items():
        path = f"{at}.{key}"
        if key in OURS:
            problems.append(Problem(f"'{key}' is not for a recipe to say", OURS[key], path))
        elif key not in method.fields:
            said = f"peft's {method.config.__name__} has no option '{key}'"
            problems.append(Problem(said, did_you_mean(key, method.options), path))
        elif key.startswith(UNUSED) or (key == "init_lora_weights" and value in UNUSED):
            said = "needs a look at the data, steps or a loss of its own, which are not done here"
            problems.append(Problem(said, "leave it out", path))
        else:
            try:
                # As JSON, which knows no tuples and enumerations: texts and lists may stand for them, and for no more.
                found[key] = TypeAdapter(method.hints[key]).validate_json(json.dumps(value), strict=True)
            except ValidationError:
                if not _is_pattern(value, method.hints[key]):
                    said = f"is {json.dumps(value)}; it must be {_plainly(method.hints[key])}"
                    problems.append(Problem(said, _meaning(method.fields[key]), path))
                found[key] = value
    if problems:
        raise InputError(problems)
    return found


def named_option(message: str, options: Iterable[str]) -> str | None:
    """Give the recipe path of the option that peft's ``message`` is about, if it names one."""
    said = [key for key in options if key in message]
    return f"strategy.options.{max(said, key=len)}" if said else None


def _meaning(field: dataclasses.Field[Any]) -> str:
    """Read the first sentence of what peft says about an option, without its links."""
    return re.sub(r"<[^>]*>", "", field.metadata.get("help", "")).partition(". ")[0]


def _choices(hint: Any) -> list[Any]:
    """List the types or values that a type is a choice of."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, Literal):
        return [choice for part in typing.get_args(hint) for choice in _choices(part)]
    return [hint]


def _is_pattern(value: Any, hint: Any) -> bool:
    """Tell whether ``value`` fills the gap in one of the texts to choose from, as in `pissa_niter_[number of
    iters]`."""
    patterns = [choice.partition("[")[0] for choice in _choices(hint) if isinstance(choice, str) and "[" in choice]
    return isinstance(value, str) and value.startswith(tuple(patterns))


def _plainly(hint: Any) -> str:
    """Name a type in words."""
    words = []
    for choice in _choices(hint):
        if choice is type(None):
            words.append("null")
        elif typing.get_origin(choice) in (list, set, tuple):
            words.append("a list")
        elif isinstance(choice, type) or typing.get_origin(choice):
            kind = typing.get_origin(choice) or choice
            words.append(WORDS.get(kind, "a section" if dataclasses.is_dataclass(kind) else "a text"))
        else:
            words.append(json.dumps(choice))
    return " or ".join(dict.fromkeys(words))
