"""Settings from outside the recipe: environment variables that could ask for other results than the recipe does.

`accelerate launch` turns its configuration file into such variables. Each is obeyed where it leaves results alone or
asks for what the recipe says, overruled with a line where a step stays the same whatever it says, or else refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from finetune.core.errors import InputError, Problem
from finetune.core.secrets import SECRET

OFF = frozenset({"", "0", "n", "no", "f", "false", "off", "none", "auto"})
"""What asks for nothing, in lower case."""

ON = frozenset({"1", "y", "yes", "t", "true", "on"})

Answer = Literal["obeyed", "overruled", "refused"]


@dataclass(frozen=True)
class Asked:
    """The settings of one variant that an environment variable could contradict."""

    device: str
    """`cpu`, `cuda` or `cuda:N`: where it runs."""
    dtype: str
    """Of the forward and backward pass: `float32` or `bfloat16`."""
    compiled: bool | str = False
    """`train.compile`."""
    tf32: bool = False
    """`compute.tf32`."""


def _never(value: str, asked: Asked) -> bool:
    return False


def _same_device(value: str, asked: Asked) -> bool:
    return value in (asked.device, asked.device.partition(":")[0])


@dataclass(frozen=True)
class Setting:
    """One variable, or all that a pattern stands for, and what becomes of it."""

    pattern: str
    """`*` stands for anything."""
    answer: Answer
    why: str
    """Why results do not depend on it, or what would come of it."""
    advice: str = ""
    """What to write instead of one that is refused."""
    off: frozenset[str] = OFF
    """Values, in lower case, that ask for nothing."""
    agrees: Callable[[str, Asked], bool] = _never
    """Whether a value, in lower case, asks for what the recipe does; it is obeyed then."""

    def judge(self, value: str, asked: Asked) -> Answer:
        """Tell whether ``value`` is obeyed, overruled or refused."""
        lowered = value.strip().lower()
        return "obeyed" if lowered in self.off or self.agrees(lowered, asked) else self.answer


def _refused(names: tuple[str, ...], why: str, advice: str, **more: object) -> list[Setting]:
    return [Setting(name, "refused", why, advice, **more) for name in names]  # type: ignore[arg-type]


def _obeyed(names: tuple[str, ...], why: str) -> list[Setting]:
    return [Setting(name, "obeyed", why) for name in names]


UNSET = "unset it"
PRECISION = [
    *_refused(
        ("ACCELERATE_MIXED_PRECISION",),
        "it asks for other arithmetic than the recipe",
        f"write model.dtype: bfloat16, float16 or float32, and {UNSET} (in accelerate's configuration, "
        "mixed_precision: 'no')",
        agrees=lambda value, asked: (value, asked.dtype) in (("bf16", "bfloat16"), ("fp16", "float16")),
    ),
    *_refused(
        ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
        "products in float32 would be rounded to TF32, while the record says float32",
        f"{UNSET}; for faster arithmetic write compute.tf32: true or model.dtype: bfloat16",
        agrees=lambda value, asked: asked.device == "cpu" or asked.tf32,
    ),
    *_refused(
        ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
        "products in float32 would be rounded, while the record says float32",
        f"{UNSET}; for faster arithmetic write model.dtype: bfloat16",
        off=OFF | {"strict"},
        agrees=lambda value, asked: asked.device != "cpu",
    ),
    *_refused(
        ("ACCELERATE_FP8_*", "FP8_*"), "arithmetic in 8 bits is not done here", f"write model.dtype, and {UNSET}"
    ),
    *_refused(("XLA_*_BF16", "ACCELERATE_DOWNCAST_BF16"), "TPUs are not used here", UNSET),
]
STEPS = [
    Setting(
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "overruled",
        "a step is over train.batch_size examples, accumulated from as many parts as memory asks for",
        off=OFF | {"1"},
    ),
    *_refused(
        ("ACCELERATE_GRADIENT_CLIPPING",),
        "gradients are clipped as the recipe says",
        f"write train.clip, and {UNSET}",
        off=OFF - {"0"},
    ),
]
DEVICES = [
    *_refused(
        ("ACCELERATE_USE_CPU",),
        "the recipe asks for another device, or this is neither true nor false",
        f"write model.device: cpu, or {UNSET}",
        agrees=lambda value, asked: value in ON and asked.device == "cpu",
    ),
    *_refused(
        ("ACCELERATE_TORCH_DEVICE",),
        "the recipe asks for another device",
        f"write model.device, and {UNSET}",
        off=frozenset({""}),
        agrees=_same_device,
    ),
    *_refused(
        ("ACCELERATE_USE_SAGEMAKER", "ACCELERATE_SAGEMAKER_*"), "SageMaker's processes are not joined here", UNSET
    ),
]
PARALLEL = _refused(
    (
        *("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"),
        *("ACCELERATE_USE_PARALLELISM_CONFIG", "ACCELERATE_ALLOW_CP_STANDALONE", "ACCELERATE_BYPASS_DEVICE_MAP"),
        *("ACCELERATE_DEEPSPEED_*", "ACCELERATE_CONFIG_DS_FIELDS", "FSDP_*", "MEGATRON_LM_*", "PARALLELISM_CONFIG_*"),
    ),
    "it would divide the model between devices, which the recipe decides",
    "launch plain processes (torchrun, or distributed_type: MULTI_GPU); for less memory write compute.shard: true, "
    "compute.gradient_checkpointing: true, strategy.type: adapter, or a smaller train.micro_batch_size",
    off=OFF | {"1.0"},
)
COMPILING = [
    *_refused(
        ("ACCELERATE_DYNAMO_BACKEND",),
        "what is compiled is said in the recipe",
        f"write train.compile: true, and {UNSET}",
    ),
    *_refused(
        ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"),
        "nothing would be compiled, and train.compile is true",
        f"write train.compile: false, or {UNSET}",
        agrees=lambda value, asked: asked.compiled is not True,
    ),
    *_obeyed(("ACCELERATE_DYNAMO_MODE", "ACCELERATE_DYNAMO_USE_*"), "it says nothing without a backend"),
]
HARMLESS = [
    *_obeyed(("ACCELERATE_CPU_AFFINITY",), "processes are bound to cores: only speed depends on it"),
    *_obeyed(("ACCELERATE_DEBUG_*", "ACCELERATE_LOG_LEVEL", "ACCELERATE_ENABLE_RICH"), "it changes what is told"),
    *_obeyed(("ACCELERATE_NUM_PROCESSES",), "only notebooks read it"),
    *_obeyed(("ACCELERATE_INIT_INCLUDE_BUFFERS",), "only models that are loaded in parts read it"),
    *_refused(("ACCELERATE_*",), "what it asks for is not known here", f"say it in the recipe, and {UNSET}"),
]
ROUNDING = _obeyed(
    (
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
        *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TORCH_MKLDNN_MATMUL_*"),
        *("TORCH_LINEAR_FLATTEN_3D", "TORCH_BLAS_PREFER_*", "TORCH_LINALG_PREFER_*", "TORCH_CUDNN_*"),
        *("CUBLAS_WORKSPACE_CONFIG", "CUBLAS_EMULATE_*", "PYTORCH_TUNABLEOP_*", "TORCHINDUCTOR_*"),
        *("FLASH_ATTENTION_DETERMINISTIC", "TRANSFORMERS_SDPA_FORCE_GQA", "TRANSFORMERS_DISABLE_DEEPGEMM_LINEAR"),
        *("USE_HUB_KERNELS", "TORCH_COMPILE_*", "TORCHDYNAMO_*"),
    ),
    "the same numbers are added in another order or by another kernel; it is written into environment.json",
)

CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""The variable without which cuBLAS is not deterministic, and the value that we give it."""

