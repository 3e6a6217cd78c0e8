"""The trainer against hand-written training, and against what plain Treadmill does."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_trainings import (
    DATASET,
    PAIRS,
    VOCABULARY,
    Seen,
    StopAt,
    batches,
    config,
    flat,
    rising,
    same,
    tiny,
)
from torch import nn
from torch.nn import functional as F
from treadmill import EarlyStopping, ModelCheckpoint, OptimizerConfig, Trainer, TrainingConfig
from treadmill.callbacks import Callback, GradientClipping, LearningRateLogger, MetricsLogger

from s2s_helpers.corpora import phrasebook
from s2s_helpers.data import LengthBuckets, Seq2SeqDataset, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.models import (
    CopyDataset,
    CoverageLoss,
    PointerGenerator,
    Seq2Seq,
    TransformerSeq2Seq,
)
from s2s_helpers.training import (
    Seq2SeqTrainer,
    TeacherForcing,
    constant,
    exponential,
    gains_by_bf16,
    inverse_sigmoid,
    inverse_square_root,
    linear,
    linear_warmup,
    repairs,
    set_seed,
    training_config,
)
from s2s_helpers.vocabulary import EOS, PAD


def forward_fn(model, batch):
    return model(batch)[0], batch.target_output


def plain(model, loader, validation=None, metrics=None, callbacks=None, **settings):
    """Treadmill's own trainer on the same model and loss."""
    made = TrainingConfig(
        epochs=1,
        device="cpu",
        optimizer=OptimizerConfig("SGD", lr=0.5),
        custom_forward_fn=forward_fn,
        progress_bar=False,
        **settings,
    )
    return Trainer(model, made, loader, validation, Seq2SeqLoss(), metrics, callbacks)


# Accumulation and weighting


def by_hand(model, groups):
    """SGD with lr 0.5 on the mean loss over all real tokens of each group of batches."""
    for group in groups:
        logits, targets = [], []
        for batch in group:
            logits.append(model(batch)[0].flatten(0, 1))
            targets.append(batch.target_output.flatten())
        loss = F.cross_entropy(torch.cat(logits), torch.cat(targets), ignore_index=PAD)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad
    return flat(model)


