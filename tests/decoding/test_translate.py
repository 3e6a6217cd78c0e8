"""Texts and files: in their order, in bounded memory, by any search, from any thread."""

import copy
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module

import pandas as pd
import pytest
import torch
from toy_models import KINDS, RNN, SOURCE, Table, build

from s2s_helpers.decoding import (
    beam_search,
    diverse_beam_search,
    encode_source,
    generate,
    minimum_risk_search,
    sample,
    translate,
)
from s2s_helpers.models import PointerGenerator, Seq2Seq
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.vocabulary import EOS, Vocabulary

translating = import_module("s2s_helpers.decoding.translate")  # the name is the function's, too


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# Texts


def test_a_translation_says_whether_it_was_cut_off():
    model, seen = build("transformer"), set()
    for length in 1, 3, 50:
        for beam_size in 1, 4:
            for found in translate(model, TEXTS, beam_size, max_length=length):
                assert found.finished == (found.tokens[-1] == "<eos>")
                assert found.finished or len(found.tokens) == length
                seen.add(found.finished)
    assert seen == {True, False}


def test_translate_keeps_the_callers_order(kind):
    model = build(kind)
    texts = ["w4 w5 w6 w7 w8", "w9", "w5 w5", "w10 w11 w4", "w9"]
    together = translate(model, texts, batch_size=2, beam_size=3)
    alone = [translate(model, [text], beam_size=3)[0] for text in texts]
    assert [t.text for t in together] == [t.text for t in alone]
    assert together[1].text == together[4].text
    assert together[0].source_tokens == ["w4", "w5", "w6", "w7", "w8", "<eos>"]
    assert translate(model, []) == []
    for t in together:
        if t.attention is None:
            with pytest.raises(ValueError, match="no attention"):
                t.attention_matrix()
        else:
            matrix = t.attention_matrix()
            assert matrix.shape == (len(t.tokens), len(t.source_tokens))
            torch.testing.assert_close(matrix.sum(-1), torch.ones(len(t.tokens)))


def test_texts_that_cannot_be_translated_are_named():
    model = build("transformer")
    for texts, options, complaint in (
        (["w4", "  "], {}, "sentence 1, '  '"),
        (["w4", None], {}, "sentence 1, None"),
        (["w4 " * 300], {}, "sentence 0 has 301 tokens"),
        (["w4"], dict(beam_size=0), "these must be at least 1: beam_size=0"),
        (["w4"], dict(n_best=0), "these must be at least 1: beam_size=1, n_best=0"),
        (["w4"], dict(beam_size=2, n_best=3), "n_best must lie between 1 and beam_size 2"),
        (["w4"], dict(batch_size=0), "batch_size must be at least 1"),
        (["w4"], dict(beam_size=2, search=sample), "give one of the two"),
        (["w4"], dict(length_penalty=math.nan, beam_size=2), "length_penalty must be"),
    ):
        with pytest.raises(ValueError, match=complaint):
            translate(model, texts, **options)
    for wrong in ("w4 w5", {"w4": "w5"}, pd.DataFrame({"w4": ["w5"]})):
        with pytest.raises(TypeError, match="texts must be a list, not"):
            translate(model, wrong)
    with pytest.raises(ValueError, match="the text, 3"):
        encode_source(model, 3)


