"""A diagnosis on a tiny model: the design, what it says, what is tried, and everything again after an interruption."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from finetune import recipe as recipes
from finetune.core.errors import FinetuneError, InputError, Interrupted
from finetune.core.randomness import Streams
from finetune.core.run_dir import StudyDir, read_json
from finetune.diagnose import diagnose as module
from finetune.diagnose.diagnose import FRESH, diagnose, try_remedy
from finetune.diagnose.remedies import Cause
from finetune.stats.components import variance_components
from finetune.study import study
from finetune.tasks.classification import Classification
from tests import tiny

SHORT = ("train.min_steps=6", "train.evaluations=0", "train.replicas=1")
CROSSED = ("init", "order")


def begin(recipe, output, *overrides, **options):
    """The diagnosis of variant `full` by init and order, in nine runs."""
    given = SHORT + overrides
    options = {"variant": "full", "runs": 9, "sources": CROSSED, "overrides": given, **options}
    return diagnose(recipes.load(recipe, given), output, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, encoder_folder):
    """The recipe, the folder of studies, and the diagnosis of a design that is done; never written to."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = tiny.write_topics(folder, encoder_folder)
    return recipe, folder / "runs", begin(recipe, folder / "runs")


@pytest.fixture
def known(monkeypatch):
    """What is random in the recipe, so that it need not be found out again."""
    found = {"split": None, "init": None, "order": None, "dropout": None, "noise": "no technique draws noise"}
    monkeypatch.setattr(module, "find_sources", lambda *_: dict(found))


@pytest.fixture
def start(topics, tmp_path, known):
    """start("train.epochs=2", runs=16) -> a diagnosis from the beginning."""
    return lambda *overrides, **options: begin(topics, tmp_path / "runs", *overrides, **options)


@pytest.fixture
def again(finished, tmp_path, known):
    """again("train.epochs=2", runs=16) -> a diagnosis that finds a copy of the finished one."""
    recipe, runs, _ = finished
    shutil.copytree(runs, tmp_path / "runs", dirs_exist_ok=True)
    return lambda *overrides, **options: begin(recipe, tmp_path / "runs", *overrides, **options)


@pytest.fixture
def folder(tmp_path):
    return StudyDir(tmp_path / "runs" / "topics-full-diagnosis")


def results_in(folder, variant="full"):
    found = [read_json(path) for path in sorted((folder / variant).glob("seed-*/result.json"))]
    assert found
    return found


def times_in(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.path.glob("full/*/result.json")}


def test_a_design_crosses_its_sources_and_is_decomposed(finished):
    _, runs, found = finished
    folder = StudyDir(runs / "topics-full-diagnosis")
    results = results_in(folder.path)
    pairs = [(result["streams"]["init"], result["streams"]["order"]) for result in results]
    assert sorted(pairs) == [(init, order) for init in (1, 2, 3) for order in (1, 2, 3)]
    assert all(result["streams"] | {"init": 0, "order": 0} == Streams.spelled(0).facts() for result in results)
    assert all(
        result["seed"] == 1000 * init + 100 * order for result, (init, order) in zip(results, pairs, strict=True)
    )
    starts = [result["identity"]["initial_weights"] for result in results]
    assert set(Counter(starts).values()) == {3}  # three heads, each under three orders

    content = read_json(folder.diagnosis)
    assert content == json.loads(json.dumps(found.content))
    levels = {"init": [init for init, _ in pairs], "order": [order for _, order in pairs]}
    scores = [result["scores"]["test/accuracy"] for result in results]
    parts = [*content["decomposition"]["sources"], content["decomposition"]["interactions"]]
    assert [part["source"] for part in parts] == ["init", "order", "interactions"]
    expected = variance_components(np.array(scores)[:, None], levels)[:, 0]
    assert [part["estimate"] for part in parts] == pytest.approx(expected.tolist(), abs=1e-12)
    assert content["decomposition"]["noise"] is not None and content["decomposition"]["runs"] == 9
    reasons = {"split": "it was not asked for", "dropout": "it was not asked for", "noise": "it was not asked for"}
    assert content["left_out"] == reasons
    assert not list(folder.path.glob("full/seed-*/model"))
    assert folder.report.joinpath("index.html").exists()


