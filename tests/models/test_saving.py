"""What is saved can be loaded, and what could not be loaded is not saved."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from s2s_helpers.data import collate
from s2s_helpers.models import (
    AttentionSeq2Seq,
    CopyVocabulary,
    Forecaster,
    PointerGenerator,
    Scaling,
    Seq2Seq,
    Seq2SeqModel,
    TransformerSeq2Seq,
    load_model,
    model_from_dict,
    model_to_dict,
    save_model,
)
from s2s_helpers.models.saving import FORMAT, class_name, model_classes, shared_weights
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import EOS, SubwordVocabulary, Vocabulary

WORDS, OTHERS = Vocabulary.numbered(20), Vocabulary.numbered(24)
COPY = CopyVocabulary([f"w{n}" for n in range(4, 20)], slots=4)
SUBWORDS = SubwordVocabulary.train(["the cat sat on the mat", "the dog ran"], size=30)
RNN = dict(embedding=6, hidden=8)
SHAPE = dict(width=8, heads=2, layers=1, feedforward=12)


class Louder(TransformerSeq2Seq):
    """A model of one's own, with a setting of its own."""

    def __init__(self, source_vocabulary, target_vocabulary, factor=2.0, **settings):
        super().__init__(source_vocabulary, target_vocabulary, **settings)
        self.settings["factor"] = factor
        self.factor = factor

    def features(self, batch):
        made = super().features(batch)
        return made._replace(values=self.factor * made.values)


class Bag(Seq2SeqModel):
    """Written from nothing: it reads a number while it is built, which "meta" tensors have not."""

    def __init__(self, source_vocabulary, target_vocabulary, width=3):
        super().__init__(source_vocabulary, target_vocabulary, width=width)
        assert torch.ones(width).sum().item() == width
        self.table = nn.Embedding(len(source_vocabulary), len(target_vocabulary))

    def forward(self, batch):
        logits = self.table(batch.source).mean(dim=1, keepdim=True)
        return logits.expand(-1, batch.target_input.shape[1], -1), None


MODELS = {
    "rnn": lambda: Seq2Seq(WORDS, OTHERS, cell="gru", **RNN),
    "rnn of two layers": lambda: Seq2Seq(WORDS, OTHERS, layers=2, bidirectional=False, **RNN),
    "bahdanau": lambda: AttentionSeq2Seq(WORDS, OTHERS, **RNN),
    "luong": lambda: AttentionSeq2Seq(WORDS, OTHERS, attention="luong", score="dot", **RNN),
    "transformer": lambda: TransformerSeq2Seq(WORDS, OTHERS, **SHAPE),
    "learned positions": lambda: TransformerSeq2Seq(WORDS, OTHERS, positions="learned", **SHAPE),
    "tied": lambda: TransformerSeq2Seq(SUBWORDS, SUBWORDS, **SHAPE),
    "not tied": lambda: TransformerSeq2Seq(SUBWORDS, SUBWORDS, tie_embeddings=False, **SHAPE),
    "pointer": lambda: PointerGenerator(COPY, COPY, coverage=True, **RNN),
    "pointer of a plain vocabulary": lambda: PointerGenerator(WORDS, WORDS, slots=4, **RNN),
    "own subclass": lambda: Louder(WORDS, OTHERS, factor=3.0, **SHAPE),
    "own model": lambda: Bag(WORDS, OTHERS),
}


def build(kind):
    torch.manual_seed(0)
    return MODELS[kind]().eval()


