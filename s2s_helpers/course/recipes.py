"""How the course's models are trained: phrasebook models, kept in a local cache, and captions.

The cache lies where the operating system wants it, or in the folder `S2S_CACHE_DIR` names. A model
is found again only if code, data and settings are what it was trained with.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock

from s2s_helpers.corpora import docstrings, multi30k, phrasebook, pronunciation
from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.models import (
    AttentionSeq2Seq,
    CopyDataset,
    CopyVocabulary,
    CoverageLoss,
    PointerGenerator,
    Seq2Seq,
    Seq2SeqModel,
    TransformerSeq2Seq,
    load_model,
    save_model,
)
from s2s_helpers.training import Seq2SeqTrainer, linear_warmup, set_seed, training_config
from s2s_helpers.vocabulary import SubwordVocabulary, Vocabulary

SMALL = dict(embedding=64, hidden=128, cell="gru", dropout=0.0)
# Model class, its settings, and those of the training: what learns most in 45 s on two cores.
RECIPES = {
    "rnn": (Seq2Seq, SMALL, dict(epochs=3, lr=8e-3)),
    "bahdanau": (
        AttentionSeq2Seq, dict(SMALL, attention="bahdanau"),
        dict(epochs=3, lr=8e-3, batch_size=80),
    ),
    "luong": (
        AttentionSeq2Seq, dict(SMALL, attention="luong", score="dot", input_feeding=False),
        dict(epochs=3, lr=8e-3, batch_size=48),
    ),
    "transformer": (
        TransformerSeq2Seq, dict(width=96, feedforward=192, layers=2, dropout=0.0),
        dict(epochs=2, lr=4e-3, batch_size=40),
    ),
}  # fmt: skip

# Modules that do not change what is learned.
NOT_LEARNED = {
    *("recipes", "plots", "show", "decoding", "packing", "cache", "fast", "streaming", "multi30k"),
    *("docstrings", "pointer", "pronunciation", "variety", "series", "forecaster", "forecasting"),
    *("cnn_dailymail", "hub", "pretrained", "denoising", "distillation", "export", "serving"),
    *("scaling", "wmt"),
}

# Small batches, few subwords, one layer, no dropout: what learns most in 45 s on two cores.
CAPTIONS = dict(width=128, heads=4, layers=1, feedforward=256, dropout=0.0)
CAPTION_TRAINING = dict(
    vocabulary=2000, epochs=1, lr=4e-3, max_tokens=320, warmup_steps=150, decay=None,
    label_smoothing=0.0, ema=0.99, bf16=False, device="cpu",
)  # fmt: skip

# Letters to phonemes on one core, in half a minute.
SPEAKING = dict(
    attention="luong", input_feeding=False, embedding=64, hidden=128, cell="gru", dropout=0.0
)
SPEAKING_TRAINING = dict(
    words=None, epochs=1, lr=1e-2, batch_size=96, warmup_steps=100, decay=None, label_smoothing=0.0,
    ema=0.99,
)  # fmt: skip

# Both have one score of attention and the same widths; only the pointer-generator can copy.
SUMMARIES = {
    "attention": (AttentionSeq2Seq, dict(attention="luong", score="concat", input_feeding=False)),
    "pointer": (PointerGenerator, {}),
}


@cache
def phrasebook_vocabularies() -> tuple[Vocabulary, Vocabulary]:
    """English and French words of the phrasebook's training pairs."""
    pairs = phrasebook.load().train
    english = Vocabulary.build([pair.source for pair in pairs], language="en")
    return english, Vocabulary.build([pair.target for pair in pairs], language="fr")


