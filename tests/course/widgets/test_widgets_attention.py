"""The attention explorer without a browser: what it computes, refuses, and leaves behind."""

import numpy as np
import pytest
import torch
from torch import nn
from traitlets import TraitError

from s2s_helpers.corpora import Pair
from s2s_helpers.course.widgets import AttentionExplorer
from s2s_helpers.course.widgets.reading import attentions, gold_links, read
from s2s_helpers.decoding import translate
from s2s_helpers.models import AttentionSeq2Seq, MultiHeadAttention, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.vocabulary import Vocabulary

ENGLISH = Vocabulary(
    ["the", "cat", "dog", "sees", "sleeps", "big", "black", "a", ".", "in", "house"], language="en"
)
FRENCH = Vocabulary(
    ["le", "chat", "chien", "voit", "dort", "grand", "noir", "un", ".", "dans", "maison"],
    language="fr",
)
SENTENCE = "the big cat sees a dog."
SHAPES = {
    "transformer": (TransformerSeq2Seq, dict(width=16, heads=2, layers=3, feedforward=16)),
    "bahdanau": (AttentionSeq2Seq, dict(embedding=8, hidden=8)),
    "rnn": (Seq2Seq, dict(embedding=8, hidden=8)),
}


def small(kind="transformer", seed=0, **changes):
    torch.manual_seed(seed)
    model_class, settings = SHAPES[kind]
    return model_class(ENGLISH, FRENCH, **(settings | changes)).eval()


def explorer(kind="transformer", sentences=(SENTENCE, "a dog sleeps."), **state):
    return AttentionExplorer(small(kind), list(sentences), **state)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_reading_is_the_translation_of_greedy_decoding(kind):
    model = small(kind)
    reading = read(model, SENTENCE)
    (wanted,) = translate(model, [SENTENCE])
    assert (reading.source, reading.target) == (wanted.source_tokens, wanted.tokens)
    assert reading.text == wanted.text
    if wanted.attention is None:
        assert reading.attention == {} and reading.matrix("cross") is None
    else:
        assert torch.allclose(reading.matrix("cross"), wanted.attention_matrix(), atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_self_attention_is_that_of_torchs_own_module(norm_first):
    model = small(norm_first=norm_first)
    source, target = ENGLISH.encode(SENTENCE), FRENCH.encode("le chat dort.")
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, MultiHeadAttention):
            module.register_forward_pre_hook(
                lambda module, args, name=name: inputs.update({name: args[0]})
            )
    found = attentions(model, source, target)
    assert {kind: tuple(x.shape) for kind, x in found.items()} == {
        "cross": (3, 2, len(target), len(source)),
        "encoder": (3, 2, len(source), len(source)),
        "decoder": (3, 2, len(target), len(target)),
    }
    for side in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model, side)):
            ours, theirs = layer.attention, nn.MultiheadAttention(16, 2, batch_first=True)
            parts = (ours.query, ours.key, ours.value)
            x = inputs[f"{side}.{number}.attention"]
            future = (
                torch.ones(x.shape[1], x.shape[1]).triu(1).bool() if side == "decoder" else None
            )
            with torch.no_grad():
                theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
                theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
                _, weights = theirs(x, x, x, attn_mask=future, average_attn_weights=False)
            assert torch.allclose(found[side][number], weights[0], atol=1e-6), (side, number)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_in_training_is_left_as_it_was():
    model = small().train()
    assert torch.equal(read(model, SENTENCE).matrix("cross"), read(model, SENTENCE).matrix("cross"))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("kind", SHAPES)
def test_a_forced_token_is_written_and_the_model_goes_on_from_it(kind):
    model = small(kind)
    free = read(model, SENTENCE)
    second = free.candidates[2][1][0]
    reading = read(model, SENTENCE, {2: second})
    assert reading.target[:3] == [*free.target[:2], second]
    # What follows is the greedy choice after that prefix, by the model's own step.
    source = torch.tensor([ENGLISH.encode(SENTENCE)])
    ids = [2, *(FRENCH.encode(word)[0] if word != "<eos>" else 3 for word in reading.target)]
    with torch.no_grad():
        memory = model.encode(source, source != 0)
        state = model.start(memory)
        for place, token in enumerate(ids[:-1]):
            logits, state, _ = model.step(torch.tensor([token]), state, memory)
            p = logits[0].double().softmax(-1)
            p[[0, 2]] = 0
            token, share = reading.candidates[place][0]
            assert FRENCH.tokens([int(p.argmax())]) == [token]
            assert abs(share - p.max().item()) < 1e-5
            if place != 2:
                assert reading.target[place] == token
    assert [share for _, share in reading.candidates[2]] == sorted(
        (share for _, share in reading.candidates[2]), reverse=True
    )


