"""Python and installed packages, against the bounds in our own metadata; and what each extra would add."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from finetune.core.errors import first_line
from finetune.doctor.findings import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

US = "finetune"
EXTRAS = {
    "benchmark": "comparing speed and memory with other trainers (scripts/benchmark)",
    "gguf": "exports as GGUF files, asked in llama.cpp (finetune export --form gguf-f16)",
    "lm-eval": "tasks of lm-evaluation-harness as evaluation sets (lm_eval)",
    "mlflow": "MLflow hears of every run (tracking)",
    "onnx": "exports as ONNX graphs (finetune export --form onnx)",
    "sentence-transformers": "exports as sentence-transformers folders",
    "serve": "a server of a model for trying out (finetune serve)",
    "tensorboard": "TensorBoard hears of every run (tracking)",
    "test": "the tests of finetune itself",
    "trackio": "trackio hears of every run (tracking)",
    "wandb": "Weights & Biases hears of every run (tracking)",
    "xlsx": "data in Excel workbooks",
}
"""What each extra adds; one that is not here is told by its packages."""

Installed = Callable[[str], str | None]
"""Gives the version of a package, or None where it is not installed."""


def installed(package: str) -> str | None:
    """Find the version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def look_at_python(version: str | None = None) -> Iterator[Finding]:
    """Hold Python's version against the one that is needed."""
    from packaging.specifiers import SpecifierSet

    version, wanted = version or platform.python_version(), _metadata()[0]
    if wanted and version not in SpecifierSet(wanted, prereleases=True):
        fix = "python3.12 -m venv .venv && .venv/bin/pip install finetune"
        yield Finding("python", "problem", f"Python {version}, and finetune needs {wanted}", fix)
    else:
        yield Finding("python", "fine", f"Python {version} on {platform.system()} {platform.machine()}")


def look_at_packages(version_of: Installed = installed) -> Iterator[Finding]:
    """Hold what is installed against the bounds, and name what matters most."""
    needed = [each for each in _metadata()[1] if _needed(each, "")]
    wrong = [*_wrong(needed, version_of)]
    for requirement, version in wrong:
        there = "not installed" if version is None else version
        found = f"{requirement.name} is {there}, and finetune needs {requirement}"
        yield Finding("packages", "problem", found, f"pip install '{requirement}'")
    shown = ", ".join(
        f"{name} {version_of(name) or 'missing'}" for name in ("torch", "transformers", "peft", "datasets")
    )
    if not wrong:
        yield Finding("packages", "fine", f"all {len(needed)} as needed: {shown}")


def look_at_import(package: str) -> Iterator[Finding]:
    """Say why a package that is installed cannot be imported, as where a library that it needs is not there."""
    try:
        import_module(package)
    except Exception as error:  # whatever the package and the system's loader make of it
        found = f"{package} is installed and cannot be imported: {type(error).__name__}: {first_line(error)}"
        yield Finding("packages", "problem", found, f"pip install --force-reinstall {package}")


def look_at_extras(version_of: Installed = installed) -> Iterator[Finding]:
    """Say what each extra that is not there would add, and which are there in a version that does not fit."""
    for extra, requirements in _extras().items():
        wrong = [*_wrong(requirements, version_of)]
        adds = EXTRAS.get(extra) or ", ".join(each.name for each in requirements)
        fix = f"pip install '{US}[{extra}]'"
        if not wrong:
            yield Finding("extras", "fine", f"{extra} is there: {adds}")
        elif any(version is None for _, version in wrong):
            names = ", ".join(each.name for each, version in wrong if version is None)
            yield Finding("extras", "note", f"{extra} adds {adds}; missing: {names}", fix)
        else:
            old = ", ".join(f"{each.name} is {version}, and it needs {each}" for each, version in wrong)
            yield Finding("extras", "problem", f"{extra}: {old}", fix)


def _wrong(requirements: Sequence[Requirement], version_of: Installed) -> Iterator[tuple[Requirement, str | None]]:
    for each in requirements:
        version = version_of(each.name)
        if version is None or not each.specifier.contains(version, prereleases=True):
            yield each, version


def _metadata() -> tuple[str, list[Requirement]]:
    """The Python that is needed, and every requirement of ours."""
    from packaging.requirements import Requirement

    try:
        known = metadata.metadata(US)
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "", []
    return "".join(known.get_all("Requires-Python") or ()), [Requirement(each) for each in metadata.requires(US) or ()]


def _needed(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _extras() -> Mapping[str, list[Requirement]]:
    """The requirements of each extra that finetune itself does not have."""
    _, every = _metadata()
    optional = [each for each in every if each.marker is not None and "extra" in str(each.marker)]
    names = sorted(metadata.metadata(US).get_all("Provides-Extra") or ()) if every else []
    return {name: [each for each in optional if _needed(each, name) and not _needed(each, "")] for name in names}
