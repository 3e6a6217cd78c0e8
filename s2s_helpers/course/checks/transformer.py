"""The checks of notebook 07."""

import contextlib
import itertools
import math

import torch
from torch import nn

from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.checks.running import check, compare, predict, say
from s2s_helpers.course.checks.values import describe
from s2s_helpers.course.recipes import phrasebook_model
from s2s_helpers.decoding import translate
from s2s_helpers.metrics import sequence_accuracy
from s2s_helpers.models import MultiHeadAttention, transformer

__all__ = [
    "cached_step",
    "causal_mask",
    "multi_head_attention",
    "position_shift",
    "predict_first_position",
    "scaled_dot_product_attention",
    "spare_heads",
]


@check
def predict_first_position(guess):
    """What causal attention gives at position 0 for the values [1, 2], [3, 4] and [8, 0]."""
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]])  # (source, d_v)
    query, key = torch.randn(2, 3, 4)
    mixed, _ = transformer.scaled_dot_product_attention(
        query, key, values, transformer.causal_mask(3)
    )
    guess = guess.tolist() if hasattr(guess, "tolist") else guess
    predict(
        "predict_first_position",
        guess,
        mixed[0].tolist(),
        mistakes={
            "That is the mean of all values. Which keys may position 0 look at?": [4.0, 2.0],
            "That is the mean of the later values, which the mask hides.": [5.5, 2.0],
            "That is nothing at all, but the diagonal is True: it may look at itself.": [0.0, 0.0],
            "That is the last value, which only the last position may look at.": [8.0, 0.0],
            "That is the sum of all values; weights sum to 1, and two are hidden.": [12.0, 6.0],
        },
        why="One key alone is to be seen, so it has weight 1 whatever its score.",
    )


@check
def causal_mask(function):
    """`function(length)`: boolean (length, length), True where position i may look at j."""
    compare(
        "causal_mask",
        function,
        lambda length: transformer.causal_mask(length),
        {f"length {length}": (length,) for length in (1, 2, 3, 7)},
        {
            "The mask is inverted: True stands where nobody may look.": lambda n: (
                ~_square(n).tril()
            ),
            "Rows and columns changed places: row i (query) looks at columns (keys) up to i.": (
                lambda n: _square(n).triu()
            ),
            "The diagonal is left out: a position may look at itself.": (
                lambda n: _square(n).tril(-1)
            ),
            "Shifted by one: each position sees the next, the very word it is to predict.": (
                lambda n: _square(n).tril(1)
            ),
            "Everything is True, so nothing is hidden.": _square,
        },
        why="Without it the model copies the next word and learns nothing.",
    )


def _square(length):
    return torch.ones(length, length, dtype=torch.bool)


@check
def scaled_dot_product_attention(function):
    """`function(query, key, value, mask)` as the package's: mixed values and weights."""

    def case(*shape, target, source, mask=None, scale=1.0):
        sizes = (target, 4), (source, 4), (source, 3)
        query, key, value = (torch.randn(*shape, *size).round(decimals=1) for size in sizes)
        return query * scale, key, value, mask

    def variant(scale=0.5, dim=-1, inverted=False, hidden=-math.inf, zeroed=None, after=1.0):
        def wrong(query, key, value, mask):
            factor = scale(key, value) if callable(scale) else scale
            scores = query @ key.transpose(-2, -1) * factor
            if mask is not None and hidden is not None:
                scores = scores.masked_fill(mask if inverted else ~mask, hidden)
            weights = scores.softmax(dim) * after
            weights = weights * mask if zeroed and mask is not None else weights
            return weights @ value, weights

        return wrong

    def plain_softmax(query, key, value, mask):
        powers = (query @ key.transpose(-2, -1) / 2).exp()
        powers = powers if mask is None else powers * mask
        weights = powers / powers.sum(-1, keepdim=True)
        return weights @ value, weights

    right = transformer.scaled_dot_product_attention
    padded = torch.arange(5) < torch.tensor([[5], [2]])
    compare(
        "scaled_dot_product_attention",
        function,
        right,
        {
            "one query, two keys": case(target=1, source=2),
            "three queries, two keys": case(target=3, source=2),
            "a mask": case(target=2, source=3, mask=torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()),
            "a padded batch": case(2, target=3, source=5, mask=padded[:, None]),
            "heads and a causal mask": case(
                2, 2, target=3, source=3, mask=transformer.causal_mask(3)
            ),
            "one key": case(1, target=2, source=1),
            "large scores": case(
                target=4,
                source=3,
                mask=torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool(),
                scale=4e4,
            ),
        },
        {
            "The scores are not scaled by √d_k.": variant(scale=1.0),
            "The scores are divided by d_k, not by its root.": variant(scale=0.25),
            "The scores are multiplied by √d_k, not divided.": variant(scale=2.0),
            "The scale is the width of the values; it should be that of the keys.": variant(
                scale=lambda key, value: value.shape[-1] ** -0.5
            ),
            "The scale is the number of keys; it should be their width d_k.": variant(
                scale=lambda key, value: key.shape[-2] ** -0.5
            ),
            "The scale is √8: a d_k from outside. Take the width of these keys.": variant(
                scale=8**-0.5
            ),
            "Softmax over the wrong axis: each query's weights must sum to 1.": variant(dim=-2),
            "The scale comes after the softmax; it belongs to the scores.": variant(1.0, after=0.5),
            "The mask is inverted: True means that attention may look.": variant(inverted=True),
            "The mask has no effect. masked_fill gives a new tensor: is the result kept?": variant(
                hidden=None
            ),
            "Weights are set to 0 after the softmax, so what is left no longer sums to 1.": variant(
                hidden=None, zeroed=True
            ),
            "Hidden scores are set to 0, but e to the 0 is 1: they still get weight.": variant(
                hidden=0.0
            ),
            "What hides a score is not low enough: a shown score may be lower. Take -inf.": variant(
                hidden=-1e4
            ),
            "The two results changed places: first the mixed values, then the weights.": (
                lambda *inputs: right(*inputs)[::-1]
            ),
            "e to a large score overflows; take each row's largest score off first.": plain_softmax,
        },
        why="PyTorch's F.scaled_dot_product_attention computes the same.",
    )


