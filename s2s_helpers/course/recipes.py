"""How the course's models are trained: a table of recipes, the trainers of them, and a cache of the
phrasebook's trained models.

The cache lies where the operating system wants it, or in the folder `S2S_CACHE_DIR` names. A model
is found again only if what it is learned from is what it was trained with.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch.utils.data import Dataset
from treadmill import Callback

from s2s_helpers.corpora import docstrings, download, multi30k, phrasebook, pronunciation
from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.files import as_seed
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


@dataclass(frozen=True)
class Recipe:
    """A model and its training. settings: of the model. vocabulary: how many words or subwords.
    max_tokens: ids in a batch, in the place of `batch_size` pairs. warmup_steps: in which the rate
    rises (None: a tenth of all). decay: the share of the steps in which it falls to 0 (None: all
    after the warm-up). ema: decay of the averaged weights. muon_lr: the rate of hidden matrices by
    `Muon` (None: AdamW has them too). device: "auto" takes a GPU if there is one."""

    model: type[Seq2SeqModel]
    settings: dict[str, Any]
    epochs: int
    lr: float
    batch_size: int | None = None
    max_tokens: int | None = None
    vocabulary: int | None = None
    warmup_steps: int | None = None
    decay: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    muon_lr: float | None = None
    bf16: bool = False
    device: str = "cpu"

    def changed(self, changes: dict[str, Any], model: type[Seq2SeqModel] | None = None) -> "Recipe":
        """With other values for settings of the training, and all others for those of the model.
        Another class of model starts from its own defaults."""
        of_training = {f.name for f in fields(self)} - {"model", "settings"}
        training = {name: value for name, value in changes.items() if name in of_training}
        for one, other in ("batch_size", "max_tokens"), ("max_tokens", "batch_size"):
            if one in training:
                training.setdefault(other, None)
        settings = self.settings if model in (None, self.model) else {}
        settings = settings | {k: v for k, v in changes.items() if k not in of_training}
        return replace(self, model=model or self.model, settings=settings, **training)


KINDS = ("rnn", "bahdanau", "luong", "transformer")  # of the phrasebook's models
SMALL = dict(embedding=64, hidden=128, cell="gru", dropout=0.0)
UNFED = dict(attention="luong", input_feeding=False)
# What learns most in some 20 s on two cores, pronunciation in half a minute on one.
RECIPES = {
    "rnn": Recipe(
        Seq2Seq, SMALL, epochs=1, lr=3e-2, muon_lr=0.02, batch_size=48, label_smoothing=0.1
    ),
    "bahdanau": Recipe(
        AttentionSeq2Seq, SMALL | {"attention": "bahdanau"},
        epochs=1, lr=3e-2, muon_lr=0.02, batch_size=48, label_smoothing=0.1,
    ),
    "luong": Recipe(
        AttentionSeq2Seq, SMALL | UNFED | {"score": "dot"},
        epochs=1, lr=4e-2, muon_lr=0.01, batch_size=32, label_smoothing=0.1,
    ),
    "transformer": Recipe(
        TransformerSeq2Seq, dict(width=96, feedforward=192, layers=2, dropout=0.0),
        epochs=2, lr=1e-2, muon_lr=0.02, batch_size=96, label_smoothing=0.1,
    ),
    # Small batches, few subwords, one narrow layer, no dropout.
    "captions": Recipe(
        TransformerSeq2Seq, dict(width=96, heads=4, layers=1, feedforward=192, dropout=0.0),
        epochs=1, lr=6e-3, muon_lr=0.02, max_tokens=480, vocabulary=2000, ema=0.99,
    ),
    "pronunciation": Recipe(
        AttentionSeq2Seq, SMALL | UNFED,
        epochs=1, lr=1e-2, batch_size=96, warmup_steps=100, ema=0.99,
    ),
    # Both have one score of attention and the same widths; only the pointer-generator can copy.
    "summaries, attention": Recipe(
        AttentionSeq2Seq, SMALL | UNFED | {"score": "concat", "hidden": 96},
        epochs=1, lr=2e-2, muon_lr=0.01, batch_size=24, vocabulary=2000,
    ),
    "summaries, pointer": Recipe(
        PointerGenerator, SMALL | {"hidden": 96},
        epochs=1, lr=2e-2, muon_lr=0.01, batch_size=24, vocabulary=2000,
    ),
}  # fmt: skip

# What a kept model is learned from; a change in one of these makes a new model.
LEARNED_FROM = (
    *("text", "vocabulary", "data", "loss"),
    *("corpora/phrasebook", "corpora/lexicon", "corpora/multi30k", "corpora/pairs"),
    *("models/interface", "models/rnn", "models/attention", "models/transformer"),
    *("training/config", "training/trainer", "training/average", "training/repairs"),
    *("training/schedules", "training/muon"),
)


def _trainer(
    recipe: Recipe, model: Seq2SeqModel, train: Dataset, validation: Dataset | None = None,
    loss: Callable | None = None, seed: int = 0, progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None, callbacks: Iterable[Callback] = (),
) -> Seq2SeqTrainer:  # fmt: skip
    """The trainer of a model by a recipe."""
    loader = make_loader(train, recipe.batch_size, recipe.max_tokens, shuffle=True, seed=seed)
    steps = recipe.epochs * len(loader)
    warmup = steps // 10 if recipe.warmup_steps is None else recipe.warmup_steps
    decay = None if recipe.decay is None else max(1, round(recipe.decay * steps))
    config = training_config(
        recipe.epochs, lr=recipe.lr, progress=progress, checkpoint_dir=checkpoint_dir,
        device=recipe.device, bf16=recipe.bf16, muon_lr=recipe.muon_lr,
    )  # fmt: skip
    return Seq2SeqTrainer(
        model, config, loader, None if validation is None else make_loader(validation, 256),
        loss=Seq2SeqLoss(recipe.label_smoothing) if loss is None else loss,
        metrics=None if validation is None else {"token_accuracy": token_accuracy},
        callbacks=callbacks, schedule=linear_warmup(warmup, steps, decay), ema=recipe.ema,
        seed=seed,
    )  # fmt: skip


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


def check_kind(kind: str, kinds: Sequence[str] = KINDS) -> None:
    """Raise ValueError for a kind that has no recipe."""
    if kind not in kinds:
        raise ValueError(f"kind must be one of {sorted(kinds)}, got {kind!r}")


def phrasebook_trainer(
    kind: str, seed: int = 0, progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None, **changes: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained model of this kind and the trainer that knows its recipe.

    `changes` replaces settings of the model, or of the training (`Recipe`).
    """
    check_kind(kind)
    recipe = RECIPES[kind].changed(changes)
    set_seed(seed)
    model = recipe.model(*phrasebook_vocabularies(), **recipe.settings)
    how = dict(seed=seed, progress=progress, checkpoint_dir=checkpoint_dir)
    return _trainer(recipe, model, *phrasebook_datasets(), **how)


