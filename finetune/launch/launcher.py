"""What every launcher can be asked: the verbs that look after a launch know no more of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from finetune.core.errors import Problem
from finetune.launch.cluster import Cluster
from finetune.launch.record import Launch

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe


class Task(NamedTuple):
    """What becomes of a group that is in a launcher's hands."""

    state: str
    """`running`, `waiting`, or `ended`: the launcher has given it up."""
    where: str
    """The machine it has."""
    why: str
    """What it waits for, or how it ended, in the launcher's words."""


class Launcher(Protocol):
    """Places groups of runs."""

    name: str
    obeys: frozenset[str]
    """Options of a cluster file that it can obey; others are refused."""
    resubmits: bool
    """Whether what is missing has to be submitted again by whoever counts; else the launcher tries again by itself."""

    def unfit(self, recipe: ResolvedRecipe, launch: Launch, cluster: Cluster) -> Iterable[Problem]:
        """Find what it could not do anywhere."""

    def dry_run(self, launch: Launch, groups: Sequence[int]) -> str:
        """Show what would be submitted."""

    def check(self, launch: Launch, cluster: Cluster) -> list[str]:
        """Give what could not be found out; raise InputError for what would be refused."""

    def submit(self, launch: Launch, groups: Sequence[int]) -> Launch:
        """Have some groups done; gives the launch with a note of it."""

    def describe(self, launch: Launch) -> str:
        """Say in words what was submitted last."""

    def tasks(self, launch: Launch) -> dict[int, Task]:
        """Find the groups that are in its hands."""

    def at_work(self, launch: Launch) -> bool:
        """Tell whether anything of the launch is under way or waits."""

    def said(self, launch: Launch, group: int) -> str:
        """Give what was said where a group is done, of which nothing is in its log."""

    def cancel(self, launch: Launch) -> None:
        """End all of it; runs under way are asked to save and leave."""