class Projections(nn.Module):
    """The four linear layers of multi-head attention, without the way through them."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(width, width))


def _split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x):
    return x.transpose(1, 2).flatten(2)


@check
def multi_head_attention(function):
    """`function(layer, x, memory, mask)`: x (batch, target, width) looks at memory (batch, source,
    width), mask (batch, source) or None; gives (batch, target, width)."""

    def variant(split=_split, join=_join, width=None, roles=None, output=True, mask_as=None):
        def attend(layer, x, memory, mask):
            x, memory, values = roles(layer, x, memory) if roles else (x, memory, memory)
            value = layer.value(values) if roles is not _key_as_value else values
            q, k, v = (split(y, layer.heads) for y in (layer.query(x), layer.key(memory), value))
            scale = 1 if width is None else math.sqrt(width / q.shape[-1])
            mask = None if mask is None else (mask_as or (lambda m: m))(mask)[:, None, None]
            mixed, _ = transformer.scaled_dot_product_attention(q / scale, k, v, mask)
            return layer.output(join(mixed)) if output else join(mixed)

        return attend

    def reference(layer, x, memory, mask):
        whole = MultiHeadAttention(layer.query.in_features, layer.heads)
        whole.load_state_dict(layer.state_dict())
        return whole(x, whole.keys_values(memory), None if mask is None else mask[:, None, None])[0]

    def case(batch, heads, target, source, mask=None, width=12):
        x, memory = torch.randn(batch, target, width), torch.randn(batch, source, width)
        return Projections(width, heads), x, memory, mask

    def cut_from_time(x, heads):
        return x.reshape(len(x), heads, x.shape[1], -1)

    padded = torch.arange(3) < torch.tensor([[2], [1]])
    compare(
        "multi_head_attention",
        function,
        reference,
        {
            "one sentence, one head": case(1, 1, 2, 3, width=4),
            "one sentence, two heads": case(1, 2, 2, 3, width=4),
            "two sentences, three heads": case(2, 3, 4, 5),
            "a padded batch, as many heads as sentences": case(2, 2, 3, 3, padded),
            "one target position": case(2, 4, 1, 3, padded),
        },
        {
            "The heads are cut out of the time axis: split the width, then move the heads' axis.": (
                variant(cut_from_time)
            ),
            "The heads are joined without moving their axis back next to their width.": variant(
                join=lambda x: x.reshape(len(x), x.shape[2], -1)
            ),
            "Each head takes every h-th number; the paper's heads are blocks of neighbours.": (
                variant(
                    lambda x, heads: x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2),
                    lambda x: x.permute(0, 2, 3, 1).flatten(2),
                )
            ),
            "The scale is √d_model; a head's queries are only d_k = d_model / h wide.": (
                lambda layer, x, memory, mask: variant(width=x.shape[-1])(layer, x, memory, mask)
            ),
            "The output layer W^O is left out.": variant(output=False),
            "One head does it all: the width is not split.": variant(lambda x, heads: x[:, None]),
            "Keys and values come from x; they should come from memory.": variant(
                roles=lambda layer, x, memory: (x, x, x)
            ),
            "x and memory changed places: x asks, memory is looked at.": variant(
                roles=lambda layer, x, memory: (memory, x, x)
            ),
            "The keys serve as values, and the layer `value` is not used.": variant(
                roles=_key_as_value
            ),
            "The mask is inverted: True is a real token.": variant(mask_as=torch.logical_not),
            "The mask is not used.": variant(mask_as=torch.ones_like),
            "The mask is laid over the heads, not over the sentences: mind its axes.": (
                lambda layer, x, memory, mask: (
                    variant()(layer, x, memory, None)
                    if mask is None
                    else _masked_by_head(layer, x, memory, mask)
                )
            ),
        },
        why="It is the heart of every transformer layer.",
    )


def _key_as_value(layer, x, memory):
    return x, memory, layer.key(memory)


def _masked_by_head(layer, x, memory, mask):
    q = _split(layer.query(x), layer.heads)
    k, v = (_split(part(memory), layer.heads) for part in (layer.key, layer.value))
    mixed, _ = transformer.scaled_dot_product_attention(q, k, v, mask[:, None])
    return layer.output(_join(mixed))


@check
def position_shift(function):
    """`function(encoding, k)`: encodings (..., width) of any positions to those k further on."""

    def turn(encoding, k, exponent=2, sign=1, base=1e4):
        pairs = encoding.double().unflatten(-1, (-1, 2))  # sine, cosine
        width = encoding.shape[-1]
        angle = sign * k / base ** (torch.arange(width // 2) * exponent / width)
        sine, cosine = pairs.unbind(-1)
        turned = (
            sine * angle.cos() + cosine * angle.sin(),
            cosine * angle.cos() - sine * angle.sin(),
        )
        return torch.stack(turned, -1).flatten(-2).float()

    def halves(encoding, k):
        interleaved = encoding.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        return turn(interleaved, k).unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)

    def of(k, width):
        return transformer.sinusoidal_positions(abs(k) + 1, width)[abs(k)]

    def table(first, last, width):
        return transformer.sinusoidal_positions(last, width)[first:]

    compare(
        "position_shift",
        function,
        turn,
        {
            "one frequency, 2 on": (table(3, 4, 2)[0], 2),
            "two frequencies, 2 on": (table(3, 4, 4)[0], 2),
            "two positions, 3 on": (table(1, 3, 8), 3),
            "three back": (table(5, 6, 8), -3),
            "no step": (table(5, 6, 8), 0),
            "a batch, 40 on": (table(0, 12, 16).view(2, 6, 16), 40),
        },
        {
            "It turns backwards: the positions come out k too small.": lambda e, k: turn(
                e, k, sign=-1
            ),
            "It goes on by one position, not by k.": lambda e, k: turn(e, 1),
            "All pairs turn by the same angle; each has its own wavelength.": (
                lambda e, k: turn(e, k, base=1.0)
            ),
            "The exponent runs with i/d_model; in the paper it is 2i/d_model.": (
                lambda e, k: turn(e, k, exponent=1)
            ),
            "The angle is multiplied by the wavelength; it should be divided by it.": (
                lambda e, k: turn(e, k, base=1e-4)
            ),
            "Sines and cosines are taken as two halves; here they alternate.": halves,
            "The encoding of k is added; a sum of two sines is not the sine of the sum.": (
                lambda e, k: e + of(k, e.shape[-1])
            ),
            "The encoding of k is a factor; it takes the cosine's and the sine's part of both.": (
                lambda e, k: e * of(k, e.shape[-1])
            ),
            "k is added to the encoding; it should turn it.": lambda e, k: e + k,
            "The encoding comes back unchanged.": lambda e, k: e,
        },
        why="The position itself was not needed: a step of k is the same rotation everywhere.",
        tolerance=1e-4,
    )


@check
def cached_step(function):
    """`function(layer, x, keys, values)`: the newest token x (batch, 1, width) with the keys and
    values (batch, heads, past, d_k) before it; gives output (batch, 1, width), keys, values."""

    def case(batch, heads, past, width):
        layer = MultiHeadAttention(width, heads)
        keys, values = (
            part.detach() for part in layer.keys_values(torch.randn(batch, past, width))
        )
        return layer, torch.randn(batch, 1, width), keys, values

    def variant(order=1, look=lambda keys: keys, given=lambda layer, x: layer.keys_values(x)):
        def step(layer, x, keys, values):
            pair = zip((keys, values), given(layer, x), strict=True)
            grown = [torch.cat((old, new)[::order], dim=2) for old, new in pair]
            return layer(x, tuple(map(look, grown)), None)[0], *grown

        return step

    right = variant()

    def replaced(layer, x, keys, values):
        return right(layer, x, keys[:, :, :-1], values[:, :, :-1])

    compare(
        "cached_step",
        function,
        right,
        {
            "one past token": case(1, 1, 1, 4),
            "three past tokens, two heads": case(1, 2, 3, 4),
            "a batch": case(3, 4, 5, 16),
            "the first token, nothing before it": case(2, 2, 0, 8),
        },
        {
            "It looks at the past only; a token also looks at itself.": variant(
                look=lambda x: x[:, :, :-1]
            ),
            "It looks at itself only, and not at the past.": variant(look=lambda x: x[:, :, -1:]),
            "It sees the first key alone: the newest token's row of the causal mask is the last, "
            "and that hides nothing.": variant(look=lambda x: x[:, :, :1]),
            "The new key and value stand first; they belong after the past ones.": variant(-1),
            "The new token was not projected to its key and value.": variant(
                given=lambda layer, x: (layer.split(x),) * 2
            ),
            "The new key was put among the values.": variant(
                given=lambda layer, x: (layer.keys_values(x)[0],) * 2
            ),
            "Keys and values changed places among the results.": (
                lambda *inputs: [right(*inputs)[n] for n in (0, 2, 1)]
            ),
            "The new key and value replace the last ones; they should be added.": replaced,
            "The old keys and values come back, without the new.": (
                lambda layer, x, keys, values: (right(layer, x, keys, values)[0], keys, values)
            ),
        },
        why="It is what the full pass gives at the last position, for one row of scores.",
    )


SPARED = 6  # heads to beat
RIGHT_WITHOUT = 0.9
EXAMPLE = '("encoder", 1, 4)'


@contextlib.contextmanager
def _without(model, heads):
    """The model with these heads' columns of the output layers at 0, for a while."""
    weights = {}
    with torch.no_grad():
        for kind, layer, head in heads:
            block = (model.encoder if kind == "encoder" else model.decoder)[layer - 1]
            attention = block.cross if kind == "cross" else block.attention
            weight = attention.output.weight  # (width, heads of d_k)
            weights.setdefault(weight, weight.detach().clone())
            weight.unflatten(1, (attention.heads, -1))[:, head - 1] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in weights.items():
                weight.copy_(before)