@pytest.mark.parametrize("sizes", [(1, 2, 5), (4, 4, 1, 3), (2, 1, 3, 1, 2)])
def test_accumulated_batches_equal_the_large_batch_also_the_last_ones_of_the_epoch(sizes):
    micro = batches(*sizes)
    expected = by_hand(tiny(), [micro[:3], micro[3:]] if len(micro) > 3 else [micro])
    model = tiny()
    Seq2SeqTrainer(model, config(accumulate=3), micro).fit()
    torch.testing.assert_close(flat(model), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_model_that_is_split_trains_as_with_all_its_logits(accumulate):
    class Whole(Seq2SeqLoss):
        """The same loss, which wants all the logits."""

        def total(self, logits, targets):
            return super().total(logits, targets)

    def trained(loss):
        set_seed(0)
        model = TransformerSeq2Seq(
            VOCABULARY, VOCABULARY, width=8, heads=2, layers=1, feedforward=12, dropout=0.2
        )
        made = config(2, lr=0.1, accumulate=accumulate)
        history = Seq2SeqTrainer(model, made, batches(4, 3, 3), batches(5), loss=loss).fit()
        return model, history

    model, history = trained(Seq2SeqLoss(0.1))
    expected, whole = trained(Whole(0.1))
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(history.steps, whole.steps, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert history.epochs[-1]["validation_loss"] == pytest.approx(
        whole.epochs[-1]["validation_loss"], rel=1e-5
    )


def test_training_makes_no_logits_unless_it_must(monkeypatch):
    calls = []
    of_features = Seq2SeqLoss.of_features
    monkeypatch.setattr(
        Seq2SeqLoss, "of_features", lambda *given: calls.append(1) or of_features(*given)
    )

    def count(loss=None, teacher_forcing=1.0, forward=None):
        calls.clear()
        set_seed(0)
        model = Seq2Seq(VOCABULARY, VOCABULARY, embedding=4, hidden=4)
        model.teacher_forcing = teacher_forcing
        made = config(1)
        made.custom_forward_fn = forward
        Seq2SeqTrainer(model, made, batches(4, 3), batches(5), loss=loss).fit()
        return len(calls)

    class Weighted(Seq2SeqLoss):
        def total(self, logits, targets):
            total, tokens = super().total(logits, targets)
            return 2 * total, tokens

    assert count() == 2
    assert count(teacher_forcing=0.5) == 0
    assert count(loss=Weighted()) == count(loss=Seq2SeqLoss().forward) == 0
    assert count(forward=lambda model, batch: (model(batch)[0], batch.target_output)) == 0


def test_bf16_trains_like_float32(monkeypatch):
    def trained(bf16):
        set_seed(0)
        model = TransformerSeq2Seq(
            VOCABULARY, VOCABULARY, width=32, heads=2, layers=1, feedforward=32, dropout=0.0
        )
        made = training_config(20, lr=1e-2, progress=False, bf16=bf16, device="cpu")
        trainer = Seq2SeqTrainer(model, made, batches(5, 5))
        losses = [step["loss"] for step in trainer.fit().steps]
        assert all(p.dtype == torch.float32 for p in model.parameters())
        return losses

    exact, rounded = trained(False), trained(True)
    assert rounded[:5] != exact[:5] and rounded[:5] == pytest.approx(exact[:5], rel=0.01)
    assert exact[-1] < 0.5 * exact[0] and rounded[-1] < 0.5 * rounded[0]
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert gains_by_bf16()
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not gains_by_bf16()


def test_accumulation_equals_one_batch_of_all_rows_where_plain_treadmill_does_not():
    micro = batches(1, 2, 5)
    whole, ours, theirs = tiny(), tiny(), tiny()
    Seq2SeqTrainer(whole, config(), batches(8)).fit()
    Seq2SeqTrainer(ours, config(accumulate=3), micro).fit()
    plain(theirs, micro, accumulate_grad_batches=3)._train_epoch(0)
    torch.testing.assert_close(flat(ours), flat(whole), rtol=0, atol=1e-5)
    assert (flat(theirs) - flat(whole)).abs().max() > 1e-3


def test_plain_treadmill_drops_the_last_group_and_ours_steps_it():
    ours, theirs = tiny(), tiny()
    trainer = Seq2SeqTrainer(ours, config(accumulate=3), batches(2, 2))
    trainer.fit()
    plain(theirs, batches(2, 2), accumulate_grad_batches=3)._train_epoch(0)
    assert same(theirs, tiny()) and not same(ours, tiny())
    assert trainer.step == 1


def test_train_loss_is_the_mean_over_tokens():
    micro, model = batches(1, 6, 3), tiny()
    history = Seq2SeqTrainer(model, config(lr=0.0), micro).fit()
    losses = [
        F.cross_entropy(
            model(b)[0].flatten(0, 1), b.target_output.flatten(), ignore_index=PAD, reduction="sum"
        )
        for b in micro
    ]
    mean = sum(losses).item() / sum(b.tokens for b in micro)
    assert history.epochs[0]["train_loss"] == pytest.approx(mean, abs=1e-6)


def test_a_plain_function_as_loss_trains_alike():
    def mean_loss(logits, targets):
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)

    ours, theirs = tiny(), tiny()
    Seq2SeqTrainer(ours, config(accumulate=2), batches(1, 5, 2)).fit()
    Seq2SeqTrainer(theirs, config(accumulate=2), batches(1, 5, 2), loss=mean_loss).fit()
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-6)


# Clipping, and what is not finite


def test_clipping_bounds_the_step_by_config_and_by_callback():
    by_config, by_callback = tiny(), tiny()
    trainer = Seq2SeqTrainer(by_config, config(accumulate=2, clip=0.02), batches(1, 5))
    trainer.fit()
    assert (flat(by_config) - flat(tiny())).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert trainer.history.steps[0]["grad_norm"] > 0.04  # before clipping
    callbacks = [GradientClipping(0.02)]
    Seq2SeqTrainer(by_callback, config(accumulate=2), batches(1, 5), callbacks=callbacks).fit()
    torch.testing.assert_close(flat(by_callback), flat(by_config), rtol=0, atol=1e-6)


def test_plain_treadmill_calls_the_clipping_callback_after_the_step():
    model = tiny()
    plain(model, batches(3), callbacks=[GradientClipping(0.01)])._train_epoch(0)
    assert (flat(model) - flat(tiny())).norm() > 0.02


def test_a_loss_that_is_not_finite_stops_at_its_step_and_leaves_finite_weights():
    calls = []

    def loss(logits, targets):
        calls.append(1)
        return logits.mean() * (math.nan if len(calls) == 3 else 1.0)

    model = tiny()
    trainer = Seq2SeqTrainer(model, config(epochs=2), batches(3, 3), loss=loss)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3, epoch 2"):
        trainer.fit()
    assert flat(model).isfinite().all()


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change():
    def loss(logits, targets):
        return (logits - logits.detach()).abs().sqrt().sum()  # 0, with a slope that is not finite

    model = tiny()
    with pytest.raises(FloatingPointError, match="norm of the gradient is nan at step 1"):
        Seq2SeqTrainer(model, config(), batches(3), loss=loss).fit()
    assert same(model, tiny())