SET_ON_THE_WAY = (CUBLAS, ("TORCHINDUCTOR_CACHE_DIR", None))
"""Variables that we, or libraries, set in a process at one time or another, to this value or (None) to any: they are no
choice of a person's."""

SETTINGS = (*PRECISION, *STEPS, *DEVICES, *PARALLEL, *COMPILING, *HARMLESS, *ROUNDING)
"""The first that fits a variable's name says what becomes of it."""


def setting_of(name: str) -> Setting | None:
    """Find the entry of the table for the variable ``name``; None where it has none."""
    return next((setting for setting in SETTINGS if fnmatchcase(name, setting.pattern)), None)


def _present(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Setting]]:
    """Every variable that is set and stands in the table, with its value."""
    for name, value in sorted(environ.items()):
        setting = setting_of(name)
        if setting is not None:
            yield name, "…" if SECRET.search(name) else value, setting


def check_settings(asked: Asked, environ: Mapping[str, str] = os.environ) -> None:
    """Raise InputError with every variable that is refused: what it says, and what to write instead."""
    problems = [
        Problem(f"{name}={value} is set in the environment: {setting.why}", setting.advice)
        for name, value, setting in _present(environ)
        if setting.judge(value, asked) == "refused"
    ]
    if problems:
        raise InputError(problems)


def overruled(asked: Asked, environ: Mapping[str, str] = os.environ) -> list[str]:
    """A line for every variable that is set in vain."""
    return [
        f"{name}={value} in the environment changes nothing: {setting.why}"
        for name, value, setting in _present(environ)
        if setting.judge(value, asked) == "overruled"
    ]


def recorded(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables of the table that are set, for the record of what a study ran on."""
    return {
        name: value
        for name, value, _ in _present(environ)
        if (name, value) not in SET_ON_THE_WAY and (name, None) not in SET_ON_THE_WAY
    }
