"""Texts and files: in their order, in bounded memory, by any search, from any thread."""

import copy
import io
import itertools
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module

import pandas as pd
import pytest
import torch
from toy_models import KINDS, RNN, SOURCE, TINY, Table, build

from s2s_helpers.decoding import (
    beam_search,
    diverse_beam_search,
    encode_source,
    generate,
    minimum_risk_search,
    sample,
    translate,
    translate_file,
)
from s2s_helpers.models import PointerGenerator, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.models.prepacked import can_pack, prepacked
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


# Files

WORDS = [SOURCE.decode([number]) for number in range(4, len(SOURCE))]


@pytest.fixture(scope="module")
def model():
    return build("transformer")


@pytest.fixture
def source(tmp_path):
    """23 lines, of which the fifth and the last are empty."""
    lines = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 6)) for i in range(23)]
    lines[4] = lines[22] = ""
    path = tmp_path / "source.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def expected(model, source, beam_size=1):
    lines = source.read_text(encoding="utf-8").split("\n")[:-1]
    return "".join(
        (translate(model, [line], beam_size)[0].text if line else "") + "\n" for line in lines
    )


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_each_line_is_translated_in_its_place(model, source, tmp_path, chunk, beam_size):
    target = tmp_path / "target.txt"
    count = translate_file(model, source, target, beam_size, lines_at_once=chunk, progress=False)
    assert count == 23
    assert target.read_text(encoding="utf-8") == expected(model, source, beam_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.txt", "target.txt"]


def test_invisible_characters_change_nothing_and_a_line_of_them_is_empty(model, tmp_path):
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    source.write_bytes(
        b"\xef\xbb\xbfw4 w5\r\n\xe2\x80\x8b\n w4 w\xc2\xad5 \xef\xbb\xbf\n\x00\n\xe2\x80\x8d\nw4 w5"
    )
    assert translate_file(model, source, target, progress=False) == 6
    text = translate(model, ["w4 w5"])[0].text
    assert target.read_text(encoding="utf-8") == f"{text}\n\n{text}\n\n\n{text}\n"
    assert [t.text for t in translate(model, pd.Series(["w\u200b4 w5", "w4 w5"]))] == [text] * 2
    with pytest.raises(ValueError, match=r"sentence 1, .*cannot encode an empty sentence"):
        translate(model, ["w4", "\u200b\ufeff"])


def stop_after(monkeypatch, chunks):
    """Let the translation be interrupted in the chunk after so many; returns what it translated."""
    seen, real = [], translating.translated

    def interrupted(model, lines, *rest, **more):
        if len(seen) == chunks:
            raise KeyboardInterrupt
        seen.append(lines)
        return real(model, lines, *rest, **more)

    monkeypatch.setattr(translating, "translated", interrupted)
    return seen


def test_a_stopped_one_goes_on_where_it_was(model, source, tmp_path, monkeypatch):
    target = tmp_path / "target.txt"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            translate_file(model, source, target, lines_at_once=5, progress=False)
    assert not target.exists()
    # As if the machine had gone down while it wrote the third chunk.
    with (tmp_path / "target.txt.part").open("ab") as part:
        part.write(b"half a li" * 1000)
    with monkeypatch.context() as patch:
        seen = stop_after(patch, 99)
        assert translate_file(model, source, target, lines_at_once=5, progress=False) == 23
    assert len(seen) == 3  # lines 11 to 15, 16 to 20, 21 to 23: nothing twice
    assert target.read_text(encoding="utf-8") == expected(model, source)
    assert not (tmp_path / "target.txt.state").exists()


@pytest.fixture
def stopped(model, source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            translate_file(model, source, tmp_path / "target.txt", lines_at_once=5, progress=False)
    return tmp_path / "target.txt"


def test_it_does_not_mix_two_runs(model, source, stopped):
    def again(**changes):
        return translate_file(**(dict(model=model, source=source, target=stopped) | changes))

    with pytest.raises(ValueError, match="another model: use another target, or delete"):
        again(model=build("transformer", seed=1))
    with pytest.raises(ValueError, match="another beam size"):
        again(beam_size=2)
    with pytest.raises(ValueError, match="another length penalty"):
        again(length_penalty=1.0)
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace(WORDS[0], WORDS[1], 1), encoding="utf-8")
    with pytest.raises(ValueError, match="source has changed before line 6"):
        again()
    state = stopped.with_name("target.txt.state")
    state.write_text(json.dumps({"lines": 5}))
    with pytest.raises(ValueError, match=r"target\.txt\.state or .*is broken"):
        again()
    # What comes after the stop may be mended.
    assert stopped.with_name("target.txt.part").read_bytes().count(b"\n") == 5


def test_a_bad_line_is_named_and_can_be_mended(model, tmp_path):
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    good = f"{WORDS[0]}\n".encode()
    source.write_bytes(good * 4 + b"\xff\xfe\n" + good)
    with pytest.raises(ValueError, match="line 5 is not UTF-8"):
        translate_file(model, source, target, lines_at_once=2, progress=False)
    source.write_bytes(good * 4 + b" ".join([good.strip()] * 999) + b"\n" + good)
    with pytest.raises(ValueError, match="line 5 has 1000 tokens"):
        translate_file(model, source, target, lines_at_once=2, progress=False)
    source.write_bytes(good * 6)
    assert translate_file(model, source, target, lines_at_once=2, progress=False) == 6
    assert target.read_text("utf-8") == expected(model, source)


def test_an_empty_file_a_missing_one_and_a_chunk_of_nothing(model, tmp_path):
    (tmp_path / "empty").touch()
    assert translate_file(model, tmp_path / "empty", tmp_path / "target", progress=False) == 0
    assert (tmp_path / "target").read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        translate_file(model, tmp_path / "none", tmp_path / "target")
    with pytest.raises(ValueError, match="lines_at_once must be at least 1, got 0"):
        translate_file(model, tmp_path / "empty", tmp_path / "target", lines_at_once=0)


def test_a_source_is_not_translated_into_itself(model, source, tmp_path, links):
    text = source.read_text("utf-8")
    link, hard = tmp_path / "link.txt", tmp_path / "hard.txt"
    link.symlink_to(source)
    os.link(source, hard)
    (tmp_path / "folder").mkdir()
    for target in source, tmp_path / "folder" / ".." / "source.txt", link, hard:
        with pytest.raises(ValueError, match="cannot be translated into itself"):
            translate_file(model, source, target, progress=False)
        with pytest.raises(ValueError, match="cannot be translated into itself"):
            translate_file(model, target, source, progress=False)
    for end in ".part", ".state":  # what a target of another name would write on its way
        other = source.rename(tmp_path / f"other{end}")
        with pytest.raises(ValueError, match="cannot be translated into itself"):
            translate_file(model, other, tmp_path / "other", progress=False)
        assert other.read_text("utf-8") == text
        other.rename(source)
    with pytest.raises(ValueError, match="is a folder"):
        translate_file(model, source, tmp_path / "folder", progress=False)
    if hasattr(os, "mkfifo"):  # as /dev/null, which would be replaced by a file
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="is a device or a pipe"):
            translate_file(model, source, tmp_path / "pipe", progress=False)
    with pytest.raises(FileNotFoundError):
        translate_file(model, tmp_path / "none", tmp_path / "none", progress=False)
    assert source.read_text("utf-8") == text


