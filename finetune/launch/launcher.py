"""What every launcher can be asked: the verbs that look after a launch know no more of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from finetune.launch.cluster import Cluster
from finetune.launch.record import Launch


class Task(NamedTuple):
    """What becomes of a group that is in a launcher's hands."""

    state: str
    """`running` or `waiting`."""
    where: str
    """The machine it has."""
    why: str
    """What it waits for, in the launcher's words."""


class Launcher(Protocol):
    """Places groups of runs."""

    name: str

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

    def cancel(self, launch: Launch) -> None:
        """End all of it; runs under way are asked to save and leave."""
