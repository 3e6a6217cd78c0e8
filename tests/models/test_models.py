"""Every model has the four methods, ignores padding, and agrees with torch's own modules."""

import os

import pytest
import torch
from torch import nn

from s2s_helpers.data import Batch, collate
from s2s_helpers.models import (
    AttentionDecoder,
    AttentionSeq2Seq,
    BahdanauAttention,
    Bridge,
    Encoder,
    LuongAttention,
    MultiHeadAttention,
    Seq2Seq,
    Seq2SeqModel,
    TransformerSeq2Seq,
    load_model,
    save_model,
)
from s2s_helpers.models.attention import masked_softmax
from s2s_helpers.models.interface import unroll
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.models.transformer import (
    DecoderLayer,
    EncoderLayer,
    Residual,
    additive,
    causal_mask,
    scaled_dot_product_attention,
    sinusoidal_positions,
)
from s2s_helpers.vocabulary import EOS, SOS, Vocabulary

ENGLISH, FRENCH = Vocabulary.numbered(23), Vocabulary.numbered(19)
RNN = dict(embedding=6, hidden=8)
MODELS = {
    "rnn-lstm": (Seq2Seq, RNN),
    "rnn-gru-2": (Seq2Seq, dict(RNN, cell="gru", layers=2)),
    "rnn-forward": (Seq2Seq, dict(RNN, bidirectional=False, layers=2)),
    "bahdanau": (AttentionSeq2Seq, RNN),
    "bahdanau-gru-2": (AttentionSeq2Seq, dict(RNN, cell="gru", layers=2)),
    "luong-dot": (AttentionSeq2Seq, dict(RNN, attention="luong", score="dot")),
    "luong-general": (AttentionSeq2Seq, dict(RNN, attention="luong", layers=2)),
    "luong-concat": (AttentionSeq2Seq, dict(RNN, attention="luong", score="concat", cell="gru")),
    "luong-unfed": (AttentionSeq2Seq, dict(RNN, attention="luong", input_feeding=False)),
    "transformer": (TransformerSeq2Seq, dict(width=8, heads=2, layers=2, feedforward=12)),
    "transformer-post": (
        TransformerSeq2Seq,
        dict(width=8, heads=2, layers=2, feedforward=12, norm_first=False, positions="learned"),
    ),
    "transformer-untied": (
        TransformerSeq2Seq,
        dict(width=8, heads=4, layers=1, feedforward=12, tie_embeddings=False, positions="none"),
    ),
}


def build(name, seed=0):
    torch.manual_seed(seed)
    kind, settings = MODELS[name]
    return kind(ENGLISH, FRENCH, **settings).eval()


def mixed_batch(seed=1, rows=6):
    """Sentences of mixed lengths, so that most rows hold padding on both sides."""
    generator = torch.Generator().manual_seed(seed)

    def sentence(size):
        length = int(torch.randint(1, 8, (), generator=generator))
        return [*torch.randint(4, size, (length,), generator=generator).tolist(), EOS]

    return collate([(sentence(len(ENGLISH)), sentence(len(FRENCH))) for _ in range(rows)])


@pytest.fixture(params=MODELS)
def model(request):
    return build(request.param)


def test_forward_gives_logits_and_attention_that_sums_to_one(model):
    batch = mixed_batch()
    logits, attention = model(batch)
    assert logits.shape == (*batch.target_output.shape, len(FRENCH))
    if isinstance(model, Seq2Seq):
        assert attention is None
        return
    assert attention.shape[-2:] == (batch.target_output.shape[1], batch.source.shape[1])
    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    padding = ~batch.source_mask
    padding = padding.view(len(batch), *[1] * (attention.dim() - 2), -1).expand_as(attention)
    assert (attention[padding] == 0).all()


