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
    Table,
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
    generate,
    greedy_decode,
    largest,
    length_penalty_of,
    most_probable,
    next_log_probabilities,
    sample,
)
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.models import prepacked as packing
from s2s_helpers.models.prepacked import can_pack, packed, prepacked
from s2s_helpers.models.view import eval_view
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
            with torch.inference_mode():
                _, expected = eval_view(model)(Batch(source, source != PAD, target))
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
    model, calls = prepacked(build(kind)), []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *a: calls.append(len(a[0])) or encode(*a))
    batch = padded(sentences())
    beam_search(model, batch.source, batch.source_mask, beam_size=4)
    greedy_decode(model, batch.source, batch.source_mask)
    assert calls == [7, 7], "once a sentence, not once a beam or a step"


def test_finished_sentences_leave_the_batch(kind, monkeypatch):
    model, sizes = prepacked(build(kind, ending=0.0)), []
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
    bare = greedy_decode(model, batch.source, attention=False)
    assert [h.ids for h in bare] == [h.ids for h in full]
    assert all(h.attention is None for h in bare)
    beams = beam_search(model, batch.source, beam_size=3, attention=False)
    again = beam_search(model, batch.source, beam_size=3)
    assert [h[0].ids for h in beams] == [h[0].ids for h in again]
    assert all(h[0].attention is None for h in beams)
    assert (again[0][0].attention is not None) == (kind != "rnn")


def test_a_view_made_once_and_used_often(kind):
    model = build(kind)
    view, batch = prepacked(model), padded(sentences())
    for _ in range(2):
        one, other = greedy_decode(view, batch.source), greedy_decode(model, batch.source)
        assert [h.ids for h in one] == [h.ids for h in other]
    one, other = beam_search(view, batch.source), beam_search(model, batch.source)
    assert [h[0].ids for h in one] == [h[0].ids for h in other]


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


# The two hooks


def no_word_twice(log_p, lines):
    """A `score` that forbids what stands there already; the ids are those of the lines."""
    assert lines.ids.shape == (len(log_p), lines.length) and len(lines.rows) == len(log_p)
    for line, ids in enumerate(lines.ids.tolist()):
        log_p[line, [i for i in ids if i != PAD]] = -math.inf
    return log_p


def test_a_wide_beam_with_a_score_equals_brute_force(kind):
    model, rows = build(kind, seed=3), sentences(3)
    found = beam_search(
        model, padded(rows).source, None, 300, 0.6, max_length=4, n_best=4, score=no_word_twice
    )
    for source_ids, hypotheses in zip(rows, found, strict=True):
        allowed = [
            (score, ids)
            for score, ids in brute_force(model, source_ids, 0.6, max_length=4)
            if len(set(ids)) == len(ids)
        ]
        assert [h.ids for h in hypotheses] == [ids for _, ids in allowed[:4]]
        assert hypotheses[0].score == pytest.approx(allowed[0][0], abs=1e-4)


def test_the_log_probability_stays_the_models_own(kind):
    """Whatever a score adds, it is in `score` alone."""
    dearer = lambda log_p, lines: log_p - 0.25 * (1 + lines.length)  # noqa: E731
    model, rows = build(kind), sentences()
    batch = padded(rows)
    found = beam_search(model, batch.source, None, 3, n_best=3, score=dearer)
    one_each = generate(model, batch.source, score=dearer)
    for source_ids, several, one in zip(rows, found, one_each, strict=True):
        for h in [one, *several]:
            assert h.log_probability == pytest.approx(
                log_probability(model, source_ids, h.ids), abs=1e-4
            )
            added = -0.25 * sum(range(1, len(h.ids) + 1))
            penalty = 1.0 if h is one else length_penalty_of(len(h.ids), 0.6)
            assert h.score == pytest.approx((h.log_probability + added) / penalty, abs=1e-4)
    assert [h.ids for h in one_each] == [h.ids for h in greedy_decode(model, batch.source)]