# Schedules


def test_lr_follows_the_schedule_by_optimiser_step():
    schedule = linear_warmup(3, 9)
    trainer = Seq2SeqTrainer(
        tiny(), config(epochs=3, lr=0.2, accumulate=2), batches(2, 2, 2, 1, 1), schedule=schedule
    )
    steps = trainer.fit().steps
    assert [s["step"] for s in steps] == list(range(1, 10))
    expected = [0.2 * f for f in (1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0)]
    assert [s["lr"] for s in steps] == pytest.approx(expected)


def test_linear_warmup_can_hold_before_it_falls():
    factor = linear_warmup(10, 100, decay_steps=40)
    assert [factor(t) for t in (1, 10, 30, 60, 80, 100)] == pytest.approx([0.1, 1, 1, 1, 0.5, 0])


@given(st.integers(1, 5000), st.integers(1, 20000), st.sampled_from([64, 128, 512]))
def test_inverse_square_root_is_the_formula_of_the_paper_over_its_peak(warmup, step, width):
    def paper(t):
        return width**-0.5 * min(t**-0.5, t * warmup**-1.5)

    assert inverse_square_root(warmup)(step) == pytest.approx(paper(step) / paper(warmup))


@given(st.integers(0, 10**6))
def test_teacher_forcing_schedules_are_those_of_the_paper_and_probabilities(i):
    assert constant(0.3)(i) == 0.3
    assert linear(1e-4, k=0.9, minimum=0.2)(i) == max(0.2, 0.9 - 1e-4 * i)
    assert exponential(0.999)(i) == 0.999**i
    if i < 5000:
        assert inverse_sigmoid(50)(i) == pytest.approx(50 / (50 + math.exp(i / 50)))
    for schedule in (linear(1e-4), exponential(0.99), inverse_sigmoid(3)):
        assert 0 <= schedule(i) <= 1 and schedule(i + 1) <= schedule(i)


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_warmup(10, 10),
        lambda: linear_warmup(5, 10, decay_steps=6),
        lambda: inverse_square_root(0),
        lambda: constant(1.1),
        lambda: linear(-1),
        lambda: linear(0.1, k=0.5, minimum=0.6),
        lambda: exponential(1),
        lambda: inverse_sigmoid(0.5),
    ],
)
def test_schedules_refuse_what_makes_no_sense(make):
    with pytest.raises(ValueError):
        make()


def test_teacher_forcing_is_set_by_optimiser_step_and_put_back():
    seen = Seen(lambda trainer: trainer.model.teacher_forcing)
    model = tiny()
    model.teacher_forcing = 0.9
    callbacks = [TeacherForcing(exponential(0.5)), seen]
    made = config(epochs=2, accumulate=2)
    Seq2SeqTrainer(model, made, batches(2, 2, 2), callbacks=callbacks).fit()
    assert seen.values == [1, 1, 0.5, 0.25, 0.25, 0.125]
    assert model.teacher_forcing == 0.9


def test_teacher_forcing_needs_a_model_that_has_it():
    model = tiny()
    del model.teacher_forcing
    trainer = Seq2SeqTrainer(model, config(), batches(2), callbacks=[TeacherForcing(constant(0.5))])
    with pytest.raises(TypeError, match="Tiny has no attribute teacher_forcing"):
        trainer.fit()


# Evaluation


def test_evaluate_is_the_mean_over_all_tokens_without_dropout_or_gradient():
    many = batches(*[1, 4, 2] * 40)  # more than the 100 batches that Treadmill looks at
    model = tiny(dropout=0.5)

    def accuracy(logits, targets):
        assert not logits.requires_grad
        return token_accuracy(logits, targets)

    metrics = {"token_accuracy": accuracy}
    trainer = Seq2SeqTrainer(model, config(), many, None, Seq2SeqLoss(0.1), metrics)
    trainer.fit()
    model.zero_grad()
    found = trainer.evaluate(many)
    assert 0.2 < found["token_accuracy"] < 0.9
    assert model.training and all(p.grad is None for p in model.parameters())

    model.eval()
    logits = torch.cat([model(b)[0].flatten(0, 1) for b in many])
    targets = torch.cat([b.target_output.flatten() for b in many])
    smooth = F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=0.1).item()
    real = targets != PAD
    assert found == pytest.approx(
        {
            "loss": smooth,
            "perplexity": math.exp(F.cross_entropy(logits, targets, ignore_index=PAD).item()),
            "token_accuracy": (logits.argmax(-1) == targets)[real].float().mean().item(),
        },
        rel=1e-5,
    )
    trainer.evaluate(many)
    assert not model.training  # the mode is put back, whichever it was

    model.dropout.p = 0.0
    theirs = plain(model, many, many, metrics)._validate_epoch(0)
    assert theirs["token_accuracy"] != pytest.approx(found["token_accuracy"], rel=1e-3)