def test_a_target_keeps_its_mode_and_its_link(model, source, tmp_path, links):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("before")
    real.chmod(0o640)
    mode = real.stat().st_mode  # Windows knows only some
    link.symlink_to(real)
    translate_file(model, source, link, progress=False)
    assert link.is_symlink() and real.stat().st_mode == mode
    assert real.read_text(encoding="utf-8") == expected(model, source)


def test_lines_are_read_with_a_limit(model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(translating, "LONGEST_LINE", 200)
    target = tmp_path / "target.txt"
    for line, fits in ((b"w4 " * 66 + b"w\n", True), (b"w4 " * 66 + b"w4", True),
                       (b"w4 " * 66 + b"w4\n", False), (b"w4 " * 67, False)):  # fmt: skip
        source.write_bytes(b"w5\n" + line)
        if fits:
            assert translate_file(model, source, target, progress=False) == 2
        else:
            with pytest.raises(ValueError, match="line 2 has more than 200 bytes"):
                translate_file(model, source, target, progress=False)


def test_no_line_is_read_whole_before_it_is_measured():
    class Measured(io.BytesIO):
        def readline(self, size=-1):
            assert 0 < size <= 2**20 + 1
            return super().readline(size)

    with pytest.raises(ValueError, match="line 8 has more than 1,048,576 bytes"):
        list(translating.blocks(Measured(b"w4\n" + b"w" * 2**21), 6, 100))


def test_a_block_of_lines_is_bounded_in_bytes(model, tmp_path, monkeypatch):
    monkeypatch.setattr(translating, "LONGEST_LINE", 100)
    monkeypatch.setattr(translating, "FILE_BYTES", 300)
    source, sizes = tmp_path / "source.txt", []
    source.write_bytes(b"w4 w5 w6 w7 w8 w9\n" * 100)
    real = translating.translated

    def watched(model, lines, *rest):
        sizes.append(sum(map(len, lines)))
        return real(model, lines, *rest)

    monkeypatch.setattr(translating, "translated", watched)
    assert translate_file(model, source, tmp_path / "target.txt", progress=False) == 100
    assert max(sizes) <= 300 and len(sizes) > 5


def a_model(**changes):
    torch.manual_seed(0)
    shape = dict(width=8, heads=2, layers=1, feedforward=8, max_positions=20) | changes
    return TransformerSeq2Seq(SOURCE, TINY, **shape).eval()


def negated(model):
    class Negated(type(model.output)):
        def forward(self, x):
            return -super().forward(x)

    model.output.__class__ = Negated
    return model


OTHERS = {
    "setting": lambda: a_model(heads=4),
    "longer": lambda: a_model(max_positions=30),
    "weight": lambda: a_model(dropout=0.1).requires_grad_(False).apply(
        lambda part: part.bias.data.add_(1e-3) if type(part) is torch.nn.Linear else None
    ),
    "class of a part": lambda: negated(a_model()),
    "int8": lambda: prepacked(a_model(), torch.int8),
    "target vocabulary": lambda: renamed(a_model(), "target_vocabulary"),
    "source vocabulary": lambda: renamed(a_model(), "source_vocabulary"),
}  # fmt: skip


def renamed(model, side):
    words = getattr(model, side)
    setattr(
        model,
        side,
        Vocabulary([token.replace("5", "x") for token in words.tokens(range(4, len(words)))]),
    )
    return model


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_decides_the_text_is_another_model(what):
    if what == "int8" and not can_pack(torch.int8):
        pytest.skip("a build of PyTorch without int8")
    digest = translating.digest_of
    assert digest(a_model()) == digest(a_model()) == digest(prepacked(a_model()))
    assert digest(a_model().train()) == digest(a_model())
    assert digest(OTHERS[what]()) != digest(a_model())
