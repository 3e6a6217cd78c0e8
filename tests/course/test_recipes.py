"""The cache of trained models: found again, kept apart by settings, mended when broken."""

import warnings
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from s2s_helpers.corpora import Splits, download, phrasebook
from s2s_helpers.course import recipes
from s2s_helpers.data import Seq2SeqDataset
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, load_model
from s2s_helpers.vocabulary import UNK, SubwordVocabulary, Vocabulary


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A recipe of a second, on 200 pairs, and an empty cache."""
    monkeypatch.setenv("S2S_CACHE_DIR", str(tmp_path))
    settings = dict(embedding=4, hidden=8, cell="gru")
    recipe = recipes.Recipe(Seq2Seq, settings, epochs=1, lr=1e-3, batch_size=64)
    monkeypatch.setitem(recipes.RECIPES, "rnn", recipe)
    book = phrasebook.load()
    parts = tuple(
        Seq2SeqDataset(pairs[:200], *recipes.phrasebook_vocabularies())
        for pairs in (book.train, book.validation)
    )
    monkeypatch.setattr(recipes, "phrasebook_datasets", lambda: parts)
    return tmp_path


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def files(folder):
    return sorted(folder.glob("*.pt"))


def test_models_and_corpora_are_kept_in_one_folder(tiny, monkeypatch):
    for name in str(tiny), "~", "":
        monkeypatch.setenv("S2S_CACHE_DIR", name)
        assert download.cache_folder() == recipes.cache_folder() / "corpora"
    assert recipes.cache_folder() == Path(pooch.os_cache("s2s_helpers"))


def test_a_seed_of_numpy_is_a_seed(tiny):
    recipes.phrasebook_model("rnn", seed=3, progress=False)
    recipes.phrasebook_model("rnn", seed=np.int64(3), progress=False)
    assert len(files(tiny)) == 1
    for wrong in 0.5, "3", None:
        with pytest.raises(ValueError, match="whole number"):
            recipes.phrasebook_model("rnn", seed=wrong, progress=False)


def test_a_second_call_reads_what_the_first_trained(tiny, monkeypatch):
    first = recipes.phrasebook_model("rnn", progress=False)
    assert len(files(tiny)) == 1 and not first.training
    assert torch.equal(weights(load_model(files(tiny)[0])), weights(first))
    monkeypatch.setattr(recipes, "phrasebook_trainer", None)  # training again would fail
    assert torch.equal(weights(recipes.phrasebook_model("rnn")), weights(first))


def test_seed_settings_and_code_make_another_file(tiny, monkeypatch):
    recipes.phrasebook_model("rnn", progress=False)
    recipes.phrasebook_model("rnn", seed=1, progress=False)
    wider = recipes.RECIPES["rnn"].changed(dict(hidden=10))
    monkeypatch.setitem(recipes.RECIPES, "rnn", wider)
    assert recipes.phrasebook_model("rnn", progress=False).settings["hidden"] == 10
    assert len(files(tiny)) == 3
    before = recipes.fingerprint("rnn", 0)
    read = recipes.Path.read_bytes
    changed = {"rnn.py": b"# changed", "plots.py": b"# changed"}
    for name, differs in ("plots.py", False), ("rnn.py", True):
        monkeypatch.setattr(
            recipes.Path,
            "read_bytes",
            lambda path, name=name: read(path) + (changed[name] if path.name == name else b""),
        )
        assert (recipes.fingerprint("rnn", 0) != before) == differs


def test_what_one_notebook_trained_another_finds(tiny):
    folder = recipes.checkpoint_folder("rnn")
    first = recipes.phrasebook_trainer("rnn", progress=False, checkpoint_dir=folder)
    first.fit(resume=False)
    again = recipes.phrasebook_trainer("rnn", progress=False, checkpoint_dir=folder)
    assert again.fit().epochs == first.history.epochs  # the seconds too
    assert torch.equal(weights(again.model), weights(first.model))
    assert recipes.checkpoint_folder("rnn", np.int64(0)) == folder
    others = {recipes.checkpoint_folder("rnn", 1), recipes.checkpoint_folder("luong")}
    assert len(others | {folder}) == 3 and folder.is_relative_to(tiny)
    with pytest.raises(ValueError, match=r"kind must be one of .*'captions'.*, got 'caption'"):
        recipes.checkpoint_folder("caption")


def test_a_broken_file_is_made_anew(tiny):
    first = recipes.phrasebook_model("rnn", progress=False)
    path = files(tiny)[0]
    path.write_bytes(path.read_bytes()[:100])
    again = recipes.phrasebook_model("rnn", progress=False)
    assert torch.equal(weights(again), weights(first))
    assert torch.equal(weights(load_model(path)), weights(first))


def test_a_model_that_is_there_is_read_where_nothing_can_be_written(tiny, monkeypatch):
    first = recipes.phrasebook_model("rnn", progress=False)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(recipes, "FileLock", refuse)
    monkeypatch.setattr(recipes.Path, "mkdir", refuse)
    monkeypatch.setattr(recipes, "phrasebook_trainer", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = recipes.phrasebook_model("rnn", progress=False)
    assert torch.equal(weights(again), weights(first))


@pytest.mark.parametrize("refused", ["mkdir", "FileLock", "save_model", "load_model"])
def test_a_model_that_cannot_be_kept_is_trained_and_it_is_said(tiny, monkeypatch, refused):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    if refused == "load_model":  # there, but another user's; then it cannot be replaced either
        recipes.phrasebook_model("rnn", progress=False)
        monkeypatch.setattr(recipes, "load_model", refuse)
        monkeypatch.setattr(recipes, "save_model", refuse)
    else:
        monkeypatch.setattr(recipes.Path if refused == "mkdir" else recipes, refused, refuse)
    with pytest.warns(UserWarning, match=r"cannot be kept in .*S2S_CACHE_DIR") as said:
        model = recipes.phrasebook_model("rnn", progress=False)
    assert len(said) == 1
    assert type(model) is Seq2Seq and not model.training
    monkeypatch.undo()
    assert len(files(tiny)) == (refused == "load_model")


def test_without_a_home_a_model_is_trained_all_the_same(tiny, monkeypatch):
    (tiny / "file").write_text("")
    monkeypatch.setenv("S2S_CACHE_DIR", str(tiny / "file" / "folder"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert type(recipes.phrasebook_model("rnn", progress=False)) is Seq2Seq


def test_an_interrupted_training_leaves_nothing_behind(tiny, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Seq2Seq, "features", stop)
    with pytest.raises(KeyboardInterrupt):
        recipes.phrasebook_model("rnn", progress=False)
    assert files(tiny) == []


def test_a_trainer_takes_changes_of_model_and_training(tiny):
    trainer = recipes.phrasebook_trainer("rnn", progress=False, epochs=2, lr=5e-4, hidden=12)
    assert trainer.model.settings["hidden"] == 12 and trainer.config.epochs == 2
    assert trainer.optimizer.defaults["lr"] == 5e-4
    assert trainer.model.settings["embedding"] == 4


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"kind must be one of .*'transformer'.* got 'lstm'"):
        recipes.phrasebook_model("lstm")


def test_every_recipe_builds_its_model():
    for kind in recipes.KINDS:
        model = recipes.phrasebook_trainer(kind, progress=False).model
        assert type(model) is recipes.RECIPES[kind].model
        assert recipes.RECIPES[kind].settings.items() <= model.settings.items()


def test_a_batch_is_counted_in_pairs_or_in_tokens():
    recipe = recipes.RECIPES["captions"]
    by_pairs = recipe.changed(dict(batch_size=8, width=32))
    assert (by_pairs.batch_size, by_pairs.max_tokens, by_pairs.settings["width"]) == (8, None, 32)
    assert recipe.changed({}) == recipe and recipe.settings["width"] == 96
    other = recipe.changed(dict(hidden=4), Seq2Seq)
    assert (other.model, other.settings) == (Seq2Seq, dict(hidden=4))


def test_what_is_learned_from_is_there():
    package = recipes.Path(recipes.__file__).parents[1]
    assert all((package / f"{module}.py").is_file() for module in recipes.LEARNED_FROM)


@pytest.fixture
def captions(monkeypatch):
    """Multi30k's recipe on 12 pairs of the phrasebook, with subwords of these."""
    pairs = phrasebook.load().train[:12]
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    shared = SubwordVocabulary.train(texts, size=60)
    monkeypatch.setattr(recipes, "multi30k_vocabulary", lambda size: shared)
    parts = (Seq2SeqDataset(pairs, shared, shared),) * 2
    monkeypatch.setattr(recipes, "multi30k_datasets", lambda size: parts)
    return shared