def test_training_is_in_training_mode_whatever_was_before():
    seen = Seen(lambda trainer: trainer.model.training)
    model = tiny().eval()
    Seq2SeqTrainer(model, config(epochs=3), batches(2), batches(2), callbacks=[seen]).fit()
    assert seen.values == [True] * 3


def broken(logits, targets):
    raise ZeroDivisionError("in the metric")


def test_an_error_in_a_metric_is_an_error_where_plain_treadmill_says_zero(capsys):
    model = tiny(dropout=0.1)
    trainer = Seq2SeqTrainer(model, config(), batches(2), batches(2), metrics={"broken": broken})
    with pytest.raises(ZeroDivisionError, match="in the metric"):
        trainer.fit()
    with pytest.raises(ZeroDivisionError):
        trainer.evaluate(batches(2))
    assert model.training
    theirs = plain(tiny(), batches(2), batches(2), {"broken": broken})
    assert theirs._validate_epoch(0)["broken"] == 0.0


def test_nothing_to_train_or_evaluate_on():
    trainer = Seq2SeqTrainer(tiny(), config(), [])
    with pytest.raises(ValueError, match="training loader has no batches"):
        trainer.fit()
    with pytest.raises(ValueError, match="no batches to evaluate"):
        trainer.evaluate([])


# Names, early stopping


@pytest.mark.parametrize(
    "settings",
    [
        {"monitor": "val_bleu"},
        {"monitor": "token_accuracy"},
        {"callbacks": [EarlyStopping("val_bleu")]},
        {"callbacks": [ModelCheckpoint("x.pt", monitor="accuracy")]},
    ],
)
def test_a_wrong_metric_name_is_an_error_at_once_with_the_names_there_are(settings):
    metrics = {"token_accuracy": token_accuracy}
    with pytest.raises(ValueError, match="loss, val_loss, val_perplexity, val_token_accuracy"):
        Seq2SeqTrainer(tiny(), config(), batches(2), batches(2), metrics=metrics, **settings)


def test_names_are_looked_at_again_when_fit_starts():
    trainer = Seq2SeqTrainer(tiny(), config(), batches(2))
    trainer.callbacks.append(EarlyStopping("val_loss"))
    with pytest.raises(ValueError, match=r"no metric 'val_loss'; there are: loss$"):
        trainer.fit()
    assert trainer.step == 0


def test_patience_on_the_validation_loss():
    trainer = Seq2SeqTrainer(tiny(), config(epochs=9, lr=0.0, patience=2), batches(2), batches(2))
    history = trainer.fit()
    assert len(history.epochs) == 3 and history.stopped == "early" and history.best_epoch == 1


@pytest.mark.parametrize("mode, epochs, best", [(None, 5, 2), ("min", 6, 3)])
def test_patience_on_a_named_metric(mode, epochs, best):
    values = iter([0.2, 0.5, 0.1, 0.4, 0.3, 0.6, 0.7])
    trainer = Seq2SeqTrainer(
        tiny(),
        config(epochs=7, patience=3),
        batches(2),
        batches(2),
        metrics={"made_up": lambda logits, targets: next(values)},
        monitor="val_made_up",
        mode=mode,
    )
    history = trainer.fit()
    assert (len(history.epochs), history.best_epoch, history.stopped) == (epochs, best, "early")


def test_treadmills_callbacks_work(tmp_path):
    logger, checkpoint = LearningRateLogger(verbose=False), tmp_path / "{epoch}_{val_loss:.3f}.pt"
    log = tmp_path / "log.csv"
    trainer = Seq2SeqTrainer(
        tiny(),
        config(epochs=4),
        batches(4, 4),
        batches(8),
        callbacks=[
            logger,
            MetricsLogger(str(log)),
            ModelCheckpoint(str(checkpoint), verbose=False),
            EarlyStopping(patience=3, verbose=False),
        ],
        schedule=lambda step: 1 / step,
    )
    trainer.fit()
    assert logger.lr_history == pytest.approx([0.5, 0.5 / 3, 0.5 / 5, 0.5 / 7])
    assert log.read_text("utf-8").splitlines()[0] == "epoch,loss,val_loss,val_perplexity"
    assert [p.name[0] for p in tmp_path.glob("*.pt")] == [str(trainer.history.best_epoch - 1)]


