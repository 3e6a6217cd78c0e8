"""Distillation agrees with torch's own divergence, and a trainer takes it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.decoding import translate
from s2s_helpers.loss import Seq2SeqLoss, total_loss
from s2s_helpers.models import Seq2Seq, TransformerSeq2Seq
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.training.distillation import WordDistillation, teacher_pairs
from s2s_helpers.vocabulary import EOS, PAD, Vocabulary

PAIRS = [("one dog", "un chien"), ("two dogs run", "deux chiens courent"), ("a cat", "un chat")]
ENGLISH = Vocabulary.build([source for source, _ in PAIRS], min_count=1)
SPEAKS = 5  # a seed with which the untrained model says something to each
FRENCH = Vocabulary.build([target for _, target in PAIRS], min_count=1)


def model(seed, width=8, vocabularies=(ENGLISH, FRENCH)):
    torch.manual_seed(seed)
    return TransformerSeq2Seq(
        *vocabularies, width=width, heads=2, layers=1, feedforward=8, dropout=0.0
    )


def trainer(student, loss, epochs=1, **options):
    dataset = Seq2SeqDataset(PAIRS, student.source_vocabulary, student.target_vocabulary)
    config = training_config(epochs, progress=False, device="cpu", **options)
    return Seq2SeqTrainer(student, config, make_loader(dataset), make_loader(dataset), loss)


def distillation_loss(student, teacher, real, temperature):
    """The soft part alone, summed over the real tokens."""
    loss = WordDistillation(None, temperature, weight=1.0)
    return loss.total(student, teacher, torch.where(real, 5, PAD))[0]


def some_logits(seed, shape=(2, 3, 7)):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 50), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_value_and_gradient_are_those_of_kl_div(seed, temperature):
    student, teacher = some_logits(seed).requires_grad_(), some_logits(seed + 100)
    real = torch.tensor([[True, True, False], [True, False, False]])
    ours = distillation_loss(student, teacher, real, temperature)
    parts = [
        F.kl_div(
            (student[row, time] / temperature).log_softmax(-1),
            (teacher[row, time] / temperature).softmax(-1),
            reduction="sum",
        )
        for row, time in real.nonzero().tolist()
    ]
    theirs = temperature**2 * sum(parts)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    gradients = [
        torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (ours, theirs)
    ]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert (gradients[0][~real] == 0).all() and gradients[0][real].abs().sum() > 0


def test_the_gradient_at_a_high_temperature_is_hinton_s():
    # Section 2.1: (z_i - v_i) / N for logits of mean 0, the factor T^2 included.
    student, teacher = (
        x - x.mean() for x in (some_logits(0, (1, 1, 9)), some_logits(1, (1, 1, 9)))
    )
    student.requires_grad_()
    distillation_loss(student, teacher, torch.ones(1, 1, dtype=torch.bool), 1000.0).backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / 9, atol=1e-2, rtol=1e-2)


def test_a_student_that_equals_its_teacher_loses_nothing():
    logits, real = some_logits(3), torch.ones(2, 3, dtype=torch.bool)
    assert abs(distillation_loss(logits, logits, real, 2.0).item()) < 1e-4
    assert distillation_loss(logits, logits + 5, real, 2.0).item() < 1e-3  # softmax ignores a shift


def test_the_teacher_s_sentences_take_the_place_of_the_gold_ones():
    teacher = model(SPEAKS)
    wanted = [t.text for t in translate(teacher, [s for s, _ in PAIRS], beam_size=2)]
    found = teacher_pairs(teacher, PAIRS, beam_size=2, progress=False)
    assert found == [(source, text) for (source, _), text in zip(PAIRS, wanted, strict=True)]
    assert teacher_pairs(teacher, [s for s, _ in PAIRS], 2, progress=False) == found
    assert teacher_pairs(teacher, [], progress=False) == []
    with torch.no_grad():
        teacher.output.bias[EOS] = 99.0
    assert teacher_pairs(teacher, PAIRS, progress=False) == []  # it says nothing


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_weighs_gold_and_teacher(weight):
    teacher, student = model(0, 16).train(), model(1)
    teacher.dropout.p = 0.5  # off while it teaches
    loss = WordDistillation(teacher, temperature=2.0, weight=weight)
    batch = next(iter(make_loader(Seq2SeqDataset(PAIRS, ENGLISH, FRENCH))))
    assert (batch.target_output == PAD).any()
    total, tokens, logits = total_loss(loss, student, batch)
    assert tokens == batch.tokens and torch.equal(logits, student(batch)[0])
    assert all(module.training for module in teacher.modules())  # left as it was
    taught = teacher.eval()(batch)[0]
    soft = distillation_loss(logits, taught, batch.target_mask, 2.0)
    gold, _ = Seq2SeqLoss().total(logits, batch.target_output)
    torch.testing.assert_close(total, (1 - weight) * gold + weight * soft)
    total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_trainer_takes_it_and_the_student_comes_nearer():
    teacher, student = model(0, 16).eval(), model(1)
    batch = next(iter(make_loader(Seq2SeqDataset(PAIRS, ENGLISH, FRENCH))))

    def distance():
        with torch.no_grad():
            logits = student(batch)[0], teacher(batch)[0]
        return distillation_loss(*logits, batch.target_mask, 1.0).item()

    loss, before = WordDistillation(teacher, temperature=1.0, weight=1.0), distance()
    weights = [p.clone() for p in teacher.parameters()]
    history = trainer(student, loss, epochs=60, lr=1e-2).fit()
    assert distance() < 0.3 * before
    assert all(torch.equal(a, b) for a, b in zip(weights, teacher.parameters(), strict=True))
    last = history.epochs[-1]
    assert 0 <= last["validation_loss"] < 0.3 * before / batch.tokens
    # The perplexity is that of the gold targets, not the distance.
    with torch.no_grad():
        gold = Seq2SeqLoss()(student.eval()(batch)[0], batch.target_output).item()
    best = history.epochs[history.best_epoch - 1]
    assert math.isclose(best["perplexity"], math.exp(gold), rel_tol=1e-3)


def test_what_does_not_fit_is_refused():
    teacher = model(0)
    for options in (dict(temperature=0.0), dict(weight=1.5), dict(weight=-0.1)):
        (name,) = options
        with pytest.raises(ValueError, match=name):
            WordDistillation(teacher, **options)
    other = Vocabulary.build(["another language"], min_count=1)
    student = Seq2Seq(ENGLISH, other, embedding=4, hidden=4)
    with pytest.raises(ValueError, match="share the target_vocabulary"):
        trainer(student, WordDistillation(teacher)).fit()
