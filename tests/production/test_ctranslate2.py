"""A model in CTranslate2 writes what the model writes: ids and scores, greedily and in a beam."""

import copy
import importlib.util
import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

if importlib.util.find_spec("ctranslate2") is None:
    pytest.skip("ctranslate2 is not installed", allow_module_level=True)

from toy_models import learn_to_copy, log_probability

from s2s_helpers.data import collate
from s2s_helpers.decoding import beam_search, greedy_decode, translate, translate_file
from s2s_helpers.models import Seq2Seq, TransformerSeq2Seq
from s2s_helpers.production.ctranslate2 import CTranslate2Model, export_ctranslate2
from s2s_helpers.vocabulary import EOS, PAD, SOS, Vocabulary

WORDS, MORE = Vocabulary.numbered(19), Vocabulary.numbered(23)
SHAPES = {
    "pre-norm, sinusoidal, one table": dict(),
    "post-norm, learned, untied": dict(
        norm_first=False, positions="learned", tie_embeddings=False, heads=4
    ),
    "no positions": dict(positions="none", layers=1),
    "two vocabularies": dict(source=MORE),
}
TEXTS = [" ".join(WORDS.tokens([4 + n % 15, 6, 7, 8][: 1 + n % 4])) for n in range(30)]


def a_model(seed=0, steps=150, source=WORDS, **changes):
    """A transformer that has learned a little of copying (0 steps: nothing at all)."""
    torch.manual_seed(seed)
    shape = dict(width=16, heads=2, layers=2, feedforward=12, max_positions=40, dropout=0.0)
    return learn_to_copy(TransformerSeq2Seq(source, WORDS, **shape | changes), steps)


@pytest.fixture(scope="module")
def model():
    return a_model()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """One model in float32 and in int8."""
    folder = tmp_path_factory.mktemp("ctranslate2")
    before = copy.deepcopy(model.state_dict())
    for kind in "float32", "int8":
        export_ctranslate2(model, folder / kind, kind)
    same = [torch.equal(value, before[name]) for name, value in model.state_dict().items()]
    assert all(same)  # though rounding is done in place
    return CTranslate2Model(folder / "float32"), CTranslate2Model(folder / "int8"), folder


def a_batch(rows, seed=1, longest=9):
    generator = torch.Generator().manual_seed(seed)
    ids = [
        torch.randint(4, 19, (1 + n % longest,), generator=generator).tolist() for n in range(rows)
    ]
    return collate([([*row, EOS], None) for row in ids])


def assert_alike(found, expected, atol=1e-3):
    for theirs, ours in zip(found, expected, strict=True):
        ours = ours if isinstance(ours, list) else [ours]
        assert [one.ids for one in theirs] == [one.ids for one in ours]
        for one, other in zip(theirs, ours, strict=True):
            assert abs(one.log_probability - other.log_probability) < atol
            assert abs(one.score - other.score) < atol


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_hypotheses_and_scores(tmp_path, shape):
    model = a_model(3, **SHAPES[shape])
    runtime = CTranslate2Model(export_ctranslate2(model, tmp_path / "model"))
    batch = a_batch(20)
    found = runtime.own_search(1, 0.6, None)(runtime, batch.source, batch.source_mask)
    assert_alike(found, greedy_decode(model, batch.source, batch.source_mask))
    assert len({len(one[0].ids) for one in found}) > 2  # or nothing would be told apart
    for alpha, n_best in (0.0, 1), (0.6, 1), (0.6, 4), (1.0, 2):
        found = runtime.own_search(4, alpha, n_best)(runtime, batch.source, batch.source_mask)
        expected = beam_search(model, batch.source, None, 4, alpha, n_best=n_best)
        assert_alike(found, expected)


def test_translate_takes_it_with_its_vocabularies(model, exported, tmp_path):
    runtime, _, folder = exported
    for settings in {}, {"beam_size": 3}, {"beam_size": 3, "max_length": 6, "n_best": 2}:
        ours, theirs = (translate(each, TEXTS, **settings) for each in (model, runtime))
        for one, other in zip(ours, theirs, strict=True):
            one, other = (x[0] if isinstance(x, list) else x for x in (one, other))
            assert (one.text, one.finished) == (other.text, other.finished)
            assert one.source_tokens == other.source_tokens and one.tokens == other.tokens
            assert other.attention is None
    assert runtime.source_vocabulary == runtime.target_vocabulary == WORDS
    (tmp_path / "in").write_text("\n".join(TEXTS) + "\n", "utf-8")
    translate_file(runtime, tmp_path / "in", tmp_path / "out", progress=False)
    right = [one.text for one in translate(model, TEXTS)]
    assert (tmp_path / "out").read_text("utf-8").split("\n")[:-1] == right
    in_parts = translate(CTranslate2Model(folder / "float32", threads=2), TEXTS)
    assert [one.text for one in in_parts] == right


