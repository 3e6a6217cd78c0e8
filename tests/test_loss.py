import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.vocabulary import PAD


def made_up(seed, batch=3, target=5, vocabulary=11, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, target, vocabulary, generator=generator)
    targets = torch.randint(0, vocabulary, (batch, target), generator=generator)
    targets[0, -2:], targets[1, 0] = PAD, 4  # some padding, and never nothing but
    return logits, targets


def reference(logits, targets, label_smoothing):
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=label_smoothing
    )


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.5]))
def test_value_and_gradient_equal_torchs(seed, label_smoothing):
    logits, targets = made_up(seed)
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    loss = Seq2SeqLoss(label_smoothing)(one, targets)
    expected = reference(other, targets, label_smoothing)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-6)
    assert torch.count_nonzero(one.grad[targets == PAD]) == 0


def test_the_formula_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0, math.log(3)]]])  # p = 1/6, 1/6, 1/6, 1/2
    targets = torch.tensor([[3]])
    assert Seq2SeqLoss()(logits, targets).item() == pytest.approx(math.log(2))
    smooth = 0.6 * math.log(2) + 0.4 * (math.log(2) + 3 * math.log(6)) / 4
    assert Seq2SeqLoss(0.4)(logits, targets).item() == pytest.approx(smooth)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_totals_weigh_every_token_alike(label_smoothing):
    loss = Seq2SeqLoss(label_smoothing)
    logits, targets = made_up(1, batch=6)
    targets[2:4, 1:] = PAD
    parts = [loss.total(logits[:2], targets[:2]), loss.total(logits[2:], targets[2:])]
    tokens = sum(count for _, count in parts)
    assert tokens == int((targets != PAD).sum()) and isinstance(parts[0][1], int)
    whole = loss(logits, targets)
    assert (sum(total for total, _ in parts) / tokens).item() == pytest.approx(whole.item())
    assert sum(loss(logits[rows], targets[rows]) for rows in (slice(2), slice(2, 6))) / 2 != whole


def test_more_padding_changes_nothing():
    logits, targets = made_up(2)
    padded = F.pad(logits, (0, 0, 0, 4), value=7.0), F.pad(targets, (0, 4), value=PAD)
    assert Seq2SeqLoss(0.1)(*padded).item() == pytest.approx(
        Seq2SeqLoss(0.1)(logits, targets).item()
    )


def test_large_logits_stay_finite():
    logits, targets = made_up(3, scale=1e4)
    logits.requires_grad_()
    loss = Seq2SeqLoss(0.1)(logits, targets)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    torch.testing.assert_close(loss, reference(logits, targets, 0.1))


def test_other_leading_shapes():
    logits, targets = made_up(4)
    flat = Seq2SeqLoss(0.1)(logits.flatten(0, 1), targets.flatten())
    assert flat.item() == pytest.approx(Seq2SeqLoss(0.1)(logits, targets).item())


def test_bad_input_is_refused():
    logits, targets = made_up(5)
    loss = Seq2SeqLoss()
    with pytest.raises(ValueError, match="PAD"):
        loss(logits, torch.full_like(targets, PAD))
    with pytest.raises(ValueError, match=r"\(3, 5\), not \(3, 4\)"):
        loss(logits, targets[:, 1:])
    for wrong in (11, -1):
        with pytest.raises(ValueError, match="from 0 to 10"):
            loss(logits, torch.where(targets == 4, wrong, targets))
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match="label_smoothing"):
            Seq2SeqLoss(wrong)