def test_forward_is_the_output_layer_on_the_features(model):
    batch = mixed_batch()
    logits, attention = model(batch)
    features, layer, weights = model.features(batch)
    assert features.shape == (*batch.target_output.shape, layer.in_features)
    expected = features @ layer.weight.T + layer.bias
    torch.testing.assert_close(expected, logits, atol=1e-5, rtol=1e-5)
    assert attention is weights is None or torch.equal(attention, weights)


def test_a_model_of_three_methods_unrolls():
    class Three(Seq2SeqModel):
        def __init__(self, inner):
            super().__init__(ENGLISH, FRENCH)
            self.encode, self.start, self.step = inner.encode, inner.start, inner.step

    inner, batch = build("bahdanau"), mixed_batch()
    torch.testing.assert_close(Three(inner)(batch)[0], inner(batch)[0], atol=1e-5, rtol=1e-5)


def test_step_and_forward_agree(model):
    batch = mixed_batch()
    logits, attention = model(batch)
    stepped, looks = unroll(model, batch)
    torch.testing.assert_close(stepped, logits, atol=1e-5, rtol=1e-5)
    if attention is not None:
        torch.testing.assert_close(looks, attention, atol=1e-5, rtol=1e-5)


def test_a_sentence_gets_the_same_alone_and_in_a_padded_batch(model):
    batch = mixed_batch()
    logits, attention = model(batch)
    for row in range(len(batch)):
        source = batch.source[row : row + 1, : int(batch.source_mask[row].sum())]
        target = batch.target[row : row + 1, : int(batch.target_mask[row].sum()) + 1]
        alone, look = model(Batch(source, source != 0, target))
        time = target.shape[1] - 1
        torch.testing.assert_close(alone[0], logits[row, :time], atol=1e-5, rtol=1e-5)
        if look is not None:
            padded = attention[row][..., :time, : source.shape[1]]
            torch.testing.assert_close(look[0], padded, atol=1e-5, rtol=1e-5)


