"""Experiment trackers: every run of a study as a run of theirs, grouped by study, through Accelerate's own trackers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from finetune.core.digests import text_digest
from finetune.core.errors import Problem
from finetune.core.events import Evaluated, Event, RunFinished, Step
from finetune.core.options import Options

TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]

MLFLOW_REFUSES = re.compile(r"[^\w.\- :]")
"""Characters that MLflow takes in no name, and `/`."""
MLFLOW_LONGEST = 240
"""Bytes of a name that MLflow, and a disk on which it makes files of them, surely takes, with a number behind it."""

Key = tuple[str, int]
"""A run: variant and seed."""


def _once(names: list[TrackerName]) -> list[TrackerName]:
    if len({*names}) < len(names):
        raise ValueError("names one of them more than once")
    return names


class TrackingOptions(Options):
    """Experiment trackers that hear of every run: losses, rates and norms of training as they come, validation scores,
    and held-out scores at its end. They change no result, and one that fails is left out with a line that says so."""

    trackers: Annotated[list[TrackerName], AfterValidator(_once)] = Field(default_factory=list)
    """Which. `tensorboard` writes into the study's folder `tensorboard`; `mlflow` where MLFLOW_TRACKING_URI says, else
    into `mlflow` there, as one experiment; `wandb` and `trackio` have a group for the study. Each is an extra of its
    name: `pip install 'finetune[tensorboard]'`."""
    project: str = "finetune"
    """Project of Weights & Biases and of trackio that the study is put into."""


def missing(options: TrackingOptions) -> Iterator[Problem]:
    """Find trackers that are asked for and not installed."""
    for name in options.trackers:
        if find_spec(name) is None:
            found = f"names {name}, which is not installed"
            yield Problem(found, f"install it: pip install 'finetune[{name}]'", "tracking.trackers")


@dataclass
class Open:
    """One run at one tracker."""

    log: Callable[[Mapping[str, float], int], None]
    end: Callable[[str], None]
    """Ends it, with the status of the run."""


@dataclass
class Tracking:
    """Tells trackers what happens in a study's runs; a listener of its events. ``say`` shows a line."""

    options: TrackingOptions
    folder: Path
    """The study's."""
    about: Mapping[str, Mapping[str, Any]]
    """What each variant was asked to do, by variant, which a tracker shows beside the curves."""
    say: Callable[[str], None]
    open: dict[tuple[TrackerName, Key], Open] = field(default_factory=dict)
    last: dict[Key, int] = field(default_factory=dict)
    """The step that each run has come to."""
    failed: set[TrackerName] = field(default_factory=set)
    after: list[Callable[[], None]] = field(default_factory=list)
    """What is to be done when all is told."""

    def __call__(self, event: Event) -> None:
        """Tell them what has happened."""
        if not isinstance(event, Step | Evaluated | RunFinished) or event.seed is None:
            return
        key = event.variant, event.seed
        if isinstance(event, RunFinished):
            self._each(key, {}, event.scores, event.status)
            return
        self.last[key] = event.step
        if isinstance(event, Evaluated):
            found = {f"validation/{name}": value for name, value in event.scores.items()}
        else:
            found = {"loss": event.loss, "learning_rate": event.learning_rate, "gradient_norm": event.gradient_norm}
            found = {f"train/{name}": value for name, value in {**found, "epoch": event.epoch}.items()}
        self._each(key, found)

    def _each(
        self,
        key: Key,
        found: Mapping[str, float | None],
        scores: Mapping[str, float] | None = None,
        status: str | None = None,
    ) -> None:
        """Tell each tracker what was measured, and at the end the scores and the status."""
        values = {name: value for name, value in {**found, **(scores or {})}.items() if value is not None}
        step = self.last.get(key, 0)
        for name in self.options.trackers:
            with self._survived(name):
                if name in self.failed:
                    continue
                if (name, key) not in self.open:
                    self.open[name, key] = MAKERS[name](self, key, step)
                if values:
                    self.open[name, key].log(values, step)
                if status is not None:
                    self.open.pop((name, key)).end(status)

    def close(self) -> None:
        """End what is open: of runs that were interrupted."""
        for name, key in list(self.open):
            with self._survived(name):
                self.open.pop((name, key)).end("interrupted")
        while self.after:
            self.after.pop()()

    @contextmanager
    def _survived(self, name: TrackerName) -> Iterator[None]:
        """A tracker may fail, as when its server is away: that is said once, and no run is lost over it."""
        try:
            yield
        except Exception as error:
            self.say(f"{name} failed, and hears no more of this study: {type(error).__name__}: {error}")
            self.failed.add(name)

    def settings(self, key: Key) -> dict[str, Any]:
        """What a tracker shows beside the curves: the variant's options by their dotted path, and the seed."""
        return {**self.about[key[0]], "variant": key[0], "seed": key[1], "study": self.folder.name}