def test_the_captions_trainer_learns_with_one_vocabulary_for_both_languages(captions):
    trainer = recipes.multi30k_trainer(
        progress=False, epochs=8, width=32, warmup_steps=5, max_tokens=80
    )
    model = trainer.model
    assert model.source_vocabulary is model.target_vocabulary is captions
    assert model.output.weight is model.source_embedding.weight
    before = trainer.evaluate(trainer.val_dataloader)["loss"]
    assert trainer.fit().epochs[-1]["validation_loss"] < 0.8 * before


def test_the_captions_trainer_takes_changes_of_model_and_training(captions):
    changes = dict(layers=2, dropout=0.3, lr=1e-3, label_smoothing=0.2, ema=0.5, warmup_steps=1)
    trainer = recipes.multi30k_trainer(seed=3, progress=False, **changes)
    assert (trainer.model.settings["layers"], trainer.model.settings["dropout"]) == (2, 0.3)
    assert trainer.optimizer.defaults["lr"] == 1e-3
    assert (trainer.loss_fn.label_smoothing, trainer.ema, trainer.seed) == (0.2, 0.5, 3)
    again = recipes.multi30k_trainer(seed=3, progress=False, **changes)
    assert torch.equal(weights(trainer.model), weights(again.model))
    with pytest.raises(TypeError, match="epoch"):
        recipes.multi30k_trainer(progress=False, epoch=2)
    assert {p.device.type for p in trainer.model.parameters()} == {"cpu"}
    elsewhere = recipes.multi30k_trainer(device="meta", warmup_steps=1).model
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}


