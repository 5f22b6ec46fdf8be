"""Values of secret variables, and passwords in addresses, stay away from messages and from what a study keeps."""

import os
import stat
import subprocess
import sys

import pytest

from finetune.cli import main
from finetune.core.env_vars import Asked, check_settings, recorded
from finetune.core.errors import InputError
from finetune.core.screen import screened
from finetune.core.secrets import secret_values, without_secrets
from finetune.launch.cluster import read_cluster
from finetune.recipe import load
from finetune.runner.result import failure

TOKEN = "hf_abcdefghijklmnop"
PASSWORD = "correct-horse-battery"
SECRETS = {
    "HF_TOKEN": TOKEN,
    "WANDB_API_KEY": "0123456789abcdef",
    "MY_SECRET": "my secret words",
    "DB_PASSWORD": PASSWORD,
    "AWS_CREDENTIALS": "aws-credentials-value",
    "HTTPS_PROXY": "http://person:proxy-password@proxy.invalid:8080",
}
VALUES = [*(value for name, value in SECRETS.items() if name != "HTTPS_PROXY"), "proxy-password"]


@pytest.fixture
def secret(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_what_counts_as_a_secret():
    beside = {
        "TOKENIZERS_PARALLELISM": "sometimes-true",
        "KEYBOARD": "us",
        "SSH_KEY": "/home/a/.ssh/id_ed25519",
        "HOME": "/home/person",
    }
    expected = {value: name for name, value in SECRETS.items() if name != "HTTPS_PROXY"}
    assert secret_values({**SECRETS, **beside}) == {**expected, "proxy-password": "HTTPS_PROXY"}


@pytest.mark.parametrize("value", VALUES)
def test_messages_say_the_name_for_the_value(secret, value):
    text = f"401 for https://person:{value}@host/x with header 'Bearer {value}'; via {SECRETS['HTTPS_PROXY']}"
    assert value not in screened(text) and "401 for https://" in screened(text)
    assert value not in str(failure({}, RuntimeError(text)))


def test_an_address_keeps_what_is_no_secret():
    for kept in ("https://host:8080/a@b", "s3://bucket/key", "https://${WHO}:${PASS}@host/x", "a: b@c"):
        assert without_secrets(kept) == kept
    assert without_secrets("see https://me:pw@host/x") == "see https://…@host/x"


def test_settings_of_the_environment_are_kept_without_secrets():
    environment = {"ACCELERATE_API_TOKEN": TOKEN, "OMP_NUM_THREADS": "2"}
    assert recorded(environment) == {"ACCELERATE_API_TOKEN": "…", "OMP_NUM_THREADS": "2"}
    with pytest.raises(InputError) as found:
        check_settings(Asked("cpu", "float32"), environment)
    assert TOKEN not in str(found.value) and "ACCELERATE_API_TOKEN" in str(found.value)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (f"name: {TOKEN}", "name"),
        (f"evaluate: [{{name: x, data: {{path: 'x.csv', columns: {{text: 'a {TOKEN}'}}}}}}]", "columns.text"),
        (f"variants: {{a: {{model: {{source: 'https://a:{PASSWORD}x@host/m'}}}}}}", "model.source"),
        ("model: {source: 'https://me:pw@host/m'}", "model.source"),
        (f"data: {{train: {{path: 'https://h/x.parquet?token={TOKEN}'}}, split: {{test: 0.3}}}}", "path"),
        ("data: {train: {path: 'https://me:pw@h/x.parquet'}, split: {test: 0.3}}", "data.train"),
        (f"data: {{train: [{{path: 'https://h/{TOKEN}.parquet', name: a}}], split: {{test: 0.3}}}}", "path"),
    ],
)
@pytest.mark.parametrize("how", ["file", "override"])
def test_a_recipe_with_a_secret_is_refused_with_its_place(secret, tmp_path, line, place, how):
    sections = {
        "model": "model: {source: org/name}",
        "data": "data: {train: {path: news.csv}, split: {test: 0.3}}",
        "task": "task: {type: classification}",
        "strategy": "strategy: {type: full}",
    }
    key = line.partition(":")[0]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*(text for name, text in sections.items() if name != key or how != "file"), ""]))
    overrides = [f"{key}={line.partition(': ')[2]}"] if how == "override" and key != "variants" else []
    if how == "file" or key == "variants":
        path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError) as found:
        load(path, overrides)
    assert any(place in (problem.path or "") for problem in found.value.problems)
    assert all(value not in str(found.value) for value in VALUES if value != TOKEN or key != "name")


METRIC = """
import os


def score(predictions, references):
    raise RuntimeError(f"401 Unauthorized: Bearer {os.environ['HF_TOKEN']} for https://me:{os.environ['DB_PASSWORD']}@host")
"""


def test_what_fails_in_a_function_of_ones_own_is_told_without_them(secret, topics, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    (topics.parent / "fails.py").write_text(METRIC)
    assert main(["check", str(topics), f"task.metrics=[{topics.parent}/fails.py:score]"]) == 2
    said = capsys.readouterr().err
    assert "401 Unauthorized: Bearer ${HF_TOKEN}" in said
    assert [value for value in VALUES if value in said] == []


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_nothing_that_a_study_leaves_has_a_secret_or_can_be_written_by_all(secret, topics, tmp_path, umask):
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "finetune", "run", str(topics), "seeds=1", "variants.full.train.min_steps=1"]
    command += [f"--output={tmp_path / 'runs'}", "train.checkpoint_seconds=0", "baselines.enabled=true"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "FINETUNE_CACHE": str(cache)},
        umask=umask,
        timeout=200,
    )
    assert done.returncode in (0, 1), done.stderr
    left = [path for folder in (tmp_path / "runs", cache) for path in folder.rglob("*")]
    assert len(left) > 20
    open_to_all = [str(path) for path in left if path.lstat().st_mode & stat.S_IWOTH and not path.is_symlink()]
    assert open_to_all == []
    texts = [done.stdout, done.stderr, *(path.read_bytes().decode("latin-1") for path in left if path.is_file())]
    assert [value for value in VALUES for text in texts if value in text] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("setup: [export HF_TOKEN=hf_literal]", "sets HF_TOKEN"),
        ("setup: ['export OPENAI_API_KEY=\"sk-1\" OTHER=1']", "sets OPENAI_API_KEY"),
        ("container: apptainer exec --env DB_PASSWORD=literal x.sif", "sets DB_PASSWORD"),
        (f"setup: ['login --with {TOKEN}']", "has the value of the environment variable HF_TOKEN"),
        (f"environment: {{WHO: '{PASSWORD}'}}", "has the value of the environment variable DB_PASSWORD"),
        ("environment: {HF_TOKEN: x}", "would lie in a batch script"),
        ("environment: {PROXY: 'http://me:pw@host'}", "an address that says who asks"),
        ("setup: [export HF_TOKEN=$(cat ~/.token)]", None),
        ("setup: ['export HF_TOKEN=\"$TOKEN\"', 'export TOKENIZERS_PARALLELISM=false', export HF_TOKEN=]", None),
        ("environment: {TOKENIZERS_PARALLELISM: 'false'}", None),
    ],
)
def test_a_cluster_file_has_no_secrets(secret, tmp_path, line, found):
    (tmp_path / "cluster.yaml").write_text(line + "\n")
    if found is None:
        read_cluster(tmp_path / "cluster.yaml")
        return
    with pytest.raises(InputError, match=found) as error:
        read_cluster(tmp_path / "cluster.yaml")
    (problem,) = error.value.problems
    assert problem.where == f"{tmp_path}/cluster.yaml:1" and not any(value in str(problem) for value in VALUES)