@pytest.fixture(params=MODELS)
def model(request):
    return build(request.param)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def a_batch(model, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def sentence(words, length):
        return [*torch.randint(4, len(words), (length,), generator=generator).tolist(), EOS]

    lengths = (3, 6), (7, 2), (1, 1)
    sides = model.source_vocabulary, model.target_vocabulary
    return collate([tuple(map(sentence, sides, pair)) for pair in lengths])


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_model_comes_back_as_it_was(model, path):
    model.train()  # it is loaded in evaluation mode all the same
    save_model(model, path)
    again, batch = load_model(path), a_batch(model)
    assert model.training and not any(part.training for part in again.modules())
    assert type(again) is type(model) and again.settings == model.settings
    assert again.source_vocabulary == model.source_vocabulary
    assert again.target_vocabulary == model.target_vocabulary
    model.eval()
    (logits, attention), (expected, expected_attention) = again(batch), model(batch)
    assert torch.equal(logits, expected)
    assert attention is expected_attention or torch.equal(attention, expected_attention)
    assert count(again) == count(model) and shared_weights(again) == shared_weights(model)
    assert list(path.parent.iterdir()) == [path]
    for mine, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert mine.requires_grad and mine.data_ptr() != theirs.data_ptr()


def test_a_loaded_model_is_saved_and_loaded_again(model, path):
    save_model(model, path)
    save_model(load_model(path), path)
    assert torch.equal(load_model(path)(a_batch(model))[0], model(a_batch(model))[0])


def test_a_copy_shares_nothing_with_the_model():
    model = build("rnn")
    again = model_from_dict(model_to_dict(model))
    with torch.no_grad():
        again.encoder.embedding.weight.zero_()
    assert model.encoder.embedding.weight.abs().sum() > 0


def test_the_next_random_number_is_the_same(path):
    model = build("bahdanau")
    state = torch.random.get_rng_state()
    save_model(model, path)
    load_model(path)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_default_device_does_not_matter(path):
    save_model(build("transformer"), path)
    with torch.device("meta"):
        again = load_model(path)
    assert {tensor.device.type for tensor in (*again.parameters(), *again.buffers())} == {"cpu"}


def test_weights_keep_their_type(path):
    model = build("tied").to(torch.bfloat16)
    save_model(model, path)
    again = load_model(path)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert all(map(torch.equal, again.parameters(), model.parameters()))


def test_a_view_is_saved_as_its_model(path):
    model = build("transformer")
    save_model(eval_view(model), path)
    assert torch.equal(load_model(path)(a_batch(model))[0], model(a_batch(model))[0])


# Ties


@pytest.mark.parametrize("kind", ["pointer", "bahdanau"])
def test_what_was_tied_by_hand_stays_tied(kind, path):
    torch.manual_seed(0)
    words = COPY if kind == "pointer" else WORDS
    model = {"pointer": PointerGenerator, "bahdanau": AttentionSeq2Seq}[kind](words, words, **RNN)
    untied = count(model)
    model.decoder.embedding = model.encoder.embedding
    assert count(model) < untied
    save_model(model.eval(), path)
    again = load_model(path)
    assert count(again) == count(model)
    assert again.decoder.embedding.weight is again.encoder.embedding.weight
    assert torch.equal(again(a_batch(model))[0], model(a_batch(model))[0])
    # So it is one in training too.
    again(a_batch(model))[0].sum().backward()
    with torch.no_grad():
        again.encoder.embedding.weight -= again.encoder.embedding.weight.grad
    assert torch.equal(again.decoder.embedding.weight, again.encoder.embedding.weight)


def test_the_weights_of_an_rnn_may_be_tied(path):
    model = Seq2Seq(WORDS, OTHERS, layers=2, cell="gru", bidirectional=False, **RNN | {"hidden": 6})
    model.decoder.rnn.weight_hh_l1 = model.decoder.rnn.weight_hh_l0
    save_model(model.eval(), path)
    again = load_model(path)
    assert count(again) == count(model)
    assert torch.equal(again(a_batch(model))[0], model(a_batch(model))[0])


def test_what_was_untied_by_hand_stays_untied(path):
    model = build("tied")
    model.output.weight = nn.Parameter(2 * model.output.weight.detach())
    save_model(model, path)
    again = load_model(path)
    assert count(again) == count(model)
    assert torch.equal(again(a_batch(model))[0], model(a_batch(model))[0])


def test_a_layer_that_would_be_shared_again_is_refused(path):
    """The class makes one layer of both embeddings; by name, weights go into one or the other."""
    model = build("tied")
    model.source_embedding = nn.Embedding(len(SUBWORDS), SHAPE["width"])
    with pytest.raises(ValueError, match=r"not saved .* it shares the weights"):
        save_model(model, path)
    assert not path.exists()


# Settings


def test_numbers_of_numpy_become_plain(path):
    settings = dict(
        dropout=np.float64(0.25), max_positions=np.int64(30), norm_first=np.bool_(False)
    )
    model = TransformerSeq2Seq(WORDS, OTHERS, **SHAPE, **settings).eval()
    assert [type(model.settings[name]) for name in settings] == [float, int, bool]
    model.settings["dropout"] = np.float32(0.5)  # put in later
    save_model(model, path)
    again = load_model(path)
    assert again.settings == model.settings and type(again.settings["dropout"]) is float
    assert again.max_positions == 30


def test_a_setting_that_no_file_holds_is_named(path):
    model = build("rnn")
    model.settings["cell"] = nn.GRU
    with pytest.raises(ValueError, match=r"settings.cell is a type"):
        save_model(model, path)
    with pytest.raises(ValueError, match=r"positions is a"):
        Seq2SeqModel(WORDS, OTHERS, positions=object())


def forgetful():
    class Forgetful(TransformerSeq2Seq):
        def __init__(self, source_vocabulary, target_vocabulary, factor=2.0, **settings):
            super().__init__(source_vocabulary, target_vocabulary, **settings)

    return Forgetful(WORDS, OTHERS, factor=3.0, **SHAPE)


def other_arguments():
    class OneVocabulary(Seq2Seq):
        def __init__(self, words, **settings):
            super().__init__(words, words, **settings)

    return OneVocabulary(WORDS, **RNN)


def grown():
    model = build("transformer")
    model.adapter = nn.Linear(2, 2)
    return model


def reshaped():
    model = build("rnn")
    model.decoder.output = nn.Linear(8, 7)
    return model


def mistold():
    model = build("rnn")
    model.settings["hidden"] = 10
    return model


def unknown_setting():
    model = build("rnn")
    model.settings["colour"] = "red"
    return model


def changing():
    class Changing(Seq2Seq):
        def __init__(self, *vocabularies, **settings):
            super().__init__(*vocabularies, **settings)
            self.settings["dropout"] = self.settings["dropout"] / 2

    return Changing(WORDS, OTHERS, **RNN)


def without_vocabulary():
    model = build("rnn")
    model.target_vocabulary = None
    return model


def strange_vocabulary():
    class Reversed(Vocabulary):
        def to_dict(self):
            return super().to_dict() | {"tokens": super().to_dict()["tokens"][::-1]}

    return Seq2Seq(Reversed(["a", "b"]), OTHERS, **RNN)


@pytest.mark.parametrize(
    "make, message",
    [
        (forgetful, "this Forgetful could not be built again: its settings lack factor"),
        (other_arguments, "takes .* positional argument"),
        (grown, "adapter"),
        (reshaped, "size mismatch"),
        (mistold, "size mismatch"),
        (unknown_setting, "colour"),
        (changing, "its settings come back as"),
        (without_vocabulary, "its settings lack target_vocabulary"),
        (strange_vocabulary, "its source vocabulary .* comes back as"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(make, message, path):
    model = make()
    with pytest.raises(ValueError, match=message) as caught:
        save_model(model, path)
    assert str(caught.value).startswith(f"not saved to {path}, as it could not be loaded: ")
    assert list(path.parent.iterdir()) == []


# Classes


def test_classes_have_names_that_are_found_again():
    assert class_name(Seq2Seq) == "Seq2Seq" and class_name(Louder).endswith("test_saving.Louder")
    known = model_classes()
    assert {"Seq2Seq", "Forecaster", "PointerGenerator", "Pretrained"} <= known.keys()
    assert known[class_name(Louder)] is Louder


def test_a_stand_in_of_a_class_is_not_taken_for_it():
    """PyTorch's export leaves such behind: named as the class, and without its constructor."""

    class Proxy:
        def __init__(self, base):
            raise AssertionError("a stand-in was built")

    stand_in = type("Louder", (Proxy, Louder), {})
    stand_in.__module__, stand_in.__qualname__ = Louder.__module__, Louder.__qualname__
    assert stand_in in Louder.__subclasses__() and class_name(stand_in) == class_name(Louder)
    assert model_classes()[class_name(Louder)] is Louder


def test_a_cell_that_is_run_again_replaces_its_class(path):
    """As in a notebook: the class is defined anew, with more in it."""

    def cell(bias):
        class Mine(Seq2Seq):
            def __init__(self, *vocabularies, **settings):
                super().__init__(*vocabularies, **settings)
                self.extra = nn.Linear(2, 2, bias=bias)

        return Mine

    first, second = cell(False), cell(True)
    old, new = first(WORDS, OTHERS, **RNN), second(WORDS, OTHERS, **RNN)
    save_model(new, path)
    assert type(load_model(path)) is second
    with pytest.raises(ValueError, match=r"extra\.bias"):
        save_model(old, path)


def test_a_class_that_is_not_there_is_named(path):
    program = textwrap.dedent(f"""
        from s2s_helpers.models import Seq2Seq, load_model, save_model
        from s2s_helpers.vocabulary import Vocabulary
        class Mine(Seq2Seq):
            pass
        words = Vocabulary.numbered(9)
        save_model(Mine(words, words, embedding=2, hidden=2), {str(path)!r})
        print(type(load_model({str(path)!r})) is Mine)
    """)
    run = [sys.executable, "-c", program]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "True\n"
    with pytest.raises(ValueError) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "'__main__.Mine'" in str(caught.value)
    assert "import or define it first" in str(caught.value)


# Files that are none, or of another time


def changed(path, **entries):
    """A saved model with entries replaced; None takes one away."""
    save_model(build("rnn"), path)
    saved = torch.load(path, weights_only=True) | entries
    torch.save({key: value for key, value in saved.items() if value is not None}, path)


WEIGHTS = {name: value.clone() for name, value in build("rnn").state_dict().items()}


@pytest.mark.parametrize(
    "entries, message",
    [
        (dict(format=None), f"has the format None .* reads {FORMAT}"),
        (dict(format=FORMAT + 1), f"has the format {FORMAT + 1} .* reads {FORMAT}"),
        (dict(settings=None), "lacks its settings"),
        ({"class": None, "shared": None}, "lacks its class and shared"),
        (dict(weights=None), "not a model saved by"),
        ({"class": "Nobody"}, "class 'Nobody' of this model is unknown"),
        ({"class": "Seq2SeqModel"}, "no Seq2SeqModel comes of these"),
        (dict(settings=dict(RNN, cell="gru", colour=1)), "unexpected keyword argument 'colour'"),
        (dict(settings=dict(RNN, cell="tree")), "cell must be one of"),
        (dict(settings=dict(RNN, hidden=-8)), "no Seq2Seq comes of these"),
        (dict(settings=[1, 2]), "no Seq2Seq comes of these"),
        (dict(settings={1: 2}), "no Seq2Seq comes of these"),
        (dict(source_vocabulary=None), "no Seq2Seq comes of these"),
        (dict(target_vocabulary={"class": "Vocabulary"}), "not a saved vocabulary"),
        (dict(target_vocabulary=WORDS.to_dict()), "size mismatch"),
        (dict(weights={}), "Missing key"),
        (dict(weights=WEIGHTS | {"more": torch.ones(1)}), "Unexpected key"),
        (dict(weights=WEIGHTS | {"decoder.output.bias": 3}), "no Seq2Seq comes of these"),
        (dict(weights=[1]), "no Seq2Seq comes of these"),
        (dict(shared={"nowhere.weight": "encoder.embedding.weight"}), "no Seq2Seq comes of these"),
        (dict(shared=3), "no Seq2Seq comes of these"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_path(entries, message, path):
    changed(path, **entries)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_file_from_before_is_refused_with_its_path(path):
    """As it was written before files had a number, with the vocabularies of that time."""
    words = {"format": "s2s_helpers vocabulary 1", "level": "word", "lowercase": True}
    words |= {"language": None, "tokens": WORDS.to_dict()["tokens"]}
    sides = {"source_vocabulary": words, "target_vocabulary": words}
    model = Seq2Seq(WORDS, WORDS, **RNN)
    torch.save(
        {"class": "Seq2Seq", "settings": model.settings, "weights": model.state_dict(), **sides},
        path,
    )
    with pytest.raises(ValueError, match="from before there was a number") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_model_without_vocabularies_has_none_in_its_file(path):
    torch.manual_seed(0)
    save_model(Forecaster(Scaling(4, 9), embedding=4, hidden=4), path)
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == {"format", "class", "settings", "weights", "shared"}
    assert load_model(path).source_vocabulary is None


def test_a_file_that_may_not_be_read_is_not_called_broken(path, monkeypatch):
    save_model(build("rnn"), path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        load_model(path)