def test_a_later_target_token_changes_nothing_before_it(model):
    batch = mixed_batch()
    changed = batch.target.clone()
    changed[:, 3:] = torch.where(changed[:, 3:] > 4, changed[:, 3:] - 1, changed[:, 3:])
    assert (changed != batch.target).any()
    before, _ = model(batch)
    after, _ = model(Batch(batch.source, batch.source_mask, changed))
    torch.testing.assert_close(after[:, :3], before[:, :3], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(after[:, 3:], before[:, 3:])


def test_every_source_token_matters(model):
    batch = mixed_batch(rows=1)
    logits, _ = model(batch)
    for place in range(batch.source.shape[1]):
        source = batch.source.clone()
        source[0, place] = 4 if int(source[0, place]) != 4 else 5
        other, _ = model(Batch(source, batch.source_mask, batch.target))
        assert not torch.allclose(other, logits, atol=1e-6)


def test_every_parameter_gets_a_gradient(model):
    model.train()
    logits, _ = model(mixed_batch(rows=12))
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        # A softmax does not see what is added to all its scores.
        if "key.bias" not in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_memory_and_state_select_rows(model):
    batch = mixed_batch()
    rows = torch.tensor([4, 0, 0, 2])
    memory = model.encode(batch.source, batch.source_mask)
    _, state, _ = model.step(batch.target[:, 0], model.start(memory), memory)
    expected, _, _ = model.step(batch.target[:, 1], state, memory)
    picked, _, _ = model.step(batch.target[rows, 1], state.select(rows), memory.select(rows))
    torch.testing.assert_close(picked, expected[rows], atol=1e-6, rtol=1e-6)


def test_beams_share_the_memory_of_their_sentence(model):
    """Three steps of lines that change places, against the teacher-forced pass over what each line
    has read by then; for the model and for what decodes in its place."""
    batch, generator = mixed_batch(rows=4), torch.Generator().manual_seed(1)
    for decoder in (model, prepacked(model)):
        memory = decoder.encode(batch.source, batch.source_mask)
        state, lines, read = decoder.start(memory), torch.arange(4), torch.empty(4, 0).long()
        beams = 1
        for parents in (1, 3, 3, 2):
            places = torch.randint(beams, (len(lines) // beams, parents), generator=generator)
            picked = (torch.arange(0, len(lines), beams)[:, None] + places).flatten()
            state, read, beams = state.select(picked, parents), read[picked], parents
            lines = torch.arange(4).repeat_interleave(beams)
            tokens = torch.randint(4, len(FRENCH), (len(lines),), generator=generator)
            read = torch.cat([read, tokens[:, None]], dim=1)
            with torch.no_grad():
                logits, state, looks = decoder.step(tokens, state, memory)
                target = torch.cat([read, torch.full_like(read[:, :1], EOS)], dim=1)
                rows = batch.select(lines)
                expected, attention = model(Batch(rows.source, rows.source_mask, target))
            torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)
            if looks is not None:
                looks = looks[..., : batch.source.shape[1]]
                torch.testing.assert_close(looks, attention[..., -1, :], atol=1e-5, rtol=1e-5)
        # Two sentences leave, and of one that stays a single line.
        alone = torch.tensor([2 * beams, 3 * beams + 1])
        memory, state = memory.select(torch.tensor([2, 3])), state.select(alone)
        tokens = torch.tensor([5, 6])
        with torch.no_grad():
            logits, _, _ = decoder.step(tokens, state, memory)
            target = torch.cat([read[alone], tokens[:, None], torch.full((2, 1), EOS)], dim=1)
            rows = batch.select([2, 3])
            expected, _ = model(Batch(rows.source, rows.source_mask, target))
        torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)


def test_a_state_can_go_on_in_two_ways(model):
    """Whoever steps twice from one state gets what each way alone would have given."""
    batch = mixed_batch(rows=3)
    for decoder in (model, prepacked(model)):
        with torch.inference_mode():
            memory = decoder.encode(batch.source, batch.source_mask)
            _, state, _ = decoder.step(torch.full((3,), SOS), decoder.start(memory), memory)
            first, second = torch.full((3,), 5), torch.full((3,), 6)
            _, one, _ = decoder.step(first, state, memory)
            _, other, _ = decoder.step(second, state, memory)
            for tokens, branch in ((first, one), (second, other)):
                logits, _, _ = decoder.step(tokens, branch, memory)
                target = torch.stack([torch.full((3,), SOS), tokens, tokens, tokens], dim=1)
                expected, _ = model(Batch(batch.source, batch.source_mask, target))
                torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)


def test_more_steps_than_were_allocated_ahead():
    model = build("transformer")
    batch = mixed_batch(rows=2)
    target = torch.randint(4, len(FRENCH), (2, 60))
    expected, _ = model(Batch(batch.source, batch.source_mask, target))
    for decoder in (model, prepacked(model)):
        with torch.inference_mode():
            memory = decoder.encode(batch.source, batch.source_mask)
            state = decoder.start(memory)
            for position in range(59):
                logits, state, _ = decoder.step(target[:, position], state, memory)
                torch.testing.assert_close(logits, expected[:, position], atol=1e-5, rtol=1e-5)


def test_two_steps_from_the_start(model):
    """A state is a value from the first on."""
    batch = mixed_batch(rows=3)
    for context in (torch.inference_mode, torch.enable_grad):
        with context():
            memory = model.encode(batch.source, batch.source_mask)
            start, sos = model.start(memory), torch.full((3,), SOS)
            first, one, _ = model.step(sos, start, memory)
            again, other, _ = model.step(sos, start, memory)
            torch.testing.assert_close(first, again)
            for token, state in ((5, one), (6, other), (7, one)):
                logits, _, _ = model.step(torch.full((3,), token), state, memory)
                target = torch.tensor([[SOS, token, EOS]] * 3)
                expected, _ = model(Batch(batch.source, batch.source_mask, target))
                torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)


