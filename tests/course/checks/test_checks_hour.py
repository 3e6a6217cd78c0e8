import math

import torch
from checking import CheckTests

from s2s_helpers.course.checks import hour
from s2s_helpers.vocabulary import EOS, PAD


def pad_by_loop(rows, fill):
    table = torch.full((len(rows), max(map(len, rows))), fill)
    for cells, row in zip(table, rows, strict=True):
        cells[: len(row)] = torch.tensor(row)
    return table


def pad_lists(rows, fill):
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


def pad_left(rows, fill):
    return pad_lists([row[::-1] for row in rows], fill).flip(1)


def pad_in_place(rows, fill):
    for row in rows:
        row += [fill] * (max(map(len, rows)) - len(row))
    return torch.tensor(rows)


def rows_by_loop(found, correct):
    right = 0
    for one, other in zip(found.tolist(), correct.tolist(), strict=True):
        end = other.index(EOS) + 1
        right += one[:end] == other[:end]
    return right / len(found)


def rows_by_length(found, correct):
    ends = (correct == EOS).int().argmax(dim=1, keepdim=True)  # the first of each row
    outside = torch.arange(correct.shape[1]) > ends
    return ((found == correct) | outside).all(1).float().mean()


def rows(found, correct, eos=True, after=False, mean=True):
    values = []
    for one, other in zip(found.tolist(), correct.tolist(), strict=True):
        end = len(other) if after else other.index(EOS) + eos
        values.append(one[:end] == other[:end])
    return sum(values) / (len(values) if mean else 1)


def tokens(found, correct):
    ends = (correct == EOS).int().argmax(dim=1, keepdim=True)
    return (found == correct)[torch.arange(correct.shape[1]) <= ends].float().mean().item()


def context_by_loop(query, states, mask):
    found = []
    for q, rows_of, real in zip(query, states, mask, strict=True):
        rows_of = rows_of[real]
        found.append((rows_of @ q).softmax(0) @ rows_of)
    return torch.stack(found)


def context(query, states, mask, fill=-math.inf, dim=-1, scale=1.0):
    scores = torch.einsum("bh,bsh->bs", query, states) * scale
    weights = scores.masked_fill(~mask, fill).softmax(dim=dim)
    return torch.einsum("bs,bsh->bh", weights, states)


def context_masked_late(query, states, mask):
    weights = torch.einsum("bh,bsh->bs", query, states).softmax(-1) * mask
    return torch.einsum("bs,bsh->bh", weights, states)


def mask_by_loop(target):
    batch, time = target.shape
    mask = torch.zeros(batch, time, time, dtype=torch.bool)
    for row in range(batch):
        for i in range(time):
            for j in range(i + 1):
                mask[row, i, j] = bool(target[row, j] != PAD)
    return mask


def mask_by_tril(target):
    return (target != 0)[:, None].expand(-1, target.shape[1], -1).tril()


def full(target):
    return torch.ones(len(target), target.shape[1], target.shape[1], dtype=torch.bool)


RIGHT = {
    "predict_uniform_loss": [6.9078, 6.9, torch.tensor(math.log(1000))],
    "pad": [pad_by_loop, pad_lists],
    "rows_without_a_mistake": [rows_by_loop, rows_by_length],
    "dot_attention": [context_by_loop, context],
    "decoder_mask": [mask_by_loop, mask_by_tril],
}
WRONG = {
    "predict_uniform_loss": [
        ("is positive", -6.908),
        ("In bits", 9.966),
        ("base 10", 3),
        ("the probability", 0.001),
        ("Only the first part", 6.217),
        ("Only the second part", 0.6908),
        ("you say 5.00; it is 6.91", 5.0),
    ],
    "pad": [
        ("on the left", pad_left),
        ("One column too many", lambda rows, fill: torch.nn.functional.pad(
            pad_lists(rows, fill), (0, 1), value=fill)),
        ("with 0, not with", lambda rows, fill: pad_lists(rows, 0)),
        ("cut to the shortest", lambda rows, fill: torch.tensor(
            [row[: min(len(each) for each in rows)] for row in rows])),
        ("a list", lambda rows, fill: pad_lists(rows, fill).tolist()),
        ("in place", pad_in_place),
    ],
    "rows_without_a_mistake": [
        ("after <eos> is compared", lambda f, c: rows(f, c, after=True)),
        ("Tokens are counted", tokens),
        ("itself is not compared", lambda f, c: rows(f, c, eos=False)),
        ("divide it by all", lambda f, c: float(rows(f, c, mean=False))),
        ("with a mistake", lambda f, c: 1 - rows(f, c)),
        ("expected", lambda f, c: 0.5),
    ],
    "dot_attention": [
        ("not used", lambda q, s, m: context(q, s, torch.ones_like(m))),
        ("after the softmax", context_masked_late),
        ("score 0, not -inf", lambda q, s, m: context(q, s, m, fill=0.0)),
        ("inverted", lambda q, s, m: context(q, s, ~m, fill=-1e9)),
        ("over the batch", lambda q, s, m: context(q, s, m, fill=-1e9, dim=0)),
        ("Luong does not", lambda q, s, m: context(q, s, m, scale=q.shape[-1] ** -0.5)),
        ("softmax is missing", lambda q, s, m: torch.einsum(
            "bs,bsh->bh", torch.einsum("bh,bsh->bs", q, s) * m, s)),
    ],
    "decoder_mask": [
        ("Padding is not hidden", lambda t: full(t).tril()),
        ("Later positions are not", lambda t: full(t) & (t != PAD)[:, None]),
        ("changed places", lambda t: full(t).triu() & (t != PAD)[:, None]),
        ("as a query", lambda t: full(t).tril() & (t != PAD)[:, :, None]),
        ("does not see itself", lambda t: full(t).tril(-1) & (t != PAD)[:, None]),
        ("inverted", lambda t: ~mask_by_tril(t)),
        ("`and`, not `or`", lambda t: full(t).tril() | (t != PAD)[:, None]),
    ],
}  # fmt: skip


class TestChecks(CheckTests):
    checks, right, wrong = hour, RIGHT, WRONG