def test_hooks_see_what_is_written(kind):
    """Rows, ids and a step ahead belong to each line, also when others have left the batch."""
    model, rows, seen = build(kind, seed=1, ending=0.0), sentences(30), []

    def choose(log_p, lines):
        tokens, values = most_probable(log_p, lines)
        logits, _, _ = lines.model.step(tokens, lines.state, lines.memory)
        ahead = next_log_probabilities(logits).argmax(dim=1).tolist()
        seen.append((lines.rows, lines.ids.tolist(), tokens.tolist(), ahead))
        return tokens, values

    found = generate(model, padded(rows).source, choose=choose)
    assert [h.ids for h in found] == [h.ids for h in greedy_decode(model, padded(rows).source)]
    assert len(seen[-1][0]) < len(seen[0][0])
    for length, lines in enumerate(seen):
        for row, ids, token, ahead in zip(*lines, strict=True):
            whole = found[row].ids
            if length < len(whole):
                assert ids == whole[:length] and token == whole[length]
            if length + 1 < len(whole):
                assert ahead == whole[length + 1]


def test_a_beam_shows_its_lines_to_a_score(kind):
    model, rows, seen = build(kind, seed=2, ending=-9.0), sentences(6), []

    def score(log_p, lines):
        for row, ids, log_ps in zip(lines.rows, lines.ids.tolist(), log_p, strict=True):
            if EOS not in ids:
                seen.append((row, ids, log_ps.clone()))
        return log_p

    beam_search(model, padded(rows).source, beam_size=3, max_length=6, score=score)
    assert len({len(ids) for _, ids, _ in seen}) > 2
    for row, ids, log_ps in seen:
        expected = torch.tensor(next_step(model, rows[row], ids))
        torch.testing.assert_close(log_ps[EOS:], expected[EOS:], atol=1e-4, rtol=1e-4)


def test_a_forced_start_is_followed_by_every_search(kind):
    """Lines that a hook leaves nothing are dead, and the search goes on with the others."""
    start = [5, 6, 5]

    def score(log_p, lines):
        if lines.length < len(start):
            log_p[:, [i for i in range(len(TINY)) if i != start[lines.length]]] = -math.inf
        return log_p

    model, batch = build(kind), padded(sentences())
    for (best, *_), one in zip(
        beam_search(model, batch.source, beam_size=4, n_best=4, score=score),
        generate(model, batch.source, score=score), strict=True,
    ):  # fmt: skip
        assert best.ids[:3] == one.ids[:3] == start and math.isfinite(best.score)


def test_hooks_that_leave_nothing_are_said(kind):
    model, batch = build(kind, ending=-9.0), padded(sentences())

    def nothing(log_p, lines):
        at = [line for line, row in enumerate(lines.rows) if row == 2 and lines.length == 1]
        log_p[at] = -math.inf
        return log_p

    with pytest.raises(ValueError, match=r"no token is left to choose for row 2 after \[\d\]"):
        generate(model, batch.source, score=nothing, max_length=5)
    everything = lambda log_p, lines: log_p.fill_(-math.inf)  # noqa: E731
    with pytest.raises(ValueError, match="no token is left to choose for row 0"):
        beam_search(model, batch.source, score=everything)


def test_a_model_that_gives_its_own_parameter_keeps_it():
    """Its logits are no fresh tensor that log-probabilities might take the place of."""
    torch.manual_seed(0)

    class Fixed(Table):
        def step(self, tokens, state, memory):
            return self.logits[: len(tokens)], state, None

    model = Fixed(torch.randn(9, 9))
    before = model.logits.detach().clone()
    greedy_decode(model, padded(sentences(3)).source, max_length=3)
    beam_search(model, padded(sentences(3)).source, max_length=3, beam_size=2)
    assert torch.equal(model.logits, before)


