"""Greedy decoding and beam search against brute force and plain loops, for every kind of model."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import (
    KINDS,
    TINY,
    brute_force,
    build,
    log_probability,
    next_step,
    padded,
    sentences,
)

from s2s_helpers.data import Batch
from s2s_helpers.decoding import (
    beam_search,
    evaluation,
    greedy_decode,
    largest,
    length_penalty_of,
    next_log_probabilities,
    sample,
    translate,
)
from s2s_helpers.models import prepacked as packing
from s2s_helpers.models.prepacked import packed_layer
from s2s_helpers.training import gains_by_bf16
from s2s_helpers.vocabulary import EOS, PAD, SOS


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_equals_brute_force(kind, alpha):
    model = build(kind, seed=3)
    rows = sentences(3)
    batch = padded(rows)
    found = beam_search(
        model, batch.source, batch.source_mask, beam_size=300, length_penalty=alpha,
        max_length=4, n_best=4,
    )  # fmt: skip
    for source_ids, hypotheses in zip(rows, found, strict=True):
        expected = brute_force(model, source_ids, alpha, max_length=4)[:4]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        for hypothesis, (score, _) in zip(hypotheses, expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)


def reference_beam_search(model, source_ids, beam_size, alpha, max_length):
    """Beam search as a plain loop over one sentence that always runs to the limit."""
    live, finished = [(0.0, [])], []
    for length in range(1, max_length + 1):
        candidates = []
        for total, ids in live:
            for token in range(len(model.target_vocabulary)):
                if token not in (PAD, SOS):
                    new = [*ids, token]
                    candidates.append((total + next_step(model, source_ids, ids)[token], new))
        candidates.sort(key=lambda c: -c[0])
        for rank, (total, ids) in enumerate(candidates[: 2 * beam_size]):
            if ids[-1] == EOS and rank < beam_size:
                finished.append((total / length_penalty_of(length, alpha), ids))
        live = [c for c in candidates[: 2 * beam_size] if c[1][-1] != EOS][:beam_size]
    return max(finished) if finished else None


@pytest.mark.parametrize("beam_size", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_narrow_beam_equals_a_plain_loop_without_early_stop(kind, beam_size, alpha):
    model = build(kind, seed=5, ending=2.0)
    rows = sentences(5)
    batch = padded(rows)
    found = beam_search(model, batch.source, batch.source_mask, beam_size, alpha, max_length=6)
    compared = 0
    for source_ids, hypotheses in zip(rows, found, strict=True):
        expected = reference_beam_search(model, source_ids, beam_size, alpha, max_length=6)
        if expected:
            compared += 1
            assert hypotheses[0].ids == expected[1]
            assert hypotheses[0].score == pytest.approx(expected[0], abs=1e-4)
        else:
            assert not hypotheses[0].finished
    assert compared >= 2, "the models of this test end too rarely to test anything"


def test_the_first_finished_hypothesis_does_not_end_the_search():
    """Under a strong length penalty the best translation is often not the first to end."""
    later = 0
    for seed in range(6):
        model = build("luong", seed=seed)
        batch = padded(sentences(8, seed))
        search = dict(beam_size=4, max_length=10)
        plain = beam_search(model, batch.source, batch.source_mask, length_penalty=0.0, **search)
        long = beam_search(model, batch.source, batch.source_mask, length_penalty=3.0, **search)
        for short, penalised in zip(plain, long, strict=True):
            later += len(penalised[0].ids) > len(short[0].ids)
            rescored = short[0].log_probability / length_penalty_of(len(short[0].ids), 3.0)
            if short[0].finished and penalised[0].finished:
                assert penalised[0].score >= rescored - 1e-5
    assert later >= 3


def test_beam_of_one_is_greedy(kind):
    model = build(kind)
    batch = padded(sentences())
    greedy = greedy_decode(model, batch.source, batch.source_mask)
    # With a length penalty a beam of one may still prefer to go on where greedy ends.
    beams = beam_search(model, batch.source, batch.source_mask, beam_size=1, length_penalty=0)
    assert [h.ids for h in greedy] == [b[0].ids for b in beams]
    assert any(h.finished for h in greedy)


def test_greedy_takes_the_best_token_of_forward_at_every_step(kind):
    model = build(kind, seed=1)
    for source_ids, hypothesis in zip(
        sentences(), greedy_decode(model, padded(sentences()).source), strict=True
    ):
        for place, token in enumerate(hypothesis.ids):
            steps = next_step(model, source_ids, hypothesis.ids[:place])
            allowed = [v if i not in (PAD, SOS) else -1e9 for i, v in enumerate(steps)]
            assert token == max(range(len(allowed)), key=allowed.__getitem__)


def test_log_probabilities_are_the_models_own(kind):
    model = build(kind)
    rows = sentences()
    batch = padded(rows)
    greedy = greedy_decode(model, batch.source, batch.source_mask)
    beams = beam_search(model, batch.source, batch.source_mask, beam_size=3, n_best=3)
    for source_ids, one, several in zip(rows, greedy, beams, strict=True):
        for hypothesis in [one, *several]:
            expected = log_probability(model, source_ids, hypothesis.ids)
            assert hypothesis.log_probability == pytest.approx(expected, abs=1e-4)
        for hypothesis in several:
            penalty = length_penalty_of(len(hypothesis.ids), 0.6)
            assert hypothesis.score == pytest.approx(hypothesis.log_probability / penalty)


def test_length_penalty_is_the_papers():
    assert length_penalty_of(1, 0.6) == 1.0
    assert length_penalty_of(7, 1.0) == 2.0
    assert length_penalty_of(20, 0.0) == 1.0
    assert length_penalty_of(13, 0.5) == pytest.approx(3**0.5)


def test_n_best_are_distinct_and_sorted(kind):
    model = build(kind, seed=2)
    batch = padded(sentences())
    for hypotheses in beam_search(model, batch.source, beam_size=5, n_best=5):
        ids = [tuple(h.ids) for h in hypotheses]
        assert len(set(ids)) == len(ids) >= 1
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert not any(EOS in h.ids[:-1] or PAD in h.ids or SOS in h.ids for h in hypotheses)


def test_a_result_does_not_depend_on_its_batch(kind):
    model = build(kind, seed=4)
    rows = sentences(9)
    batch = padded(rows)
    together = [h[0] for h in beam_search(model, batch.source, batch.source_mask, beam_size=3)]
    greedy = greedy_decode(model, batch.source, batch.source_mask)
    for row, ids in enumerate(rows):
        alone = padded([ids]).source
        for other, one in (
            (together[row], beam_search(model, alone, beam_size=3)[0][0]),
            (greedy[row], greedy_decode(model, alone)[0]),
        ):
            assert one.ids == other.ids
            assert one.score == pytest.approx(other.score, abs=1e-4)
            if one.attention is not None:
                torch.testing.assert_close(one.attention, other.attention, atol=1e-5, rtol=1e-4)


def test_attention_belongs_to_the_hypothesis(kind):
    """The rows a beam hands back equal those of the teacher-forced pass over the same ids."""
    model = build(kind, seed=6)
    rows = sentences()
    batch = padded(rows)
    found = beam_search(model, batch.source, batch.source_mask, beam_size=4, n_best=2)
    greedy = greedy_decode(model, batch.source, batch.source_mask)
    for source_ids, several, one in zip(rows, found, greedy, strict=True):
        for hypothesis in [*several, one]:
            source = torch.tensor([source_ids])
            target = torch.tensor([[SOS, *hypothesis.ids]])
            with evaluation(model):
                _, expected = model(Batch(source, source != PAD, target))
            if expected is None:
                assert hypothesis.attention is None
            else:
                torch.testing.assert_close(
                    hypothesis.attention, expected[0].clone(), atol=1e-5, rtol=1e-4
                )


def test_the_limit_holds(kind):
    model = build(kind, ending=-1.0)
    batch = padded(sentences())
    for found in (
        greedy_decode(model, batch.source, max_length=3),
        [h[0] for h in beam_search(model, batch.source, beam_size=2, max_length=3)],
    ):
        assert all(1 <= len(h.ids) <= 3 for h in found)
        assert any(not h.finished for h in found)
    for row, hypothesis in enumerate(greedy_decode(model, batch.source)):
        assert len(hypothesis.ids) <= 2 * int(batch.source_mask[row].sum()) + 10
    # A short sentence among long ones stays in the batch past its limit, and must not go on.
    short = [4, EOS]
    mixed = padded([short] + [[5, 6, 7, 8, 9, 10, EOS]] * 14).source
    for seed, ending in itertools.product(range(5), (-4.0, -1.0)):
        model = build(kind, seed=seed, ending=ending)
        for decode in greedy_decode, lambda *a: [h[0] for h in beam_search(*a, beam_size=3)]:
            together, alone = decode(model, mixed)[0], decode(model, padded([short]).source)[0]
            assert together.ids == alone.ids
            assert together.finished or len(together.ids) == 14


def test_decoding_evaluates_and_puts_training_mode_back(kind):
    model = build(kind).train()
    batch = padded(sentences())
    first = greedy_decode(model, batch.source)
    assert model.training
    assert [h.ids for h in greedy_decode(model, batch.source)] == [h.ids for h in first]
    assert [h.ids for h in greedy_decode(model.eval(), batch.source)] == [h.ids for h in first]
    beams = beam_search(model.train(), batch.source, beam_size=2)
    again = beam_search(model.eval(), batch.source, beam_size=2)
    assert [h[0].ids for h in beams] == [h[0].ids for h in again]


def test_the_source_is_encoded_once(kind, monkeypatch):
    model, calls = build(kind).for_decoding(), []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *a: calls.append(len(a[0])) or encode(*a))
    batch = padded(sentences())
    beam_search(model, batch.source, batch.source_mask, beam_size=4)
    greedy_decode(model, batch.source, batch.source_mask)
    assert calls == [7, 7], "once a sentence, not once a beam or a step"


def test_finished_sentences_leave_the_batch(kind, monkeypatch):
    model, sizes = build(kind, ending=0.0).for_decoding(), []
    step = model.step
    monkeypatch.setattr(model, "step", lambda *a: sizes.append(len(a[0])) or step(*a))
    # Of up to seven sentences none stays that has nothing more to write.
    greedy = greedy_decode(model, padded(sentences()).source)
    assert sum(sizes) == sum(len(h.ids) for h in greedy)
    # Of many a few may stay, an eighth at most.
    del sizes[:]
    greedy = greedy_decode(model, padded(sentences(60)).source)
    lengths = [len(h.ids) for h in greedy]
    for done, size in enumerate(sizes):
        going = sum(length > done for length in lengths)
        assert going <= size <= max(going, going * 8 / 7)
    assert sizes[-1] < sizes[0]
    del sizes[:]
    beam_search(model, padded(sentences(60)).source, beam_size=2)
    assert sizes[0] == 60 and sizes[1] == 120 and sizes[-1] < 120


@given(
    st.integers(1, 6),
    st.integers(1, 5000) | st.integers(4000, 9000),
    st.integers(1, 9),
    st.integers(0, 3),
    st.randoms(),
)
@settings(max_examples=200, deadline=None)
def test_largest_equals_topk(rows, size, k, ties, chance):
    torch.manual_seed(chance.randrange(10**6))
    numbers = torch.randn(rows, size)
    numbers[:, -1] += 3  # the last group may be a short one
    if ties:  # few different numbers, or -inf
        numbers = (numbers * ties).round()
        numbers[:, : size // 2] = float("-inf")
    values, places = largest(numbers, k)
    assert values.shape == places.shape == (rows, k)
    expected = numbers.topk(min(k, size)).values
    assert torch.equal(values[:, : expected.shape[1]], expected)
    assert (values[:, size:] == float("-inf")).all()
    assert torch.equal(numbers.gather(1, places)[:, :size], values[:, :size])
    for row in places[:, :size].tolist():
        assert len(set(row)) == len(row)


def test_what_is_spared_is_not_there(kind):
    model, batch = build(kind), padded(sentences())
    full = greedy_decode(model, batch.source)
    bare = greedy_decode(model, batch.source, attention=False, scores=False)
    assert [h.ids for h in bare] == [h.ids for h in full]
    assert all(h.attention is None and math.isnan(h.log_probability) for h in bare)
    beams = beam_search(model, batch.source, beam_size=3, attention=False)
    again = beam_search(model, batch.source, beam_size=3)
    assert [h[0].ids for h in beams] == [h[0].ids for h in again]
    assert all(h[0].attention is None for h in beams)
    assert (again[0][0].attention is not None) == (kind != "rnn")
    texts = translate(model, ["w4 w5", "w6"], attention=False)
    assert texts[0].attention is None and texts[0].text == translate(model, ["w4 w5"])[0].text


def test_prepared_once_and_used_often(kind):
    model = build(kind)
    ready, batch = model.for_decoding(), padded(sentences())
    for _ in range(2):
        one, other = greedy_decode(ready, batch.source), greedy_decode(model, batch.source)
        assert [h.ids for h in one] == [h.ids for h in other]
    texts = ["w4 w5", "w6", "w7 w4 w4 w8"]
    one, other = (translate(decoder, texts, beam_size=2) for decoder in (ready, model))
    assert [t.text for t in one] == [t.text for t in other]


def test_a_model_that_does_not_share_memory_has_a_row_for_each_line(kind):
    """Whoever writes a model need not know of beams."""
    model, batch = build(kind), padded(sentences(20))
    expected = beam_search(model, batch.source, beam_size=3)

    class Plain(type(model)):
        shares_memory = False

        def step(self, tokens, state, memory):
            assert len(tokens) == len(memory.mask)
            return super().step(tokens, state, memory)

    model.__class__ = Plain
    found = beam_search(model, batch.source, beam_size=3)
    assert [h[0].ids for h in found] == [h[0].ids for h in expected]


# Sampling


def one_step(model, batch, number):
    """How often each token came first in `number` samples, and the model's own probabilities."""
    source = batch.source[:1].expand(number, -1)
    with evaluation(model):
        logits, _ = model(Batch(batch.source[:1], batch.source_mask[:1], torch.tensor([[SOS, 4]])))
    log_p = logits[0, 0].log_softmax(-1)
    return source, log_p


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.6},
     {"top_k": 4, "top_p": 0.8, "temperature": 1.5}],
    ids=str,
)  # fmt: skip
def test_samples_have_the_distribution_they_should(options):
    model, number = build("bahdanau", seed=2, sharpness=1.5), 4000
    source, log_p = one_step(model, padded(sentences()), number)
    allowed = [i for i in range(len(TINY)) if i not in (PAD, SOS)]
    p = {i: math.exp(float(log_p[i]) / options.get("temperature", 1.0)) for i in allowed}
    ranked = sorted(allowed, key=lambda i: -p[i])[: options.get("top_k", len(allowed))]
    total = sum(p[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if mass < options.get("top_p", 1.0):
            kept.append(i)
        mass += p[i] / total
    total = sum(p[i] for i in kept)
    found = sample(model, source, max_length=1, **options)
    for i in allowed:
        share = sum(h.ids[0] == i for h in found) / number
        expected = p[i] / total if i in kept else 0.0
        tolerance = 4 * math.sqrt(expected * (1 - expected) / number) + 1e-9
        assert share == pytest.approx(expected, abs=tolerance)
    for h in found[:20]:
        assert h.log_probability == pytest.approx(float(log_p[h.ids[0]]), abs=1e-4)


def test_a_cold_sample_is_greedy_and_a_row_draws_its_own_luck(kind):
    model, batch = build(kind), padded(sentences())
    cold = sample(model, batch.source, temperature=1e-4)
    assert [h.ids for h in cold] == [h.ids for h in greedy_decode(model, batch.source)]
    together = sample(model, batch.source, temperature=1.5, seed=7)
    assert [h.ids for h in together] != [h.ids for h in cold]
    for row, hypothesis in enumerate(together):
        alone = batch.source[row : row + 1, : int(batch.source_mask[row].sum())]
        assert sample(model, alone, temperature=1.5, seed=7 + row)[0].ids == hypothesis.ids
        assert sample(model, alone, temperature=1.5, seed=[7 + row])[0].ids == hypothesis.ids


# Packed weights


@pytest.mark.parametrize("rows", [1, 4, 50])
def test_packed_weights_multiply_alike(rows):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 300), torch.randn(rows, 24)
    multiply = packed_layer(layer)
    if multiply is not None:  # a build of PyTorch without oneDNN has none
        torch.testing.assert_close(multiply(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("vnni", ["as it is", "without"])
@pytest.mark.parametrize(("rows", "wide"), [(1, 300), (50, 300), (3, 1500), (90, 1500)])
def test_int8_is_off_by_rounding_alone(rows, wide, vnni, monkeypatch):
    """The bound: half a step of the scale for every weight and every input (of 7 bits, which some
    processors get). Rows of the weights differ a thousandfold."""
    if vnni == "without":
        monkeypatch.setattr(packing, "has_vnni", lambda: False)
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, wide), torch.randn(rows, 24)
    layer.weight.data.mul_(torch.logspace(0, -3, wide)[:, None])
    multiply = packed_layer(layer, torch.int8)
    if multiply is None:
        pytest.skip("a build of PyTorch without int8")
    with torch.no_grad():
        step = layer.weight.abs().amax(dim=1) / 127  # (wide,)
        x_step = (x.max().clamp(min=0) - x.min().clamp(max=0)) / 127
        bound = x.abs().sum(dim=1, keepdim=True) * step + layer.weight.abs().sum(dim=1) * x_step
        bound = bound / 2 + 24 * step * x_step / 4 + 1e-6
        off = (multiply(x) - layer(x)).abs()
    assert (off <= bound).all()
    assert off.max() > 1e-5  # it has been rounded


def test_a_twin_in_int8(monkeypatch):
    model, batch = build("transformer", sharpness=1.0), padded(sentences(40))
    exact = greedy_decode(model, batch.source, max_length=1)
    twin = model.for_decoding(dtype=torch.int8)
    rough = greedy_decode(twin, batch.source, max_length=1)
    off = [abs(a.score - b.score) for a, b in zip(exact, rough, strict=True)]
    assert max(off) < 0.05
    assert max(off) > 1e-6 or packed_layer(model.output, torch.int8) is None
    assert all(h[0].ids for h in beam_search(twin, batch.source, beam_size=4))
    with pytest.raises(ValueError, match="float32, bfloat16 or int8"):
        model.for_decoding(dtype=torch.int32)

    def missing(*inputs):
        raise RuntimeError("Didn't find engine")

    before = torch.backends.quantized.engine
    monkeypatch.setattr(packing, "in_int8", missing)
    plain = greedy_decode(model.for_decoding(dtype=torch.int8), batch.source)
    assert [h.ids for h in plain] == [h.ids for h in greedy_decode(model, batch.source)]
    assert torch.backends.quantized.engine == before


def test_while_decoding_log_probabilities_take_the_place_of_the_logits():
    logits = torch.randn(5, 300)
    expected = logits.log_softmax(dim=1)
    before = logits.clone()
    torch.testing.assert_close(next_log_probabilities(logits)[:, EOS:], expected[:, EOS:])
    assert torch.equal(logits, before)
    with torch.inference_mode():
        inside = before.clone()
        found = next_log_probabilities(inside)
    assert found.data_ptr() == inside.data_ptr()
    torch.testing.assert_close(found[:, EOS:], expected[:, EOS:])
    assert (found[:, [PAD, SOS]] == float("-inf")).all()


def test_without_packing_the_plain_layer_decodes(kind, monkeypatch):
    model, batch = build(kind), padded(sentences())
    before = beam_search(model, batch.source, beam_size=3)
    asked = []
    monkeypatch.setattr(packing, "packed", lambda *a: asked.append(a))
    after = beam_search(model, batch.source, beam_size=3)
    assert asked and [h[0].ids for h in before] == [h[0].ids for h in after]
    monkeypatch.undo()

    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("not in this build")

    monkeypatch.setattr(torch.ops, "mkldnn", Broken())
    assert packed_layer(model.output_layer) is None
    after = beam_search(model, batch.source, beam_size=3)
    assert [h[0].ids for h in before] == [h[0].ids for h in after]
    assert "forward" not in vars(model.output_layer)


def test_bfloat16_under_autocast_stays_close(kind):
    if not gains_by_bf16() and kind != "transformer":
        pytest.skip("on this processor torch has no LSTM in bfloat16")
    model, batch = build(kind, sharpness=1.0), padded(sentences(40))
    exact = greedy_decode(model, batch.source, max_length=1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = greedy_decode(model, batch.source, max_length=1)
        beams = beam_search(model, batch.source, beam_size=4)
    off = [abs(a.score - b.score) for a, b in zip(exact, rough, strict=True)]
    assert max(off) < 0.05
    assert max(off) > 1e-6 or not gains_by_bf16()  # float32 takes its place
    assert all(h[0].ids for h in beams)


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


def test_bad_input_is_named():
    model = build("transformer")
    source = torch.tensor([[4, 5, EOS]])
    for wrong, complaint in (
        (dict(beam_size=0), "beam_size must be at least 1"),
        (dict(beam_size=2, n_best=3), "n_best must lie between 1 and beam_size 2"),
        (dict(length_penalty=-1), "length_penalty must not be negative"),
        (dict(max_length=0), "max_length must be at least 1"),
        (dict(source_mask=torch.ones(1, 2).bool()), "source_mask must be bool and shaped like"),
        (dict(source_mask=torch.zeros(1, 3).bool()), "at least one real token"),
    ):
        with pytest.raises(ValueError, match=complaint):
            beam_search(model, source, **wrong)
    with pytest.raises(ValueError, match="source id 12 is outside"):
        greedy_decode(model, torch.tensor([[12]]))
    with pytest.raises(ValueError, match="sentence 1, '  '"):
        translate(model, ["w4", "  "])
    with pytest.raises(ValueError, match="sentence 0 has 301 tokens"):
        translate(model, ["w4 " * 300])
    with pytest.raises(TypeError, match="list of texts"):
        translate(model, "w4 w5")
    with pytest.raises(ValueError, match="beam_size"):
        translate(model, ["w4"], beam_size=0)
    for wrong, complaint in (
        (dict(temperature=0), "temperature must be above 0, got 0"),
        (dict(top_k=0), "top_k must be at least 1"),
        (dict(top_p=1.5), "top_p must be above 0 and at most 1"),
        (dict(seed=[1, 2]), "1 rows need as many seeds, got 2"),
    ):
        with pytest.raises(ValueError, match=complaint):
            sample(model, source, **wrong)
