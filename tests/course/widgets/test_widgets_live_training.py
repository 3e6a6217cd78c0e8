"""The widget that watches a training, without a browser."""

import base64

import pytest
import torch

from s2s_helpers.corpora.phrasebook import load
from s2s_helpers.course.recipes import phrasebook_vocabularies
from s2s_helpers.course.widgets import LiveTraining, live_training
from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.decoding import translate
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.training import Seq2SeqTrainer, set_seed, training_config

TINY = {
    Seq2Seq: dict(embedding=8, hidden=8, cell="gru"),
    AttentionSeq2Seq: dict(embedding=8, hidden=8, cell="gru"),
    TransformerSeq2Seq: dict(width=8, heads=2, layers=1, feedforward=8),
}
PAIRS = load().train[:64]


def trainer(callbacks, epochs=2, model_class=AttentionSeq2Seq, validation=True, **more):
    set_seed(0)
    vocabularies = phrasebook_vocabularies()
    model = model_class(*vocabularies, dropout=0.1, **TINY[model_class])
    data = Seq2SeqDataset(PAIRS, *vocabularies)
    return Seq2SeqTrainer(
        model,
        training_config(epochs, lr=1e-2, progress=False, device="cpu"),
        make_loader(data, batch_size=16, shuffle=True),
        make_loader(data, batch_size=64) if validation else None,
        callbacks=callbacks,
        **more,
    )


@pytest.fixture
def always(monkeypatch):
    """An update after every batch."""
    monkeypatch.setattr(live_training, "PAUSES", (0.0, 0.0))


class StopsAt:
    """Presses the button after so many steps, as a click in the browser does."""

    def __init__(self, live, step):
        self.live, self.step = live, step

    def on_batch_end(self, trainer, **kwargs):
        if trainer.step == self.step:
            self.live._heard(self.live, {"stop": True}, [])


def test_it_shows_the_history_and_ends_with_the_best_weights(always):
    live = LiveTraining(PAIRS[0])
    assert live.status == "waiting" and live.reference == PAIRS[0].target
    run = trainer([live])
    history = run.fit()
    steps = [[s["step"], round(s["loss"], 4), s["lr"]] for s in history.steps]
    assert "finished in epoch 2, after 8 steps; the model has the best weights" in live.describe()
    assert live.status == "finished" and live.steps == steps and live.total == 8
    losses = [round(e["validation_loss"], 4) for e in history.epochs]
    assert live.validations == [[4, losses[0]], [8, losses[1]]]
    # The example is of the weights that the model has now.
    (now,) = translate(run.model, [PAIRS[0].source])
    assert live.translation == now.text and live.tokens == now.tokens
    assert torch.allclose(torch.tensor(live.attention), now.attention_matrix(), atol=6e-4)


@pytest.mark.parametrize("model_class", TINY)
def test_watching_does_not_change_what_is_learned(always, model_class):
    watched, alone = (
        trainer(callbacks, model_class=model_class)
        for callbacks in ([LiveTraining("the boy reads .")], [])
    )
    assert watched.fit().epochs[-1]["train_loss"] == alone.fit().epochs[-1]["train_loss"]
    others = alone.model.state_dict()
    assert all(torch.equal(w, others[name]) for name, w in watched.model.state_dict().items())


def test_stopping_leaves_the_best_weights(capsys):
    live = LiveTraining("the boy reads .")
    run = trainer([StopsAt(live, 6), live], epochs=50)
    assert run.fit().stopped == "interrupted" and run.step == 6
    best, weights = run.best_weights, run.model.state_dict()
    assert all(torch.equal(weights[name], best[name]) for name in best)
    said = "stopped in epoch 2, after 6 steps; the model has the best weights, of epoch 1"
    assert said in live.describe() and live.status == "stopped"
    assert "best weights (epoch 1)" in capsys.readouterr().out


@pytest.mark.parametrize("ema, kept", [(None, "the weights"), (0.9, "the averaged weights")])
def test_stopped_before_the_first_validation_it_says_so(ema, kept):
    live = LiveTraining("the boy reads .")
    run = trainer([StopsAt(live, 3), live], ema=ema)
    run.fit()
    assert f"has {kept} of step 3 (there was no validation yet)" in live.describe()


def test_a_stop_without_a_training_does_nothing():
    live = LiveTraining("the boy reads .")
    live.stop()
    live._heard(live, {"stop": True}, [])
    run = trainer([live])
    assert run.fit().stopped is None
    live.stop()  # a click that arrives late
    again = trainer([live], epochs=1)
    assert again.fit().stopped is None and live.describe() and live.total == 4


def test_the_last_weights_are_called_so():
    live = LiveTraining("the boy reads .")
    run = trainer([live], epochs=1, validation=False)
    run.fit()
    assert "has the weights of step 4;" in live.describe()
    live = LiveTraining("the boy reads .")
    run = trainer([live], monitor="val_loss", mode="max")
    run.fit(restore_best=False)
    assert "has the weights of step 8;" in live.describe()


def test_an_error_is_no_end():
    class Breaks:
        def on_batch_end(self, trainer, **kwargs):
            raise RuntimeError("out of paper")

    live = LiveTraining("the boy reads .")
    with pytest.raises(RuntimeError, match="out of paper"):
        trainer([live, Breaks()]).fit()
    assert live.describe().startswith("failed in epoch 1") and live.status == "failed"


def test_a_sentence_that_cannot_be_read_is_refused_before_the_training():
    run = trainer([LiveTraining("  ")])
    with pytest.raises(ValueError, match="empty"):
        run.fit()
    assert run.step == 0


def test_a_long_history_is_thinned():
    steps = [{"step": k, "loss": float(k), "lr": 0.1} for k in range(1, 1001)]
    points = live_training.thinned(steps)
    assert len(points) <= 300 and points[-1][0] == 1000
    assert points[0] == [4, 2.5, 0.1]


@pytest.mark.parametrize("model_class", TINY)
def test_the_picture_has_the_curves(model_class):
    live = LiveTraining(PAIRS[0])
    live.figure()  # also before any training
    trainer([live], model_class=model_class).fit()
    loss, rate, looks = live.figure().axes[:3]
    assert list(loss.lines[0].get_ydata()) == [step[1] for step in live.steps]
    assert list(rate.lines[0].get_ydata()) == [step[2] for step in live.steps]
    assert bool(looks.images) == (model_class is not Seq2Seq)
    data, _ = live._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert PAIRS[0].source in data["text/plain"]
