"""One recipe → variants × seeds: runs what is not finished, and reports on everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.core.errors import StudyEnded
from finetune.core.events import RunStarted, StudyFinished, finished_event
from finetune.core.progress import Progress, phase
from finetune.core.run_dir import StudyDir, read_json, write_json
from finetune.core.runtime import Runtime, make_deterministic, open_runtime
from finetune.core.signals import StopRequest
from finetune.replicas.group import Replica
from finetune.runner.autotune import Speed, choose_speed
from finetune.runner.resources import Resources
from finetune.runner.result import StudyOutcome, failure, summary
from finetune.runner.run import opening, run
from finetune.runner.session import Session
from finetune.study.baselines import score_baselines
from finetune.study.claim import claim
from finetune.study.combine import combine
from finetune.study.environment import environment
from finetune.study.facts import data_facts, write_down
from finetune.study.preflight import Preflight, located, split_seed, start_alike
from finetune.study.provenance import agreed, same_provenance, same_start, same_weights, start_of, starts_of
from finetune.study.sharing import Asked, Claims, Helper, finished, share_out, stamps
from finetune.study.stages import reach, ready_stages
from finetune.study.stopping_rule import Look, first_round, look
from finetune.study.untuned import Untuned, before_stages
from finetune.train import checkpoint
from finetune.train.checkpoint import told_when_full

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe, SeedsUntil, Variant


@dataclass
class Study:
    """A study under way: its folder, what its runs share, and the results so far."""

    recipe: ResolvedRecipe
    folder: StudyDir
    resources: Resources
    runtime: Runtime
    results: dict[tuple[str, int], dict[str, Any]]
    speeds: dict[str, dict[str, Any]]
    """By variant: how its seeds are trained, as speed.json says it."""
    asked: Asked = field(default_factory=Asked)
    helper: Helper | None = None
    """This process's part, where it is one of several that the study has started."""
    starts: dict[str, Any] = field(default_factory=dict)
    """By variant: what its runs start from, as environment.json says it."""

    def __post_init__(self) -> None:
        # Errors of before are tried again, those of processes that are at work beside this one are not.
        self.former = stamps([variant.name for variant in self.recipe.variants], self.recipe.seeds, self.folder)
        self.claims = Claims(self.folder.path, self.runtime)
        self.untuned = Untuned(self.recipe, self.folder, self.resources, self.claims)
        self.seeds = self.recipe.seeds  # by a rule: so far
        if self.recipe.until:
            begun = self.folder.begun(variant.name for variant in self.recipe.variants)
            self.seeds = self.recipe.seeds[: first_round(self.recipe.until, begun, self._together())]

    @classmethod
    def open(
        cls,
        recipe: ResolvedRecipe,
        folder: StudyDir,
        resources: Resources,
        found: Preflight,
        progress: Progress,
        stop: StopRequest,
        compares: bool = True,
    ) -> Study:
        """Claim the folder, write down what will be run on what, and read what is finished already. ``compares``: all
        models with plain transformers."""
        first = recipe.variants[0].recipe
        runtime = agreed(recipe, open_runtime(*models.processor(first.model), progress, stop, folder.path))
        facts = data_facts(recipe, found)
        claim(folder, recipe, facts)  # in every process, so that a refusal ends them all
        starts = starts_of(recipe, resources, runtime.device)
        dtype, why = models.explain_dtype(first.model, runtime.device)
        now = {**environment(runtime, dtype, resources.today, starts), "dtype_reason": why}
        kept, lines = same_provenance(folder, now, recipe.mix)
        study = cls.resume(recipe, folder, resources, runtime, starts)
        if compares:
            study.compare()
        with study.claims.alone("study", "opening the study"):
            if runtime.accelerator.is_main_process:
                write_down(folder, recipe, found, facts, kept)
            runtime.accelerator.wait_for_everyone()
        for line in lines:
            runtime.progress.say(line)
        return study

    @classmethod
    def resume(
        cls,
        recipe: ResolvedRecipe,
        folder: StudyDir,
        resources: Resources,
        runtime: Runtime,
        starts: dict[str, Any] | None = None,
    ) -> Study:
        """Read what is finished already."""
        results: dict[tuple[str, int], dict[str, Any]] = {}
        for variant in recipe.variants:
            results |= finished(variant.name, recipe.seeds, folder)
        speeds = read_json(folder.speed) if folder.speed.exists() else {}
        return cls(recipe, folder, resources, runtime, results, speeds, starts=starts or {})

    def left(self, variant: str) -> list[int]:
        """List the seeds of the variant of that name that are not finished."""
        return [
            seed for seed in self.seeds if (variant, seed) not in self.results and self.asked.for_run(variant, seed)
        ]

    def compare(self) -> None:
        """Compare every model that is to be trained with plain transformers, before anything is."""
        for variant in self.recipe.variants:
            if not (left := self.left(variant.name)):
                continue
            with located(self.recipe, variant.name):
                ready_stages(variant.recipe, self.resources, self.runtime, split_seed(self.recipe, variant, left[0]))
                self.session(variant, left[0], variant.name)

    def score_baselines(self, found: Preflight) -> None:
        """Fit and score the cheap baselines that are not there yet."""
        with self.claims.alone("baselines", "scoring baselines"):
            for line in score_baselines(self.recipe, self.folder, found, self.starts, self.session):
                self.runtime.progress.say(line)

    def do_all(self) -> None:
        """Do the runs that are left, but for those that other processes do."""
        for _ in self.rounds():
            # Whoever decides by the scores of all waits for those of others; a helper's caller waits for it.
            share_out(self.waiting, self.do, self.claims, waits=self.helper is None or self.recipe.until is not None)

    def rounds(self) -> Iterator[None]:
        """Yield once for all runs that are left; where a rule decides, again whenever it has added seeds."""
        already = True
        while True:
            if any(self.left(variant.name) for variant in self.recipe.variants):
                already = False
                yield
            if self.recipe.until is None or self._enough(self.recipe.until):
                break
            self.seeds = self.recipe.seeds[: len(self.seeds) + self._together()]
        if already:
            self.runtime.progress.say("every run is finished already; writing the report again")

    def _enough(self, rule: SeedsUntil) -> bool:
        """Tell whether the seeds so far are enough, as all processes see it."""
        task = read_json(self.folder.data)["tasks"][0]
        found: Look = self.runtime.broadcast(look(rule, self.seeds, self.results, task))
        self.runtime.progress.say(str(found))
        return found.enough

    def _together(self) -> int:
        """Count the seeds that are added at once: as many as are trained side by side."""
        return max((speed["replicas"] for speed in self.speeds.values()), default=1)

    def staged(self, variant: Variant, seed: int) -> Variant:
        """Give the variant as its run under ``seed`` starts after its stages; trains those that have not been."""
        if not variant.recipe.stages:
            return variant
        make_deterministic(True)
        runtime, split = self.runtime_of(variant.recipe.model, variant.name), split_seed(self.recipe, variant, seed)
        with self.claims.alone("stages", "training a stage"):
            return replace(variant, recipe=reach(variant.recipe, self.folder, self.resources, runtime, split))

    def waiting(self) -> Iterator[tuple[Variant, list[int]]]:
        """Group all runs that are left into those that are trained side by side."""
        variants = self.recipe.variants
        for variant in variants if self.helper is None else self.helper.order(variants):
            for seeds in self.groups(variant):
                yield variant, seeds

    def do(self, variant: Variant, seeds: Sequence[int]) -> None:
        """Do some seeds' runs, which are ours to do, but for those that another process has finished by now."""
        self.reread()
        if own := [seed for seed in seeds if (variant.name, seed) not in self.results]:
            self.run(self.staged(variant, own[0]), own)

    def reread(self) -> None:
        """Take in what other processes have finished, as all processes of a run see it."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for variant in self.recipe.variants:
            found |= finished(variant.name, self.recipe.seeds, self.folder, self.former)
        self.results |= self.runtime.broadcast(found)

    def groups(self, variant: Variant) -> Iterator[list[int]]:
        """Group the variant's seeds that are not finished into those that are trained side by side."""
        seeds = self.left(variant.name)
        if not seeds:
            return
        size = self._speed(variant, seeds).replicas
        size = size if self.helper is None else min(size, self.helper.at_once)
        # Those that were interrupted go on beside others that can go on from the same step.
        found = checkpoint.alike({seed: self.folder.run(variant.name, seed).checkpoints for seed in seeds})
        for alike in self.runtime.broadcast(found):
            for start in range(0, len(alike), size):
                yield alike[start : start + size]

    def _speed(self, variant: Variant, seeds: Sequence[int]) -> Speed:
        """Choose how to train this variant's seeds; what has to be measured is measured once for the study."""
        known, asked = self.speeds, [variant.recipe.train.replicas, variant.recipe.train.compile]
        if variant.name not in known and self.folder.speed.exists():  # another process may have measured it by now
            known |= self.runtime.broadcast(read_json(self.folder.speed))
        if variant.name not in known or known[variant.name]["asked"] != asked:
            make_deterministic(variant.recipe.train.deterministic)
            session = self.session(self.staged(variant, seeds[0]), seeds[0], variant.name)
            # Runs on other examples have nothing in common.
            together = seeds[:1] if "split" in self.recipe.vary else seeds
            streams = [self.recipe.streams(seed) for seed in together]
            # Clocks differ, and processes have to train alike.
            speed = self.runtime.broadcast(choose_speed(session, streams))
            known[variant.name] = {"asked": asked, **vars(speed)}
            with self.claims.alone("speed", "writing down how fast runs are"):
                if self.runtime.accelerator.is_main_process:
                    others = read_json(self.folder.speed) if self.folder.speed.exists() else {}
                    write_json(self.folder.speed, {**others, **known})
            if speed.telling:
                self.runtime.progress.say(f"{variant.name} · {speed.reason}")
        # Former versions do not say how many tokens: they had one number for all.
        found = {"part_tokens": self.runtime.part_tokens, **known[variant.name]}
        return Speed(**{name: found[name] for name in Speed.__annotations__})

    def run(self, variant: Variant, seeds: Sequence[int]) -> None:
        """Do some seeds' runs side by side; an exception inside becomes their result, each one's own if it can."""
        replicas = [Replica(self.recipe.streams(seed), self.folder.run(variant.name, seed)) for seed in seeds]
        least, most = (len(self.recipe.variants) * len(some) for some in (self.seeds, self.recipe.seeds))
        done, every = len(self.results), f"{least} to {most}" if least < most else f"{most}"
        which = f"run {done + 1}" if len(seeds) == 1 else f"runs {done + 1} to {done + len(seeds)}"
        title = f"{which} of {every}: {variant.name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        runtime = self.runtime
        other_seeds = {other: result for (name, other), result in self.results.items() if name == variant.name}
        make_deterministic(variant.recipe.train.deterministic)
        if runtime.accelerator.is_main_process:
            for replica in replicas:
                replica.folder.result.unlink(missing_ok=True)  # of an error that is tried again
        for seed in seeds:
            self.runtime.progress.tell(RunStarted(variant.name, seed, len(seeds)))
        try:
            session = self.checked_session(variant, seeds[0], title, other_seeds)
            with told_when_full(self.folder.path):
                untuned = self.untuned.scores(variant, session)
                speed = self._speed(variant, seeds)
                session = replace(session, runtime=replace(session.runtime, part_tokens=speed.part_tokens))
                results = run(variant, replicas, session, other_seeds, untuned, speed.compiled)
        except StudyEnded:
            raise
        except Exception as error:
            # What the run had prepared would stay in memory, and might push the next one out of it.
            runtime.accelerator.free_memory()
            if len(seeds) > 1:
                self.runtime.progress.say(f"{title} · {error}; trying one by one")
                for seed in seeds:
                    self.run(variant, [seed])
                return
            streams = replicas[0].streams
            result = failure(opening(variant, streams.seed, "error", None), error)
            results = [{**result, "training": None, "identity": None, "streams": streams.facts()}]
            if runtime.accelerator.is_main_process:
                write_json(replicas[0].folder.result, results[0])
            if runtime.accelerator.num_processes > 1:
                # The other processes may be waiting for this one inside the run; their launcher ends them.
                raise
        for seed, result in zip(seeds, results, strict=True):
            self.results[variant.name, seed] = result
            self.runtime.progress.tell(finished_event(variant.name, seed, result))
            line = f"run {len(self.results)} of {every}: {variant.name}, seed {seed}"
            self.runtime.progress.came(summary(line, result, variant.recipe.task.metrics[0]))

    def session(self, variant: Variant, seed: int, title: str) -> Session:
        """Open the session of the variant's runs that have the same examples as the one under ``seed``."""
        split = split_seed(self.recipe, variant, seed)
        return Session.open(self.resources, variant.recipe, split, self.runtime_of(variant.recipe.model, title))

    def checked_session(self, variant: Variant, seed: int, title: str, runs: dict[int, dict[str, Any]]) -> Session:
        """Open the same session, and refuse a base model other than the study began with, or these ``runs`` have
        started from."""
        now = start_of(before_stages(self.recipe, variant.name).recipe, self.resources, self.runtime.device)
        same_start(self.folder, variant.name, self.starts.get(variant.name, {}), now)
        session = self.session(variant, seed, title)
        for other, result in start_alike(self.recipe, variant, seed, runs):
            same_weights(result, session.base.digest, f"seed {other} of variant '{variant.name}'")
        return session

    def runtime_of(self, model: models.ModelOptions, title: str) -> Runtime:
        """Give the study's runtime for runs of ``model``; ``title``: what the progress line calls them."""
        return self.runtime.at(title, models.choose_dtype(model, self.runtime.device))

    def combine(self, variant: Variant) -> None:
        """Make of the variant's finished seeds together what its mitigations ask for, where it is not there yet."""
        self.results |= finished(variant.name, self.seeds, self.folder, self.former)
        results = {seed: result for (name, seed), result in self.results.items() if name == variant.name}
        if not results.keys() >= {*self.seeds}:  # others were not asked for, or are not done yet
            return
        runtime = self.runtime_of(variant.recipe.model, variant.name)
        staged = partial(self.staged, seed=self.seeds[0])  # only runs of one split are combined
        with self.claims.alone(variant.name, "combining runs"):
            for result in combine(variant, results, self.folder, self.resources, runtime, staged):
                title = f"{variant.name}, {result['kind']}"
                self.runtime.progress.say(summary(title, result, variant.recipe.task.metrics[0]))

    def report(self) -> StudyOutcome:
        """Write the report, in one process; the others wait for it."""
        from finetune import report

        accelerator, results = self.runtime.accelerator, None
        with self.claims.alone("report", "writing the report"):
            if accelerator.is_main_process:
                with phase("writing the report"):
                    results = report.build(self.folder.path)
            accelerator.wait_for_everyone()
        results = results or report.read(self.folder.path)
        outcome = StudyOutcome(self.folder.path, results, accelerator.is_main_process, self.asked.for_run)
        self.runtime.progress.tell(StudyFinished(self.folder.path, len(outcome.failed)))
        return outcome