def test_an_epoch_without_validation_does_not_count_as_a_perfect_one(tmp_path):
    checkpoint = ModelCheckpoint(str(tmp_path / "{epoch}.pt"), verbose=False)
    made = config(epochs=4)
    made.validate_every = 2
    trainer = Seq2SeqTrainer(tiny(), made, batches(4), batches(4), callbacks=[checkpoint])
    history = trainer.fit()
    assert [("validation_loss" in epoch) for epoch in history.epochs] == [False, True] * 2
    assert checkpoint.best_value == history.epochs[3]["validation_loss"]
    assert checkpoint.best_value == trainer.best_value


def test_a_scheduler_of_the_config_steps_by_epoch():
    made = config(epochs=3, lr=0.8)
    made.scheduler = type("S", (), {"scheduler_class": torch.optim.lr_scheduler.StepLR})()
    made.scheduler.params = {"step_size": 1, "gamma": 0.5}
    steps = Seq2SeqTrainer(tiny(), made, batches(2, 2)).fit().steps
    assert [s["lr"] for s in steps] == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.2])
    with pytest.raises(ValueError, match="either schedule"):
        Seq2SeqTrainer(tiny(), made, batches(2), schedule=lambda step: 1.0)


# Best weights, averages, interruption


def test_fit_ends_with_the_best_weights_or_the_last():
    best, last = tiny(), tiny()
    trainer = Seq2SeqTrainer(best, *rising())
    history = trainer.fit()
    losses = [epoch["validation_loss"] for epoch in history.epochs]
    assert history.best_epoch == losses.index(min(losses)) + 1 < 5
    assert trainer.evaluate(trainer.val_dataloader)["loss"] == min(losses)
    trainer = Seq2SeqTrainer(last, *rising())
    trainer.fit(restore_best=False)
    assert trainer.evaluate(trainer.val_dataloader)["loss"] == losses[-1]
    trainer.load_best()
    assert same(best, last)


def test_no_best_before_an_epoch_is_done():
    with pytest.raises(RuntimeError, match="no best weights yet"):
        Seq2SeqTrainer(tiny(), config(), batches(2)).load_best()


