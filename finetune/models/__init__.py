"""A base model from the hub (with a revision), a folder, a GGUF file, or an installed package."""

from finetune.models.attention import attention_config, check_attention, is_narrow
from finetune.models.base import BaseModel, head_parameters, initialise
from finetune.models.configuration import (
    dropout_of,
    has_choice_head,
    is_masked,
    lay_over,
    positions_of,
    positions_said,
    rows_of,
    rows_said,
    width_of,
)
from finetune.models.devices import (
    Chosen,
    choose_device,
    choose_dtype,
    choose_parts,
    explain_dtype,
    measured_width,
    processor,
    settle,
)
from finetune.models.facts import Facts, facts_of
from finetune.models.fit import modules_of
from finetune.models.heads import WARM_STARTED, Architecture, OwnHead, is_ours
from finetune.models.loading import load_base, load_config, load_tokenizer, skeleton, weightless_base
from finetune.models.places import Location, ModelOptions, check_files, locate
from finetune.models.pooling import Pooling, declared
from finetune.models.precise import in_float32
from finetune.models.small import draw_small

__all__ = [
    "WARM_STARTED",
    "Architecture",
    "BaseModel",
    "Chosen",
    "Facts",
    "Location",
    "ModelOptions",
    "OwnHead",
    "Pooling",
    "attention_config",
    "check_attention",
    "check_files",
    "choose_device",
    "choose_dtype",
    "choose_parts",
    "declared",
    "draw_small",
    "dropout_of",
    "explain_dtype",
    "facts_of",
    "has_choice_head",
    "head_parameters",
    "in_float32",
    "initialise",
    "is_masked",
    "is_narrow",
    "is_ours",
    "lay_over",
    "load_base",
    "load_config",
    "load_tokenizer",
    "locate",
    "measured_width",
    "modules_of",
    "positions_of",
    "positions_said",
    "processor",
    "rows_of",
    "rows_said",
    "settle",
    "skeleton",
    "weightless_base",
    "width_of",
]
