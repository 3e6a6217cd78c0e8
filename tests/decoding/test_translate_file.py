"""Files of any length: in their order, in bounded memory, however often they are stopped."""

import hashlib
import io
import json
import os
from importlib import import_module

import pandas as pd
import pytest
import torch
from toy_models import SOURCE, TINY, build

from s2s_helpers.decoding import translate, translate_file
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.models.prepacked import can_pack, prepacked
from s2s_helpers.vocabulary import Vocabulary

translating = import_module("s2s_helpers.decoding.translate_file")  # the name is a function's, too


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

    text = b"w4\n" + b"w" * (2**21 + 3) + b"\nw5"
    digest = hashlib.sha256()
    ((first, cut, last),) = translating.blocks(Measured(text), 100, digest)
    assert (first, len(cut), last) == (b"w4\n", 2**20 + 1, b"w5")
    assert digest.hexdigest() == hashlib.sha256(text).hexdigest()


def test_a_block_of_lines_is_bounded_in_bytes(model, tmp_path, monkeypatch):
    monkeypatch.setattr(translating, "LONGEST_LINE", 100)
    monkeypatch.setattr(translating, "FILE_BYTES", 300)
    source, sizes = tmp_path / "source.txt", []
    source.write_bytes(b"w4 w5 w6 w7 w8 w9\n" * 100)
    real = translating.texts_of_lines

    def watched(model, lines, before):
        sizes.append(sum(map(len, lines)))
        return real(model, lines, before)

    monkeypatch.setattr(translating, "texts_of_lines", watched)
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


def test_bad_lines_may_be_left_empty(model, tmp_path, monkeypatch):
    monkeypatch.setattr(translating, "LONGEST_LINE", 200)
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    good = ["w4 w5", "w6", "w9 w8"]
    bad = [b"\xff w4", b"w4 " * 90, b"w4 \xe2\x82"]
    source.write_bytes(
        b"\n".join(x for g, b in zip(good, bad, strict=True) for x in (g.encode(), b))
    )
    for chunk in 1, 2, 100:
        with pytest.warns(UserWarning, match="lines left empty: line 2 is not UTF-8") as said:
            how = dict(bad_lines="empty", lines_at_once=chunk, progress=False)
            assert translate_file(model, source, target, **how) == 6
        assert "; line 4 has more than 200 bytes; line 6 is not UTF-8" in str(said[0].message)
        lines = target.read_text("utf-8").split("\n")
        assert lines == [t for one in translate(model, good) for t in (one.text, "")] + [""]
    target.unlink()
    with pytest.raises(ValueError, match="line 4 has more than 200 bytes"):
        source.write_bytes(source.read_bytes().replace(b"\xff w4", b"w4"))
        translate_file(model, source, target, lines_at_once=2, progress=False)
    with pytest.warns(UserWarning, match="lines left empty: line 4 has more"):  # it goes on
        assert translate_file(model, source, target, bad_lines="empty", progress=False) == 6
    assert target.read_text("utf-8").split("\n")[2:] == lines[2:]
    with pytest.raises(ValueError, match='"stop" or "empty", got None'):
        translate_file(model, source, target, bad_lines=None)


def test_two_processes_do_not_write_one_target(model, source, tmp_path):
    target = tmp_path / "target.txt"
    with (
        translating.alone(target),
        pytest.raises(BlockingIOError, match=r"another process is writing .*target"),
    ):
        translate_file(model, source, target, progress=False)
    assert translate_file(model, source, target, progress=False) > 0
    assert not (tmp_path / "target.txt.lock").exists()