def test_each_row_has_its_own_limit(tmp_path):
    model, batch = a_model(5, 0), a_batch(9)
    with torch.no_grad():
        model.output.bias[EOS] = -1e4  # it never ends
    runtime = CTranslate2Model(export_ctranslate2(model, tmp_path / "model"))
    for beam in 1, 3:
        found = runtime.own_search(beam, 0.6, 1)(runtime, batch.source, batch.source_mask)
        lengths = [len(one[0].ids) for one in found]
        assert lengths == (2 * batch.source_mask.sum(1) + 10).tolist()
        assert not any(one[0].finished for one in found)
    assert_alike(runtime.own_search(1, 0.6, 1)(runtime, batch.source, None),
                 greedy_decode(model, batch.source))  # fmt: skip
    limited = runtime.own_search(1, 0.6, 1)(runtime, batch.source, None, max_length=3)
    assert {len(one[0].ids) for one in limited} == {3}


@pytest.mark.parametrize("token", [PAD, SOS])
def test_pad_and_sos_are_never_written(tmp_path, token):
    model, batch = a_model(6, 0), a_batch(9)
    with torch.no_grad():
        model.output.bias[token] = 4.0
    runtime = CTranslate2Model(export_ctranslate2(model, tmp_path / "model"))
    for beam, n_best in (1, 1), (3, 1), (3, 3):
        found = runtime.own_search(beam, 0.0, n_best)(runtime, batch.source, batch.source_mask)
        assert not any(token in one.ids for hypotheses in found for one in hypotheses)
        for row, some in enumerate(found):
            ids = batch.source[row][batch.source_mask[row]].tolist()
            right = [log_probability(model, ids, one.ids) for one in some]
            assert [one.log_probability for one in some] == pytest.approx(right, abs=1e-3)
        if beam == 1:
            assert_alike(found, greedy_decode(model, batch.source))


def test_up_to_the_last_position_and_no_further(model, exported):
    runtime = exported[0]
    longest = torch.full((1, model.max_positions), 5)
    search = runtime.own_search(1, 0.6, None)
    assert_alike(search(runtime, longest), greedy_decode(model, longest))
    with pytest.raises(ValueError, match=f"only {model.max_positions} positions"):
        search(runtime, torch.full((1, model.max_positions + 1), 5))
    with pytest.raises(ValueError, match="outside the source vocabulary"):
        search(runtime, torch.full((1, 3), 99))
    with pytest.raises(ValueError, match=f"only {model.max_positions} positions"):
        translate(runtime, [" ".join(["5"] * 50)])


def test_int8_is_near_and_smaller(model, exported):
    float32, int8, folder = exported
    batch = a_batch(20)
    right, rounded = (
        torch.tensor([one[0].log_probability for one in
                      each.own_search(1, 0.6, 1)(each, batch.source, None, max_length=1)])
        for each in (float32, int8)
    )  # fmt: skip
    assert 1e-4 < (right - rounded).abs().max() < 0.1
    size = {kind: (folder / kind / "model.bin").stat().st_size for kind in ("float32", "int8")}
    assert size["int8"] < 0.6 * size["float32"]  # positions and norms stay float32
    assert CTranslate2Model(folder / "int8").settings == int8.settings != float32.settings
    assert CTranslate2Model(folder / "float32", compute_type="int8").settings != float32.settings


def hooked(model):
    model.decoder[0].cross.register_forward_hook(lambda module, given, out: (2 * out[0], out[1]))
    return r"decoder\.0\.cross"


def replaced(model):
    model.encode = model.encode
    return "the model"


def another_activation(model):
    model.encoder[1].feedforward[1] = nn.GELU()
    return r"encoder\.1\.feedforward\.1"


def parametrised(model):
    parametrizations.weight_norm(model.output)
    return "output"


@pytest.mark.parametrize("change", [hooked, replaced, another_activation, parametrised])
def test_a_changed_part_is_refused_by_name(change, tmp_path):
    model = a_model(steps=0)
    name = change(model)
    with pytest.raises(ValueError, match=f"^{name}.* was changed: CTranslate2 has the layers"):
        export_ctranslate2(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_said(model, exported, tmp_path):
    runtime, _, folder = exported
    with pytest.raises(TypeError, match=r"only a TransformerSeq2Seq .* not a Seq2Seq"):
        export_ctranslate2(Seq2Seq(WORDS, WORDS), tmp_path / "rnn")
    with pytest.raises(ValueError, match=r"compute_type must be one of .*float32.* got 'int4'"):
        export_ctranslate2(model, tmp_path / "model", "int4")
    with pytest.raises(FileExistsError):
        export_ctranslate2(model, folder / "float32")
    with pytest.raises(FileNotFoundError, match=r"no model\.bin in .*: use export_ctranslate2"):
        CTranslate2Model(tmp_path)
    with pytest.raises(ValueError, match="compute_type must be one of"):
        CTranslate2Model(folder / "float32", compute_type="int4")
    with pytest.raises(ValueError, match="n_best must lie between 1 and beam_size 2, got 3"):
        translate(runtime, TEXTS, beam_size=2, n_best=3)
    with pytest.raises(ValueError, match="length_penalty must be from 0 to 10"):
        translate(runtime, TEXTS, beam_size=2, length_penalty=-1)
    with pytest.raises(NotImplementedError):  # single steps, which a search of one's own wants
        translate(runtime, TEXTS, search=greedy_decode)


def test_the_search_is_called_as_ours_are(exported):
    given = inspect.signature(exported[0].own_search(1, 0.6, 1)).parameters
    assert list(given) == ["model", "source", "source_mask", "max_length", "attention"]