def test_a_narrowed_beam_stays_narrow_and_widens_again(model):
    """A beam of three becomes one line, is chosen twice more, and then becomes two."""
    batch = mixed_batch(rows=2)
    with torch.inference_mode():
        memory = model.encode(batch.source, batch.source_mask)
        if not model.shares_memory:
            pytest.skip("every line has its own memory")
        _, state, _ = model.step(torch.full((2,), SOS), model.start(memory), memory)
        state = state.select(torch.tensor([0, 0, 0, 1, 1, 1]), 3)
        _, state, _ = model.step(torch.tensor([5, 6, 7, 8, 9, 10]), state, memory)
        state = state.select(torch.tensor([1, 5]), 1)  # those that read 6 and 10
        state = state.select(torch.tensor([0, 1]), 1).select(torch.tensor([0, 1]), 1)
        logits, state, _ = model.step(torch.tensor([11, 12]), state, memory)
        target = torch.tensor([[SOS, 6, 11, EOS], [SOS, 10, 12, EOS]])
        expected, _ = model(Batch(batch.source, batch.source_mask, target))
        torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)
        state = state.select(torch.tensor([0, 0, 1, 1]), 2)
        logits, _, _ = model.step(torch.tensor([13, 14, 15, 16]), state, memory)
        rows = batch.select([0, 0, 1, 1])
        read = [[6, 11, 13], [6, 11, 14], [10, 12, 15], [10, 12, 16]]
        target = torch.tensor([[SOS, *ids, EOS] for ids in read])
        expected, _ = model(Batch(rows.source, rows.source_mask, target))
        torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)


def test_a_target_of_all_positions_fits():
    model = TransformerSeq2Seq(ENGLISH, FRENCH, width=8, heads=2, layers=1, max_positions=7).eval()
    source = torch.full((1, 7), 5)
    target = torch.tensor([[SOS, *[5] * 6, EOS]])  # 7 ids with EOS, which is never read
    assert model(Batch(source, source > 0, target))[0].shape[1] == 7
    target = torch.tensor([[SOS, *[5] * 7, EOS]])
    with pytest.raises(ValueError, match="target has 8 tokens, but the model has only 7"):
        model(Batch(source, source > 0, target))


def test_saved_models_come_back_the_same(model, tmp_path):
    batch = mixed_batch()
    save_model(model, tmp_path / "model.pt")
    again = load_model(tmp_path / "model.pt")
    assert type(again) is type(model) and again.settings == model.settings
    assert torch.equal(again(batch)[0], model(batch)[0])
    assert again.source_vocabulary == ENGLISH and again.target_vocabulary == FRENCH
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt"]


def test_teacher_forcing_mixes_gold_and_own_tokens(model):
    batch = mixed_batch()
    forced, _ = model(batch)
    model.teacher_forcing = 0.0
    assert torch.equal(model(batch)[0], forced), "only training may read its own tokens"
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.RNNBase):
            part.dropout = 0.0
    model.train()
    own, _ = model(batch)
    # By hand: every next input is the model's own best guess.
    memory = model.encode(batch.source, batch.source_mask)
    state, tokens = model.start(memory), batch.target[:, 0]
    for position in range(batch.target_output.shape[1]):
        logits, state, _ = model.step(tokens, state, memory)
        torch.testing.assert_close(own[:, position], logits, atol=1e-6, rtol=1e-6)
        tokens = logits.argmax(-1)
    model.teacher_forcing = 1.0
    torch.testing.assert_close(model(batch)[0], forced, atol=1e-5, rtol=1e-5)