def test_averaged_weights_are_the_formula_and_are_validated_and_kept():
    raw = Seen(lambda trainer: flat(trainer.model).double())

    class AtEpochEnd(Callback):
        def __init__(self):
            self.values = []

        def on_epoch_end(self, trainer, epoch, metrics, **kwargs):
            self.values.append(flat(trainer.evaluated_model))

    ends = AtEpochEnd()
    train, model = batches(3, 2, 3), tiny(dropout=0.3)
    trainer = Seq2SeqTrainer(model, config(2), train, callbacks=[raw, ends], ema=0.4)
    history = trainer.fit()
    plainly = tiny(dropout=0.3)
    without = Seq2SeqTrainer(plainly, config(2), train).fit()
    assert [s["loss"] for s in history.steps] == [s["loss"] for s in without.steps]

    average, expected = raw.values[0], []
    weights = [*raw.values[1:], flat(plainly).double()]  # after each step
    for step, value in enumerate(weights, start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
        expected.append(average)
    torch.testing.assert_close(ends.values[0].double(), expected[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(flat(model).double(), expected[5], rtol=0, atol=1e-6)
    assert not torch.allclose(flat(model), flat(plainly), atol=1e-3)


def test_an_interruption_leaves_the_best_weights_and_says_one_line(capsys):
    model, expected = tiny(), tiny()
    made, train, validation = rising()
    trainer = Seq2SeqTrainer(model, made, train, validation, callbacks=[StopAt(7)])
    history = trainer.fit()  # the callback raises StopTraining
    assert history.stopped == "interrupted" and len(history.epochs) == 3
    line = "Interrupted in epoch 4, after 7 steps; the model has the best weights (epoch {}).\n"
    assert capsys.readouterr().out == line.format(history.best_epoch)
    Seq2SeqTrainer(expected, *rising(epochs=3)).fit()
    assert same(model, expected)


def test_interrupted_in_the_first_epoch_the_averages_are_there(capsys):
    model = tiny()
    trainer = Seq2SeqTrainer(
        model, config(), batches(2, 2, 2), batches(2), callbacks=[StopAt(2)], ema=0.9
    )
    trainer.fit()
    assert "after 2 steps; the model has its weights" in capsys.readouterr().out
    assert not same(model, tiny())


def test_ctrl_c_goes_on_its_way_in_a_script_and_ends_in_a_notebook(monkeypatch, capsys):
    def interrupted():
        model, stop = tiny(), StopAt(7, KeyboardInterrupt)
        return model, Seq2SeqTrainer(model, *rising(), callbacks=[stop])

    expected = tiny()
    Seq2SeqTrainer(expected, *rising(epochs=3)).fit()
    model, trainer = interrupted()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert same(model, expected) and trainer.history.stopped == "interrupted"
    assert capsys.readouterr().out == ""

    class Shell:
        kernel = None

    class IPython:
        get_ipython = Shell

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    model, trainer = interrupted()
    assert trainer.fit().stopped == "interrupted" and same(model, expected)
    assert "the best weights" in capsys.readouterr().out
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not repairs.in_notebook()


def test_a_divergence_leaves_the_best_weights():
    class Diverges(Callback):
        def on_batch_start(self, trainer, batch_idx, **kwargs):
            if trainer.step == 7:
                for group in trainer.optimizer.param_groups:
                    group["lr"] = math.inf

    model, expected = tiny(), tiny()
    trainer = Seq2SeqTrainer(model, *rising(), callbacks=[Diverges()])
    with pytest.raises(FloatingPointError, match="norm of the weights is nan"):
        trainer.fit(restore_best=False)
    assert len(trainer.history.epochs) == 3
    Seq2SeqTrainer(expected, *rising(epochs=3)).fit()
    assert same(model, expected)


@pytest.mark.parametrize("step", [4, 5])  # the last of an epoch: its loss is still good
def test_a_divergence_without_validation_leaves_the_best_weights_too(step):
    class Explodes(Callback):
        def on_batch_start(self, trainer, batch_idx, **kwargs):
            if trainer.step == step:
                trainer.optimizer.param_groups[0]["lr"] = math.inf

    def trainer(epochs, callbacks=()):
        set_seed(0)
        return Seq2SeqTrainer(tiny(), config(epochs), batches(2, 2), callbacks=callbacks)

    diverged, expected = trainer(9, [Explodes()]), trainer(2)
    with pytest.raises(FloatingPointError, match="try a smaller lr"):
        diverged.fit()
    expected.fit()
    assert diverged.history.best_epoch == 2 and same(diverged.model, expected.model)


def test_the_average_of_a_bfloat16_model_moves():
    """In bfloat16 itself it would stop at 1.6: a hundredth of the rest is less than a digit."""
    model = tiny().bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    trainer = Seq2SeqTrainer(model, config(), batches(1), ema=0.99)
    trainer.step, average = 10_000, trainer.new_average()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    for _ in range(600):
        average.update_parameters(model)
    for parameter in average.module.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 2 - 0.99**600))
    trainer = Seq2SeqTrainer(tiny().bfloat16(), config(2), batches(2), batches(1), ema=0.99)
    trainer.fit()
    assert next(trainer.model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_seeds_of_numpy_are_seeds(seed):
    weights = []
    for each in 3, seed:
        set_seed(each)
        drawn = random.random(), np.random.rand(), torch.rand(()).item()
        model, loader = tiny(dropout=0.5), batches(3, 3)
        Seq2SeqTrainer(model, config(), loader, seed=each).fit()
        order = list(LengthBuckets([*range(1, 30)], batch_size=4, seed=each))
        weights.append((drawn, flat(model).tolist(), order, phrasebook.load(each).train[:9]))
    assert weights[0] == weights[1]


def test_negative_seeds_are_seeds_and_others_are_named():
    set_seed(-1)
    numbers = random.random(), np.random.rand(), torch.rand(()).item()
    set_seed(-2)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) != numbers
    set_seed(-1)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == numbers
    for bad in 1.5, "1", None, np.float64(2):
        for take in (
            set_seed, phrasebook.load, lambda seed: LengthBuckets([1], 1, seed=seed),
            lambda seed: Seq2SeqTrainer(tiny(), config(), [], seed=seed or "none"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="seed must be a whole number, got"):
                take(bad)


def test_a_second_fit_loses_nothing():
    model = tiny()
    trainer = Seq2SeqTrainer(model, *rising())
    history, weights = trainer.fit(restore_best=False), flat(model)
    assert trainer.fit() is history and torch.equal(flat(model), weights)
    for change, settings in ((5, {"resume": False}), (9, {})):
        trainer.config.epochs = change
        with pytest.raises(RuntimeError, match="has run 10 steps, and its model keeps"):
            trainer.fit(**settings)
        assert torch.equal(flat(model), weights)


# Configuration, seeds, output


def test_the_config_is_treadmills_with_the_settings_of_the_paper(tmp_path, capsys):
    made = training_config(7, lr=2e-3, weight_decay=0.1, accumulate=4, checkpoint_dir=tmp_path)
    assert isinstance(made, TrainingConfig)
    trainer = Seq2SeqTrainer(tiny(), made, batches(2))
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (2e-3, 0.1)
    assert (group["betas"], group["eps"]) == ((0.9, 0.98), 1e-9)
    assert (made.epochs, made.grad_clip_norm, made.accumulate_grad_batches) == (7, 1.0, 4)
    assert made.checkpoint_dir == str(tmp_path) and not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"accumulate": 0},
        {"patience": 0},
        {"ema": 1.0},
        {"mode": "best"},
        {"metrics": {"loss": token_accuracy}},
        {"custom_backward_fn": print},
        {"save_every": 0},
    ],
)
def test_settings_that_make_no_sense(change):
    of_config = {k: v for k, v in change.items() if k in ("epochs", "accumulate", "patience")}
    names = ("ema", "mode", "metrics", "save_every")
    of_trainer = {k: v for k, v in change.items() if k in names}
    made = config(**of_config)
    made.custom_backward_fn = change.get("custom_backward_fn")
    with pytest.raises(ValueError):
        Seq2SeqTrainer(tiny(), made, batches(2), **of_trainer)


