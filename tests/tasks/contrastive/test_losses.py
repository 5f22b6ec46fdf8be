"""Losses over drawn rows: what they are, written out for one example after another."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.tasks.contrastive.losses import Embedded

SCALE = 20.0


def embedded(kind, examples, roles, width=5, seed=0):
    """Vectors of ``examples``, each a list of its rows' numbers, and what the class makes of them."""
    sizes = [len(values) * roles for values in examples]
    vectors = torch.randn(sum(sizes), width, generator=torch.Generator().manual_seed(seed))
    targets = torch.full((len(examples), max(map(len, examples))), torch.nan)
    for row, values in zip(targets, examples, strict=True):
        row[: len(values)] = torch.tensor(values, dtype=torch.float32)
    owners = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(sizes))
    apart = [own.view(-1, roles, width).numpy() for own in vectors.split(sizes)]
    return Embedded(
        vectors.requires_grad_(), targets, owners, len(examples), kind=kind, scale=SCALE, roles=roles
    ), apart


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def ranking(own, values):
    found = []
    for row, texts in enumerate(own):
        right = [(cosine(texts[0], own[other][1]), other == row) for other in range(len(own)) if other == row]
        right += [(cosine(texts[0], own[o][1]), False) for o in range(len(own)) if values[o] != values[row]]
        wrong = [(cosine(texts[0], each[2]), False) for each in own] if own.shape[1] == 3 else []
        scores = np.array([SCALE * value for value, _ in right + wrong])
        found.append(np.log(np.exp(scores).sum()) - scores[0])
    return float(np.mean(found))


def cosent(own, scores):
    if len(own) == 1:
        return (cosine(own[0][0], own[0][1]) - scores[0]) ** 2
    found = [cosine(texts[0], texts[1]) for texts in own]
    pairs = [(i, j) for i in range(len(own)) for j in range(len(own)) if scores[i] > scores[j]]
    return math.log(1 + sum(math.exp(SCALE * (found[j] - found[i])) for i, j in pairs))


def labels(own, codes):
    found = {True: [], False: []}
    for i in range(len(own)):
        for j in range(i):
            same = codes[i] == codes[j]
            found[same].append((cosine(own[i][0], own[j][0]) - same) ** 2)
    return float(np.mean([np.mean(errors) for errors in found.values() if errors]))


def squared(own, scores):
    return float(np.mean([(cosine(texts[0], texts[1]) - each) ** 2 for texts, each in zip(own, scores, strict=True)]))


@pytest.mark.parametrize(
    ("kind", "roles", "written_out", "examples"),
    [
        ("ranking", 2, ranking, [[0, 1, 2, 3], [4, 5], [6, 7, 6]]),
        ("ranking", 3, ranking, [[0, 1, 2], [4], [6, 7, 6, 9]]),
        ("cosent", 2, cosent, [[0.1, 0.9, 0.5, 0.5], [0.3], [0.2, 0.8]]),
        ("labels", 1, labels, [[0, 0, 1, 1, 2], [3, 4], [5, 5, 5]]),
        ("cosine", 2, squared, [[0.3], [1.0], [0.0]]),
    ],
)
def test_each_examples_loss_is_that_of_its_own_rows(kind, roles, written_out, examples):
    found, apart = embedded(kind, examples, roles)
    losses = found.losses()
    wanted = [written_out(own, values) for own, values in zip(apart, examples, strict=True)]
    assert losses.tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-5) and losses.dtype == torch.float32
    losses.sum().backward()
    assert torch.isfinite(found.logits.grad).all()


def test_a_vectors_length_means_nothing():
    found, _ = embedded("ranking", [[0, 1, 2]], 2)
    assert torch.allclose(replace(found, logits=3 * found.logits).losses(), found.losses(), rtol=1e-4)


def test_cosines_keep_their_decimals_under_autocast():
    found, _ = embedded("labels", [[0, 0, 1, 1]], 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found.losses(), embedded("labels", [[0, 0, 1, 1]], 1)[0].losses())
