"""Which of a study's models is taken away: a seed that was named, the best by validation, or a soup. The best on the
test set is never offered: its score would flatter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.core.errors import bad_input, did_you_mean
from finetune.core.run_dir import RunDir, unfit
from finetune.results.choosing import best_of, higher_is_better, solved, validated
from finetune.results.reading import Run, Study, read_study

SOUPS = ("soup-greedy", "soup-uniform")
"""Kinds of soup, the one that is taken first where both were made."""

SAVE = "write train.save_model: true, and run the recipe again under another name or --output"


@dataclass(frozen=True)
class Chosen:
    """The model that is taken away."""

    study: Study
    variant: str
    seed: int | None
    """None: a soup."""
    run: Run
    """Its run, or the soup that stands beside the runs."""
    reason: str
    """Why it is this one, in words."""
    named: bool = False
    """Whether somebody has named its seed, for reasons that nobody knows."""

    @property
    def folder(self) -> RunDir:
        return self.run.folder

    @property
    def title(self) -> str:
        """A few words for people."""
        return f"{self.variant}, {'soup' if self.seed is None else f'seed {self.seed}'}"


def choose(
    path: Path, variant: str | None = None, seed: int | None = None, best: bool = False, soup: bool = False
) -> Chosen:
    """Choose the model of the study in ``path`` that is taken away: of ``variant``, which may be left out where there
    is one only, the run under ``seed``, the ``best`` by validation, or its ``soup``; by default the best by validation
    where all runs were validated, and else the first seed.

    Raises :class:`InputError` where there is no such model, and where runs are missing among which to choose.
    """
    if sum((seed is not None, best, soup)) > 1:
        raise bad_input(None, "--seed, --best-validation and --soup exclude each other", "give one of them")
    study = read_study(path)
    name = _variant(study, variant)
    found = _soup(study, name) if soup else _named(study, name, seed) if seed is not None else _best(study, name, best)
    if not found.folder.model.is_dir():
        what = f"{found.folder.path} holds no saved model"
        asked = study.resolved["variants"][name]["recipe"].get("train", {}).get("save_model", True)
        raise bad_input(None, what, "restore its model/ folder" if asked else SAVE)
    return found


def _variant(study: Study, asked: str | None) -> str:
    known = list(study.resolved["variants"])
    if asked is None and len(known) > 1:
        listed = ", ".join(known)
        raise bad_input("--variant", f"study '{study.name}' has {len(known)} variants", f"choose one of: {listed}")
    if asked is not None and asked not in known:
        raise bad_input("--variant", f"study '{study.name}' has no variant '{asked}'", did_you_mean(asked, known))
    return asked or known[0]


def _named(study: Study, variant: str, seed: int) -> Chosen:
    run = next((each for each in study.variants[variant] if each.seed == seed), None)
    if run is None:
        known = ", ".join(str(each.seed) for each in study.variants[variant]) or "none yet"
        raise bad_input("--seed", f"variant '{variant}' has no run under seed {seed}", f"its runs: {known}")
    _refuse_unfit(study, run)
    more = ", although it learnt no more than needs no training" if run.result["status"] == "degenerate" else ""
    return Chosen(study, variant, seed, run, f"seed {seed}, as asked for{more}", named=True)


def _refuse_unfit(study: Study, run: Run) -> None:
    """Refuse a run that has no end, or one that nobody could use."""
    if why := unfit(run.result):
        resumed = "run the same command again, which resumes it; or " if run.result["status"] == "interrupted" else ""
        found = f"seed {run.seed} of variant '{run.variant}' {why}"
        raise bad_input(None, found, f"{resumed}choose another seed")


def _best(study: Study, variant: str, asked: bool) -> Chosen:
    """Choose by validation, or take the first seed where that is impossible and was not asked for."""
    runs = _ended(study, variant)
    working = [run for run in runs if run.result["status"] == "finished"]
    if not working:
        status = ", ".join(dict.fromkeys(run.result["status"] for run in runs))
        found = f"no run of variant '{variant}' works ({status})"
        some = any(run.result["status"] == "degenerate" for run in runs)  # which may be had by name
        raise bad_input(None, found, f"{'name one with --seed, or ' if some else ''}try another --variant")
    metric = study.resolved["variants"][variant]["recipe"].get("train", {}).get("select", "loss")
    scores = {run.seed: validated(run, metric) for run in working}
    known = {seed: score for seed, score in scores.items() if seed is not None and score is not None}
    if len(known) == len(working) > 1:
        seed = best_of(known, higher_is_better(metric))
        of = f"of {len(known)} seeds" + (f" ({len(runs) - len(working)} failed)" if len(working) < len(runs) else "")
        run = next(each for each in working if each.seed == seed)
        reason = f"the best by validation, {metric} {known[seed or 0]:.4g}, {of}"
        return Chosen(study, variant, run.seed, run, reason)
    run = working[0]
    if len(working) == 1:
        return Chosen(study, variant, run.seed, run, f"seed {run.seed}, the only one that works")
    if all(map(solved, working)):
        return Chosen(study, variant, run.seed, run, f"seed {run.seed}; what is solved is the same under every seed")
    if asked:
        found = f"the runs of variant '{variant}' have no validation scores ({metric})"
        advice = "name one with --seed; a recipe with data.split.validation and train.evaluations has them"
        raise bad_input("--best-validation", found, advice)
    return Chosen(study, variant, run.seed, run, f"seed {run.seed}, the first, as no run was validated")


def _ended(study: Study, variant: str) -> list[Run]:
    """List the variant's runs. Raises InputError where some have not ended, as the best may be among them."""
    runs = study.variants[variant]
    ended = {run.seed for run in runs if run.result["status"] != "interrupted"}
    left = [seed for seed in study.seeds if seed not in ended]
    if left:
        found = f"the study is not finished: {len(left)} of {len(study.seeds)} runs of variant '{variant}' are missing"
        first = sorted(seed for seed in ended if seed is not None)
        named = f"; or name a finished one with --seed, such as {first[0]}" if first else ""
        raise bad_input(None, found, f"run the same command again, which resumes it{named}")
    return runs


def _soup(study: Study, variant: str) -> Chosen:
    made = {run.folder.path.name: run for run in study.combined[variant]}
    run = next((made[kind] for kind in SOUPS if kind in made), None)
    if run is None:
        found = f"variant '{variant}' has no soup"
        advice = "add a variant with mitigations: [{type: soup}], and run the recipe again; or take one seed"
        raise bad_input("--soup", found, advice)
    if run.result["status"] != "finished":
        found = f"the soup of variant '{variant}' has failed: {run.result.get('reason')}"
        raise bad_input("--soup", found, "run the recipe again, which makes it anew")
    of = ", ".join(map(str, run.result.get("seeds", [])))
    return Chosen(study, variant, None, run, f"{run.folder.path.name} of seeds {of}")