def test_the_callers_list_of_callbacks_stays_as_it_is():
    mine = []
    Seq2SeqTrainer(tiny(), config(patience=3), batches(2), batches(2), callbacks=mine)
    assert mine == []


def test_the_seed_of_the_trainer_decides():
    def run(seed, before):
        model = tiny(dropout=0.5)
        torch.manual_seed(before)
        Seq2SeqTrainer(model, config(), batches(3, 3), seed=seed).fit()
        return model

    assert same(run(1, 10), run(1, 20))
    assert not same(run(1, 10), run(2, 10))
    assert not same(run(None, 10), run(None, 20))
    assert same(run(None, 10), run(None, 10))


def test_what_else_draws_numbers_changes_nothing():
    """Every generator is set before each batch is made, by seed, step and place alone."""
    drawn = []

    class Noisy(list):
        def __iter__(self):
            for batch in super().__iter__():
                drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
                yield batch

    class Draws(Callback):
        def on_batch_end(self, trainer, batch_idx, metrics, **kwargs):
            random.random(), np.random.rand(3), torch.rand(3)

    made = config(epochs=2, accumulate=2)
    quiet, loud = tiny(dropout=0.5), tiny(dropout=0.5)
    Seq2SeqTrainer(quiet, made, Noisy(batches(2, 2, 2))).fit()
    first, drawn[:] = list(drawn), []
    Seq2SeqTrainer(loud, made, Noisy(batches(2, 2, 2)), callbacks=[Draws()]).fit()
    assert same(quiet, loud) and drawn == first
    assert all(len(set(column)) == 6 for column in zip(*first, strict=True))


def test_the_history_is_plain_numbers():
    metrics = {"token_accuracy": token_accuracy}
    trainer = Seq2SeqTrainer(tiny(), config(2), batches(2, 2), batches(2), metrics=metrics)
    history = trainer.fit()
    assert history is trainer.history
    plain_dict = json.loads(json.dumps(history.to_dict()))
    assert plain_dict == history.to_dict()
    assert list(plain_dict["epochs"][1]) == [
        *("epoch", "train_loss", "validation_loss", "perplexity", "token_accuracy", "seconds")
    ]
    assert list(plain_dict["steps"][3]) == ["step", "loss", "tokens", "lr", "grad_norm"]
    assert history.steps[0]["tokens"] == batches(2)[0].tokens


def test_no_progress_is_silence_and_progress_is_one_line(capfd):
    for progress in (False, True):
        made = config(epochs=3)
        made.progress_bar = progress
        Seq2SeqTrainer(tiny(), made, batches(2, 2), batches(2)).fit()
        out, err = capfd.readouterr()
        assert err == ""
        assert out.count("\n") == progress
        if progress:
            assert "epoch 3/3" in out and "validation loss" in out and "\N{ROCKET}" not in out
        else:
            assert out == ""