def phrasebook_model(kind: str, seed: int = 0, progress: bool = True) -> Seq2SeqModel:
    """A trained "rnn", "bahdanau", "luong" or "transformer", in evaluation mode.

    The first call trains it, in under a minute on two cores, with a progress bar; later calls, from
    any notebook, read it from the cache. Two notebooks that want it at once train it once. Where
    nothing can be written, a model that is there is read, and another one trained and not kept.
    """
    check_kind(kind)
    seed = as_seed(seed)  # part of the file's name
    path = cache_folder() / f"phrasebook-{kind}-{seed}-{fingerprint(kind, seed)}.pt"
    if (model := _kept(path)) is not None:  # files appear whole, so reading needs no lock
        return model
    keep = True
    with ExitStack() as locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            locked.enter_context(FileLock(path.with_suffix(".lock")))
            if (model := _kept(path)) is not None:  # trained by another while this one waited
                return model
        except OSError as error:
            keep = _warn_not_kept(path, error)
        trainer = phrasebook_trainer(kind, seed, progress)
        if trainer.fit().stopped == "interrupted":
            raise KeyboardInterrupt
        model = trainer.model.eval()
        try:
            if keep:
                save_model(model, path)
        except OSError as error:
            _warn_not_kept(path, error)
    return model


def _kept(path: Path) -> Seq2SeqModel | None:
    """The model in the cache, if there is one that can be read."""
    try:
        return load_model(path)
    except (OSError, ValueError):  # not there, not readable for this user, or broken
        return None


