"""The pointer-generator copies, knows its coverage, and has the methods of every model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_helpers.data import Batch, collate, make_loader
from s2s_helpers.decoding import beam_search, greedy_decode, translate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import (
    AttentionSeq2Seq,
    CopyDataset,
    CopyVocabulary,
    CoverageLoss,
    PointerGenerator,
    load_model,
    save_model,
)
from s2s_helpers.models.interface import unroll
from s2s_helpers.training import Seq2SeqTrainer, set_seed, training_config
from s2s_helpers.vocabulary import EOS, UNK, SubwordVocabulary, Vocabulary, vocabulary_from_dict

WORDS = CopyVocabulary([f"w{n}" for n in range(4, 20)], slots=5)  # ids to 19, slots 20 to 24
SHAPE = dict(embedding=6, hidden=8)


@pytest.fixture(params=["lstm", "gru", "coverage"])
def model(request):
    torch.manual_seed(0)
    cell = "gru" if request.param == "gru" else "lstm"
    model = PointerGenerator(WORDS, WORDS, request.param == "coverage", cell=cell, **SHAPE)
    torch.nn.init.normal_(model.cover.weight)  # so that coverage matters
    return model.eval()


def mixed_batch(seed=1, rows=6):
    """Rows of mixed lengths, with slots on both sides."""
    generator = torch.Generator().manual_seed(seed)

    def sentence():
        length = int(torch.randint(1, 8, (), generator=generator))
        return [*torch.randint(4, len(WORDS), (length,), generator=generator).tolist(), EOS]

    return collate([(sentence(), sentence()) for _ in range(rows)])


# The vocabulary


def test_slots_are_numbered_by_first_occurrence():
    words = CopyVocabulary.build(["the cat sat on the mat"], language="en")
    assert (words.fixed, len(words)) == (9, 39)
    source = "The dog sat on the rug , dog"
    dog, rug, comma = 9, 10, 11
    the, sat, on = (words.encode(word)[0] for word in ("the", "sat", "on"))
    assert words.encode(source) == [the, dog, sat, on, the, rug, comma, dog, EOS]
    assert words.slots_of(source) == {"dog": dog, "rug": rug, ",": comma}
    assert words.encode_beside("a rug on the dog", source) == [UNK, rug, on, the, dog, EOS]
    assert words.tokens([dog, the]) == ["<copy 0>", "the"] and "dog" not in words


def test_words_beyond_the_last_slot_are_unknown():
    words = CopyVocabulary(["a"], slots=2)
    assert words.encode("x a y z x") == [5, 4, 6, UNK, 5, EOS]
    assert words.encode_beside("z y", "x a y z x") == [UNK, 6, EOS]
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        CopyVocabulary(["a"], slots=0)


@given(st.lists(st.sampled_from(["w4", "w5", "blue", "red", "x_1", "dim"]), min_size=1))
def test_any_text_is_copied_through_its_slots(tokens):
    text = " ".join(tokens)
    ids = WORDS.encode_beside(text, text)
    slots = {slot: word for word, slot in WORDS.slots_of(text).items()}
    assert [slots.get(i) or WORDS.tokens([i])[0] for i in ids[:-1]] == tokens
    assert UNK not in ids


def test_the_other_apostrophe_is_no_unknown_word():
    words = CopyVocabulary(["don't", "a"], slots=2)
    assert words.slots_of("don’t o’clock a") == {"o’clock": 6}
    assert words.encode("a don’t o’clock") == [5, 4, 6, EOS]


def test_slots_are_filled_before_the_words_are_joined():
    words = CopyVocabulary(["the", ",", "l'", "est"], language="fr", slots=2)
    source = "Le zèbre, qu'un gnou voit"
    zebra = words.slots_of(source)["le"] + 1
    ids = [*words.encode_beside("l'zèbre, est", source)[:-1], EOS]
    assert ids[1] == zebra and words.decode(ids, source) == "l'zèbre, est"
    assert words.tokens(ids, source) == ["l'", "zèbre", ",", "est", "<eos>"]
    assert words.decode(ids) == "l'<copy 1>, est" and words.tokens(ids)[1] == "<copy 1>"
    # A slot that this source does not fill, and a word that looks like a slot.
    assert words.decode([zebra, EOS], source="le") == "<copy 1>"
    assert words.decode([zebra - 1, EOS], source="<copy") == "<"
    with pytest.raises(ValueError, match="id 10 is outside"):
        words.decode([10], source)


def test_it_is_told_from_a_plain_vocabulary_when_it_comes_back():
    again = vocabulary_from_dict(WORDS.to_dict())
    assert type(again) is CopyVocabulary and again == WORDS and (again.slots, len(again)) == (5, 25)
    assert again != Vocabulary(WORDS.to_dict()["tokens"])


def test_a_dataset_copies_only_what_is_left_of_the_source():
    pairs = [("w4 red w5 blue", "blue red green w5")]
    red, blue = 20, 21
    assert CopyDataset(pairs, WORDS, WORDS)[0][1] == [blue, red, UNK, 5, EOS]
    source, target = CopyDataset(pairs, WORDS, WORDS, max_length=4)[0]
    assert source == [4, red, 5, EOS] and target == [UNK, red, UNK, EOS]
    with pytest.raises(ValueError, match=r"pair 0, .*empty"):
        CopyDataset([("", "w4")], WORDS, WORDS)


# The distribution


def by_hand(model, batch):
    """P and the overlap of every word, one row, one word, one source token after the other."""
    memory = model.encode(batch.source, batch.source_mask)
    mixture, decoder = model.mixture(batch), model.decoder
    known = batch.target_input.masked_fill(batch.target_input >= WORDS.fixed, UNK)
    x = decoder.embedding(known)
    start = tuple(h.transpose(0, 1).contiguous() for h in memory.start)
    s, _ = decoder.rnn(x, start if len(start) == 2 else start[0])
    P = torch.zeros_like(mixture.log_p)
    overlaps = torch.zeros_like(mixture.overlap)
    v, score = decoder.attention.energy.weight[0], decoder.attention
    for row in range(len(batch)):
        h = memory.states[row, batch.source_mask[row]]  # (source, hidden)
        c = torch.zeros(len(h))
        for t in range(batch.target_input.shape[1]):
            inside = score.key(h) + score.query(s[row, t])
            if model.coverage:
                inside = inside + c[:, None] * model.cover.weight[:, 0]
            a = torch.softmax(torch.tanh(inside) @ v, dim=0)
            torch.testing.assert_close(a, mixture.attention[row, t, : len(h)])
            context = a @ h
            read = torch.tanh(decoder.readout(torch.cat([context, s[row, t]])))
            p_gen = torch.sigmoid(model.pointer(torch.cat([context, s[row, t], x[row, t]])))
            torch.testing.assert_close(p_gen[0], mixture.p_gen[row, t])
            P[row, t, : WORDS.fixed] = p_gen * torch.softmax(decoder.output(read), dim=0)
            for place in range(len(h)):
                P[row, t, batch.source[row, place]] += (1 - p_gen[0]) * a[place]
                overlaps[row, t] += min(a[place], c[place])
            c = c + a
    return P, overlaps


def test_the_mixture_is_that_of_the_paper(model):
    batch = mixed_batch()
    with torch.no_grad():
        P, overlaps = by_hand(model, batch)
        mixture = model.mixture(batch)
    torch.testing.assert_close(mixture.log_p.exp(), P, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mixture.overlap, overlaps, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mixture.log_p.exp().sum(-1), torch.ones(mixture.p_gen.shape))
    assert (mixture.overlap[:, 0] == 0).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_without_copying_it_is_the_attentional_model(cell):
    plain = Vocabulary([f"w{n}" for n in range(4, 20)])
    how = dict(attention="luong", score="concat", input_feeding=False)
    attentional = AttentionSeq2Seq(plain, plain, cell=cell, **how, **SHAPE).eval()
    model = PointerGenerator(plain, plain, slots=5, cell=cell, **SHAPE).eval()
    assert not model.load_state_dict(attentional.state_dict(), strict=False).unexpected_keys
    batch = mixed_batch()
    batch = Batch(batch.source.clamp(max=19), batch.source_mask, batch.target.clamp(max=19))
    torch.nn.init.constant_(model.pointer.bias, 50.0)  # p_gen is 1
    logits, attention = model(batch)
    expected, expected_attention = attentional(batch)
    torch.testing.assert_close(logits[..., :20].exp(), expected.softmax(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention, expected_attention)
    torch.nn.init.constant_(model.pointer.bias, -50.0)  # p_gen is 0: the source's words alone
    log_p, attention = model(batch)
    copied = torch.zeros_like(log_p).scatter_add(
        -1, batch.source[:, None].expand_as(attention), attention
    )
    torch.testing.assert_close(log_p.exp(), copied, atol=1e-5, rtol=1e-5)


# The methods of every model


def test_step_and_forward_agree(model):
    batch = mixed_batch()
    logits, attention = model(batch)
    stepped, step_attention = unroll(model, batch)
    torch.testing.assert_close(stepped, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(step_attention, attention, atol=1e-5, rtol=1e-5)
    assert (attention[(~batch.source_mask)[:, None].expand_as(attention)] == 0).all()
    assert not hasattr(model, "features")  # its logits are not made by a last linear layer


def test_a_state_is_continued_twice(model):
    batch = mixed_batch()
    memory = model.encode(batch.source, batch.source_mask)
    _, state, _ = model.step(batch.target[:, 0], model.start(memory), memory)
    first, after, _ = model.step(batch.target[:, 1], state, memory)
    model.step(batch.target[:, 2], after, memory)
    again, _, _ = model.step(batch.target[:, 1], state, memory)
    assert torch.equal(first, again)


def test_a_sentence_gets_the_same_alone_and_in_a_padded_batch(model):
    batch = mixed_batch()
    together = model.mixture(batch)
    for row in range(len(batch)):
        source = batch.source[row : row + 1, : int(batch.source_mask[row].sum())]
        target = batch.target[row : row + 1, : int(batch.target_mask[row].sum()) + 1]
        alone = model.mixture(Batch(source, source != 0, target))
        for one, other in zip(alone, together, strict=True):
            cut = other[row, : target.shape[1] - 1]
            cut = cut[..., : source.shape[1]] if one is alone.attention else cut
            torch.testing.assert_close(one[0], cut, atol=1e-5, rtol=1e-5)


def test_memory_and_state_select_rows(model):
    batch, rows = mixed_batch(), torch.tensor([4, 0, 0, 2])
    memory = model.encode(batch.source, batch.source_mask)
    _, state, _ = model.step(batch.target[:, 0], model.start(memory), memory)
    expected, _, _ = model.step(batch.target[:, 1], state, memory)
    picked, _, _ = model.step(batch.target[rows, 1], state.select(rows), memory.select(rows))
    torch.testing.assert_close(picked, expected[rows], atol=1e-6, rtol=1e-6)


def test_beam_search_scores_are_those_of_the_forward_pass(model):
    batch = mixed_batch(rows=4)
    for row, best in enumerate(beam_search(model, batch.source, batch.source_mask, 3)):
        source = batch.source[row, batch.source_mask[row]].tolist()
        log_p, _ = model(collate([(source, best[0].ids)]))
        gold = log_p[0].gather(-1, torch.tensor(best[0].ids)[:, None]).sum()
        assert best[0].log_probability == pytest.approx(gold.item(), abs=1e-4)
    (alone,) = greedy_decode(model, batch.source[:1, : int(batch.source_mask[0].sum())])
    assert greedy_decode(model, batch.source, batch.source_mask)[0].ids == alone.ids


def test_it_is_saved_with_its_slots(model, tmp_path):
    save_model(model, tmp_path / "model.pt")
    again, batch = load_model(tmp_path / "model.pt"), mixed_batch()
    assert torch.equal(again(batch)[0], model(batch)[0]) and again.settings == model.settings
    assert (
        isinstance(again.source_vocabulary, CopyVocabulary) and len(again.target_vocabulary) == 25
    )


def test_bad_input_is_named(model):
    batch = mixed_batch()
    with pytest.raises(ValueError, match=r"source id 25 is outside .* 0 to 24"):
        model(Batch(batch.source.clamp(min=25), batch.source_mask, batch.target))
    with pytest.raises(ValueError, match=r"target id 25 is outside .* 0 to 24"):
        model(Batch(batch.source, batch.source_mask, batch.target.clamp(min=25)))
    with pytest.raises(ValueError, match="one vocabulary, for source and target"):
        PointerGenerator(WORDS, Vocabulary(["other"]))
    subwords = SubwordVocabulary.train(["the cat sat", "the dog ran"], size=24)
    with pytest.raises(ValueError, match="need a word vocabulary, not a SubwordVocabulary"):
        PointerGenerator(subwords, subwords)


# Learning


def test_the_coverage_loss_is_equation_13(model):
    batch = mixed_batch()
    log_p, _ = model(batch)
    overlap = model.mixture(batch).overlap
    expected = sum(
        -log_p[row, t, word] + 0.5 * overlap[row, t]
        for row in range(len(batch))
        for t, word in enumerate(batch.target_output[row].tolist())
        if word
    )
    total, tokens, logits = CoverageLoss(0.5).of_batch(model, batch)
    assert tokens == batch.tokens and torch.equal(logits, log_p)
    torch.testing.assert_close(total, expected)
    surprise, _, _ = CoverageLoss(0.0).of_batch(model, batch)
    torch.testing.assert_close(surprise, Seq2SeqLoss().total(log_p, batch.target_output)[0])


def test_scheduled_sampling_goes_with_the_coverage_loss(model):
    batch = mixed_batch()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    forced, _, _ = CoverageLoss().of_batch(model, batch)
    model.train().teacher_forcing = 0.0
    own, tokens, logits = CoverageLoss().of_batch(model, batch)
    assert tokens == batch.tokens and logits.shape == (*batch.target_output.shape, len(WORDS))
    assert torch.equal(logits, unroll(model, batch, 0.0)[0]) and own != forced
    own.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.pointer.weight.grad.abs().sum() > 0


def test_it_learns_to_copy_words_that_it_has_never_seen():
    # "w4 NEW w5": the answer is the new word after w4, among other new words.
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for number in range(400):
        tokens = [f"new{number}_{n}" for n in range(4)]
        place = int(torch.randint(4, (), generator=generator))
        pairs.append((" ".join([*tokens[:place], "w4", *tokens[place:]]), f"w5 {tokens[place]}"))
    set_seed(0)
    model = PointerGenerator(WORDS, WORDS, coverage=True, embedding=16, hidden=32, dropout=0.0)
    loader = make_loader(CopyDataset(pairs[:350], WORDS, WORDS), batch_size=16, shuffle=True)
    config = training_config(12, lr=1e-2, progress=False, device="cpu")
    Seq2SeqTrainer(model, config, loader, loss=CoverageLoss(0.1)).fit()
    sources = [source for source, _ in pairs[350:]]
    found = translate(model, sources)
    assert not any("<copy" in token for one in found for token in [one.text, *one.tokens])
    right = sum(one.text == target for one, (_, target) in zip(found, pairs[350:], strict=True))
    assert right >= 45
    assert found[0].source_tokens[:-1] == sources[0].split()
    batch = collate([CopyDataset(pairs[350:], WORDS, WORDS)[0]])
    assert model.mixture(batch).p_gen[0, 1] < 0.1  # the word is copied
