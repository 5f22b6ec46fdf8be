"""The README.md of an export: a model card in the hub's format, which says what the model is, how it was trained and
scored, how it is loaded and served, and what its certificate shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune.core.numbers import count
from finetune.export import programs
from finetune.export.choosing import Chosen
from finetune.export.writing import in_unit
from finetune.metrics import unit
from finetune.report import card
from finetune.report.markdown import escape
from finetune.results.compute import results_of
from finetune.results.schema import Results, VariantResult

if TYPE_CHECKING:
    from finetune.export.forms.base import Form, Snippet
    from finetune.export.trained import Trained

LIBRARIES = {"transformers": "transformers", "adapter": "peft", "sentence-transformers": "sentence-transformers"}
"""The hub's name of the library that loads a form."""


def write(form: Form, trained: Trained, chosen: Chosen, folder: Path, said: dict[str, Any], name: str) -> None:
    """Write README.md beside the model; ``said`` is its certificate, and ``name`` what its code calls it: a folder's or
    a repository's."""
    results = results_of(chosen.study)
    text = render(form, trained, chosen, results, folder, said).replace("{folder}", name)
    (folder / "README.md").write_text(text, encoding="utf-8")


def render(form: Form, trained: Trained, chosen: Chosen, results: Results, folder: Path, said: dict[str, Any]) -> str:
    """The card's text; `{folder}` in its code stands for the folder that the reader has it in."""
    variant = results.variant(chosen.variant)
    about = {**card.metadata(chosen.study, results, variant), **_own(form, trained, chosen)}
    data = yaml.safe_dump(
        {key: value for key, value in about.items() if value is not None},
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    body = card.body(chosen.study, results, variant, in_sds=not in_unit(folder))
    parts = [
        body.title,
        body.origin,
        f"This is **{escape(chosen.title)}**: {escape(chosen.reason)}. Form: {form.name}.",
        "## How to use it",
        _usage(form, trained, folder),
        "## Its own scores",
        _scores(results, variant, chosen),
        "## Does it answer as it was scored?",
        _certificate(form, said),
        *body.sections,
    ]
    return f"---\n{data}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _own(form: Form, trained: Trained, chosen: Chosen) -> dict[str, Any]:
    """The metadata that are the export's, and not the study's."""
    library = LIBRARIES.get(form.name, form.name.partition("-")[0])
    return {**trained.terms, "library_name": library, "tags": ["finetune", form.name]}


def _usage(form: Form, trained: Trained, folder: Path) -> str:
    found = [_block(each) for each in form.snippets(trained, folder)]
    notes = []
    if trained.generates and getattr(trained.task.options, "stop", None):
        stops = ", ".join(map(repr, trained.task.options.stop))
        notes.append(
            f"Answers were scored up to the first of these texts, which whoever serves it has to stop at: {stops}."
        )
    if system := programs.system_of(trained):
        notes.append(
            f"Every conversation of the training began with this system message:\n\n{_quoted(system[0]['content'])}"
        )
    if prefix := getattr(trained.task.options, "prefix", ""):
        notes.append(f"Every text began with {prefix!r} in training.")
    if programs.by_likelihood(trained):
        turn = ", as the user's turn" if trained.task.asking.shown_by else ""  # type: ignore[attr-defined]
        less = ""
        if getattr(trained.task.options, "calibrate", "none") != "none":
            less = f", less how likely they are after one about the text {trained.task.options.content_free!r}"
        asks = "; `finetune predict {folder} FILE` asks so about every row of a file" if form.name in LIBRARIES else ""
        notes.append(
            f"It was trained to choose among answers by how likely they are after a prompt{less}, and not to write. "
            f"This is the prompt about a text{turn}{asks}:\n\n{_quoted(programs.prompt_of(trained))}"
        )
    if not trained.writes and trained.max_length < 1 << 20:
        notes.append(
            f"Texts are read up to {count(trained.max_length)} tokens, as in training; the tokenizer cuts the rest off "
            "at the end where it is asked to (`truncation=True`)."
        )
    if trained.decision:
        said = ", ".join(f"{name} {value:.4g}" for name, value in trained.decision.items())
        notes.append(f"Decided by validation examples: {said}.")
    if trained.licence is None:
        notes.append(
            "The base model's files do not say under which licence it is: ask its makers before you share this."
        )
    return "\n\n".join([*found, *notes])


def _quoted(text: str) -> str:
    """Show a text as it is."""
    fence = max((*re.findall("`{3,}", text), "``"), key=len) + "`"
    return f"{fence}text\n{text}\n{fence}"


def _block(snippet: Snippet) -> str:
    return f"{snippet.title}:\n\n```{snippet.language}\n{snippet.code.rstrip()}\n```"


def _scores(results: Results, variant: VariantResult, chosen: Chosen) -> str:
    """Scores of this very model, beside those to expect of the recipe."""
    made = next((each for each in variant.combined if each.kind == chosen.folder.path.name), None)
    own = made.scores if chosen.seed is None and made else chosen.run.scores
    lines = []
    for task in results.tasks:
        for metric in task.metrics:
            key, shown = task.key_of(metric.name), unit(metric.name)
            if key not in own:
                continue
            found = variant.estimates[key]
            over = f"; over {found.n} seeds {shown.value(found.mean)} {shown.interval(found.ci)}" if found.n > 1 else ""
            lines.append(f"- {escape(shown.label)} on {escape(task.name)}: **{shown.value(own[key])}**{over}")
    why = "It was not chosen by these scores."
    if chosen.named:
        why = "Somebody has named this seed: if because of these scores, they flatter it."
    lines.append(
        "\nOne model's score is one draw: what a new run of the same recipe scores lies around the mean over seeds, in "
        f"brackets with its 95 % interval. {why}"
    )
    return "\n".join(lines)


def _certificate(form: Form, said: dict[str, Any]) -> str:
    """The certificate in words."""
    found = said["agreement"]
    versions = ", ".join(f"{name} {number}" for name, number in said["engine"]["versions"].items())
    text = (
        f"It was asked about {count(found['examples'])} of {count(found['held_out'])} held-out examples with "
        f"{versions}, from this folder alone: {found['same']:.2%} of {count(found['answers'])} answers (labels, tags, "
        "choices or next tokens) are those of the trained model in float32"
    )
    if found["ties"]:
        text += f", {count(found['ties'])} of them its second choice by at most {found['tolerance']:g} nats"
    if form.exact:
        text += f", and its numbers differ by at most {found['difference']:.2g}."
    elif found["gain"]:
        low, high = found["gain"]["ci"] or (None, None)
        inside = "" if low is None else f" (95 % interval {low:+.4g} to {high:+.4g})"
        text += f". Its mean score is {found['gain']['mean']:+.4g} against the trained model's{inside}."
    else:
        text += "."
    if stored := said.get("as_scored"):
        text += (
            f" The trained model gives {stored['same']:.2%} of the predictions that the study has stored and scored."
        )
    digests = "\n".join(f"- {name}: `{digest}`" for name, digest in said["digests"].items() if digest)
    return f"{text} `certificate.json` has it for programs, with the digests of every file.\n\n{digests}"