def _warn_not_kept(path: Path, error: OSError) -> bool:
    warnings.warn(
        f"the trained model cannot be kept in {path.parent} ({error}): it is trained for this "
        "session alone. S2S_CACHE_DIR may name another folder.",
        stacklevel=3,
    )
    return False


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
    seed: int = 0, progress: bool = True, checkpoint_dir: str | os.PathLike | None = None,
    callbacks: Iterable[Callback] = (), model_class: type[Seq2SeqModel] = TransformerSeq2Seq,
    **changes: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained model for English to French captions, and the trainer with its recipe.

    `changes` replaces settings of the model, or of the training (`Recipe`; `vocabulary` counts
    subwords). A model of another class than the transformer has its own defaults.
    """
    recipe = RECIPES["captions"].changed(changes, model_class)
    set_seed(seed)
    train, validation = multi30k_datasets(recipe.vocabulary)
    shared = train.target_vocabulary
    model = recipe.model(shared, shared, **recipe.settings)
    how = dict(seed=seed, progress=progress, checkpoint_dir=checkpoint_dir, callbacks=callbacks)
    return _trainer(recipe, model, train, validation, **how)


def pairs_trainer(
    model: Seq2SeqModel, pairs: Sequence, epochs: int = 4, lr: float = 4e-3, max_tokens: int = 320,
    max_length: int = 100, seed: int = 0, progress: bool = True,
) -> Seq2SeqTrainer:  # fmt: skip
    """A trainer for a model that is there, of any kind, on pairs of texts of one's own.

    The rate rises for a tenth of the steps, then falls to 0. Batches hold `max_tokens`; texts are
    cut by the model's own vocabularies, and after `max_length` pieces.
    """
    recipe = Recipe(type(model), {}, epochs=epochs, lr=lr, max_tokens=max_tokens)
    vocabularies = model.source_vocabulary, model.target_vocabulary
    dataset = Seq2SeqDataset(pairs, *vocabularies, max_length=max_length)
    return _trainer(recipe, model, dataset, seed=seed, progress=progress)


def pronunciation_trainer(
    seed: int = 0, progress: bool = True, checkpoint_dir: str | os.PathLike | None = None,
    callbacks: Iterable[Callback] = (), model_class: type[Seq2SeqModel] = AttentionSeq2Seq,
    words: int | None = None, **changes: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained model for spelling to pronunciation, and the trainer with its recipe.

    `words`: so many of the training words; None: all. `changes` replaces settings of the model, or
    of the training (`Recipe`). Another model than the RNN with attention has its own defaults.
    """
    recipe = RECIPES["pronunciation"].changed(changes, model_class)
    splits = pronunciation.load()
    shared = pronunciation.vocabularies(splits.train)
    parts = splits.train[:words], splits.validation
    datasets = (Seq2SeqDataset(pronunciation.pairs(part), *shared) for part in parts)
    set_seed(seed)
    model = recipe.model(*shared, **recipe.settings)
    how = dict(seed=seed, progress=progress, checkpoint_dir=checkpoint_dir, callbacks=callbacks)
    return _trainer(recipe, model, *datasets, **how)


@cache
def docstring_vocabulary(size: int = 2000) -> CopyVocabulary:
    """The most frequent words of the training docstrings, texts and summaries together."""
    pairs = docstrings.load().train
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    return CopyVocabulary.build(texts, max_size=size)


def summarizer_trainer(
    kind: str = "pointer", seed: int = 0, progress: bool = True, pairs: Sequence | None = None,
    start: Seq2SeqModel | None = None, coverage: float = 0.0, **changes: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained "attention" or "pointer" model for summaries, and the trainer with its recipe.

    `pairs`: those to train on (default: the training docstrings). `start`: a model of the same kind
    to go on from. `coverage`: lambda of the coverage loss; above 0 the model knows its coverage.
    `changes` replaces settings of the model, or of the training (`Recipe`).
    """
    check_kind(kind, [name.partition(", ")[2] for name in RECIPES if name.startswith("summaries")])
    recipe = RECIPES[f"summaries, {kind}"].changed(changes)
    words, settings, dataset = docstring_vocabulary(recipe.vocabulary), recipe.settings, CopyDataset
    if kind == "attention":
        words, dataset = Vocabulary(words.to_dict()["tokens"]), Seq2SeqDataset
    elif coverage:
        settings = settings | {"coverage": True}
    pairs = docstrings.load().train if pairs is None else pairs
    train = dataset(pairs, words, words, max_length=40)
    set_seed(seed)
    model = recipe.model(words, words, **settings)
    model.decoder.embedding = model.encoder.embedding  # both read one vocabulary
    with torch.no_grad():  # how frequent words are need not be learned: hundreds of steps less
        bias = model.decoder.output.bias
        said = torch.tensor([word for _, target in train for word in target])
        counts = torch.bincount(said, minlength=len(words))[: len(bias)] + 0.5
        bias.copy_((counts / counts.sum()).log())
    if start is not None:
        model.load_state_dict(start.state_dict())
    loss = CoverageLoss(coverage) if kind == "pointer" else None
    return _trainer(recipe, model, train, loss=loss, seed=seed, progress=progress)


def cache_folder() -> Path:
    """Where trained models are kept: `S2S_CACHE_DIR`, or the user's cache folder."""
    return download.cache_folder().parent


def checkpoint_folder(kind: str, seed: int = 0) -> Path:
    """The `checkpoint_dir` of a training that several notebooks need: what was trained in one of
    them is found in the others. After a change of what it is learned from it is another folder."""
    check_kind(kind, list(RECIPES))
    seed = as_seed(seed)
    return cache_folder() / f"{kind}-{seed}-{fingerprint(kind, seed)}"


def fingerprint(kind: str, seed: int) -> str:
    """A short hash of all that shapes the trained model: code, data, recipe, and PyTorch."""
    digest = hashlib.sha256(repr((kind, seed, RECIPES[kind], torch.__version__)).encode())
    package = Path(__file__).parents[1]
    tables = sorted(package.glob("corpora/words/*.tsv"))
    for path in [*(package / f"{module}.py" for module in LEARNED_FROM), *tables]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
