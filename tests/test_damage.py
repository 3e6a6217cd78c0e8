"""A file that was cut or changed on the disk is read as it was saved, or named in a ValueError."""

import random
import sys

import pytest
import torch
from toy_models import build

from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.decoding import translate_file
from s2s_helpers.files import read_file, save_file
from s2s_helpers.models import load_model, save_model
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.vocabulary import SubwordVocabulary, Vocabulary, load_vocabulary

FLIPS = 250


def damages(whole, seed=0):
    """The bytes cut at some place, with one bit flipped, or with three others in their place."""
    luck = random.Random(seed)
    for length in [*range(0, 40), *luck.sample(range(len(whole)), min(len(whole), 60))]:
        yield whole[:length]
    for number in range(FLIPS):
        changed = bytearray(whole)
        for _ in range(1 if number % 2 else 3):
            changed[luck.randrange(len(changed))] ^= 1 << luck.randrange(8)
        yield bytes(changed)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
def test_a_model_is_whole_or_named(kind, tmp_path):
    path, model = tmp_path / "model.pt", build(kind)
    save_model(model, path)
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            again = load_model(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        assert type(again) is type(model) and again.settings == model.settings
        assert same(dict(again.state_dict()), dict(model.state_dict()))
        assert again.source_vocabulary == model.source_vocabulary
        assert again.target_vocabulary == model.target_vocabulary


def test_whatever_was_saved_is_whole_or_named(tmp_path):
    path = tmp_path / "any"
    value = {"a": torch.arange(300.0), "b": [1, "zwölf", None], "c": torch.ones(3).bfloat16()}
    save_file(value, path)
    for damaged in damages(path.read_bytes(), seed=1):
        path.write_bytes(damaged)
        try:
            assert same(read_file(path, "file"), value)
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_training_goes_on_as_it_was_or_says_why_not(name, tmp_path):
    pairs, words = [("a b", "c"), ("b", "c c"), ("a a", "d")] * 2, Vocabulary([*"abcd"])

    def trainer(epochs):
        loader = make_loader(Seq2SeqDataset(pairs, words, words), batch_size=3)
        config = training_config(epochs, checkpoint_dir=tmp_path, progress=False, device="cpu")
        return Seq2SeqTrainer(build("rnn", words), config, loader, loader)

    trainer(1).fit()
    path = tmp_path / name
    whole = path.read_bytes()
    started = trainer(1)
    started.load_checkpoint(tmp_path / "last.pt")
    expected = dict(started.model.state_dict()), started.best_weights, started.history.to_dict()
    for damaged in [*damages(whole, seed=2)][::6]:
        path.write_bytes(damaged)
        again = trainer(1)
        try:
            again.load_checkpoint(tmp_path / "last.pt")
        except ValueError as error:
            assert str(path) in str(error)
            continue
        found = dict(again.model.state_dict()), again.best_weights, again.history.to_dict()
        assert same(list(found), list(expected))


def test_a_vocabulary_is_cut_or_damaged_and_named(tmp_path):
    """JSON may also say another word after a change: then there is a vocabulary, and no error."""
    path = tmp_path / "words.json"
    subwords = SubwordVocabulary.train(["the cat sat on the mat", "a dog ran"] * 9, 40)
    for vocabulary in Vocabulary(["été", "cat", "dog"]), subwords:
        vocabulary.save(path)
        whole = path.read_bytes()
        for damaged in damages(whole, seed=3):
            path.write_bytes(damaged)
            try:
                assert load_vocabulary(path).encode("cat")
                assert len(damaged) == len(whole)
            except ValueError as error:
                assert str(path) in str(error)


def test_a_translation_that_lost_its_lines_does_not_go_on(tmp_path):
    model, source, target = build("rnn"), tmp_path / "source", tmp_path / "target"
    source.write_text("w4 w5\nw6\nw7 w8\nw9\n")
    translate_file(model, source, target, progress=False)
    right = target.read_text()
    part, state = tmp_path / "target.part", tmp_path / "target.state"

    module = sys.modules[translate_file.__module__]
    translated, calls = module.translated, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return translated(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "translated", stopped)
        with pytest.raises(KeyboardInterrupt):
            translate_file(model, source, target, lines_at_once=2, progress=False)
    written, said = part.read_bytes(), state.read_bytes()
    for damaged in [*damages(said, seed=4)]:
        part.write_bytes(written)
        state.write_bytes(damaged)
        try:
            translate_file(model, source, target, lines_at_once=2, progress=False)
        except ValueError as error:
            assert "broken" in str(error) or "delete" in str(error), error
    for length in range(len(written)):
        part.write_bytes(written[:length])
        state.write_bytes(said)
        with pytest.raises(ValueError, match=r"target\.part is broken"):
            translate_file(model, source, target, progress=False)
    part.write_bytes(written)
    translate_file(model, source, target, progress=False)
    assert target.read_text() == right