def test_importing_says_nothing():
    command = [sys.executable, "-c", "import s2s_helpers.training"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_numbers_of_numpy_become_plain():
    made = config(2, patience=np.int64(2), clip=np.float32(0.5), accumulate=np.int64(1))
    made.optimizer = OptimizerConfig("AdamW", lr=np.float64(0.1), weight_decay=np.float32(0.25))
    made.optimizer.params = {"betas": (np.float64(0.9), np.float64(0.98)), "eps": np.float32(1e-8)}
    trainer = Seq2SeqTrainer(
        tiny(), made, batches(2), batches(2), seed=np.int64(3),
        schedule=lambda step: np.float64(1 / step),
        metrics={"share": lambda logits, targets: np.float32(0.5)},
    )  # fmt: skip
    history = trainer.fit()

    def kinds(value):
        if isinstance(value, (dict, list, tuple)):
            each = value.values() if isinstance(value, dict) else value
            return set().union(*map(kinds, each))
        return {type(value)}

    assert kinds(history.to_dict()) <= {int, float, str, type(None)}
    groups = trainer.optimizer.state_dict()["param_groups"]
    assert kinds(groups) <= {int, float, str, bool, type(None)}
    assert {type(made.grad_clip_norm), type(made.early_stopping_patience)} == {float, int}


# A pair and the model's positions


def long_pair(length):
    """A dataset whose pair 1 has so many target ids, EOS included."""
    return Seq2SeqDataset([("a", "b"), ("b", " ".join("c" * (length - 1)))], VOCABULARY, VOCABULARY)


@pytest.mark.parametrize("validation", [False, True])
def test_a_pair_that_does_not_fit_is_named_before_the_first_step(tmp_path, validation):
    model = TransformerSeq2Seq(VOCABULARY, VOCABULARY, width=8, heads=2, layers=1, max_positions=9)
    loaders = [make_loader(DATASET), make_loader(long_pair(10))]
    made = config(checkpoint_dir=tmp_path)
    trainer = Seq2SeqTrainer(model, made, *(loaders if validation else loaders[::-1]))
    name = "validation" if validation else "training"
    said = f"{name} pair 1 has 10 tokens, but the model has only 9 positions: .*max_length=9.*c c"
    with pytest.raises(ValueError, match=said):
        trainer.fit()
    assert trainer.step == 0 and not list(tmp_path.iterdir())


def test_a_target_of_as_many_ids_as_positions_fits():
    set_seed(0)
    model = TransformerSeq2Seq(VOCABULARY, VOCABULARY, width=8, heads=2, layers=1, max_positions=9)
    loader = make_loader(long_pair(9))
    assert next(iter(loader)).target.shape[1] == 10 and EOS in next(iter(loader)).target[1]
    assert Seq2SeqTrainer(model, config(lr=0.1), loader, loader).fit().epochs


# A loss that needs more than logits


def test_scheduled_sampling_with_the_coverage_loss():
    def trained(forcing):
        set_seed(0)
        model = PointerGenerator(VOCABULARY, VOCABULARY, coverage=True, embedding=8, hidden=8)
        words = model.source_vocabulary
        loader = make_loader(CopyDataset(PAIRS, words, words), batch_size=5)
        callbacks = [TeacherForcing(constant(forcing))]
        made = config(2, optimizer="Adam", lr=0.02)
        trainer = Seq2SeqTrainer(
            model, made, loader, loader, loss=CoverageLoss(1.0), callbacks=callbacks
        )
        return [epoch["train_loss"] for epoch in trainer.fit().epochs]

    gold, own = trained(1.0), trained(0.5)
    assert gold != own and own[1] < own[0]


@pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
def test_a_changed_model_trains_as_it_is():
    """The loss from features stands in for the forward only where that is the stock one."""

    def trained(change):
        set_seed(0)
        model = Seq2Seq(VOCABULARY, VOCABULARY, embedding=6, hidden=6, dropout=0.0)
        change(model)
        Seq2SeqTrainer(model, config(lr=0.1), batches(4, 4)).fit()
        return model

    class Louder(nn.Linear):
        def forward(self, x):
            return 3 * super().forward(x)

    class Sharp(Seq2Seq):
        def forward(self, batch):
            logits, attention = super().forward(batch)
            return 3 * logits, attention

    def other_layer(model):
        model.decoder.output.__class__ = Louder

    def other_class(model):
        model.__class__ = Sharp

    def model_hook(model):
        model.register_forward_hook(lambda *each: (3 * each[2][0], each[2][1]))

    def layer_hook(model):
        model.decoder.output.register_forward_hook(lambda *each: 3 * each[2])

    def other_forward(model):
        forward = model.forward
        model.forward = lambda batch: (3 * forward(batch)[0], None)

    def layer_forward(model):
        forward = model.decoder.output.forward
        model.decoder.output.forward = lambda x: 3 * forward(x)

    stock = trained(lambda model: None)
    changes = (other_layer, other_class, model_hook, layer_hook, other_forward, layer_forward)
    changed = [trained(change) for change in changes]
    for model, change in zip(changed, changes, strict=True):
        assert not torch.allclose(flat(model), flat(stock), atol=1e-4), change
        torch.testing.assert_close(flat(model), flat(changed[0]), atol=1e-5, rtol=1e-5)
    backward = []

    def backward_hook(model):
        model.register_full_backward_hook(lambda *each: backward.append(1))

    trained(backward_hook)
    assert len(backward) == 2
