"""Losses of pairs: equal to trl's, finite, and pushing the two answers apart, whatever the log-likelihoods are."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.strategies.pairs.losses import LOSSES, reference_point

nats = st.floats(-60, -1 / 64, width=32)
row = st.tuples(nats, nats, st.integers(1, 40), st.integers(1, 40))
rows = st.lists(row, min_size=1, max_size=6)
OPTIONS = {
    "ipo": SimpleNamespace(beta=0.3),
    "orpo": SimpleNamespace(beta=0.3),
    "kto": SimpleNamespace(beta=0.3, desirable=1.2, undesirable=0.7),
    "simpo": SimpleNamespace(beta=2.0, gamma=0.8),
}


def of(method, table, shift=0.0):
    """The losses of a table of (chosen, rejected) log-likelihoods and token counts, and the slopes of the former."""
    values = torch.tensor([each[:2] for each in table], dtype=torch.float32) + shift
    values.requires_grad_()
    losses = LOSSES[method](values, torch.tensor([each[2:] for each in table]), OPTIONS[method])
    losses.sum().backward()
    return losses.detach(), values.grad


@pytest.mark.parametrize("method", LOSSES)
@given(rows)
def test_every_pair_has_its_own_finite_loss(method, table):
    losses, slopes = of(method, table)
    assert losses.shape == (len(table),) and losses.isfinite().all() and slopes.isfinite().all()
    alone = [of(method, [each]) for each in table]
    assert losses.tolist() == pytest.approx([float(one) for one, _ in alone], rel=1e-5, abs=1e-6)
    assert slopes.tolist() == [pytest.approx(one[0].tolist(), rel=1e-4, abs=1e-6) for _, one in alone]


@pytest.mark.parametrize("method", ["orpo", "kto", "simpo"])
@given(rows)
def test_a_step_raises_chosen_and_lowers_rejected_answers(method, table):
    """A slope below 0 raises a log-likelihood; only where a loss is settled there is none."""
    _, slopes = of(method, table)
    assert (slopes[:, 0] <= 0).all() and (slopes[:, 1] >= 0).all()


@given(rows)
def test_ipo_stops_where_the_pair_is_as_far_apart_as_it_wants(table):
    """The paper's point against DPO: what is ahead by more than 1 / 2τ is drawn back."""
    _, slopes = of("ipo", table)
    ahead = torch.tensor([chosen / many - rejected / others for chosen, rejected, many, others in table])
    wanted = 1 / (2 * 0.3)
    assert torch.equal(
        slopes[:, 0].sign()[(ahead - wanted).abs() > 1e-3], (ahead - wanted).sign()[(ahead - wanted).abs() > 1e-3]
    )


def test_certain_tokens_have_finite_odds():
    losses, slopes = of("orpo", [(0.0, -3.0, 4, 4), (-3.0, 0.0, 4, 4)])
    assert losses.isfinite().all() and slopes.isfinite().all()


@given(rows)
def test_how_long_answers_are_does_not_matter_to_means_over_tokens(table):
    """Twice the tokens, each as likely."""
    longer = [(2 * one, 2 * other, 2 * many, 2 * others) for one, other, many, others in table]
    for method in ("ipo", "orpo", "simpo"):
        assert of(method, longer)[0].tolist() == pytest.approx(of(method, table)[0].tolist(), rel=1e-4, abs=1e-5)


def test_rewards_of_kto_are_sums():
    assert of("kto", [(-2.0, -4.0, 2, 2)])[0].tolist() == of("kto", [(-2.0, -4.0, 4, 8)])[0].tolist()
    assert of("kto", [(-4.0, -8.0, 4, 4)])[0].tolist() != of("kto", [(-2.0, -4.0, 2, 2)])[0].tolist()


def test_a_reference_point_is_no_less_than_nothing():
    assert float(reference_point(torch.tensor([[1.0, 3.0], [0.0, 2.0]]))) == 1.5
    assert float(reference_point(torch.tensor([[-1.0, -3.0]]))) == 0


# The same as trl, from the same log-likelihoods


def means(table):
    values = torch.tensor([each[:2] for each in table], dtype=torch.float32)
    return (values / torch.tensor([each[2:] for each in table])).unbind(1)


@given(rows)
def test_simpo_is_that_of_trl(table):
    from trl.experimental.cpo import CPOTrainer

    theirs = SimpleNamespace(
        alpha=0.0,
        beta=2.0,
        simpo_gamma=0.8,
        label_smoothing=0.0,
        loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )
    wanted, *_ = CPOTrainer.cpo_loss(theirs, *means(table))
    assert of("simpo", table)[0].tolist() == pytest.approx(wanted.tolist(), rel=1e-5, abs=1e-5)


@given(rows)
def test_the_odds_of_orpo_are_those_of_trl(table):
    from trl.experimental.orpo import ORPOTrainer

    theirs = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    chosen, rejected = means(table)
    odds, *_ = ORPOTrainer.odds_ratio_loss(theirs, chosen, rejected)
    assert of("orpo", table)[0].tolist() == pytest.approx((-chosen - odds).tolist(), rel=1e-5, abs=1e-5)
