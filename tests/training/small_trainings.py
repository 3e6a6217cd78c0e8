"""Small models, data and callbacks for the tests of training."""

import itertools

import torch
from torch import nn
from treadmill import OptimizerConfig
from treadmill.callbacks import Callback, LearningRateLogger

from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.training import (
    Seq2SeqTrainer,
    StopTraining,
    TeacherForcing,
    linear,
    linear_warmup,
    set_seed,
    training_config,
)
from s2s_helpers.vocabulary import Vocabulary

TEXTS = ["a b c", "b c", "c a b b a", "a", "b a a", "c c a b", "b b", "a c", "c b a c b a", "b"]
PAIRS = [(text, text[::-1]) for text in TEXTS]
VOCABULARY = Vocabulary.build(TEXTS)
SIZE = len(VOCABULARY)
DATASET = Seq2SeqDataset(PAIRS, VOCABULARY, VOCABULARY)


class Tiny(nn.Module):
    """Predicts from the last target token and the mean of the source."""

    def __init__(self, dropout=0.0, size=SIZE):
        super().__init__()
        self.embedding = nn.Embedding(size, 6)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(6, size)
        self.teacher_forcing = 1.0

    def forward(self, batch):
        mask = batch.source_mask[..., None]
        source = (self.embedding(batch.source) * mask).sum(1) / mask.sum(1)  # (batch, 6)
        mixed = torch.tanh(self.embedding(batch.target_input) + source[:, None])
        return self.output(self.dropout(mixed)), None


def tiny(seed=0, **settings):
    set_seed(seed)
    return Tiny(**settings)


def batches(*sizes):
    """Batches of the given sizes, from the first example on."""
    examples = itertools.cycle(DATASET[i] for i in range(len(DATASET)))
    return [collate([next(examples) for _ in range(size)]) for size in sizes]


def config(epochs=1, lr=0.5, optimizer="SGD", **settings):
    """Plain SGD, so that one step is the gradient itself."""
    made = training_config(epochs, progress=False, **{"clip": None, **settings})
    made.optimizer = OptimizerConfig(optimizer, lr=lr)
    return made


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class Seen(Callback):
    """Notes a value of the trainer before each batch."""

    def __init__(self, look):
        self.look, self.values = look, []

    def on_batch_start(self, trainer, batch_idx, **kwargs):
        self.values.append(self.look(trainer))


class StopAt(Callback):
    """Raises in the middle of an epoch, after so many steps."""

    def __init__(self, step, error=StopTraining):
        self.step, self.error = step, error

    def on_batch_end(self, trainer, batch_idx, metrics, **kwargs):
        if trainer.step == self.step:
            raise self.error


def rising(epochs=5):
    """Training that gets worse on validation: best after the first epochs."""
    train, validation = batches(3, 3), [collate([DATASET[8], DATASET[2]])]
    return config(epochs=epochs, lr=8.0), train, validation


SETTINGS = {
    Seq2Seq: {"embedding": 8, "hidden": 8, "dropout": 0.2},
    AttentionSeq2Seq: {"embedding": 8, "hidden": 8, "dropout": 0.2},
    TransformerSeq2Seq: {"width": 8, "heads": 2, "layers": 1, "feedforward": 8, "dropout": 0.2},
}


def real_model(kind=AttentionSeq2Seq, vocabulary=VOCABULARY, seed=3, **settings):
    set_seed(seed)
    return kind(vocabulary, vocabulary, **SETTINGS[kind] | settings)


def real_trainer(model, folder, callbacks=(), epochs=4, ema=0.7, shuffled=None, **settings):
    made = training_config(
        epochs, lr=0.02, accumulate=2, patience=3, checkpoint_dir=folder, progress=False
    )
    return Seq2SeqTrainer(
        model,
        made,
        shuffled or make_loader(DATASET, batch_size=2, shuffle=True),
        make_loader(DATASET, batch_size=4),
        Seq2SeqLoss(0.1),
        {"token_accuracy": token_accuracy},
        callbacks=[TeacherForcing(linear(0.05)), LearningRateLogger(False), *callbacks],
        schedule=linear_warmup(3, 20),
        ema=ema,
        **settings,
    )
