import pytest
import torch
from checking import CheckTests

from s2s_helpers.course.checks import attention
from s2s_helpers.metrics import alignment_error_rate, attention_links
from s2s_helpers.models import BahdanauAttention, LuongAttention

INF = float("inf")


def softmax_by_loop(scores, mask):
    weights = torch.zeros_like(scores, dtype=torch.float64)
    for row, (values, real) in enumerate(zip(scores, mask, strict=True)):
        weights[row, real] = values[real].double().softmax(0)
    return weights


def softmax_renormalised(scores, mask):
    weights = scores.where(mask, torch.tensor(-1e9)).softmax(-1) * mask
    return weights / weights.sum(-1, keepdim=True)


def softmax_in_place(scores, mask):
    scores[~mask] = -INF
    return scores.softmax(-1)


def general_by_module(query, states, W):
    module = LuongAttention(W.shape[0], W.shape[1], "general")
    module.key.weight.data = W
    return module.scores(query, module.keys(states))


def general_by_loop(query, states, W):
    rows = [
        torch.stack([torch.stack([q @ W @ s for s in s_row]) for q in q_row])
        for q_row, s_row in zip(query, states, strict=True)
    ]
    return torch.stack(rows)


def general(query, states, W):
    return torch.einsum("btq,qs,bns->btn", query, W, states)


def bahdanau_by_module(query, states, W, U, v):
    module = BahdanauAttention(W.shape[1], U.shape[1], len(v))
    module.query.weight.data, module.key.weight.data = W, U
    module.query.bias.data.zero_()
    module.energy.weight.data = v[None]
    return module.scores(query, module.keys(states))


def bahdanau_by_loop(query, states, W, U, v):
    columns = [torch.tanh((query @ W.T) + (state @ U.T)[:, None]) @ v for state in states.unbind(1)]
    return torch.stack(columns, dim=-1)


def summed(query, states, W, U):
    return torch.einsum("btq,wq->btw", query, W)[:, :, None] + (states @ U.T).unsqueeze(1)


def rate_by_sets(links, gold):
    a = {(n, *link) for n, each in enumerate(links) for link in each}
    s = {(n, *link) for n, each in enumerate(gold) for link in each}
    return torch.tensor(1 - 2 * len(a & s) / (len(a) + len(s)))


def wrong_rate(formula):
    def function(links, gold):
        both = sum(len(a & s) for a, s in zip(links, gold, strict=True))
        return formula(both, sum(map(len, links)), sum(map(len, gold)))

    return function


def mean_rate(links, gold):
    rates = [alignment_error_rate([a], [s]) for a, s in zip(links, gold, strict=True)]
    return torch.tensor(rates).mean()


def rate_in_place(links, gold):
    common = total = 0
    for a, s in zip(links, gold, strict=True):
        total += len(a) + len(s)
        a &= s
        common += len(a)
    return 1 - 2 * common / total


def both_ways(matrix):
    rows = {(int(i), j) for j, i in enumerate(matrix.argmax(1))}
    return rows | {(i, int(j)) for i, j in enumerate(matrix.argmax(0))}


def by_weight(matrix):
    return [(i, j) for j, i in (matrix > 0.3).nonzero().tolist()]


