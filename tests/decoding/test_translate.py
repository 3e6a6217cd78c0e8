"""A file is translated as its lines would be, whatever happens on the way."""

import json

import pytest
from toy_models import SOURCE, build

from s2s_helpers.decoding import streaming, translate
from s2s_helpers.decoding.streaming import translate_file

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
    count = translate_file(model, source, target, beam_size, chunk=chunk, progress=False)
    assert count == 23
    assert target.read_text(encoding="utf-8") == expected(model, source, beam_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.txt", "target.txt"]


def stop_after(monkeypatch, chunks):
    """Let the translation be interrupted in the chunk after so many; returns what it translated."""
    seen, real = [], streaming.translate

    def interrupted(model, texts, *rest, **more):
        if len(seen) == chunks:
            raise KeyboardInterrupt
        seen.append(texts)
        return real(model, texts, *rest, **more)

    monkeypatch.setattr(streaming, "translate", interrupted)
    return seen


def test_a_stopped_one_goes_on_where_it_was(model, source, tmp_path, monkeypatch):
    target = tmp_path / "target.txt"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            translate_file(model, source, target, chunk=5, progress=False)
    assert not target.exists()
    # As if the machine had gone down while it wrote the third chunk.
    with (tmp_path / "target.txt.part").open("ab") as part:
        part.write(b"half a li" * 1000)
    with monkeypatch.context() as patch:
        seen = stop_after(patch, 99)
        assert translate_file(model, source, target, chunk=5, progress=False) == 23
    assert len(seen) == 3  # lines 11 to 15, 16 to 20, 21 to 23: nothing twice
    assert target.read_text(encoding="utf-8") == expected(model, source)
    assert not (tmp_path / "target.txt.state").exists()


@pytest.fixture
def stopped(model, source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            translate_file(model, source, tmp_path / "target.txt", chunk=5, progress=False)
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
    with pytest.raises(ValueError, match=r"target\.txt\.state is broken"):
        again()
    # What comes after the stop may be mended.
    assert stopped.with_name("target.txt.part").read_bytes().count(b"\n") == 5


def test_a_bad_line_is_named_and_can_be_mended(model, tmp_path):
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    good = f"{WORDS[0]}\n".encode()
    source.write_bytes(good * 4 + b"\xff\xfe\n" + good)
    with pytest.raises(ValueError, match="line 5 is not UTF-8"):
        translate_file(model, source, target, chunk=2, progress=False)
    source.write_bytes(good * 4 + b" ".join([good.strip()] * 999) + b"\n" + good)
    with pytest.raises(ValueError, match="sentence 5 has 1000 tokens"):
        translate_file(model, source, target, chunk=2, progress=False)
    source.write_bytes(good * 6)
    assert translate_file(model, source, target, chunk=2, progress=False) == 6
    assert target.read_text() == expected(model, source)


def test_an_empty_file_a_missing_one_and_a_chunk_of_nothing(model, tmp_path):
    (tmp_path / "empty").touch()
    assert translate_file(model, tmp_path / "empty", tmp_path / "target", progress=False) == 0
    assert (tmp_path / "target").read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        translate_file(model, tmp_path / "none", tmp_path / "target")
    with pytest.raises(ValueError, match="at least 1 line"):
        translate_file(model, tmp_path / "empty", tmp_path / "target", chunk=0)


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


