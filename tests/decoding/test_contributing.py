"""The searches that CONTRIBUTING shows do what it says."""

import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from toy_models import KINDS, brute_force, build, next_step, padded, sentences

from s2s_helpers.decoding import beam_search, generate, greedy_decode, sample, translate
from s2s_helpers.vocabulary import EOS, PAD, SOS

TEXT = Path(__file__).parents[2].joinpath("CONTRIBUTING.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT.partition("## Add a search")[2], re.S)
SHOWN: dict = {}
for block in BLOCKS:
    exec(block, SHOWN)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def repeats(ids, n):
    grams = [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]
    return len(set(grams)) < len(grams)


def test_each_is_at_most_twenty_lines():
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        body = block.partition("def ")[2].strip().splitlines()
        assert len([line for line in body if line]) <= 20


@pytest.mark.parametrize("n", [1, 2])
def test_no_repeats(kind, n):
    model, rows = build(kind, seed=3, ending=-9.0), sentences(3)
    batch, score = padded(rows), SHOWN["no_repeats"](n)
    wide = beam_search(model, batch.source, None, 300, 0.0, max_length=5, n_best=3, score=score)
    for source_ids, found in zip(rows, wide, strict=True):
        allowed = [ids for _, ids in brute_force(model, source_ids, 0.0, 5) if not repeats(ids, n)]
        assert [h.ids for h in found] == allowed[:3]
    options = dict(score=score, max_length=12)
    for found in generate(model, batch.source, **options), sample(model, batch.source, **options):
        assert not any(repeats(h.ids, n) for h in found)
    plain = greedy_decode(model, batch.source, max_length=options["max_length"])
    assert any(repeats(h.ids, n) for h in plain)


def test_a_forced_start(kind):
    model, rows = build(kind, seed=3), sentences(3)
    prefixes = [[5, 4], [], [6]]
    search = dict(length_penalty=0.6, max_length=4, n_best=2, score=SHOWN["forced"](prefixes))
    wide = beam_search(model, padded(rows).source, None, 300, **search)
    for source_ids, prefix, found in zip(rows, prefixes, wide, strict=True):
        allowed = [
            ids for _, ids in brute_force(model, source_ids, 0.6, 4) if ids[: len(prefix)] == prefix
        ]
        assert [h.ids for h in found] == allowed[:2]


def by_a_plain_loop(model, source_ids, k, alpha, limit):
    """Equation 5 over one sentence, each h from a `forward` of its own."""

    def h(ids):
        p = torch.tensor(next_step(model, source_ids, ids), dtype=torch.double).exp()
        p[[PAD, SOS]] = 0.0
        return p

    ids = []
    while len(ids) < limit and EOS not in ids:
        before = [h(ids[:length]) for length in range(len(ids) + 1)]
        p = before[-1].tolist()
        worth = {}
        for v in sorted(range(len(p)), key=lambda token: -p[token])[:k]:
            cosines = [float(h([*ids, v]) @ b / (h([*ids, v]).norm() * b.norm())) for b in before]
            worth[v] = (1 - alpha) * p[v] - alpha * max(cosines)
        ids.append(max(worth, key=worth.get))
    return ids


@pytest.mark.parametrize(("k", "alpha"), [(3, 0.3), (3, 0.7), (2, 0.6), (4, 0.0)])
def test_contrastive_search(kind, k, alpha):
    search, other = partial(SHOWN["contrastive_search"], k=k, alpha=alpha), False
    for seed in range(3):
        model, rows = build(kind, seed=seed, ending=-1.0), sentences(4, seed)
        found = search(model, padded(rows).source, max_length=5)
        for source_ids, one in zip(rows, found, strict=True):
            assert one.ids == by_a_plain_loop(model, source_ids, k, alpha, 5)
            assert math.isfinite(one.log_probability)
        greedy = greedy_decode(model, padded(rows).source, max_length=5)
        other |= [h.ids for h in found] != [h.ids for h in greedy]
    assert other == (alpha > 0)


def test_translate_takes_them(kind):
    model, texts = build(kind), ["w4 w5", "w6 w7 w8 w4"]
    once = partial(beam_search, beam_size=3, score=SHOWN["no_repeats"](2))
    for search in SHOWN["contrastive_search"], once:
        found = translate(model, texts, search=search, max_length=6)
        alone = [translate(model, [text], search=search, max_length=6)[0] for text in texts]
        assert [t.text for t in found] == [t.text for t in alone]