TEXTS = ["w4 w5 w6 w7 w8", "w9", "w5 w5", "w10 w11 w4", "w9", "w4 w8 w8 w10"]
DISTANCE = lambda one, other: sum(a != b for a, b in zip(one, other, strict=False))  # noqa: E731
SEARCHES = {
    "generate": generate,
    "sample": partial(sample, top_p=0.9, seed=1),
    "samples": partial(sample, n=3, seed=1),
    "diverse": partial(diverse_beam_search, groups=3),
    "risk": partial(minimum_risk_search, risk=DISTANCE, n=5),
    "beam": partial(beam_search, beam_size=4, n_best=4),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_any_search_translates_and_neighbours_change_nothing(name, kind="bahdanau"):
    """What is drawn for a text follows from its number, not from its place in a batch."""
    model, search = build(kind, sharpness=1.0), SEARCHES[name]
    found = translate(model, TEXTS, search=search, n_best=2)
    assert [t[0].text for t in found] == [t.text for t in translate(model, TEXTS, search=search)]
    for batch_size in 1, 2, 5:
        again = translate(model, TEXTS, search=search, n_best=2, batch_size=batch_size)
        assert [[t.text for t in several] for several in again] == [
            [t.text for t in several] for several in found
        ]
    more = translate(model, [*TEXTS[:3], "w4 w4 w4 w4 w4 w4"], search=search)
    assert [t.text for t in more[:3]] == [t[0].text for t in found[:3]]
    for several in found:
        assert len(several) == (1 if name in ("generate", "sample", "risk") else 2)
        assert all(t.score >= u.score for t, u in itertools.pairwise(several))
        assert all(t.attention is not None for t in several)


def test_equal_texts_are_drawn_apart():
    model = build("luong", sharpness=0.5)
    found = translate(model, ["w4 w5 w6"] * 12, search=partial(sample, temperature=2.0))
    assert len({t.text for t in found}) > 3


def test_n_best_of_a_beam():
    model = build("luong", seed=2)
    for text, several in zip(TEXTS, translate(model, TEXTS, 4, n_best=3), strict=True):
        ids = torch.tensor([encode_source(model, text)])
        (expected,) = beam_search(model, ids, beam_size=4, n_best=3)
        assert [t.text for t in several] == [
            model.target_vocabulary.decode(h.ids) for h in expected
        ]
        assert [t.score for t in several] == pytest.approx([h.score for h in expected], abs=1e-4)
    assert [len(several) for several in translate(model, TEXTS, n_best=1)] == [1] * len(TEXTS)


def test_a_search_of_ones_own_gets_what_it_is_promised():
    calls = []

    def search(model, source, source_mask, max_length=None, attention=True):
        assert prepacked(model) is model and torch.equal(source_mask, source != 0)
        assert not model.encode(source, source_mask).states.requires_grad
        calls.append((len(source), max_length, attention))
        return generate(model, source, source_mask, max_length=max_length, attention=attention)

    model = build("rnn")
    found = translate(model, TEXTS, search=search, batch_size=4, max_length=3, attention=False)
    assert calls == [(4, 3, False), (2, 3, False)]
    assert [t.text for t in found] == [t.text for t in translate(model, TEXTS, max_length=3)]


def test_one_long_text_does_not_pad_the_others(monkeypatch):
    model, shapes = build("rnn"), []
    encode = Seq2Seq.encode

    def watched(self, source, mask):
        shapes.append(tuple(source.shape))
        return encode(self, source, mask)

    monkeypatch.setattr(Seq2Seq, "encode", watched)
    texts = ["w4 w5 w6"] * 255 + ["w7 " * 12_000]
    found = translate(model, texts, max_length=2, attention=False)
    assert shapes == [(255, 4), (1, 12_001)] and len({t.text for t in found[:255]}) == 1
    del shapes[:]
    translate(model, ["w4 " * 99] * 300, max_length=1, attention=False)
    assert max(rows * width for rows, width in shapes) <= 256 * 64
    del shapes[:]
    translate(model, ["w4"] * 300, max_length=1, batch_size=100)
    assert [rows for rows, _ in shapes] == [100, 100, 100]


def models():
    """One small model of every class that translates."""
    yield from ((kind, build(kind, sharpness=1.0)) for kind in KINDS)
    torch.manual_seed(0)
    yield "pointer", PointerGenerator(SOURCE, SOURCE, coverage=True, **RNN).eval()


@pytest.mark.parametrize(("kind", "model"), [*models()])
@pytest.mark.parametrize("training", [False, True])
def test_eight_threads_give_what_one_gives(kind, model, training):
    """One model, several searches at once; and it stays as it was, flags and attributes."""
    model.train(training)
    before = [(name, vars(part).copy()) for name, part in model.named_modules()]
    jobs = [dict(beam_size=1 + n % 3, max_length=4 + n % 5) for n in range(48)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda options: translate(model, TEXTS, **options), jobs))
    for options, several in zip(jobs, found, strict=True):
        alone = translate(model, TEXTS, **options)
        assert [t.text for t in several] == [t.text for t in alone]
        assert [t.score for t in several] == pytest.approx([t.score for t in alone], abs=1e-4)
        assert all((t.attention is None) == (kind == "rnn") for t in several)
    assert before == [(name, vars(part)) for name, part in model.named_modules()]


def test_a_changed_part_decodes_as_it_is():
    """A subclass with another forward, a hook, and a replaced forward: none is passed over."""
    plain = build("transformer")
    wanted = [t.score for t in translate(plain, TEXTS, 2)]

    def other(model, change):
        changed = copy.deepcopy(model)
        change(changed.decoder[0].cross)
        scores = [t.score for t in translate(changed, TEXTS, 2)]
        assert scores != pytest.approx(wanted, abs=1e-3)
        return scores

    def subclass(part):
        def forward(self, *inputs):
            change, weights = type(part).__mro__[1].forward(self, *inputs)
            return -change, weights

        part.__class__ = type("Negated", (type(part),), {"forward": forward})

    def replaced(part):
        forward = part.forward
        part.forward = lambda *inputs: (-forward(*inputs)[0], forward(*inputs)[1])

    def hooked(part):
        part.register_forward_hook(lambda module, inputs, output: (-output[0], output[1]))

    found = [other(plain, change) for change in (subclass, replaced, hooked)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert found[0] == pytest.approx(found[2], abs=1e-4)


def test_copied_words_stand_in_the_text():
    """A word of the source that the vocabulary lacks, written by its slot."""
    words = Vocabulary(["a", "b"])
    torch.manual_seed(0)
    model = PointerGenerator(words, words, slots=3, **RNN).eval()
    slot = model.target_vocabulary.fixed

    # It writes the first unknown word of its source, and ends.
    logits = torch.full((slot + 3, slot + 3), -9.0)
    logits[:, EOS] = 0.0
    logits[2, slot] = 9.0  # after SOS
    copier = Table(logits)
    copier.source_vocabulary = copier.target_vocabulary = model.target_vocabulary
    for search in None, partial(beam_search, beam_size=3, n_best=2):
        found = translate(copier, ["a Marseille b", "Nantes Brest"], search=search)
        assert [t.text for t in found] == ["marseille", "nantes"]
        assert [t.tokens for t in found] == [["marseille", "<eos>"], ["nantes", "<eos>"]]
        assert found[0].source_tokens == ["a", "marseille", "b", "<eos>"]