def test_teacher_forcing_throws_a_coin_for_every_token(monkeypatch):
    model, steps = build("rnn-lstm").train(), []
    step = model.step

    def watched(tokens, state, memory):
        logits, state, attention = step(tokens, state, memory)
        steps.append((tokens, logits.argmax(-1)))
        return logits, state, attention

    monkeypatch.setattr(model, "step", watched)
    model.teacher_forcing = 0.75
    batch = mixed_batch(rows=300)
    model(batch)
    for place in range(1, 4):
        gold, own, read = batch.target[:, place], steps[place - 1][1], steps[place][0]
        assert ((read == gold) | (read == own)).all()
        assert 0.6 < (read == gold)[gold != own].float().mean() < 0.9


def test_bad_input_is_named(model):
    batch = mixed_batch()
    with pytest.raises(ValueError, match=r"source id 23 is outside .* 0 to 22"):
        model(Batch(batch.source.clamp(min=23), batch.source_mask, batch.target))
    target = batch.target + 16 * (batch.target == EOS)
    for method in (model, model.features, lambda batch: unroll(model, batch)):
        with pytest.raises(ValueError, match=r"target id 19 is outside .* 0 to 18"):
            method(Batch(batch.source, batch.source_mask, target))
    if model.max_positions:
        long = torch.full((1, model.max_positions + 1), 5)
        with pytest.raises(ValueError, match="has only 256 positions"):
            model.encode(long, long > 0)


def test_loading_something_else_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved model"):
        load_model(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("not a model")
    with pytest.raises(ValueError, match="broken or not a saved model"):
        load_model(tmp_path / "text.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="has the format None"):
        load_model(tmp_path / "other.pt")
    model = build("rnn-lstm")
    save_model(model, tmp_path / "whole.pt")
    cut = (tmp_path / "whole.pt").read_bytes()[:-200]
    (tmp_path / "cut.pt").write_bytes(cut)
    with pytest.raises(ValueError, match="broken"):
        load_model(tmp_path / "cut.pt")


def test_a_model_file_runs_no_code(tmp_path):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"class": "Seq2Seq", "weights": Runs()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="broken or not a saved model"):
        load_model(tmp_path / "model.pt")
    assert not (tmp_path / "made").exists()


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    model = build("rnn-lstm")
    save_model(model, tmp_path / "model.pt")

    def disk_full(value, file):
        if not hasattr(file, "write"):
            file = open(file, "wb")  # noqa: SIM115
        file.write(b"a piece")
        file.flush()
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="no space left"):
        save_model(model, tmp_path / "model.pt")
    assert torch.equal(load_model(tmp_path / "model.pt")(mixed_batch())[0], model(mixed_batch())[0])
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt"]


# The recurrent parts


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_encoder_equals_torch_on_each_sentence_alone(cell):
    torch.manual_seed(0)
    encoder = Encoder(23, embedding=6, hidden=8, layers=2, cell=cell).eval()
    batch = mixed_batch()
    states, last = encoder(batch.source, batch.source_mask)
    for row in range(len(batch)):
        ids = batch.source[row : row + 1, : int(batch.source_mask[row].sum())]
        outputs, final = encoder.rnn(encoder.embedding(ids))
        final = final if isinstance(final, tuple) else (final,)
        torch.testing.assert_close(states[row, : ids.shape[1]], outputs[0])
        assert (states[row, ids.shape[1] :] == 0).all()
        for ours, theirs in zip(last, final, strict=True):  # theirs (layer x direction, 1, width)
            for layer in range(2):
                both = torch.cat([theirs[2 * layer, 0], theirs[2 * layer + 1, 0]])
                torch.testing.assert_close(ours[row, layer], both)


def test_bridge_carries_every_layer_and_both_directions():
    torch.manual_seed(0)
    bridge = Bridge(hidden=8, layers=3, cell="lstm")
    final = tuple(torch.randn(2, 3, 8, requires_grad=True) for _ in range(2))
    for part in range(2):
        for layer in range(3):
            start = bridge(final)
            value = start[part][0, layer].sum()
            grads = torch.autograd.grad(value, final, allow_unused=True, materialize_grads=True)
            assert (grads[part][0, layer] != 0).all(), "half of the directions is lost"
            assert grads[1 - part].abs().sum() == 0
            assert all((grads[part][0, k] == 0).all() for k in range(3) if k != layer)
            by_hand = torch.tanh(bridge.linear[part][layer](final[part][:, layer]))
            torch.testing.assert_close(start[part][:, layer], by_hand)


