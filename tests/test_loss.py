import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from s2s_helpers import loss as loss_module
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


# From features, without the logits


def split_up(seed, bias=True, vocabulary=11, width=6):
    """Features, an output layer and targets."""
    _, targets = made_up(seed, vocabulary=vocabulary)
    torch.manual_seed(seed)
    layer = nn.Linear(width, vocabulary, bias=bias)
    nn.init.normal_(layer.weight)
    return torch.randn(*targets.shape, width, requires_grad=True), layer, targets


def gradients(total, features, layer):
    return torch.autograd.grad(total, [features, *layer.parameters()])


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 4 * 11)  # 4 rows at a time


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_of_features_equals_torch_on_all_logits(label_smoothing, bias, pieces):
    for seed in range(5):
        features, layer, targets = split_up(seed, bias)
        total, tokens = Seq2SeqLoss(label_smoothing).of_features(features, layer, targets)
        mean = reference(layer(features), targets, label_smoothing)
        assert tokens == int((targets != PAD).sum()) and isinstance(tokens, int)
        torch.testing.assert_close(total, mean * tokens, atol=1e-5, rtol=1e-5)
        found = gradients(3 * total, features, layer)
        expected = gradients(3 * mean * tokens, features, layer)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert torch.count_nonzero(found[0][targets == PAD]) == 0