def test_the_state_is_read_and_set_from_python():
    shown = explorer()
    assert shown.sentence == SENTENCE and shown.sentences[1] == "a dog sleeps."
    assert shown.translation == read(small(), SENTENCE).text
    free = shown.readings[0]
    shown.forced = {"1": free.candidates[1][1][0]}  # as the browser sends it
    assert shown.forced == {1: shown.readings[0].target[1]}
    shown.forced = {}
    assert shown.readings[0].target == free.target and shown.forced == {}
    shown.selected = ["target", 1]
    shown.sentence = "  a dog sleeps. "
    assert (shown.sentence, shown.selected, shown.forced) == ("a dog sleeps.", (), {})
    assert shown.readings[0].source == ["a", "dog", "sleeps", ".", "<eos>"]
    shown.kind, shown.layer, shown.head = "encoder", 2, 1
    assert torch.equal(shown.attention, shown.readings[0].attention["encoder"][1, 0])
    shown.layer = None
    assert torch.allclose(
        shown.attention, shown.readings[0].attention["encoder"][:, 0].mean(0), atol=1e-6
    )


def test_what_is_sent_to_the_browser_is_what_was_computed():
    shown = explorer(forced={0: "noir"})
    (pane,), (reading,) = shown.panes, shown.readings
    assert pane["tokens"]["decoder"] == (reading.target, ["<sos>", *reading.target[:-1]])
    assert reading.target[0] == "noir" and pane["size"] == [3, 2]
    for kind, weights in reading.attention.items():
        sent = np.frombuffer(pane["weights"][kind], "<f4").reshape(weights.shape)
        assert np.array_equal(sent, weights.numpy())
        assert np.allclose(sent.sum(-1), 1, atol=1e-5)
    assert not np.triu(reading.attention["decoder"].numpy(), 1).any()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (dict(sentence=" "), "type at least one word"),
        (dict(sentence="the " * 100), "at most 100 tokens fits; this one has 101"),
        (dict(forced={0: "hippopotame"}), "'hippopotame' is not a token"),
        (dict(forced={0: "<pad>"}), "'<pad>' is not a token"),
        (dict(forced={50: "chat"}), "no position 50 to force"),
        (dict(forced={-1: "chat"}), "no position -1 to force"),
        (dict(other_forced={0: "chat"}), "no model whose words"),
        (dict(layer=4), "layer is 1 to 3, or None for the mean, not 4"),
        (dict(head=0), "head is 1 to 2"),
        (dict(selected=("target", 99)), "selected is"),
        (dict(selected=("word", 0)), "selected is"),
        (dict(kind="self"), "kind"),
        (dict(size=3), "size"),
    ],
)
def test_bad_state_is_refused_and_nothing_changes(state, message):
    shown = explorer()
    before = {name: getattr(shown, name) for name in ("sentence", "forced", "layer", "selected")}
    panes = shown.panes
    (name,) = state
    with pytest.raises(TraitError, match=message):
        setattr(shown, name, state[name])
    assert all(getattr(shown, name) == value for name, value in before.items())
    shown.set_state(state)  # from the browser: told there
    assert message.split(" is ")[0] in shown.message
    assert all(getattr(shown, name) == value for name, value in before.items())
    assert shown.panes == panes


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="list of texts or Pairs"):
        AttentionExplorer(small(), SENTENCE)
    with pytest.raises(TypeError, match="at least one"):
        AttentionExplorer(small(), [])
    with pytest.raises(ValueError, match="2 models, but 1 names"):
        AttentionExplorer(small(), [SENTENCE], other=small(), names=["one"])