def test_bahdanau_equals_its_equation_written_as_loops():
    torch.manual_seed(0)
    attention = BahdanauAttention(4, 6, 5).double()
    query, states = torch.randn(2, 3, 4).double(), torch.randn(2, 7, 6).double()
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3]).bool()
    context, weights = attention(query, attention.keys(states), states, mask)
    w, b = attention.query.weight, attention.query.bias
    u, v = attention.key.weight, attention.energy.weight[0]
    for row in range(2):
        real = int(mask[row].sum())
        for i in range(3):
            energies = torch.stack(
                [v @ torch.tanh(w @ query[row, i] + b + u @ states[row, j]) for j in range(real)]
            )
            alpha = energies.exp() / energies.exp().sum()
            torch.testing.assert_close(weights[row, i, :real], alpha)
            torch.testing.assert_close(context[row, i], alpha @ states[row, :real])
    assert (weights[1, :, 4:] == 0).all()


@pytest.mark.parametrize("score", LuongAttention.SCORES)
def test_luong_scores_equal_their_equations(score):
    torch.manual_seed(0)
    attention = LuongAttention(4, 4, score).double()
    query, states = torch.randn(1, 2, 4).double(), torch.randn(1, 5, 4).double()
    scores = attention.scores(query, attention.keys(states))
    for t in range(2):
        for s in range(5):
            h_t, h_s = query[0, t], states[0, s]
            if score == "dot":
                expected = h_t @ h_s
            elif score == "general":
                expected = h_t @ attention.key.weight @ h_s
            else:
                joint = torch.cat([attention.query.weight, attention.key.weight], dim=1)
                expected = attention.energy.weight[0] @ torch.tanh(joint @ torch.cat([h_t, h_s]))
            torch.testing.assert_close(scores[0, t, s], expected)


@pytest.mark.parametrize("style", AttentionDecoder.STYLES)
def test_two_steps_of_an_attention_decoder_by_hand(style):
    """Which layer asks, what is fed on, and what the readout sees, from the papers' equations."""
    torch.manual_seed(0)
    model = AttentionSeq2Seq(ENGLISH, FRENCH, attention=style, **dict(RNN, layers=2)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)  # attention that is far from even
    batch, decoder = mixed_batch(), model.decoder
    memory = model.encode(batch.source, batch.source_mask)
    logits, _ = model(batch)
    hidden = tuple(h.transpose(0, 1) for h in memory.start)  # layers first, as torch wants them
    fed = torch.zeros(len(batch), 8)

    def attend(query):
        looks = decoder.attention.scores(query[:, None], memory.keys)[:, 0]  # (batch, source)
        looks = looks.masked_fill(~batch.source_mask, -1e9).softmax(-1)
        return torch.einsum("bs,bsh->bh", looks, memory.states)

    for place in range(2):
        word = decoder.embedding(batch.target[:, place])
        if style == "bahdanau":
            context = attend(hidden[0][-1])  # the top layer before this step
            output, hidden = decoder.rnn(torch.cat([word, context], -1)[:, None], hidden)
            read = torch.cat([output[:, 0], context, word], -1)
        else:
            output, hidden = decoder.rnn(torch.cat([word, fed], -1)[:, None], hidden)
            read = torch.cat([attend(output[:, 0]), output[:, 0]], -1)
        fed = torch.tanh(decoder.readout(read))
        torch.testing.assert_close(logits[:, place], decoder.output(fed), atol=1e-5, rtol=1e-5)


