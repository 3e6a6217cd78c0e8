"""An exported model gives what the model gives: logits, translations, greedily and in a beam."""

import copy
import importlib.util
import json
import warnings

import pytest
import torch

from s2s_helpers.data import collate
from s2s_helpers.decoding import beam_search, greedy_decode, translate
from s2s_helpers.files import new_folder
from s2s_helpers.models import Seq2Seq, TransformerSeq2Seq, save_model
from s2s_helpers.production.onnx import OnnxModel, export_onnx, quantize_int8
from s2s_helpers.vocabulary import EOS, Vocabulary

ENGLISH, FRENCH = Vocabulary.numbered(23), Vocabulary.numbered(19)
# What the notebook's model is not: post-norm, with learned positions, and not tied.
SHAPE = dict(
    width=16, heads=2, layers=2, feedforward=12, norm_first=False, positions="learned",
    tie_embeddings=False, max_positions=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and what it became, float32 and int8."""
    for package in "onnx", "onnxscript", "onnxruntime":
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    torch.manual_seed(0)
    model = TransformerSeq2Seq(ENGLISH, FRENCH, **SHAPE).eval()
    folder = tmp_path_factory.mktemp("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(model, folder / "float")
        quantize_int8(folder / "float", folder / "int8")
    return model, OnnxModel(folder / "float"), OnnxModel(folder / "int8"), folder


def a_batch(rows, seed=1, longest=9):
    generator = torch.Generator().manual_seed(seed)

    def sentence(size):
        length = int(torch.randint(1, longest, (), generator=generator))
        return [*torch.randint(4, size, (length,), generator=generator).tolist(), EOS]

    return collate([(sentence(len(ENGLISH)), sentence(len(FRENCH))) for _ in range(rows)])


@pytest.mark.parametrize("rows, longest", [(1, 2), (2, 9), (7, 21)])
def test_the_logits_are_the_model_s(exported, rows, longest):
    model, onnx, int8, _ = exported
    batch = a_batch(rows, rows, longest)
    with torch.no_grad():
        right = model(batch)[0]
    logits, attention = onnx(batch)
    assert attention is None
    torch.testing.assert_close(logits, right, atol=1e-4, rtol=1e-4)
    rounded = int8(batch)[0]
    assert 0 < (rounded - right).abs().max() < 0.15 * right.abs().max()


def test_the_same_hypotheses_greedily_and_in_a_beam(exported):
    model, onnx, _, _ = exported
    batch = a_batch(9)
    for search in greedy_decode, beam_search:
        pairs = zip(search(model, batch.source), search(onnx, batch.source), strict=True)
        for ours, theirs in pairs:
            ours, theirs = (x[0] if isinstance(x, list) else x for x in (ours, theirs))
            assert ours.ids == theirs.ids
            assert abs(ours.log_probability - theirs.log_probability) < 1e-3


def test_translate_takes_it_and_padding_changes_nothing(exported):
    model, onnx, _, _ = exported
    texts = [" ".join(ENGLISH.tokens([4 + n, 5, 6][: 1 + n % 3])) for n in range(12)]
    together = [t.text for t in translate(onnx, texts)]
    assert together == [t.text for t in translate(model, texts)]
    assert together == [translate(onnx, [text])[0].text for text in texts]
    assert onnx.source_vocabulary == ENGLISH and onnx.target_vocabulary == FRENCH


def test_up_to_the_last_position_and_no_further(exported):
    model, onnx, _, _ = exported
    longest = torch.full((1, model.max_positions), 5)
    (ours,), (theirs,) = greedy_decode(model, longest), greedy_decode(onnx, longest)
    assert ours.ids == theirs.ids and len(ours.ids) <= model.max_positions
    with pytest.raises(ValueError, match=f"only {model.max_positions} positions"):
        greedy_decode(onnx, torch.full((1, model.max_positions + 1), 5))
    with pytest.raises(ValueError, match="outside the source vocabulary"):
        greedy_decode(onnx, torch.full((1, 3), 99))


def test_the_model_is_left_as_it_was(exported):
    model, _, _, _ = exported
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_changed_parts_are_exported_and_replaced_methods_refused(exported, tmp_path):
    model = copy.deepcopy(exported[0])
    model.decoder[0].cross.register_forward_hook(lambda module, given, out: (2 * out[0], out[1]))
    onnx, batch = OnnxModel(export_onnx(model, tmp_path / "hooked")), a_batch(2)
    with torch.no_grad():
        right = model(batch)[0]
        assert not torch.allclose(right, exported[0](batch)[0], atol=1e-2)
    torch.testing.assert_close(onnx(batch)[0], right, atol=1e-4, rtol=1e-4)
    model.encode = exported[0].encode
    with pytest.raises(ValueError, match="encode of its own cannot be exported"):
        export_onnx(model, tmp_path / "replaced")


def test_an_exported_model_is_told_from_another(exported, tmp_path):
    _, onnx, int8, folder = exported
    names = {"model.json", "encoder.onnx", "step.onnx", "weights.bin"}
    assert onnx.settings["files"].keys() == int8.settings["files"].keys() == names
    assert onnx.settings != int8.settings
    assert OnnxModel(folder / "float", threads=2).settings == onnx.settings
    with pytest.raises(ValueError, match="could not be loaded"):  # its folder is its file
        save_model(onnx, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_shared_weights_are_stored_once_and_attention_is_given(tmp_path):
    shared, batch = Vocabulary.numbered(6000), a_batch(5)
    model = TransformerSeq2Seq(shared, shared, width=16, heads=2, layers=2, feedforward=12).eval()
    folder = export_onnx(model, tmp_path / "model", attention=True)
    table = 4 * model.output.weight.numel()
    size = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert table < size["weights.bin"] < 1.5 * table
    assert size["encoder.onnx"] < table > size["step.onnx"]
    onnx = OnnxModel(folder)
    with torch.no_grad():
        for found, right in zip(onnx(batch), model(batch), strict=True):
            torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)
    (ours,), (theirs,) = (greedy_decode(each, batch.source[:1]) for each in (model, onnx))
    torch.testing.assert_close(theirs.attention, ours.attention, atol=1e-4, rtol=1e-4)
    (folder / "weights.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights[.]bin in"):
        OnnxModel(folder)


def test_int8_is_smaller(exported):
    folder = exported[3]
    size = {
        name: sum(path.stat().st_size for path in (folder / name).iterdir())
        for name in ("float", "int8")
    }
    assert size["int8"] < size["float"]
    assert json.loads((folder / "int8" / "model.json").read_text("utf-8"))["cache"][1] == 2


def test_what_cannot_be_exported_is_refused(exported, tmp_path):
    model, _, _, folder = exported
    with pytest.raises(TypeError, match="only a TransformerSeq2Seq can be exported, not a Seq2Seq"):
        export_onnx(Seq2Seq(ENGLISH, FRENCH, embedding=4, hidden=4), tmp_path / "rnn")
    with pytest.raises(FileExistsError, match="choose another name"):
        export_onnx(model, folder / "float")
    with pytest.raises(FileNotFoundError, match=r"no model[.]json in .* export_onnx"):
        OnnxModel(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model[.]json"):
        quantize_int8(tmp_path, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "deep" / "x") as scratch:
        (scratch / "half").write_text("")
        raise KeyError
    assert list((tmp_path / "deep").iterdir()) == []
    with new_folder(tmp_path / "deep" / "x") as scratch:
        (scratch / "whole").write_text("")
        assert not (tmp_path / "deep" / "x").exists()
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["x", "whole"]