@cache
def phrasebook_datasets() -> tuple[Seq2SeqDataset, Seq2SeqDataset]:
    """The phrasebook's training and validation pairs as ids."""
    book = phrasebook.load()
    return tuple(
        Seq2SeqDataset(pairs, *phrasebook_vocabularies()) for pairs in (book.train, book.validation)
    )


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind that has no recipe."""
    if kind not in RECIPES:
        raise ValueError(f"kind must be one of {sorted(RECIPES)}, got {kind!r}")


def phrasebook_trainer(
    kind: str, seed: int = 0, progress: bool = True, checkpoint_dir=None, **changes
) -> Seq2SeqTrainer:
    """An untrained model of this kind and the trainer that knows its recipe.

    `changes` replaces settings of the model, or `epochs`, `lr` and `batch_size` of the training.
    """
    check_kind(kind)
    model_class, settings, training = RECIPES[kind]
    training = dict(batch_size=64) | training
    training |= {key: changes.pop(key) for key in list(changes) if key in training}
    train, validation = phrasebook_datasets()
    batch_size = training["batch_size"]
    train_loader = make_loader(train, batch_size=batch_size, shuffle=True, seed=seed)
    set_seed(seed)
    model = model_class(*phrasebook_vocabularies(), **(settings | changes))
    steps = training["epochs"] * len(train_loader)
    return Seq2SeqTrainer(
        model,
        training_config(
            training["epochs"],
            lr=training["lr"],
            progress=progress,
            checkpoint_dir=checkpoint_dir,
            device="cpu",
        ),
        train_loader,
        make_loader(validation, batch_size=256),
        loss=Seq2SeqLoss(label_smoothing=0.1),
        metrics={"token_accuracy": token_accuracy},
        schedule=linear_warmup(steps // 10, steps),
        seed=seed,
    )


def phrasebook_model(kind: str, seed: int = 0, progress: bool = True) -> Seq2SeqModel:
    """A trained "rnn", "bahdanau", "luong" or "transformer", in evaluation mode.

    The first call trains it, in under a minute on two cores, with a progress bar; later calls, from
    any notebook, read it from the cache. Two notebooks that want it at once train it once.
    """
    check_kind(kind)
    path = cache_folder() / f"phrasebook-{kind}-{seed}-{fingerprint(kind, seed)}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            try:
                return load_model(path)
            except ValueError:  # a broken file: make it anew
                path.unlink()
        trainer = phrasebook_trainer(kind, seed, progress)
        if trainer.fit().stopped == "interrupted":
            raise KeyboardInterrupt
        save_model(trainer.model, path)
    return trainer.model.eval()


@cache
def multi30k_vocabulary(size: int = 2000) -> SubwordVocabulary:
    """`size` subwords for English and French together, learned from the training captions alone."""
    pairs = multi30k.load().train
    return SubwordVocabulary.train(
        [text for pair in pairs for text in (pair.source, pair.target)], size
    )


@cache
def multi30k_datasets(size: int = 2000) -> tuple[Seq2SeqDataset, Seq2SeqDataset]:
    """Multi30k's training and validation captions as ids of `size` subwords."""
    shared, captions = multi30k_vocabulary(size), multi30k.load()
    return tuple(
        Seq2SeqDataset(pairs, shared, shared) for pairs in (captions.train, captions.validation)
    )