def test_input_feeding_hands_the_attentional_vector_on():
    fed, unfed = build("luong-general"), build("luong-unfed")
    batch = mixed_batch()
    for model, feeds in (fed, True), (unfed, False):
        memory = model.encode(batch.source, batch.source_mask)
        state = model.start(memory)
        first, _, _ = model.step(batch.target[:, 0], state, memory)
        state.context = state.context + 1
        second, _, _ = model.step(batch.target[:, 0], state, memory)
        assert torch.allclose(first, second) != feeds


@pytest.mark.parametrize(
    "settings, complaint",
    [
        (dict(cell="elman"), "cell must be one of"),
        (dict(hidden=7), "hidden must be even"),
        (dict(attention="loung"), "attention must be one of"),
        (dict(attention="luong", score="cosine"), "score must be one of"),
    ],
)
def test_bad_settings_are_named(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        AttentionSeq2Seq(ENGLISH, FRENCH, **settings)


# The transformer's parts


def test_scaled_dot_product_attention_equals_torch():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    mask = torch.rand(2, 1, 5, 7) < 0.6
    mask[..., 0] = True
    for m in (None, mask):
        mixed, weights = scaled_dot_product_attention(query, key, value, m)
        expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=m)
        torch.testing.assert_close(mixed, expected)
        torch.testing.assert_close(weights @ value, expected)
        if m is not None:
            added, _ = scaled_dot_product_attention(query, key, value, additive(m))
            torch.testing.assert_close(added, mixed)


def test_masked_softmax_is_a_softmax_over_what_is_left():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    mask = torch.tensor([[True, True, False, False]])
    expected = torch.tensor([[1 / (1 + torch.e), torch.e / (1 + torch.e), 0, 0]])
    torch.testing.assert_close(masked_softmax(scores, mask), expected)


def copy_attention(ours, theirs):
    """Load the weights of torch's nn.MultiheadAttention into ours."""
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    for part, weight, bias in zip((ours.query, ours.key, ours.value), weights, biases, strict=True):
        part.load_state_dict({"weight": weight, "bias": bias})
    ours.output.load_state_dict(theirs.out_proj.state_dict())


def copy_layer(ours, theirs):
    copy_attention(ours.attention, theirs.self_attn)
    if hasattr(ours, "cross"):
        copy_attention(ours.cross, theirs.multihead_attn)
    ours.feedforward[0].load_state_dict(theirs.linear1.state_dict())
    ours.feedforward[2].load_state_dict(theirs.linear2.state_dict())
    parts = (
        ("attention", "cross", "feedforward")
        if hasattr(ours, "cross")
        else ("attention", "feedforward")
    )
    for number, part in enumerate(parts, start=1):
        residual = getattr(ours, f"{part}_residual")
        residual.norm.load_state_dict(getattr(theirs, f"norm{number}").state_dict())