def test_the_captions_trainer_trains_the_models_before_the_transformer_too(captions):
    trainer = recipes.multi30k_trainer(
        progress=False, model_class=AttentionSeq2Seq, attention="luong", input_feeding=False,
        embedding=16, hidden=32, epochs=16, warmup_steps=5, max_tokens=80,
    )  # fmt: skip
    assert type(trainer.model) is AttentionSeq2Seq and trainer.model.settings["hidden"] == 32
    before = trainer.evaluate(trainer.val_dataloader)["loss"]
    assert trainer.fit().epochs[-1]["validation_loss"] < 0.8 * before


def test_the_captions_vocabulary_is_made_of_training_captions_alone(monkeypatch):
    pairs = phrasebook.load().train[:200]
    # Of another split, no caption can be read.
    monkeypatch.setattr(recipes.multi30k, "load", lambda: Splits(pairs, None, None))
    vocabulary = recipes.multi30k_vocabulary.__wrapped__(300)
    assert len(vocabulary) == 300
    for pair in pairs:
        assert UNK not in vocabulary.encode(pair.source) + vocabulary.encode(pair.target)


def test_pairs_of_ones_own_train_a_model_that_is_there():
    pairs = [("a b c d", "d c b a"), ("b c", "c b")] * 20
    words = Vocabulary.build([text for pair in pairs for text in pair])
    torch.manual_seed(0)
    trainer = recipes.pairs_trainer(
        Seq2Seq(words, words, embedding=8, hidden=16), pairs, epochs=3, lr=1e-2,
        max_tokens=20, max_length=3, progress=False,
    )  # fmt: skip
    dataset = trainer.train_dataloader.dataset
    assert dataset.source_lengths[:2] == [3, 3]  # cut, EOS included
    steps = trainer.fit().steps
    assert len(steps) == 3 * len(trainer.train_dataloader)
    rates = [step["lr"] for step in steps]
    assert max(rates) == pytest.approx(1e-2) and rates[-1] == 0
    assert rates.index(max(rates)) + 1 == len(steps) // 10
    assert steps[-1]["loss"] < steps[0]["loss"]
