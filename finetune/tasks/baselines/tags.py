"""Baselines of tasks that tag words. None has likelihoods."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.examples import Prediction
from finetune.metrics.entities import OUTSIDE
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned, Uses
from finetune.tasks.tags import Sentence

if TYPE_CHECKING:
    from datasets import Dataset

STRENGTH = 10.0
"""C of scikit-learn: a weak penalty, as most tags are O, and a strong one says nothing else. The choice is ours."""

MOST_WEIGHTS = 1_500_000
"""Weights of the classifier, tags times features, of which the most frequent are looked at."""

FEWEST = 2
"""Times that a feature is seen in training, or it tells one word from all others and nothing more."""


class TagBaseline(Baseline):
    """A baseline that tags words by what they are."""

    def __init__(self, read: Callable[[Dataset, str], Iterator[Sentence]]):
        """``read`` gives the sentences of a data set that was read at a recipe path."""
        self.read = read

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        self.learn(list(self.read(training.data, training.at)))

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return [Prediction(" ".join(self.tag(each)), None) for each in self.read(held_out.data, held_out.at)]

    def learn(self, sentences: Sequence[Sentence]) -> None:
        """Learn from the tags of ``sentences``."""
        raise NotImplementedError

    def tag(self, sentence: Sentence) -> Sequence[str]:
        """Tag each word of ``sentence``, whose own tags are not looked at."""
        raise NotImplementedError


class CommonestTag(TagBaseline):
    """Always gives the commonest training tag, which is O, for no entity, in most data."""

    name: ClassVar[str] = "commonest-label"
    commonest: str

    def learn(self, sentences: Sequence[Sentence]) -> None:
        self.commonest = _commonest(Counter(tag for each in sentences for tag in each.tags))

    def tag(self, sentence: Sentence) -> Sequence[str]:
        return [self.commonest] * len(sentence.words)


class Gazetteer(TagBaseline):
    """Gives each word the tag that it has most often in training, and O where training does not have it."""

    name: ClassVar[str] = "gazetteer"
    uses: ClassVar[Uses] = "words"
    known: dict[str, str]

    def learn(self, sentences: Sequence[Sentence]) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for each in sentences:
            for word, tag in zip(each.spelt, each.tags, strict=True):
                counts[word][tag] += 1
        self.known = {word: _commonest(found) for word, found in counts.items()}

    def tag(self, sentence: Sentence) -> Sequence[str]:
        return [self.known.get(word, OUTSIDE) for word in sentence.spelt]


class WordLogistic(TagBaseline):
    """Logistic regression on each word, its shape, its ends and its neighbours, without any model.

    Each word is tagged by itself. The classifier is scikit-learn's, with features that training has twice or more.
    """

    name: ClassVar[str] = "word-logistic"
    uses: ClassVar[Uses] = "words"
    model: Any
    """A scikit-learn pipeline."""

    def learn(self, sentences: Sequence[Sentence]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        rows = [row for each in sentences for row in features(each.spelt)]
        tags = [tag for each in sentences for tag in each.tags]
        most = MOST_WEIGHTS // len(set(tags))
        words = CountVectorizer(analyzer=_as_it_is, min_df=min(FEWEST, len(sentences)), max_features=most, binary=True)
        self.model = make_pipeline(words, LogisticRegression(C=STRENGTH, max_iter=200)).fit(rows, tags)

    def tag(self, sentence: Sentence) -> Sequence[str]:
        found: list[str] = self.model.predict(features(sentence.spelt)).tolist()
        return found


def features(words: Sequence[str]) -> list[list[str]]:
    """List what is looked at of each word: itself, in small letters; its shape; its first and last three letters; and
    the words and shapes beside it."""
    around = ["<", *words, ">"]
    low, shapes = [word.lower() for word in around], [_shape(word) for word in around]
    return [
        [
            "all",
            *(f"word{step}={low[place + step]}" for step in (-1, 0, 1)),
            *(f"shape{step}={shapes[place + step]}" for step in (-1, 0, 1)),
            f"begins={low[place][:3]}",
            f"ends={low[place][-3:]}",
        ]
        for place in range(1, len(around) - 1)
    ]


def _shape(word: str) -> str:
    """Write `A` for capital letters, `a` for others, `0` for digits, and signs as they are, each run as one."""
    kinds = ("A" if each.isupper() else "a" if each.isalpha() else "0" if each.isdigit() else each for each in word)
    found = ""
    for kind in kinds:
        found += kind if not found.endswith(kind) else ""
    return found


def _as_it_is(row: list[str]) -> list[str]:
    return row


def _commonest(counts: Counter[str]) -> str:
    """Find the commonest; of equally many, the first in the alphabet."""
    return min(counts, key=lambda tag: (-counts[tag], tag))
