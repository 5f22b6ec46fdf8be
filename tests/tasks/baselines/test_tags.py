"""Baselines that tag words: what each learns, and that none looks at held-out tags."""

import pytest

from finetune.core.encoded import Encoded
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.baselines.tags import CommonestTag, Gazetteer, WordLogistic, features
from finetune.tasks.tags import from_words


def some(*rows):
    """A set of sentences, `word/TAG` each, whose data are the sentences themselves."""
    pairs = [[token.rsplit("/", 1) for token in row.split()] for row in rows]
    read = [from_words([word for word, _ in row], [tag for _, tag in row]) for row in pairs]
    return ExampleSet("data.train", read, Encoded([]))


def said(kind, training, held_out):
    baseline = kind(lambda data, at: iter(data))
    baseline.fit(training, None)
    found = baseline.predict(held_out)
    assert all(one.loss is None and one.probabilities is None for one in found)
    return [one.text for one in found]


TRAINING = some(
    "Ann/B-per saw/O Rome/B-loc", "Rome/B-loc fell/O .../O", "Paris/B-per saw/O Ann/B-per", "Rome/B-per !/O"
)


def test_the_commonest_tag_is_always_the_same():
    assert said(CommonestTag, TRAINING, some("Ann/O x/O")) == ["O O"]
    assert said(CommonestTag, some("a/B-x b/I-x c/I-x"), some("a/O b/O")) == ["I-x I-x"]


def test_a_gazetteer_gives_each_word_its_commonest_tag_and_o_to_others():
    assert said(Gazetteer, TRAINING, some("Rome/O Ann/O Berlin/O rome/O")) == ["B-loc B-per O O"]


def test_in_a_tie_the_first_in_the_alphabet_is_given():
    assert said(Gazetteer, some("a/I-x", "a/B-x"), some("a/O")) == ["B-x"]


def test_logistic_regression_tells_unseen_words_by_shape_and_neighbours():
    names = ["Ann", "Bob", "Eve", "Tom", "Kim", "Max"]
    training = some(*(f"mister/O {name}/B-per sees/O things/O" for name in names))
    assert said(WordLogistic, training, some("mister/O Zoe/O sees/O things/O")) == ["O B-per O O"]


def test_features_are_of_the_word_and_those_beside_it():
    first, last = features(["USA-x", "2nd"])
    assert {"word0=usa-x", "word1=2nd", "word-1=<", "shape0=A-a", "begins=usa", "ends=a-x"} <= set(first)
    assert {"word1=>", "shape0=0a", "shape-1=A-a"} <= set(last)


@pytest.mark.parametrize("kind", [CommonestTag, Gazetteer, WordLogistic])
def test_held_out_tags_are_not_looked_at(kind):
    assert said(kind, TRAINING, some("Ann/O saw/O")) == said(kind, TRAINING, some("Ann/B-loc saw/I-loc"))
