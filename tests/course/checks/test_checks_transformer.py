import math

import pytest
import torch
from checking import CheckTests
from torch.nn import functional as F

from s2s_helpers.course.checks import transformer as checks
from s2s_helpers.models import MultiHeadAttention, TransformerSeq2Seq, transformer
from s2s_helpers.vocabulary import Vocabulary


def mask_by_loops(length):
    mask = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(i + 1):
            mask[i, j] = True
    return mask


MASK = [
    ("inverted", lambda n: torch.ones(n, n).triu(1).bool()),
    ("Rows and columns", lambda n: torch.arange(n)[:, None] <= torch.arange(n)),
    ("diagonal is left out", lambda n: torch.arange(n)[:, None] > torch.arange(n)),
    ("Shifted by one", lambda n: torch.arange(n)[:, None] + 1 >= torch.arange(n)),
    ("nothing is hidden", lambda n: torch.full((n, n), True)),
    ("float32; bool is right", lambda n: torch.tril(torch.ones(n, n))),
    ("float32; bool", lambda n: torch.full((n, n), -math.inf).triu(1)),
    ("shape is (1,)", lambda n: torch.ones(n).bool()),
    ("a list", lambda n: [[j <= i for j in range(n)] for i in range(n)]),
]


def by_torch(query, key, value, mask):
    scores = torch.einsum("...td,...sd->...ts", query, key) * query.size(-1) ** -0.5
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(-1e9))
    weights = F.softmax(scores, dim=-1)
    return weights.matmul(value), weights


def by_hand(query, key, value, mask):
    """float64, the largest score taken off."""
    query, key, value = query.double(), key.double(), value.double()
    scores = query @ key.mT / math.sqrt(key.shape[-1])
    mask = torch.ones_like(scores).bool() if mask is None else mask.expand_as(scores)
    scores = scores.masked_fill(~mask, -math.inf)
    powers = (scores - scores.amax(-1, True)).exp()
    weights = powers / powers.sum(-1, keepdim=True)
    return [weights @ value, weights]


def by_additive_mask(query, key, value, mask):
    bias = 0 if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    weights = torch.softmax(query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5 + bias, -1)
    return F.scaled_dot_product_attention(query, key, value, mask), weights


def dot(scale=lambda q, k, v: math.sqrt(q.shape[-1]), dim=-1, fill=-math.inf, used=None):
    def attention(query, key, value, mask):
        scores = query @ key.mT / scale(query, key, value)
        if mask is not None and fill is not None:
            scores = scores.masked_fill((used or torch.logical_not)(mask), fill)
        weights = F.softmax(scores, dim)
        return weights @ value, weights

    return attention


def masked_after(query, key, value, mask):
    weights = dot(fill=None)(query, key, value, None)[1]
    weights = weights if mask is None else weights.masked_fill(~mask, 0)
    return weights @ value, weights


def naive_softmax(query, key, value, mask):
    e = torch.exp(query @ key.mT / math.sqrt(key.shape[-1]))
    if mask is not None:
        e = e * mask
    return e / e.sum(-1, keepdim=True) @ value, e / e.sum(-1, keepdim=True)


def scaled_late(query, key, value, mask):
    weights = dot(lambda *_: 1)(query, key, value, mask)[1] / math.sqrt(query.shape[-1])
    return weights @ value, weights