def name_of(key: Key) -> str:
    """What a run is called."""
    return f"{key[0]}/seed-{key[1]}"


def identity(tracking: Tracking, key: Key) -> str:
    """The same for a run that goes on as for the run that it was."""
    return text_digest(f"{tracking.folder.resolve()}/{name_of(key)}")


def _tensorboard(tracking: Tracking, key: Key, step: int) -> Open:
    from accelerate.tracking import TensorBoardTracker

    # What had been written beyond the checkpoint that the run goes on from is not shown twice.
    tracker = TensorBoardTracker(name_of(key), tracking.folder / "tensorboard", purge_step=step)
    tracker.start()
    lines = "".join(f"    {name}: {value}\n" for name, value in tracking.settings(key).items())
    tracker.log({"settings": lines}, step=step)
    return Open(lambda values, at: tracker.log(dict(values), step=at), lambda _: tracker.finish())


def mlflow_names(settings: Iterable[str]) -> dict[str, str]:
    """What MLflow can call each of the ``settings``, in which labels and columns of the user's stand: `_` is put for
    what it refuses, and for `/`, which it takes for a folder. Names that become one are numbered."""
    fitted = {
        name: MLFLOW_REFUSES.sub("_", name).encode()[:MLFLOW_LONGEST].decode(errors="ignore") for name in settings
    }
    found = {name: name for name, other in fitted.items() if name == other}
    taken = {*found}
    for name, other in fitted.items():
        if name not in found:
            numbered = chain([other], (f"{other}_{number}" for number in count(2)))
            found[name] = next(each for each in numbered if each not in taken)
            taken.add(found[name])
    return found


def _mlflow(tracking: Tracking, key: Key, step: int) -> Open:
    import mlflow
    from accelerate.tracking import MLflowTracker

    if "MLFLOW_TRACKING_URI" not in os.environ:
        # Plain files, which several processes and machines may write at once; MLflow wants to be told that it is meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((tracking.folder / "mlflow").resolve().as_uri())
        # None forgets it, also in the variable, which is where it keeps it; its annotation does not say so.
        tracking.after.append(lambda: mlflow.set_tracking_uri(None))  # type: ignore[arg-type]
    client, study, own = mlflow.MlflowClient(), tracking.folder.name, {"finetune.run": identity(tracking, key)}
    known = client.get_experiment_by_name(study)
    wanted = f"tags.`finetune.run` = '{own['finetune.run']}'"
    before = client.search_runs([known.experiment_id], wanted) if known is not None else []
    run = before[0].info.run_id if before else None
    # Runs that are trained side by side are open at once, which MLflow calls nested.
    tracker = MLflowTracker(study, run_id=run, tags=own, nested_run=True, run_name=name_of(key))
    tracker.start()
    run = tracker.tracker.info.run_id

    def end(status: str) -> None:
        how = {"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED")
        mlflow.end_run()  # the one that was opened last, of those that end together
        client.set_terminated(run, how)
        client.set_tag(run, "finetune.status", status)

    settings = {} if before else tracking.settings(key)
    try:
        for name, shown in mlflow_names(settings).items():
            client.log_param(run, shown, str(settings[name])[:500])
    except Exception:
        end("failed")  # else it would be shown as running for ever
        raise
    return Open(lambda values, at: tracker.log(dict(values), step=at, run_id=run), end)


def _wandb(tracking: Tracking, key: Key, step: int) -> Open:
    from accelerate.tracking import WandBTracker

    os.environ.setdefault("WANDB_SILENT", "true")  # or it writes a page across ours for each run
    own = {"id": identity(tracking, key), "name": name_of(key), "group": tracking.folder.name, "resume": "allow"}
    folder = {"dir": str(tracking.folder), "config": tracking.settings(key), "reinit": "create_new"}
    tracker = WandBTracker(tracking.options.project, **own, **folder)
    tracker.start()
    return Open(lambda values, at: tracker.log(dict(values), step=at), lambda _: tracker.finish())


def _trackio(tracking: Tracking, key: Key, step: int) -> Open:
    from accelerate.tracking import TrackioTracker

    own = {"name": f"{tracking.folder.name}/{name_of(key)}", "group": tracking.folder.name, "resume": "allow"}
    tracker = TrackioTracker(tracking.options.project, **own, config=tracking.settings(key))

    def end(_: str) -> None:
        with redirect_stdout(StringIO()):
            tracker.finish()

    with redirect_stdout(StringIO()):  # it has no other way to be silent
        tracker.start()
    return Open(lambda values, at: tracker.log(dict(values), step=at), end)


MAKERS: dict[TrackerName, Callable[[Tracking, Key, int], Open]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}