def test_a_hypothesis_may_fill_all_positions():
    """SOS is read, and the last id is not; what was written can be read by `forward`."""
    shape = dict(width=8, heads=2, layers=1, feedforward=12, max_positions=9)
    torch.manual_seed(0)
    model = TransformerSeq2Seq(TINY, TINY, **shape).eval()
    model.output.bias.data[EOS] = -50.0  # never ends by itself
    source = torch.tensor([[4, 5, 6, 5, 4, 5, 6, 5, EOS], [4, EOS, *[PAD] * 7]])
    for max_length in None, 9, 10_000:
        for found in (
            greedy_decode(model, source, max_length=max_length),
            sample(model, source, max_length=max_length),
            [h[0] for h in beam_search(model, source, beam_size=2, max_length=max_length)],
        ):
            assert [len(h.ids) for h in found] == [9, 9]
            assert found[0].log_probability == pytest.approx(
                log_probability(model, source[0].tolist(), found[0].ids), abs=1e-4
            )


# Packed weights


@pytest.mark.parametrize("vnni", ["as it is", "without"])
@pytest.mark.parametrize(("rows", "wide"), [(1, 300), (50, 300), (3, 1500), (90, 1500)])
def test_int8_is_off_by_rounding_alone(rows, wide, vnni, monkeypatch):
    """The bound: half a step of the scale for every weight and every input (of 7 bits, which some
    processors get). Rows of the weights differ a thousandfold."""
    if not can_pack(torch.int8):
        pytest.skip("a build of PyTorch without int8")
    if vnni == "without":
        monkeypatch.setattr(packing, "has_vnni", lambda: False)
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, wide), torch.randn(rows, 24)
    layer.weight.data.mul_(torch.logspace(0, -3, wide)[:, None])
    multiply = packed(layer.weight, layer.bias, torch.int8)
    with torch.no_grad():
        step = layer.weight.abs().amax(dim=1) / 127  # (wide,)
        x_step = (x.max().clamp(min=0) - x.min().clamp(max=0)) / 127
        bound = x.abs().sum(dim=1, keepdim=True) * step + layer.weight.abs().sum(dim=1) * x_step
        bound = bound / 2 + 24 * step * x_step / 4 + 1e-6
        off = (multiply(x) - layer(x)).abs()
    assert (off <= bound).all()
    assert off.max() > 1e-5  # it has been rounded


def test_a_view_in_int8(monkeypatch):
    if not can_pack(torch.int8):
        pytest.skip("a build of PyTorch without int8")
    monkeypatch.setitem(packing.LEAST, torch.int8, 0)
    model, batch = build("transformer", sharpness=1.0), padded(sentences(40))
    exact = greedy_decode(model, batch.source, max_length=1)
    view = prepacked(model, torch.int8)
    rough = greedy_decode(view, batch.source, max_length=1)
    off = [abs(a.score - b.score) for a, b in zip(exact, rough, strict=True)]
    assert 1e-6 < max(off) < 0.05
    assert all(h[0].ids for h in beam_search(view, batch.source, beam_size=4))


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


def test_bad_input_is_named():
    model = build("transformer")
    source = torch.tensor([[4, 5, EOS]])
    for wrong, complaint in (
        (dict(beam_size=0), "beam_size must be at least 1"),
        (dict(beam_size=2, n_best=3), "n_best must lie between 1 and beam_size 2"),
        (dict(length_penalty=-1), "length_penalty must be from 0 to 10"),
        (dict(length_penalty=math.nan), "length_penalty must be from 0 to 10"),
        (dict(length_penalty=math.inf), "length_penalty must be from 0 to 10"),
        (dict(length_penalty=1e3), "length_penalty must be from 0 to 10"),
        (dict(max_length=0), "max_length must be a whole number of at least 1"),
        (dict(max_length=2.5), "max_length must be a whole number of at least 1, got 2.5"),
        (dict(max_length=math.inf), "max_length must be a whole number of at least 1, got inf"),
        (dict(source_mask=torch.ones(1, 2).bool()), "source_mask must be bool and shaped like"),
        (dict(source_mask=torch.zeros(1, 3).bool()), "at least one real token"),
    ):
        with pytest.raises(ValueError, match=complaint):
            beam_search(model, source, **wrong)
    with pytest.raises(ValueError, match="source id 12 is outside"):
        greedy_decode(model, torch.tensor([[12]]))