RIGHT = {
    "predict_weights": [
        [1 / 3, 1 / 3, 1 / 3, 0, 0],
        (0.333, 0.333, 0.333, 0.0, 0.0),
        torch.tensor([0.33, 0.33, 0.33, 0, 0]),
    ],
    "masked_softmax": [softmax_by_loop, softmax_renormalised],
    "luong_general": [general, general_by_module, general_by_loop],
    "bahdanau_scores": [bahdanau_by_module, bahdanau_by_loop],
    "alignment_error": [alignment_error_rate, rate_by_sets],
    "better_links": [both_ways, by_weight],
}
WRONG = {
    "predict_weights": [
        ("as without a mask", [0.2] * 5),
        ("masked after the softmax", [0.2, 0.2, 0.2, 0, 0]),
        ("sum to 1", [1, 1, 1, 0, 0]),
        ("minus infinity", [1 / 3] * 5),
        ("turned round", [0, 0, 0, 0.5, 0.5]),
        ("you say [1, 0]", [1, 0]),
        ("you say 0.3333", 1 / 3),
    ],
    "masked_softmax": [
        ("mask is inverted", lambda scores, mask: scores.masked_fill(mask, -INF).softmax(1)),
        ("no longer sum to 1", lambda scores, mask: scores.softmax(-1).masked_fill(~mask, 0)),
        ("e^0 is 1", lambda scores, mask: (scores * mask).softmax(-1)),
        ("e^0 is 1", lambda scores, mask: scores.masked_fill(~mask, 1e-9).softmax(-1)),
        ("wrong axis", lambda scores, mask: scores.masked_fill(~mask, -INF).softmax(0)),
        ("is not masked", lambda scores, mask: scores.softmax(-1)),
        ("Not divided", lambda scores, mask: scores.exp().masked_fill(~mask, 0)),
        ("the whole batch", lambda s, m: s.exp() * m / (s.exp() * m).sum()),
        ("logarithm", lambda scores, mask: scores.masked_fill(~mask, -INF).log_softmax(-1)),
        ("more than 88", lambda s, m: (s.exp() * m) / (s.exp() * m).sum(-1, keepdim=True)),
        ("without e to their", lambda s, m: s * m / (s * m).sum(1, keepdim=True)),
        ("scores was changed in place", softmax_in_place),
    ],
    "luong_general": [
        ("W is missing", lambda q, s, W: torch.einsum("btd,bnd->btn", q, s)),
        ("W is turned", lambda q, s, W: torch.einsum("btq,sq,bns->btn", q, W, s)),
        ("softmax", lambda q, s, W: general(q, s, W).softmax(-1)),
        ("the transformer does so", lambda q, s, W: general(q, s, W) / s.shape[-1] ** 0.5),
        ("Divided by the width", lambda q, s, W: general(q, s, W) / s.shape[-1]),
        ("states.T turns all", lambda q, s, W: q @ W @ s.permute(2, 1, 0)),
        ("Batch and source", lambda q, s, W: q @ W @ s.transpose(0, 1)),
        ("tanh belongs", lambda q, s, W: torch.tanh(general(q, s, W))),
        ("Axes changed places", lambda q, s, W: general(q, s, W).mT),
        ("Its shape is (2,)", lambda q, s, W: general(q, s, W)[0, 0]),
        ("W was changed in place", lambda q, s, W: general(q, s, W.mul_(2)) / 2),
    ],
    "bahdanau_scores": [
        ("tanh is missing", lambda q, s, W, U, v: summed(q, s, W, U) @ v),
        ("around the whole", lambda q, s, W, U, v: torch.tanh(summed(q, s, W, U) @ v)),
        ("tanh is taken of each part", lambda q, s, W, U, v: (
            (q @ W.T).tanh()[:, :, None] + (s @ U.T).tanh()[:, None]) @ v),
        ("W and U changed places", lambda q, s, W, U, v: bahdanau_by_loop(q, s, U, W, v)),
        ("they are to be added", lambda q, s, W, U, v: torch.tanh(
            (q @ W.T)[:, :, None] * (s @ U.T)[:, None]) @ v),
        ("before softmax", lambda *a: bahdanau_by_loop(*a).softmax(-1)),
        ("v is missing", lambda q, s, W, U, v: summed(q, s, W, U).tanh().sum(-1)),
        ("A mean over the width", lambda *a: bahdanau_by_loop(*a) / len(a[-1])),
        ("A sigmoid", lambda q, s, W, U, v: summed(q, s, W, U).sigmoid() @ v),
        ("Axes changed places", lambda *a: bahdanau_by_loop(*a).transpose(1, 2)),
        ("Its shape is (1, 1, 2, 1)", lambda *a: bahdanau_by_loop(*a)[..., None]),
    ],
    "alignment_error": [
        ("The mean of the sentences", mean_rate),
        ("model's links that are wrong", wrong_rate(lambda both, a, s: 1 - both / a)),
        ("gold links that are missing", wrong_rate(lambda both, a, s: 1 - both / s)),
        ("1 minus it", wrong_rate(lambda both, a, s: 2 * both / (a + s))),
        ("The factor 2", wrong_rate(lambda both, a, s: 1 - both / (a + s))),
        ("the union", lambda links, gold: 1 - len(links[0] & gold[0]) / len(links[0] | gold[0])),
        ("without 1 minus", wrong_rate(lambda both, a, s: both / (a + s))),
        ("in place", rate_in_place),
    ],
    "better_links": [
        ("Has every source word", attention_links),
        ("turned round", lambda matrix: {(j, i) for i, j in both_ways(matrix)}),
        ("too many links", lambda m: {(i, j) for i in range(m.shape[1]) for j in range(len(m))}),
        ("too few links", lambda m: {(0, 0)}),
        ("a set of (source, target)", lambda m: m.argmax(1)),
        ("a set of (source, target)", lambda m: {1: 2}),
        ("was changed in place", lambda m: both_ways(m.mul_(2))),
    ],
}  # fmt: skip


class TestChecks(CheckTests):
    checks, right, wrong = attention, RIGHT, WRONG


@pytest.fixture(autouse=True)
def made_up_attention(monkeypatch):
    """Sentences in which the last source word has no target word of its own."""
    size = 7
    matrix = torch.eye(size, size + 1) * 0.55
    matrix[3, 3:5] = torch.tensor([0.4, 0.35])
    matrix[3, -1], matrix[2, 0] = 0.2, 0.1
    matrix[size - 1, size] = 0.4
    gold = {(i, i) for i in range(size)} | {(size, size - 1)}
    monkeypatch.setattr(attention, "_attention", lambda: ([matrix] * 3, [gold] * 3))