def test_two_models_read_the_same_sentence_and_are_forced_apart():
    shown = AttentionExplorer(small(), [SENTENCE], other=small("rnn"), names=["T", "R"])
    shown.other_forced = {0: "noir"}
    first, second = shown.readings
    assert first.target == read(small(), SENTENCE).target
    assert second.target[0] == "noir"
    assert [pane["name"] for pane in shown.panes] == ["T", "R"]
    assert "T: " in shown.describe() and "no such attention" in shown.describe()
    shown.sentence = "a dog sleeps."
    assert shown.other_forced == {} and shown.readings[1].source[0] == "a"
    assert len(shown.figure().axes) == 3  # two pictures and the scale of one


def test_gold_links_follow_the_words_that_translation_and_reference_share():
    pair = Pair(
        "the big cat sleeps.", "le grand chat dort.", ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4))
    )
    reading = read(small(), pair.source)
    reading.target = ["un", "grand", "noir", "chat", "dort", "<eos>"]
    assert gold_links(pair, reading, FRENCH) == [(1, 1), (2, 3), (3, 4)]
    assert gold_links(Pair(pair.source, pair.target), reading, FRENCH) == []
    reading.source = list("the big cat sleeps.")  # not word by word
    assert gold_links(pair, reading, FRENCH) == []
    shown = AttentionExplorer(small(), [pair, SENTENCE])
    assert shown.panes[0]["reference"] == pair.target
    shown.sentence = SENTENCE
    assert shown.panes[0]["reference"] == "" and shown.panes[0]["gold"] == []


def test_plain_arrays_need_no_model():
    weights = torch.rand(2, 3, 2, 4).softmax(-1)
    shown = AttentionExplorer.of(weights, list("abcd"), ["x", "y"], gold=[(0, 1)], layer=2)
    assert torch.allclose(shown.attention, weights[1].mean(0))
    assert shown.panes[0]["gold"] == [[0, 1]] and shown.panes[0]["candidates"] == []
    single = AttentionExplorer.of([[0.25, 0.75]], ["a", "b"], ["x"], selected=("target", 0))
    assert single.describe() == "cross-attention; 'x'; 'x' looks at 'b' 75%, 'a' 25%"
    own = AttentionExplorer.of({"encoder": np.eye(2)}, ["a", "b"], ["x"])
    assert own.kind == "encoder" and own.attention.shape == (2, 2)
    for attention in (np.eye(3), np.ones(2), {"encoder": np.ones((1, 2))}):
        with pytest.raises(ValueError, match="attention must end in"):
            AttentionExplorer.of(attention, ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="a kind of attention is one of"):
        AttentionExplorer.of({"own": np.eye(2)}, ["a", "b"], ["x"])
    with pytest.raises(TraitError, match="no model"):
        single.sentence = "a"


def test_a_translation_that_never_ends_stops_where_the_model_does():
    model = small(max_positions=9)
    with torch.no_grad():
        model.output.bias[3] = -100  # never "<eos>"
    reading = read(model, SENTENCE)
    assert len(reading.target) == 9 and reading.attention["decoder"].shape == (3, 2, 9, 9)
    model = small("rnn")
    with torch.no_grad():
        model.decoder.output.bias[3] = -100
    assert len(read(model, "the " * 60).target) == 100


def test_unknown_words_are_named():
    assert read(small(), "the hippopotamus sees the cat.").unknown == ["hippopotamus"]


def test_it_leaves_a_picture_and_words_of_the_same_state():
    shown = explorer(selected=("target", 1), forced={1: "noir"}, layer=1)
    figure = shown.figure()
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows[1] == "◆ noir" and figure.axes[0].get_yticklabels()[1].get_fontweight() == "bold"
    assert np.allclose(figure.axes[0].images[0].get_array(), shown.attention.numpy())
    row = shown.attention[1]
    top = shown.readings[0].source[int(row.argmax())]
    assert f"'noir' looks at {top!r} {row.max():.0%}" in shown.describe()
    assert "layer 1, mean of heads" in shown.describe()
    data, _ = shown._repr_mimebundle_()
    assert data["text/plain"] == f"AttentionExplorer: {shown.describe()}"
    assert data["image/png"].startswith("iVBOR")
    assert (
        shown.describe() == explorer(selected=("target", 1), forced={1: "noir"}, layer=1).describe()
    )


def test_prices_are_no_formulas_in_the_picture():
    tokens = ["$5", "$x_", "<b>"]
    AttentionExplorer.of(np.eye(3), tokens, tokens).figure().canvas.draw()
