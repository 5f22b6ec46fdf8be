"""Which variant did best."""

from dataclasses import replace

from finetune.results.ranking import best_variant, headline_key, ranked
from tests.results.stores import read


def by(results, metric, higher_is_better):
    """The results with another headline."""
    return replace(results, tasks=[replace(results.tasks[0], metric=metric, higher_is_better=higher_is_better)])


def test_the_best_variant_is_read_in_the_metrics_direction(study):
    results = read(study)[1]
    assert best_variant(results).name == "full" and headline_key(results) == "test/accuracy"
    losses = by(results, "nll", higher_is_better=False)
    assert best_variant(losses).name == "full" and headline_key(losses) == "test/nll"
    assert best_variant(by(results, "nll", higher_is_better=True)).name == "linear"


def test_the_untuned_base_and_what_has_no_score_are_not_ranked(make):
    made = make(base=0.99)
    for seed in made.seeds:
        made.run("full", seed, None, "error", "it fell over")
    assert [variant.name for variant in ranked(read(made)[1])] == ["lora", "linear"]


def test_nothing_scored_has_no_best(fabricator):
    assert best_variant(read(fabricator([1], {"full": "full"}))[1]) is None
