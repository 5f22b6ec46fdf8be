"""What one must know beside the study's answer: what it does not cover, and what to do about it."""

from __future__ import annotations

from finetune import stats
from finetune.core.numbers import count, listing
from finetune.core.run_dir import BASE
from finetune.metrics import unit
from finetune.results.ranking import headline_row, ranked
from finetune.results.schema import Results


def remarks_of(results: Results) -> list[str]:
    """A sentence or two for each thing, what bears most on the answer first."""
    return [
        *cheap_remarks(results),
        *_base_remarks(results),
        *forgetting_remarks(results),
        *_failure_remarks(results),
        *_ground_remarks(results),
        *_seed_remarks(results),
    ]


def cheap_remarks(results: Results) -> list[str]:
    """Name the cheap baselines that a tuned variant is not better than; those of the same variants in one sentence."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cheap in results.baselines:
        rows = [row for variant in results.tuned if (row := headline_row(results, variant.name, cheap.name))]
        rows = [row for row in rows if row.difference is not None]
        for word, said in (("worse", "worse than"), ("undecided", "not shown to be better than")):
            names = [row.left for row in rows if row.verdict == word]
            if names:
                found.setdefault((said, *names), []).append(cheap.name)
    return [
        f"{listing(names)} {'is' if len(names) == 1 else 'are'} {said} {listing(cheap, 'or')}, "
        f"which {'needs' if len(cheap) == 1 else 'need'} no fine-tuning."
        for (said, *names), cheap in found.items()
    ]


def _base_remarks(results: Results) -> list[str]:
    """Say how several variants compare with the untuned base model; a single one has it in its sentence."""
    names = [variant.name for variant in ranked(results)]
    if len(names) < 2:
        return []
    rows = {name: row for name in names if (row := headline_row(results, name, BASE)) and row.difference is not None}
    titles = {
        "better": "Better than the untuned base model",
        "worse": "Worse than the untuned base model",
        "undecided": "Not shown to differ from the untuned base model",
    }
    groups = {word: [name for name, row in rows.items() if row.verdict == word] for word in titles}
    return [f"{titles[word]}: {listing(group)}." for word, group in groups.items() if group]


def forgetting_remarks(results: Results) -> list[str]:
    """Say, for each set that is about what was known before, which variants have kept it; a sentence for each set."""
    sentences = []
    for task in results.tasks:
        found: dict[str, list[str]] = {"lost": [], "kept": [], "undecided": []}
        for row in results.forgetting:
            if row.task == task.name:
                found[row.verdict].append(row.variant)
        said = [f"{word} by {listing(found[word])}" for word in ("lost", "kept") if found[word]]
        said += [f"not shown to be kept by {listing(found['undecided'])}"] if found["undecided"] else []
        if any(found.values()):
            margin = unit(task.metric).gap(task.margin).lstrip("+")
            sentences.append(f"What the untuned model can do on {task.name}, within {margin}: {'; '.join(said)}.")
    return sentences


def _failure_remarks(results: Results) -> list[str]:
    remarks = []
    tuned = results.tuned
    failed = {v.name: v.failures.count for v in tuned if v.failures.count}
    if failed:
        ended = sum(variant.failures.n for variant in tuned)
        by_variant = listing([f"{number} of {name}" for name, number in failed.items()])
        remarks.append(
            f"{sum(failed.values())} of {ended} runs failed ({by_variant}). Means leave them out; the column “with "
            "failures” counts them. “Failed and unfinished runs” says why they failed."
        )
    expected = len(tuned) * len(results.seeds)
    missing = expected - sum(variant.failures.n for variant in tuned)
    if missing:
        remarks.append(f"{missing} of {expected} runs have not ended: this report is not final.")
    return remarks


def _ground_remarks(results: Results) -> list[str]:
    """Say what the answer rests on: what was the same in every run, what was cut, and how settings were chosen."""
    remarks = []
    training = results.training
    if training is not None and not training.varies and len(results.seeds) > 1:
        remarks.append(
            f"Every run learnt from the same {count(training.distinct or training.examples)} training examples. With "
            "other examples the answer may be another: no interval here covers that."
        )
    cut = [("training texts", training.cut, training.examples)] if training is not None else []
    cut += [(f"texts of {task.name}", task.cut, task.examples) for task in results.tasks]
    told = [f"{count(number)} of {count(of)} {what}" for what, number, of in cut if number]
    if told:
        remarks.append(f"Cut, because longer than max_length: {listing(told)}. A higher max_length keeps more.")
    stepped = [variant for variant in results.tuned if variant.learning_rate is not None]
    ways: dict[str, list[str]] = {}
    for variant in stepped:
        ways.setdefault(variant.chosen_by or "", []).append(variant.name)
    for way, names in ways.items():
        whose = "" if len(names) == len(stepped) else f" of {listing(names)}"
        if way:
            remarks.append(f"The settings{whose} were chosen by: {way}.")
        else:
            fair = " A comparison is fair where all variants were tuned alike." if len(results.tuned) > 1 else ""
            remarks.append(f"The recipe does not say how the settings{whose} were chosen (train.chosen_by).{fair}")
    return remarks


def _seed_remarks(results: Results) -> list[str]:
    """Say what so few seeds can and cannot show."""
    if results.crossed:
        return [
            "These are runs of `finetune diagnose`, which share some of their randomness and are no independent seeds. "
            "So the intervals below are too narrow."
        ]
    n = len(results.seeds)
    if n < 2:
        return ["One seed says nothing about the spread, so there is no interval; run at least two, better ten."]
    low, high = stats.sd_factors(n)
    range_ = f"the true SD may be {low:.2f} to {high:.2f} times the one shown"
    if n < 10:
        return [f"{n} seeds are a smoke test: {range_}. Run ten for a report, twenty for a claim about stability."]
    if n < 20:
        return [f"{n} seeds are enough for a report. For a claim about stability run twenty, because {range_}."]
    return []