def multi30k_trainer(
    seed: int = 0, progress: bool = True, checkpoint_dir=None, callbacks=(),
    model_class=TransformerSeq2Seq, **changes,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained model for English to French captions, and the trainer with its recipe.

    `changes` replaces settings of the model, or of the training: `vocabulary` (subwords), `epochs`,
    `lr`, `max_tokens` (a batch), `warmup_steps`, `decay` (the share of the steps in which the rate
    falls to 0; None: all after the warm-up), `label_smoothing`, `ema`, `bf16`, `device` ("auto": a
    GPU if there is one). A model of another class than the transformer has its own defaults.
    """
    training = {name: changes.pop(name, value) for name, value in CAPTION_TRAINING.items()}
    set_seed(seed)
    datasets = multi30k_datasets(training["vocabulary"])
    shared = datasets[0].target_vocabulary
    settings = CAPTIONS if model_class is TransformerSeq2Seq else {}
    model = model_class(shared, shared, **(settings | changes))
    return _trainer(model, *datasets, training, seed, progress, checkpoint_dir, callbacks)


def _trainer(model, train, validation, training, seed, progress, checkpoint_dir, callbacks):
    """The trainer that `multi30k_trainer` and `pronunciation_trainer` share."""
    size = {name: training[name] for name in ("batch_size", "max_tokens") if name in training}
    loader = make_loader(train, **size, shuffle=True, seed=seed)
    steps = training["epochs"] * len(loader)
    decay = None if training["decay"] is None else max(1, round(training["decay"] * steps))
    return Seq2SeqTrainer(
        model,
        training_config(
            training["epochs"],
            lr=training["lr"],
            progress=progress,
            checkpoint_dir=checkpoint_dir,
            device=training.get("device", "cpu"),
            bf16=training.get("bf16", False),
        ),
        loader,
        make_loader(validation, batch_size=64),
        loss=Seq2SeqLoss(training["label_smoothing"]),
        metrics={"token_accuracy": token_accuracy},
        callbacks=callbacks,
        schedule=linear_warmup(training["warmup_steps"], steps, decay),
        ema=training["ema"],
        seed=seed,
    )


def pairs_trainer(
    model: Seq2SeqModel, pairs, epochs: int = 4, lr: float = 4e-3, max_tokens: int = 320,
    max_length: int = 100, seed: int = 0, progress: bool = True,
) -> Seq2SeqTrainer:  # fmt: skip
    """A trainer for a model that is there, of any kind, on pairs of texts of one's own.

    The rate rises for a tenth of the steps, then falls to 0. Batches hold `max_tokens`; texts are
    cut by the model's own vocabularies, and after `max_length` pieces.
    """
    vocabularies = model.source_vocabulary, model.target_vocabulary
    dataset = Seq2SeqDataset(pairs, *vocabularies, max_length=max_length)
    loader = make_loader(dataset, max_tokens=max_tokens, shuffle=True, seed=seed)
    steps = epochs * len(loader)
    config = training_config(epochs, lr=lr, progress=progress, device="cpu")
    schedule = linear_warmup(steps // 10, steps)
    return Seq2SeqTrainer(model, config, loader, schedule=schedule, seed=seed)


def pronunciation_trainer(
    seed: int = 0, progress: bool = True, checkpoint_dir=None, callbacks=(),
    model_class=AttentionSeq2Seq, **changes,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained model for spelling to pronunciation, and the trainer with its recipe.

    `changes` replaces settings of the model, or of the training: `words` (so many of the training
    words; None: all), `epochs`, `lr`, `batch_size`, `warmup_steps`, `decay`, `label_smoothing` and
    `ema` as in `multi30k_trainer`. Another model than the RNN with attention has its own defaults.
    """
    training = {name: changes.pop(name, value) for name, value in SPEAKING_TRAINING.items()}
    splits = pronunciation.load()
    shared = pronunciation.vocabularies(splits.train)
    parts = splits.train[: training["words"]], splits.validation
    datasets = (Seq2SeqDataset(pronunciation.pairs(part), *shared) for part in parts)
    set_seed(seed)
    settings = SPEAKING if model_class is AttentionSeq2Seq else {}
    model = model_class(*shared, **(settings | changes))
    return _trainer(model, *datasets, training, seed, progress, checkpoint_dir, callbacks)


@cache
def docstring_vocabulary(size: int = 2000) -> CopyVocabulary:
    """The most frequent words of the training docstrings, texts and summaries together."""
    pairs = docstrings.load().train
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    return CopyVocabulary.build(texts, max_size=size)


def summarizer_trainer(
    kind: str = "pointer", seed: int = 0, progress: bool = True, pairs=None, start=None,
    epochs: int = 3, lr: float = 8e-3, batch_size: int = 48, coverage: float = 0.0,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained "attention" or "pointer" model for summaries, and the trainer with its recipe.

    `pairs`: those to train on (default: the training docstrings). `start`: a model of the same kind
    to go on from. `coverage`: lambda of the coverage loss; above 0 the model knows its coverage.
    """
    if kind not in SUMMARIES:
        raise ValueError(f"kind must be one of {sorted(SUMMARIES)}, got {kind!r}")
    model_class, settings = SUMMARIES[kind]
    settings = SMALL | {"hidden": 96} | settings
    words, dataset = docstring_vocabulary(), CopyDataset
    if kind == "attention":
        words, dataset = Vocabulary(words.to_dict()["tokens"]), Seq2SeqDataset
    elif coverage:
        settings = settings | {"coverage": True}
    pairs = docstrings.load().train if pairs is None else pairs
    data = dataset(pairs, words, words, max_length=40)
    loader = make_loader(data, batch_size, shuffle=True, seed=seed)
    set_seed(seed)
    model = model_class(words, words, **settings)
    model.decoder.embedding = model.encoder.embedding  # both read one vocabulary
    with torch.no_grad():  # how frequent words are need not be learned: hundreds of steps less
        bias = model.decoder.output.bias
        said = torch.tensor([word for _, target in data for word in target])
        counts = torch.bincount(said, minlength=len(words))[: len(bias)] + 0.5
        bias.copy_((counts / counts.sum()).log())
    if start is not None:
        model.load_state_dict(start.state_dict())
    steps = epochs * len(loader)
    return Seq2SeqTrainer(
        model,
        training_config(epochs, lr=lr, progress=progress, device="cpu"),
        loader,
        loss=CoverageLoss(model, coverage) if kind == "pointer" else None,
        schedule=linear_warmup(steps // 10, steps),
        seed=seed,
    )


def cache_folder() -> Path:
    """Where trained models are kept: `S2S_CACHE_DIR`, or the user's cache folder."""
    return Path(os.environ.get("S2S_CACHE_DIR") or platformdirs.user_cache_dir("s2s_helpers"))


def fingerprint(kind: str, seed: int) -> str:
    """A short hash of all that shapes the trained model: code, data, settings, and PyTorch."""
    package = Path(__file__).parents[1]
    files = package.rglob("*.py")
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.stem not in NOT_LEARNED:
            digest.update(path.read_bytes())
    _, settings, training = RECIPES[kind]
    told = [kind, seed, settings, training, torch.__version__]
    digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()[:16]