ATTENTION = [
    ("not scaled", dot(lambda *_: 1)),
    ("not by its root", dot(lambda q, k, v: q.shape[-1])),
    ("multiplied by √d_k", dot(lambda q, k, v: q.shape[-1] ** -0.5)),
    ("width of the values", dot(lambda q, k, v: math.sqrt(v.shape[-1]))),
    ("number of keys", dot(lambda q, k, v: math.sqrt(len(k)))),
    ("Softmax over the wrong axis", dot(dim=0)),
    ("Softmax over the wrong axis", dot(dim=-2)),
    ("Softmax over the wrong axis", dot(dim=1)),
    ("after the softmax; it belongs", scaled_late),
    ("The mask is inverted", dot(used=lambda mask: mask)),
    ("The mask has no effect", lambda q, k, v, mask: by_torch(q, k, v, None)),
    ("a d_k from outside", dot(lambda *_: math.sqrt(8))),
    ("no longer sums to 1", masked_after),
    ("e to the 0 is 1", dot(fill=0)),
    ("changed places: first the mixed", lambda *inputs: by_torch(*inputs)[::-1]),
    ("overflows", naive_softmax),
    ("not low enough", dot(fill=-1e4)),
    ("A tuple is asked for", lambda *inputs: by_torch(*inputs)[0]),
    ("masked_fill", lambda q, k, v, mask: (q @ k.mT).masked_fill(~mask, 0)),
]


def heads_one_by_one(layer, x, memory, mask):
    found, d = [], x.shape[-1] // layer.heads
    for head in range(layer.heads):
        rows = slice(head * d, (head + 1) * d)
        q, k, v = layer.query(x)[..., rows], layer.key(memory)[..., rows], layer.value(memory)
        scores = q @ k.mT / d**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), -1e9)
        found.append(scores.softmax(-1) @ v[..., rows])
    return layer.output(torch.cat(found, dim=-1))


def heads_by_einsum(layer, x, memory, mask):
    h = layer.heads
    q, k, v = (
        y.reshape(*y.shape[:2], h, -1)
        for y in (layer.query(x), layer.key(memory), layer.value(memory))
    )
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)[:, None, None, :]
    return layer.output(torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).flatten(2))


def heads_in_the_batch(layer, x, memory, mask):
    """As PyTorch does: heads beside sentences in one axis."""
    h, d = layer.heads, x.shape[-1] // layer.heads

    def split(y):
        return y.view(*y.shape[:2], h, d).permute(0, 2, 1, 3).reshape(-1, y.shape[1], d)

    mask = None if mask is None else mask.repeat_interleave(h, 0)[:, None]
    mixed = F.scaled_dot_product_attention(
        split(layer.query(x)), split(layer.key(memory)), split(layer.value(memory)), mask
    )
    mixed = mixed.view(len(x), h, -1, d).transpose(1, 2).reshape(*x.shape)
    return layer.output(mixed)


def many(change=lambda **parts: parts, split=None, join=None, d=None):
    """The heads with something changed."""

    def attend(layer, x, memory, mask):
        h = layer.heads
        parts = dict(q=x, k=memory, v=memory, query=layer.query, key=layer.key, value=layer.value)
        parts = change(**parts, output=layer.output, mask=mask)
        q, k, v = (
            (split or (lambda y: y.view(len(y), y.shape[1], h, -1).transpose(1, 2)))(y)
            if split is None
            else split(y, h)
            for y in (
                parts["query"](parts["q"]), parts["key"](parts["k"]), parts["value"](parts["v"])
            )
        )  # fmt: skip
        scores = q @ k.mT / math.sqrt(d(x) if d else q.shape[-1])
        if parts["mask"] is not None:
            shown = parts["mask"]
            scores = scores.masked_fill(
                ~(shown[:, None, None] if shown.dim() == 2 else shown), -1e9
            )
        mixed = scores.softmax(-1) @ v
        joined = join(mixed) if join else mixed.transpose(1, 2).reshape(len(x), -1, x.shape[-1])
        return parts["output"](joined)

    return attend


def replace(**new):
    """Parts of `many` replaced by what these functions make of all of them."""
    return lambda **parts: parts | {name: make(parts) for name, make in new.items()}