def test_of_features_with_tied_embeddings(pieces):
    _, layer, targets = split_up(3)
    table = nn.Embedding(11, 6)
    layer.weight = table.weight
    read = targets.roll(1, dims=1)
    total, tokens = Seq2SeqLoss(0.1).of_features(table(read), layer, targets)
    mean = reference(layer(table(read)), targets, 0.1)
    (found,), (expected,) = (torch.autograd.grad(x, [table.weight]) for x in (total, mean * tokens))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_of_features_holds_only_some_logits():
    class Largest(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                self.largest = max(self.largest, made.numel())
            return made

    features, layer = torch.randn(50, 100, 2, requires_grad=True), nn.Linear(2, 2000)
    targets = torch.randint(1, 2000, (50, 100))
    with Largest() as seen:
        Seq2SeqLoss(0.1).of_features(features, layer, targets)[0].backward()
    assert (
        loss_module.LOGITS_AT_ONCE / 2
        < seen.largest
        <= loss_module.LOGITS_AT_ONCE
        < 50 * 100 * 2000
    )


def test_of_features_of_large_logits_stays_finite(pieces):
    features, layer, targets = split_up(6)
    features = (1e4 * features).detach().requires_grad_()
    total, tokens = Seq2SeqLoss(0.1).of_features(features, layer, targets)
    assert all(gradient.isfinite().all() for gradient in gradients(total, features, layer))
    torch.testing.assert_close(total, tokens * reference(layer(features), targets, 0.1))


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    """The float32 loss, but of features, weights and gradients rounded to 8 bits."""
    features, layer, targets = split_up(7, vocabulary=300, width=32)
    with torch.autocast("cpu", torch.bfloat16):
        total, tokens = Seq2SeqLoss(0.1).of_features(features, layer, targets)
        full, _ = Seq2SeqLoss(0.1).total(layer(features), targets)
    exact = tokens * reference(layer(features), targets, 0.1)
    assert total.dtype == full.dtype == torch.float32
    assert total.item() == pytest.approx(full.item(), rel=1e-5)  # of the same rounded logits
    assert 0 < abs(total.item() / exact.item() - 1) < 0.01
    found, expected = gradients(total, features, layer), gradients(exact, features, layer)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() < 0.03 * theirs.norm()


def test_a_bfloat16_model_is_summed_in_float32(pieces):
    features, layer, targets = split_up(8, vocabulary=11, width=6)
    features, layer = features.bfloat16().detach().requires_grad_(), layer.bfloat16()
    features, targets = features.repeat(40, 1, 1), targets.repeat(40, 1)
    total, _ = Seq2SeqLoss(0.1).of_features(features, layer, targets)
    expected, _ = Seq2SeqLoss(0.1).total(layer(features), targets)
    assert total.dtype == torch.float32 and total.item() == pytest.approx(expected.item(), rel=1e-5)
    (found,) = torch.autograd.grad(total, [layer.weight])
    assert found.dtype == torch.bfloat16
    exact = nn.Linear(6, 11)
    exact.load_state_dict(layer.state_dict())
    (right,) = torch.autograd.grad(
        Seq2SeqLoss(0.1).of_features(features.float(), exact, targets)[0], [exact.weight]
    )
    assert (found - right).norm() < 0.01 * right.norm()


def test_bad_input_of_features_is_refused():
    features, layer, targets = split_up(5)
    of_features = Seq2SeqLoss().of_features
    with pytest.raises(ValueError, match="PAD"):
        of_features(features, layer, torch.full_like(targets, PAD))
    with pytest.raises(ValueError, match=r"features .* \(3, 5\), not \(3, 4\)"):
        of_features(features, layer, targets[:, 1:])
    for wrong in (11, -1):
        with pytest.raises(ValueError, match="from 0 to 10"):
            of_features(features, layer, torch.where(targets == 4, wrong, targets))
    # The gradients are constants: a second derivative would be silently wrong.
    total, _ = of_features(features, layer, targets)
    (gradient,) = torch.autograd.grad(total.square(), [features], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# What takes the best form of a loss that is there; that changed models are called as they are is in
# training/test_trainer.py


class Reader(nn.Module):
    """Logits of a batch by a layer on features, which count how often they are asked for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer, self.asked = nn.Embedding(11, 6), nn.Linear(6, 11), 0

    def features(self, batch):
        self.asked += 1
        return self.table(batch.target_input), self.layer, None

    def forward(self, batch):
        values, layer, attention = self.features(batch)
        self.asked -= 1
        return layer(values), attention


class Read:
    target_output = made_up(0)[1]
    target_input = target_output.roll(1, dims=1)


def test_every_form_of_a_loss_gives_sum_tokens_and_logits():
    model, seen = Reader(), Seq2SeqLoss(0.1)

    class OfTotal:
        def total(self, logits, targets):
            return seen.total(logits, targets)

        def __call__(self, logits, targets):
            raise AssertionError

    class OfBatch(OfTotal):
        def of_batch(self, model, batch):
            logits = model(batch)[0]
            return *seen.total(logits, batch.target_output), logits

    expected = seen.total(model(Read)[0], Read.target_output)
    for loss in (seen, seen.forward, OfTotal(), OfBatch()):
        for training in (True, False):
            total, tokens, logits = loss_module.total_loss(loss, model.train(training), Read)
            assert total.item() == pytest.approx(expected[0].item()) and tokens == expected[1]
            split = loss is seen and training
            assert (logits is None) == split and model.asked == split
            model.asked = 0


@pytest.mark.parametrize("method", ["total", "forward"])
@pytest.mark.parametrize("on_the_class", [True, False])
def test_a_changed_loss_is_called_as_it_is(method, on_the_class):
    def changed(self, logits, targets):
        total, tokens = Seq2SeqLoss.total(self, logits, targets)
        return (2 * total, tokens) if method == "total" else 2 * total / tokens

    loss = Seq2SeqLoss(0.1)
    if on_the_class:
        loss = type("Changed", (Seq2SeqLoss,), {method: changed})(0.1)
    else:
        setattr(loss, method, lambda *given: changed(loss, *given))
    expected, tokens = Seq2SeqLoss(0.1).total(Reader()(Read)[0], Read.target_output)
    total, count, logits = loss_module.total_loss(loss, Reader().train(), Read)
    assert total.item() == pytest.approx(2 * expected.item(), rel=1e-5)
    assert count == tokens and logits is not None
