"""Everything that runs on a GPU runs on a device that is not here as on the CPU (`fake_device`)."""

from functools import partial

import pytest
import torch
from fake_device import DEVICE, There, fake_device
from toy_models import KINDS, SOURCE, TINY, build, padded, sentences

from s2s_helpers import loss as losses
from s2s_helpers.data import Batch, Seq2SeqDataset, make_loader
from s2s_helpers.decoding import beam_search, greedy_decode, sample, translate
from s2s_helpers.decoding.diverse import diverse_beam_search
from s2s_helpers.decoding.risk import log_probabilities, minimum_risk_search
from s2s_helpers.decoding.sampling import typical
from s2s_helpers.loss import Seq2SeqLoss, total_loss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.models import Forecaster, Scaling, Windows
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.training.distillation import WordDistillation
from s2s_helpers.training.schedules import TeacherForcing, constant

SEARCHES = {
    "greedy": greedy_decode,
    "beam": beam_search,
    "sample": partial(sample, top_p=0.9, top_k=5, temperature=0.7),
    "typical": partial(sample, keep=typical(0.9), n=3),
    "diverse": partial(diverse_beam_search, beam_size=4, groups=2),
    "risk": partial(minimum_risk_search, risk=lambda y, h: float(y != h), n=4),
}


def calm(model):
    """The model without its dropout."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def batch_of_pairs():
    rows = sentences()
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(4, 7, (len(rows), 6), generator=generator)
    targets[:, 0], targets[3, 4:] = 1, 0
    sources = padded(rows)
    return Batch(sources.source, sources.source_mask, targets)


def test_the_device_is_like_a_real_one():
    with fake_device():
        x = torch.ones(2, 3).to(DEVICE)
        assert type(x + 1) is There and (x + 1).tolist() == [[2.0] * 3] * 2
        assert torch.arange(3, device=x.device).tolist() == [0, 1, 2]
        assert x[[0]].sum().item() == 3 and type(x.cpu()) is torch.Tensor
        with pytest.raises(TypeError, match=r"has no torch\.float64"):
            x.double()
        with pytest.raises(RuntimeError, match="expected all tensors on meta"):
            x + torch.ones(3)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_searches(kind, search):
    batch = padded(sentences())
    expected = search(build(kind), batch.source, batch.source_mask)
    with fake_device():
        there = batch.to(DEVICE)
        found = search(build(kind).to(DEVICE), there.source, there.source_mask)
    for one, other in zip(found, expected, strict=True):
        several = zip(*([x] if not isinstance(x, list) else x for x in (one, other)), strict=True)
        for hypothesis, right in several:
            assert hypothesis.ids == right.ids
            assert hypothesis.log_probability == pytest.approx(right.log_probability, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_given_ids_and_texts(kind):
    batch, targets = padded(sentences()), [[[5, 2], [4, 4, 2]]] * 7
    texts = [SOURCE.decode(ids) for ids in sentences()]
    expected = log_probabilities(build(kind), batch.source, targets)
    written = [each.text for each in translate(build(kind), texts, beam_size=3)]
    with fake_device():
        model = build(kind).to(DEVICE)
        found = log_probabilities(model, batch.source.to(DEVICE), targets)
        assert [each.text for each in translate(model, texts, beam_size=3)] == written
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


@pytest.mark.parametrize("forcing", [1.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_with_the_teacher_wherever_it_is(kind, forcing):
    batch, teacher = batch_of_pairs(), build(kind, seed=1)

    def gradients(model, batch, loss):
        model.train().teacher_forcing = forcing
        torch.manual_seed(0)
        total, tokens, _ = total_loss(loss, model, batch)
        total.backward()
        return total.item(), tokens, [p.grad.cpu() for p in model.parameters()]

    for loss in Seq2SeqLoss(0.1), WordDistillation(teacher, 2.0, 0.7):
        expected = gradients(calm(build(kind)), batch, loss)
        with fake_device():
            model = calm(build(kind)).to(DEVICE)
            found = gradients(model, batch.to(DEVICE), loss)
            loss.to(DEVICE)
            moved = gradients(model.to(DEVICE), batch.to(DEVICE), loss)[:2]
        assert found[:2] == (pytest.approx(expected[0], rel=1e-5), expected[1])
        assert moved == pytest.approx(found[:2])
        for gradient, right in zip(found[2], expected[2], strict=True):
            torch.testing.assert_close(gradient, right, atol=1e-4, rtol=1e-4)


def test_the_loss_hands_a_gpu_more_at_once(monkeypatch):
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 14)  # two rows of 7
    layer, features = torch.nn.Linear(3, 7), torch.ones(1, 50, 3)
    targets, linear, calls = torch.full((1, 50), 4), losses.F.linear, []
    monkeypatch.setattr(losses.F, "linear", lambda *x: calls.append(len(x[0])) or linear(*x))
    Seq2SeqLoss().of_features(features, layer, targets)
    assert calls == [2] * 25
    calls.clear()
    with fake_device():
        Seq2SeqLoss().of_features(features.to(DEVICE), layer.to(DEVICE), targets.to(DEVICE))
    assert calls == [50]


def test_accuracy_needs_no_float64():
    logits, targets = torch.eye(5)[None, [1, 2, 3, 4, 4]], torch.tensor([[1, 2, 2, 4, 0]])
    assert token_accuracy(logits, targets) == 0.75
    with fake_device():
        assert token_accuracy(logits.to(DEVICE), targets.to(DEVICE)) == 0.75


def test_a_forecaster_and_its_windows():
    generator = torch.Generator().manual_seed(0)
    histories = torch.randn(3, 20, generator=generator).numpy()
    windows = Windows.of(Scaling(4, 9), list(histories), 2, histories[:, :2])
    torch.manual_seed(0)
    model = Forecaster(Scaling(4, 9), embedding=4, hidden=4).eval()
    with torch.no_grad():
        expected, _ = model.unroll(windows, 0.0)
    with fake_device():
        found, _ = model.to(DEVICE).unroll(windows.to(DEVICE), 0.0)
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training(kind):
    ids = sentences(12)
    pairs = [(SOURCE.decode(row), TINY.decode([4 + i % 3 for i in row])) for row in ids]

    def train(device):
        data = Seq2SeqDataset(pairs, SOURCE, TINY)
        loader = make_loader(data, batch_size=4, seed=0)
        config = training_config(2, device=str(device), progress=False)
        config.optimizer.params["fused"] = False  # PyTorch has it for devices that it knows
        trainer = Seq2SeqTrainer(
            calm(build(kind)), config, loader, loader, metrics={"accuracy": token_accuracy},
            callbacks=[TeacherForcing(constant(0.5))], ema=0.9,
        )  # fmt: skip
        return trainer.fit().epochs

    expected = train("cpu")
    with fake_device():
        found = train(DEVICE)
    for epoch, right in zip(found, expected, strict=True):
        for name in ("train_loss", "validation_loss", "perplexity", "accuracy"):
            assert epoch[name] == pytest.approx(right[name], abs=1e-3)
