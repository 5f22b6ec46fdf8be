"""Candidates behind one prompt: what each is given is what it would be alone."""

import numpy as np
import pytest
import torch

from finetune.core.examples import Example
from finetune.models import ModelOptions, load_base
from finetune.tasks.candidates import tree
from finetune.tasks.causal import branches
from finetune.tasks.causal.loss_paths import losses_of, plain_outputs

TOKENS = list(range(10, 26))


def example(*groups, number=0):
    """An example of (prompt, candidates), each group with a prompt of its own."""
    parts, first = [], 1
    for prompt, candidates in groups:
        parts.append(tree(prompt, candidates, first))
        first += len(candidates)
    ids, branch = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Example(number, {"input_ids": ids}, 0, 1.0, "", branch=branch)


EXAMPLES = [
    example(([20, 21, 22, 23], [[30, 31], [32], [33, 34, 35]])),
    example(([40, 41], [[30, 31], [42]]), ([50, 51, 52, 53, 54, 55], [[30, 31], [42]])),
    example(([60], [[61, 62], [63]])),
]


@pytest.fixture(scope="module")
def model(decoder_folder):
    return load_base(ModelOptions(source=str(decoder_folder)), "AutoModelForCausalLM").model.eval()


def alone(model, examples):
    """The losses of each candidate behind its own prompt and nothing else."""
    pairs = [pair for each in examples for pair in branches.sequences_of(each)]
    return torch.cat([plain_outputs(model, ids, labels).losses() for ids, labels in pairs])


def test_a_candidate_goes_on_where_its_prompt_ends():
    both = EXAMPLES[1]
    assert both.branch.tolist() == [0, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 3, 3, 3, 4, 4]
    assert branches.positions_of(both.branch).tolist() == [0, 1, 2, 3, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 5, 6]
    texts = [(ids.tolist(), labels.tolist()) for ids, labels in branches.sequences_of(both)]
    assert texts[1] == ([40, 41, 42], [-100, -100, 42])
    assert texts[2] == ([50, 51, 52, 53, 54, 55, 30, 31], [-100] * 6 + [30, 31])


def test_batches_know_whose_each_candidate_is():
    batch = branches.lay_out(EXAMPLES, 0)
    assert branches.counts_of(batch).tolist() == [3, 4, 2]
    owners, numbers = branches.owners_of(batch)
    assert owners.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2] and numbers.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    assert branches.tokens_of(batch).tolist() == [2, 1, 3, 2, 1, 2, 1, 2, 1]
    rows = branches.unrolled(batch, 0)
    assert branches.counts_of(rows).tolist() == [3, 4, 2] and branches.tokens_of(rows).tolist() == [
        2,
        1,
        3,
        2,
        1,
        2,
        1,
        2,
        1,
    ]
    assert branches.unrolled(rows, 0) is rows
    for row, (ids, _) in enumerate(pair for each in EXAMPLES for pair in branches.sequences_of(each)):
        real = rows.inputs["attention_mask"][row] > 0
        assert rows.inputs["input_ids"][row][real].tolist() == ids.tolist()
        # Where each token stands in the example: what is remembered of it is read from there.
        own = EXAMPLES[int(rows.example[row].max())].inputs["input_ids"]
        assert own[rows.place[row][real]].tolist() == ids.tolist()


@pytest.mark.parametrize("additive", [None, torch.float32])
def test_shared_prompts_give_what_each_candidate_gets_alone(model, additive):
    batch = branches.lay_out(EXAMPLES, 0)
    with torch.no_grad():
        wanted = alone(model, EXAMPLES)
        found = losses_of(model, branches.apart(batch, additive), "everywhere")
        rows = losses_of(model, branches.apart(branches.unrolled(batch, 0)), "chunks")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows, wanted, rtol=1e-5, atol=1e-5)


def test_a_candidate_does_not_see_another(model):
    one = example(([20, 21, 22], [[30, 31], [32, 33]]))
    other = example(([20, 21, 22], [[40, 41], [32, 33]]))
    with torch.no_grad():
        first, second = (
            losses_of(model, branches.apart(branches.lay_out([each], 0)), "chunks") for each in (one, other)
        )
    assert first[1] == second[1] and first[0] != second[0]


def test_it_is_found_out_which_models_can_share(model, decoder_folder, monkeypatch):
    assert branches.shares(model, TOKENS)
    windowed = load_base(ModelOptions(source=str(decoder_folder)), "AutoModelForCausalLM").model
    windowed.config.sliding_window = 8
    assert not branches.shares(windowed, TOKENS)
    blind = load_base(ModelOptions(source=str(decoder_folder)), "AutoModelForCausalLM").model
    own = blind.forward
    monkeypatch.setattr(blind, "forward", lambda input_ids, attention_mask=None, **rest: own(input_ids, **rest))
    assert not branches.shares(blind, TOKENS), "it lets every candidate see those before it"
