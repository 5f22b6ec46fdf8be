"""What was launched, as the study's folder says it: `launch/launch.json`, which every verb about a launch reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.core.run_dir import FINAL, FORMAT, RunDir, StudyDir, read_json, write_json
from finetune.launch.cluster import ClusterOptions

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe


@dataclass(frozen=True)
class Group:
    """Runs of a variant that are placed together."""

    variant: str
    seeds: tuple[int, ...]

    @property
    def only(self) -> str:
        """Say to `finetune run --only` which they are."""
        return f"{self.variant}/{','.join(map(str, self.seeds))}"


def group_runs(recipe: ResolvedRecipe, size: int) -> list[Group]:
    """Put the seeds of each variant into groups of at most ``size``."""
    seeds = recipe.seeds
    return [
        Group(variant.name, tuple(seeds[start : start + size]))
        for variant in recipe.variants
        for start in range(0, len(seeds), size)
    ]


@dataclass(frozen=True)
class Submission:
    """Groups that were given to a launcher at once, and how to ask it for them."""

    groups: tuple[int, ...]
    facts: dict[str, Any]
    """Of SLURM the numbers of the two jobs, of a local launch the process."""


@dataclass(frozen=True)
class Launch:
    """A launch of a study: how, and everything that was submitted for it so far."""

    study: StudyDir
    on: str
    at: str
    """When, as ISO 8601 says it."""
    command: tuple[str, ...]
    """What follows `python -m finetune` to do all of the runs."""
    cwd: str
    cluster: ClusterOptions
    groups: tuple[Group, ...]
    until: bool = False
    """True where a rule says when no more seeds are added: the groups then have the most that there can be."""
    submissions: tuple[Submission, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """Give the folder of scripts and logs."""
        return self.study.launch

    @property
    def file(self) -> Path:
        return self.folder / "launch.json"

    @property
    def cancelled(self) -> Path:
        """Give the place of a mark that keeps tasks from being queued again."""
        return self.folder / "cancelled"

    def log(self, group: int) -> Path:
        """Give the place of what is said where a group is done, each time after what was said before."""
        return self.folder / "logs" / ("runs.log" if self.on == "local" else f"{group}.log")

    def logs(self, group: int) -> list[Path]:
        """List the logs of a group: in pods, each node that shares its runs has one."""
        log = self.log(group)
        nodes = self.cluster.nodes if self.on == "kubernetes" else 1
        return [log, *(log.with_stem(f"{log.stem}.{node}") for node in range(1, nodes))]

    def turn(self, group: int, node: int = 0) -> Path:
        """Give the place of what a pod has written down of its turn at a group, of several that share its runs one
        each."""
        return self.folder / "turns" / (f"{group}.{node}" if node else str(group))

    @property
    def gather_log(self) -> Path:
        return self.folder / "logs" / "gather.log"

    def runs(self, group: int) -> dict[int, RunDir]:
        """Give the folders of a group's runs, by seed."""
        one = self.groups[group]
        return {seed: self.study.run(one.variant, seed) for seed in one.seeds}

    def left(self) -> list[int]:
        """List the groups in which a run is still to be done, or to be done again."""
        return [number for number in range(len(self.groups)) if any(map(is_left, self.runs(number).values()))]

    def submitted(self, groups: Iterable[int], facts: dict[str, Any]) -> Launch:
        """Note that groups have been submitted."""
        launch = replace(self, submissions=(*self.submissions, Submission(tuple(groups), facts)))
        launch.write()
        return launch

    def note(self, group: int, node: int, *, state: str, failures: int, round: str = "") -> None:
        """Write down what has become of a turn: it is `running`, `done`, or `left`, or has failed, as so many before;
        and in which round of nodes that share the runs it is."""
        write_json(self.turn(group, node), {"state": state, "failures": failures, "round": round})

    def give_up(self, group: int) -> None:
        """Write down that a group has failed as often as it may, for whoever cannot ask the launcher."""
        found = read_json(self.turn(group)) if self.turn(group).exists() else {"state": "", "failures": 0}
        if (found["state"], found["failures"]) != ("failed", self.cluster.retries):
            self.note(group, 0, state="failed", failures=self.cluster.retries)

    def take_back(self, former: Launch | None) -> None:
        """Forget this launch; what was launched before is what is known again."""
        if former is None:
            self.file.unlink()
        else:
            former.write()

    def write(self) -> None:
        """Write it into the study's folder."""
        said = {name: value for name, value in vars(self).items() if name not in ("study", "cluster")}
        said |= {"groups": [asdict(group) for group in self.groups], "cluster": self.cluster.model_dump(mode="json")}
        said |= {"submissions": [asdict(each) for each in self.submissions]}
        write_json(self.file, {"format": FORMAT, **said})


def is_left(run: RunDir) -> bool:
    """Tell whether a run is still to be done, or to be done again."""
    result = run.read_result()
    return result is None or result["status"] not in FINAL


def read_launch(study: Path) -> Launch:
    """Read how a study was launched; raises InputError where it was not."""
    folder = StudyDir(study.absolute())
    if (found := former_launch(folder)) is None:
        advice = "give the folder of a study that `finetune launch` has launched, such as runs/NAME"
        raise bad_input(None, f"{study} has not been launched: it has no launch/launch.json", advice)
    return found


def former_launch(folder: StudyDir) -> Launch | None:
    """Read how a study was launched, if it was."""
    path = folder.launch / "launch.json"
    if not path.exists():
        return None
    said = read_json(path)
    return Launch(
        study=folder,
        on=said["on"],
        at=said["at"],
        command=tuple(said["command"]),
        cwd=said["cwd"],
        cluster=ClusterOptions.model_validate(said["cluster"]),
        groups=tuple(Group(each["variant"], tuple(each["seeds"])) for each in said["groups"]),
        until=said.get("until", False),
        submissions=tuple(Submission(tuple(each["groups"]), each["facts"]) for each in said["submissions"]),
    )


def named(launch: Launch, which: str | None) -> Sequence[int]:
    """Find the groups of `VARIANT` or `VARIANT/SEED`; None means all. Raises InputError where there are none."""
    if which is None:
        return range(len(launch.groups))
    variant, slash, seed = which.partition("/")
    found = [
        number
        for number, group in enumerate(launch.groups)
        if group.variant == variant and (not slash or seed in map(str, group.seeds))
    ]
    if not found:
        known = ", ".join(group.only for group in launch.groups)
        raise bad_input(None, f"no run '{which}' was launched", f"choose from: {known}")
    return found