MULTI_HEAD = [
    ("cut out of the time axis", many(split=lambda y, h: y.view(len(y), h, y.shape[1], -1))),
    (
        "joined without moving",
        many(join=lambda y: y.reshape(len(y), y.shape[2], y.shape[1] * y.shape[3])),
    ),
    (
        "every h-th number",
        many(
            split=lambda y, h: y.view(*y.shape[:2], -1, h).permute(0, 3, 1, 2),
            join=lambda y: torch.stack(y.unbind(1), -1).flatten(2),
        ),
    ),
    ("scale is √d_model", many(d=lambda x: x.shape[-1])),
    ("W^O is left out", many(replace(output=lambda parts: lambda y: y))),
    ("One head does it all", many(split=lambda y, h: y.unsqueeze(1))),
    ("Keys and values come from x", many(replace(k=lambda p: p["q"], v=lambda p: p["q"]))),
    (
        "x and memory changed places",
        lambda layer, x, memory, mask: heads_by_einsum(layer, memory, x, mask),
    ),
    ("The keys serve as values", many(replace(value=lambda p: p["key"]))),
    (
        "The mask is inverted",
        many(replace(mask=lambda p: None if p["mask"] is None else ~p["mask"])),
    ),
    ("The mask is not used", many(replace(mask=lambda p: None))),
    (
        "laid over the heads",
        many(replace(mask=lambda p: None if p["mask"] is None else p["mask"][:, None])),
    ),
    ("A tensor is asked for", lambda *inputs: (heads_by_einsum(*inputs), None)),
    ("Axes changed places", lambda *inputs: heads_by_einsum(*inputs).transpose(0, 1)),
]


def shift_by_matrices(encoding, k):
    width = encoding.shape[-1]
    new = torch.empty_like(encoding)
    for i in range(0, width, 2):
        b = k / 10000 ** (i / width)
        turn = torch.tensor([[math.cos(b), math.sin(b)], [-math.sin(b), math.cos(b)]])
        new[..., i : i + 2] = encoding[..., i : i + 2] @ turn.T
    return new


def shift_by_complex(encoding, k):
    pairs = torch.view_as_complex(encoding.double().unflatten(-1, (-1, 2)).contiguous())
    i = torch.arange(pairs.shape[-1], dtype=torch.double)
    angle = k / 10000 ** (i / pairs.shape[-1])
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), -angle)).flatten(-2)


def shift_by_reading_the_clock(encoding, k):
    """Find the position by its sine and cosine, and take k more."""
    width = encoding.shape[-1]
    rate = 10000 ** (-torch.arange(0, width, 2) / width)
    angle = torch.atan2(encoding[..., 0::2], encoding[..., 1::2]) + k * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


def shift_by_looking_it_up(encoding, k):
    """Find the rows in the package's table, and take those k below."""
    table = transformer.sinusoidal_positions(200, encoding.shape[-1])
    return table[(table - encoding.unsqueeze(-2)).abs().sum(-1).argmin(-1) + k]


