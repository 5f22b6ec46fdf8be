"""Every plug-in under every setting of `compute:`: it does what the setting says and nothing else, or is refused by
name."""

import pytest

from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from tests.contracts.contexts import LONGER, PLAIN, recipe_of
from tests.contracts.leaves import merged
from tests.contracts.test_options import Bench
from tests.strategies.test_adapter_methods import HEADLESS, METHODS, SMALL

EVERY = [
    pytest.param(plugin.Options, id=f"{registry.kind} {name}")
    for registry in (STRATEGIES, MITIGATIONS, TASKS)
    for name, plugin in registry.all().items()
    if registry is not MITIGATIONS or plugin.combines is None
]
SAME = ("weights", "tables", "logs", "results")
"""What has to stay equal in every bit."""

BFLOAT16 = {"model": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("files")
        patch.chdir(folder)
        yield Bench(folder, tmp_path_factory.mktemp("studies"))


def refusal(found, key):
    """The reason for which a recipe was refused, which is about this option and names what cannot do it."""
    [(path, reason)] = found["refused"]
    assert path == f"compute.{key}"
    return reason


@pytest.mark.parametrize("options", EVERY)
def test_what_is_computed_again_is_the_same_in_every_bit(bench, options):
    content = recipe_of(options)[0]
    plain = bench.shown(content)
    again = bench.shown(merged(content, {"compute": {"gradient_checkpointing": True}}))
    assert again["refused"] is None
    for kind in SAME:
        assert again[kind] == plain[kind], kind


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_what_is_computed_again_is_the_same_under_every_adapter(bench, method):
    headless = method in HEADLESS
    model = {"source": "broad-decoder" if headless else "broad", "new": []}
    task = {"type": "language", "max_length": 8} if headless else PLAIN["task"]
    strategy = {"type": "adapter", "method": method, "options": SMALL.get(method, {})}
    content = {**merged(PLAIN, {"model": model, "train": LONGER}), "strategy": strategy, "task": task}
    plain = bench.shown(content)
    assert plain["refused"] is None
    again = bench.shown(merged(content, {"compute": {"gradient_checkpointing": True}}))
    if again["refused"]:
        assert "in a cache" in refusal(again, "gradient_checkpointing")
        return
    for kind in SAME:
        assert again[kind] == plain[kind], kind


@pytest.mark.parametrize("options", EVERY)
def test_weights_in_bfloat16_are_trained_and_scored_or_refused_by_name(bench, options):
    content = merged(recipe_of(options)[0], BFLOAT16)
    found = bench.shown(merged(content, {"compute": {"weights": "bfloat16", "states": "8bit"}}))
    if found["refused"]:
        reason = refusal(found, "weights")
        assert "computes with weights itself" in reason or "keeps all in float32" in reason
        return
    assert found["results"] and all(each["status"] != "error" for each in found["results"].values())
    plain = bench.shown(content)
    if plain["logs"] and any(plain["logs"].values()):
        assert found["logs"] != plain["logs"], "otherwise nothing reads the setting"


@pytest.mark.parametrize("options", EVERY)
def test_attention_that_is_written_out_is_trained_and_scored(bench, options):
    content = recipe_of(options)[0]
    found = bench.shown(merged(content, {"compute": {"attention": "eager"}}))
    assert not found["refused"]
    assert found["results"] and all(each["status"] != "error" for each in found["results"].values())