def test_nothing_is_set_beside_a_design(topics, tmp_path, known, monkeypatch):
    asked, plain = [], module.run_study
    monkeypatch.setattr(
        module, "run_study", lambda recipe, *rest: [asked.append(recipe.variants[0].recipe), plain(recipe, *rest)][1]
    )
    begin(topics, tmp_path / "runs", "baselines.enabled=true")
    assert [recipe.baselines.enabled for recipe in asked] == [False]


def test_it_resumes_where_it_was_interrupted(start, folder, monkeypatch):
    original, begun = study.run, []

    def stop_at_third(variant, replicas, *rest):
        begun.extend(replica.streams.seed for replica in replicas)
        if len(begun) == 3:
            raise Interrupted("stopped")
        return original(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", stop_at_third)
    with pytest.raises(Interrupted):
        start()
    done = times_in(folder)
    assert len(done) == 2 and not folder.diagnosis.exists()
    monkeypatch.setattr(study, "run", original)
    start()
    assert len(results_in(folder.path)) == 9 and done.items() <= times_in(folder).items()


def test_larger_designs_keep_what_fits(again, folder):
    small = times_in(folder)
    assert again(runs=16).content["runs"] == 16
    assert len(small) == 9 and len(times_in(folder)) == 16 and small.items() <= times_in(folder).items()


def test_the_resolved_recipe_knows_its_streams(again, folder, finished):
    resolved = recipes.read_resolved(folder.resolved)
    assert resolved.crossed and resolved.vary == set(CROSSED)
    assert resolved.streams(resolved.seeds[-1]) == Streams.spelled(resolved.seeds[-1])
    plain = recipes.load(finished[0])
    assert not plain.crossed and "crossed" not in plain.to_yaml()
    assert plain.streams(3) == Streams(3, plain.vary)
    with pytest.raises(InputError, match="from a different recipe"):
        again("train.learning_rate=0.02")
    with pytest.raises(InputError, match="was made with vary"):
        again(sources=("init", "dropout"))


def test_a_change_is_tried_on_fresh_seeds(again, folder, monkeypatch):
    """Whatever the cause: here it is said to be the order."""
    monkeypatch.setattr(module, "find_cause", lambda *_: Cause("order", "it is the order"))
    before = times_in(folder)
    found = again()
    assert times_in(folder) == before, "no run of the design is trained again"
    assert found.content["cure"]["name"] == "ema" and found.content["cure"]["write"] == ["mitigations: [{type: ema}]"]
    assert found.trial is not None and [variant.name for variant in found.trial.variants] == ["full", "full-ema"]
    trial = try_remedy(found, folder.path.parent, 6)
    place, seeds = folder.path.parent / "topics-full-trial", list(range(FRESH, FRESH + 6))
    resolved = {variant.name: variant.recipe for variant in recipes.read_resolved(StudyDir(place).resolved).variants}
    assert [options.type for options in resolved["full-ema"].mitigations] == ["ema"] and not resolved[
        "full"
    ].mitigations
    for name in ("full", "full-ema"):
        results = results_in(place, name)
        assert [result["seed"] for result in results] == seeds
        still = {"split": 0, "dropout": 0}
        for seed, result in zip(seeds, results, strict=True):
            assert result["streams"] == {"init": seed, "order": seed, "noise": seed, **still}
    assert trial["before"]["runs"] == trial["after"]["runs"] == 6
    content = read_json(folder.diagnosis)
    assert content["trial"]["seeds"] == seeds and content["trial"]["verdict"] == trial["verdict"]
    assert set(range(1, 6)).isdisjoint(seeds), "no level of a design is tried again"
    assert len(found.failed) == sum(side["failed"] for side in (trial["before"], trial["after"])) + content["failed"]


def test_a_change_that_the_recipe_does_not_allow_gives_way_to_the_next(topics):
    """Of a probe no block learns that could learn more slowly."""
    overrides = ["variants.linear.train.learning_rate=0.01"]
    recipe, content = recipes.load(topics, overrides), {"cure": None, "refused": {}}
    linear, full = recipe.variants
    causes = Cause("failures", ""), Cause("init", "")
    trial = module._prescribed(recipe, linear, causes[0], overrides, CROSSED, content)
    assert trial is None and content["cure"] is None and list(content["refused"]) == ["layerwise-decay", "mixout"]
    assert "nothing to slow down" in content["refused"]["layerwise-decay"][0]
    trial = module._prescribed(recipe, full, causes[1], overrides, CROSSED, content)
    plain, changed = (variant.recipe for variant in trial.variants)
    assert (plain.strategy.type, changed.strategy.type, changed.strategy.mode) == ("full", "linear", "lp-ft")
    assert content["cure"]["write"] == ["strategy: {mode: lp-ft, type: linear}"]
    assert plain.train == changed.train and plain.vary == changed.vary == list(CROSSED)


def test_where_nothing_is_learnt_the_head_decides_alone(start):
    """The truth is known: at a rate of nothing, runs with the same head say the same, whatever their order."""
    found = start("train.learning_rate=1.0e-12")
    init, order = found.content["decomposition"]["sources"]
    assert (init["share"], order["estimate"], found.content["decomposition"]["interactions"]["variance"]) == (1, 0, 0)
    assert init["noise"] > 0 and order["noise"] == pytest.approx(0, abs=1e-12)
    assert found.content["cause"]["name"] == "failures" and found.content["failed"] == len(found.failed) > 0
    assert found.content["cure"]["name"] == "layerwise-decay"  # the rate is low, and rises slowly, as it is


def test_an_error_leaves_the_diagnosis_open(start, folder, monkeypatch):
    def broken(self, model, batch):
        raise RuntimeError("a cosmic ray")

    monkeypatch.setattr(Classification, "losses", broken)
    with pytest.raises(FinetuneError, match="9 of 9 runs have no test/accuracy"):
        start()
    assert not folder.diagnosis.exists() and {run["status"] for run in results_in(folder.path)} == {"error"}


def test_the_split_is_crossed_too_and_its_examples_are_others(start, folder):
    found = start(sources=("split", "order"))
    results = results_in(folder.path)
    assert len({result["identity"]["first_batch"] for result in results}) == 9, "orders of other examples"
    assert len({result["streams"]["split"] for result in results}) == 3
    parts = found.content["decomposition"]
    assert all(part["noise"] is None for part in parts["sources"]) and parts["noise"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variant": "ful"}, "there is no variant called 'ful'"),
        ({"sources": ("inti",)}, "there is no source called 'inti'"),
        ({"sources": ("init", "noise")}, "'noise' is not random here: no technique draws noise"),
        ({"sources": ("init",)}, "only init is random here, so there is nothing to tell apart"),
        ({"sources": ()}, "9 runs cannot tell 4 sources and their interactions apart"),
    ],
)
def test_bad_input_starts_nothing(start, folder, options, said):
    with pytest.raises(InputError, match=said):
        start(**options)
    assert not folder.path.exists()


