"""The base class of forms, and how they are found."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from finetune.core.errors import bad_input, did_you_mean
from finetune.export.snippets import Snippet

if TYPE_CHECKING:
    from finetune.export.trained import Trained

__all__ = ["Form", "Snippet", "all_forms", "find_form"]


class Form(ABC):
    """A form in which a model can be taken away. Shares nothing with others: each is asked by itself.

    A form is a file of this folder with a class that has a `name`; its docstring's first line is shown to people.
    """

    name: ClassVar[str]
    """The word for `--form`."""
    engine: ClassVar[str]
    """The module of `finetune/export/engines/` that answers with it: `transformers_engine`, say."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that writing it and asking it need, by the names that they are imported by."""
    extra: ClassVar[str | None] = None
    """The extra of `finetune` that brings these packages; None: they are always there."""
    least: ClassVar[float] = 0.99
    """The share of answers that have to be the same."""
    exact: ClassVar[bool] = True
    """Whether weights keep the precision that answers depend on (float32, float16). Then answers must be the same; of
    others the difference of scores is told, with its interval."""
    tolerance: ClassVar[float] = 1e-3
    """By how much probabilities, values in SDs, unit vectors and losses of a token may differ from those that our own
    code computes in float32, where the form is exact."""
    same_tokens: ClassVar[bool] = True
    """Whether the engine says which tokens it has read, which must be ours then."""

    @abstractmethod
    def refusal(self, trained: Trained) -> str | None:
        """Say in one line why it cannot be written in this form, and which one may do; None: it can.

        Looks at the model and its task, and writes nothing.
        """

    def keeps(self, trained: Trained) -> str | None:
        """Say in one line why nobody else could use it, elsewhere than here; None: everyone can."""
        return None

    @abstractmethod
    def write(self, trained: Trained, folder: Path) -> None:
        """Write everything that the model's users need into ``folder``, which is there and empty.

        Errors are raised: whoever calls takes the folder away. The certificate and README.md are added later.
        """

    def placed(self, trained: Trained, folder: Path, place: Path) -> None:
        """Write into ``folder`` what depends on the ``place`` that it is about to be moved to. Here, nothing does."""
        return None

    def snippets(self, trained: Trained, folder: Path) -> list[Snippet]:
        """Say how what was written into ``folder`` is loaded and asked; the first one in Python where there is one."""
        return []


def all_forms() -> dict[str, Form]:
    """Find every form, by name."""
    package = importlib.import_module("finetune.export.forms")
    found: dict[str, Form] = {}
    for module in pkgutil.iter_modules(package.__path__):
        own = importlib.import_module(f"{package.__name__}.{module.name}")
        for _, each in inspect.getmembers(own, inspect.isclass):
            if issubclass(each, Form) and not inspect.isabstract(each) and each.__module__ == own.__name__:
                found[each.name] = each()
    return dict(sorted(found.items()))


def find_form(name: str) -> Form:
    """Give the form called ``name``. Raises :class:`InputError` where there is none, or a package is missing."""
    known = all_forms()
    if name not in known:
        raise bad_input("--form", f"there is no form '{name}'", did_you_mean(name, known))
    form = known[name]
    for package in form.packages:
        if importlib.util.find_spec(package) is None:
            how = f'pip install "finetune[{form.extra}]"' if form.extra else f"pip install {package}"
            raise bad_input("--form", f"form '{name}' needs the package {package}, which is not installed", how)
    return form