def turned(angle=lambda k, i, d: k / 10000 ** (2 * i / d)):
    def shift(encoding, k):
        d = encoding.shape[-1]
        b = angle(k, torch.arange(d // 2), d) * torch.ones(d // 2)
        s, c = encoding[..., 0::2], encoding[..., 1::2]
        new = torch.zeros_like(encoding)
        new[..., 0::2], new[..., 1::2] = s * b.cos() + c * b.sin(), c * b.cos() - s * b.sin()
        return new

    return shift


def in_halves(encoding, k):
    d = encoding.shape[-1]
    b = k / 10000 ** (2 * torch.arange(d // 2) / d)
    s, c = encoding[..., : d // 2], encoding[..., d // 2 :]
    return torch.cat([s * b.cos() + c * b.sin(), c * b.cos() - s * b.sin()], -1)


def of(k, width):
    return transformer.sinusoidal_positions(1000, width)[k]


SHIFT = [
    ("turns backwards", lambda e, k: turned()(e, -k)),
    ("goes on by one position", lambda e, k: shift_by_matrices(e, 1)),
    ("by the same angle", turned(lambda k, i, d: torch.tensor(float(k)))),
    ("2i/d_model", turned(lambda k, i, d: k / 10000 ** (i / d))),
    ("multiplied by the wavelength", turned(lambda k, i, d: k * 10000 ** (2 * i / d))),
    ("two halves", in_halves),
    ("is added; a sum of two sines", lambda e, k: e + of(k, e.shape[-1])),
    ("is a factor", lambda e, k: e * of(k, e.shape[-1])),
    ("k is added", lambda e, k: e + float(k)),
    ("comes back unchanged", lambda e, k: e.clone()),
    ("stopped on", lambda e, k: e.roll(k, dims=0)[k]),
]


def step_by_verbs(layer, x, keys, values):
    new_key, new_value = layer.keys_values(x)
    keys, values = torch.cat([keys, new_key], dim=-2), torch.cat([values, new_value], dim=-2)
    output, _ = layer(x, (keys, values), torch.ones(1, keys.shape[2]).bool())
    return output, keys, values


def step_by_hand(layer, x, keys, values):
    batch, h, past, d = keys.shape
    q, k, v = (part(x).view(batch, h, 1, d) for part in (layer.query, layer.key, layer.value))
    grown = [torch.empty(batch, h, past + 1, d) for _ in range(2)]
    for whole, old, new in zip(grown, (keys, values), (k, v), strict=True):
        whole[:, :, :past], whole[:, :, past:] = old, new
    mixed = F.scaled_dot_product_attention(q, *grown)
    return [layer.output(mixed.reshape(batch, 1, h * d)), *grown]


def stepping(see=slice(None), back=lambda old, new: torch.cat([old, new], 2)):
    def step(layer, x, keys, values):
        k, v = layer.keys_values(x)
        keys, values = back(keys, k), back(values, v)
        return layer(x, (keys[:, :, see], values[:, :, see]), None)[0], keys, values

    return step


def unprojected(layer, x, keys, values):
    raw = layer.split(x)
    keys, values = torch.cat([keys, raw], 2), torch.cat([values, raw], 2)
    return layer(x, (keys, values), None)[0], keys, values


def forgetful(layer, x, keys, values):
    return step_by_verbs(layer, x, keys, values)[0], keys, values


def key_for_value(layer, x, keys, values):
    new, _ = layer.keys_values(x)
    keys, values = torch.cat([keys, new], 2), torch.cat([values, new], 2)
    return layer(x, (keys, values), None)[0], keys, values


def causal_from_the_top(layer, x, keys, values):
    k, v = layer.keys_values(x)
    keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
    mask = transformer.causal_mask(keys.shape[2])[:1]
    return layer(x, (keys, values), mask)[0], keys, values


STEP = [
    ("at the past only", stepping(slice(0, -1))),
    ("at itself only", stepping(slice(-1, None))),
    ("sees the first key alone", causal_from_the_top),
    ("stand first", stepping(back=lambda old, new: torch.cat([new, old], 2))),
    ("not projected", unprojected),
    ("among the values", key_for_value),
    ("changed places among the results", lambda *i: [step_by_verbs(*i)[n] for n in (0, 2, 1)]),
    ("replace the last", stepping(back=lambda old, new: torch.cat([old[:, :, :-1], new], 2))),
    ("without the new", forgetful),
    ("A tuple is asked for", lambda *inputs: step_by_verbs(*inputs)[0]),
    ("Its shape is", lambda *i: (step_by_verbs(*i)[0].squeeze(1), *step_by_verbs(*i)[1:])),
]

SIX = [("encoder", 1, 1), ("encoder", 1, 4), ("encoder", 2, 1), ("cross", 1, 1), ("cross", 2, 4)]
SIX = [*SIX, ("decoder", 2, 1)]
SEVEN = [*SIX, ("decoder", 2, 3)]

RIGHT = {
    "predict_first_position": [[1.0, 2.0], (1, 2), torch.tensor([1, 2]), torch.tensor([1.0, 2.0])],
    "causal_mask": [
        mask_by_loops,
        lambda n: torch.arange(n)[:, None] >= torch.arange(n),
        lambda n: ~torch.triu(torch.ones(n, n), diagonal=1).bool(),
        lambda n: torch.ones(n, n).bool().triu().T,
    ],
    "scaled_dot_product_attention": [by_torch, by_hand, by_additive_mask],
    "multi_head_attention": [heads_one_by_one, heads_by_einsum, heads_in_the_batch, many()],
    "position_shift": [
        shift_by_matrices,
        shift_by_complex,
        shift_by_reading_the_clock,
        shift_by_looking_it_up,
    ],
    "cached_step": [step_by_verbs, step_by_hand, stepping()],
    "spare_heads": [SEVEN, {*SEVEN}, [list(head) for head in SEVEN]],
}
WRONG = {
    "predict_first_position": [
        ("mean of all values", [4, 2]),
        ("later values", [5.5, 2]),
        ("may look at itself", [0, 0]),
        ("last value", torch.tensor([8, 0])),
        ("sum of all", (12, 6)),
        ("it is [1, 2]", [1, 3]),
        ("it is [1, 2]", 1),
        ("it is [1, 2]", "nobody can know"),
    ],
    "causal_mask": MASK,
    "scaled_dot_product_attention": ATTENTION,
    "multi_head_attention": MULTI_HEAD,
    "position_shift": SHIFT,
    "cached_step": STEP,
    "spare_heads": [
        ("6 heads are to beat", SIX),
        ("90% are asked for", [*SEVEN, ("decoder", 1, 2)]),
        ("twice", [*SEVEN, SEVEN[0]]),
        ("no head ('encoder', 0, 1)", [("encoder", 0, 1)]),
        ("layer 1 to 2, then head 1 to 4", [("encoder", 1, 5)]),
        ("no head 'encoder'", ["encoder", 1, 4]),
        ("a list of heads", 7),
    ],
}


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """In the place of the trained transformer; it misses decoder head 2 of layer 1 alone."""
    words = Vocabulary(["a", "b"])
    model = TransformerSeq2Seq(words, words, width=16, layers=2, heads=4, feedforward=16).eval()
    monkeypatch.setattr(checks, "phrasebook_model", lambda kind, progress: model)
    monkeypatch.setattr(
        checks, "_accuracy", lambda model, heads: 0.5 if ("decoder", 1, 2) in heads else 0.95
    )
    return model


class TestChecks(CheckTests):
    checks, right, wrong = checks, RIGHT, WRONG


def test_a_cached_step_is_the_full_pass():
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(12, 3), torch.randn(2, 5, 12)
    full, _ = layer(x, layer.keys_values(x), transformer.causal_mask(5))
    output, _, _ = step_by_hand(layer, x[:, 4:], *layer.keys_values(x[:, :4]))
    assert torch.allclose(output[:, 0], full[:, 4], atol=1e-6)


def test_spared_heads_give_nothing_and_come_back(small_model):
    cross, x = small_model.decoder[1].cross, torch.randn(1, 3, 16)
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    whole, _ = cross(x, cross.keys_values(x), None)
    with checks._without(small_model, [("cross", 2, 1), ("cross", 2, 3)]):
        values = cross.split(cross.value(x))
        mixed = transformer.scaled_dot_product_attention(
            cross.split(cross.query(x)), cross.split(cross.key(x)), values, None
        )[0]
        mixed[:, [0, 2]] = 0
        left = cross.output(mixed.transpose(1, 2).flatten(2))
        assert torch.allclose(cross(x, cross.keys_values(x), None)[0], left, atol=1e-6)
        changed = [n for n, value in small_model.state_dict().items() if (value != before[n]).any()]
        assert changed == ["decoder.1.cross.output.weight"]
    assert torch.equal(cross(x, cross.keys_values(x), None)[0], whole)