def test_the_first_variant_is_the_default(topics, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_study", lambda recipe, *_: (_ for _ in ()).throw(SystemExit(recipe.name)))
    with pytest.raises(SystemExit, match="topics-linear-diagnosis"):
        diagnose(recipes.load(topics), tmp_path, sources=("init", "order"))


def test_what_is_made_of_seeds_afterwards_is_left_out(topics, tmp_path):
    recipe = recipes.load(topics, ["mitigations=[{type: mixout}, {type: soup}]"])
    bare = module._bare(recipe.variants[1], ["init", "order"])
    assert [options.type for options in bare.recipe.mitigations] == ["mixout"]
    assert bare.recipe.train.save_model is False and bare.recipe.vary == ["init", "order"]
    assert bare.digest != module._bare(recipe.variants[1], ["init", "order"], digest="crossed").digest


def test_default_sizes():
    found = {name: None for name in ("split", "init", "order", "dropout", "noise")}
    assert [module._levels(list(found)[:count], found, None) for count in (2, 3, 4, 5)] == [4, 4, 4, 5]
    assert module._levels(["init", "order", "dropout"], found, 9) == 3
    with pytest.raises(InputError, match="nothing is random here"):
        module._levels([], {"init": "it is not"}, None)


def test_held_out_files_of_their_own_do_not_change_with_the_split():
    source, limited = SimpleNamespace(limit=None), SimpleNamespace(limit=5)
    tweets, harness = SimpleNamespace(name="tweets", data=source), SimpleNamespace(name="arc_easy")
    recipe = SimpleNamespace(evaluate=[tweets], lm_eval=[harness], data=SimpleNamespace(test=None))
    assert module._own_file(recipe, "arc_easy")
    assert module._own_file(recipe, "tweets") and not module._own_file(recipe, "test")
    recipe.data.test = limited
    assert not module._own_file(recipe, "test")