def _accuracy(model, heads) -> float:
    pairs = phrasebook.load().test
    with _without(model, heads):
        found = translate(model, [pair.source for pair in pairs], attention=False)
    return sequence_accuracy([one.text for one in found], [pair.target for pair in pairs])


@check
def spare_heads(heads):
    """Heads, (kind, layer, head) counted from 1, that the phrasebook's transformer can spare and
    still translate nine in ten of the test sentences right."""
    name = "spare_heads"
    if heads is None or heads is ...:
        return say("…", name, "not written yet.")
    if not isinstance(heads, (list, tuple, set)):
        return say("✗", name, f"a list of heads such as {EXAMPLE} is asked for.")
    heads = [tuple(head) if isinstance(head, (list, tuple)) else head for head in heads]
    model = phrasebook_model("transformer", progress=False)
    layers, most = model.settings["layers"], model.settings["heads"]
    kinds = ("encoder", "decoder", "cross")
    there = list(itertools.product(kinds, range(1, layers + 1), range(1, most + 1)))
    if unknown := [head for head in heads if head not in there]:
        return say(
            "✗",
            name,
            f"there is no head {describe(unknown[0])}.",
            f"A head is written as {EXAMPLE}: “encoder” or “decoder” (which look at themselves) or",
            f"“cross”, then layer 1 to {layers}, then head 1 to {most}.",
        )
    if len(set(heads)) < len(heads):
        return say("✗", name, "one head is in the list twice; it can be spared only once.")
    right, asked = _accuracy(model, heads), f"{RIGHT_WITHOUT:.0%} are asked for"
    told = f"without these {len(heads)} heads {right:.1%} of the sentences are right"
    if right < RIGHT_WITHOUT:
        hint = "Which of them costs most? Put it back, and look for another."
        return say("✗", name, f"{told}; {asked}.", hint)
    if len(heads) <= SPARED:
        return say("✗", name, f"{told}; {SPARED} heads are to beat.", "There is room for more.")
    say("✓", name, f"{told}; {SPARED} heads were to beat.")