def shake(module):
    """Weights off their starting values, so that biases and norms count."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_multi_head_attention_equals_torch():
    torch.manual_seed(0)
    theirs = shake(nn.MultiheadAttention(8, 2, batch_first=True))
    ours = MultiHeadAttention(8, 2)
    copy_attention(ours, theirs)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    mixed, weights = ours(x, ours.keys_values(memory), mask[:, None, None])
    expected, looks = theirs(x, memory, memory, key_padding_mask=~mask, average_attn_weights=False)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, looks, atol=1e-5, rtol=1e-5)


def test_half_precision_all_through():
    model, batch = build("transformer").half(), mixed_batch()
    logits, weights = model(batch)
    assert logits.dtype == weights.dtype == torch.float16
    assert logits.isfinite().all()


def test_residual_drops_in_training_alone():
    torch.manual_seed(0)
    residual, x = Residual(64, dropout=0.5, norm_first=True), torch.ones(20, 64)
    change = residual.after(x, x) - x
    assert set(change.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(residual.eval().after(x, x), x + x)


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layer_equals_torch(norm_first):
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(8, 2, 12, 0.1, batch_first=True, norm_first=norm_first)
    shake(theirs)
    ours = EncoderLayer(8, 2, 12, 0.1, norm_first).eval()
    copy_layer(ours, theirs)
    x, mask = torch.randn(3, 6, 8), torch.arange(6) < torch.tensor([[6], [4], [1]])
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(
        ours(x, mask[:, None, None])[0][mask], expected[mask], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("norm_first", [True, False])
def test_decoder_layer_equals_torch(norm_first):
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(8, 2, 12, 0.1, batch_first=True, norm_first=norm_first)
    shake(theirs)
    ours = DecoderLayer(8, 2, 12, 0.1, norm_first).eval()
    copy_layer(ours, theirs)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    expected = theirs(x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=~mask)
    got, _ = ours(x, causal_mask(5), ours.cross.keys_values(memory), mask[:, None, None])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_sinusoidal_positions_as_the_paper_defines_them():
    table = sinusoidal_positions(50, 16).double()
    for position in (0, 1, 7, 49):
        for i in range(8):
            angle = torch.tensor(position / 10000 ** (2 * i / 16)).double()
            torch.testing.assert_close(table[position, 2 * i], angle.sin(), atol=1e-5, rtol=0)
            torch.testing.assert_close(table[position, 2 * i + 1], angle.cos(), atol=1e-5, rtol=0)
    # "for any fixed offset k, PE(pos+k) can be represented as a linear function of PE(pos)"
    dots = table @ table.T
    torch.testing.assert_close(dots[3, 10], dots[20, 27], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="even width"):
        sinusoidal_positions(5, 7)


@pytest.mark.parametrize("positions", ["sinusoidal", "none"])
def test_an_embedding_is_scaled_and_moved_by_its_position(positions):
    model = TransformerSeq2Seq(ENGLISH, FRENCH, width=16, layers=1, positions=positions).eval()
    ids = torch.tensor([[5, 9, 5]])
    expected = 4 * model.source_embedding.weight[ids]
    if positions == "sinusoidal":
        expected = expected + sinusoidal_positions(10, 16)[7:]
    torch.testing.assert_close(model.embed(model.source_embedding, ids, first=7), expected)


def test_without_positions_word_order_is_lost():
    torch.manual_seed(0)
    settings = dict(width=8, heads=2, layers=2, feedforward=12)
    source = torch.tensor([[5, 9, 7, 6]])
    turned, mask = source.flip(1), torch.ones(1, 4, dtype=torch.bool)
    tokens = torch.tensor([SOS])
    for positions, blind in ("none", True), ("sinusoidal", False), ("learned", False):
        model = TransformerSeq2Seq(ENGLISH, FRENCH, positions=positions, **settings).eval()
        results = []
        for ids in (source, turned):
            memory = model.encode(ids, mask)
            results.append(model.step(tokens, model.start(memory), memory)[0])
        assert torch.allclose(*results, atol=1e-5) == blind


def test_tied_embeddings_are_one_tensor():
    settings = dict(width=8, heads=2, layers=1, feedforward=12)
    model = TransformerSeq2Seq(ENGLISH, FRENCH, **settings)
    assert model.output.weight is model.target_embedding.weight
    assert model.source_embedding is not model.target_embedding
    shared = TransformerSeq2Seq(ENGLISH, Vocabulary.numbered(23), **settings)
    assert shared.source_embedding is shared.target_embedding
    untied = TransformerSeq2Seq(ENGLISH, FRENCH, tie_embeddings=False, **settings)
    assert untied.output.weight is not untied.target_embedding.weight


def test_bad_transformer_settings_are_named():
    with pytest.raises(ValueError, match="multiple of heads"):
        TransformerSeq2Seq(ENGLISH, FRENCH, width=10, heads=4)
    with pytest.raises(ValueError, match="positions must be one of"):
        TransformerSeq2Seq(ENGLISH, FRENCH, positions="rotary")
