"""The checks of notebook 03: scores, weights, and how well attention aligns."""

from functools import cache

import torch

from s2s_helpers import metrics
from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.checks.running import beat, check, compare, predict, results, say
from s2s_helpers.course.recipes import phrasebook_model, phrasebook_vocabularies
from s2s_helpers.data import Seq2SeqDataset, collate
from s2s_helpers.models.attention import masked_softmax as package_softmax

__all__ = [
    "alignment_error", "bahdanau_scores", "better_links", "luong_general", "masked_softmax",
    "predict_weights",
]  # fmt: skip


@check
def predict_weights(guess):
    """A guess: the five weights of a row whose scores are equal and whose last two are padding."""
    third = 1 / 3
    predict(
        "predict_weights",
        guess,
        [third, third, third, 0.0, 0.0],
        within=0.01,
        mistakes={
            "Padding gets its share, as without a mask.": [0.2] * 5,
            "The sum is 0.6: masked after the softmax, not before.": [0.2, 0.2, 0.2, 0.0, 0.0],
            "Weights of a row sum to 1.": [1.0, 1.0, 1.0, 0.0, 0.0],
            "Padding has a score of minus infinity, and so no weight.": [third] * 5,
            "The mask is turned round: real tokens get nothing.": [0.0, 0.0, 0.0, 0.5, 0.5],
        },
        why="The real tokens share it out among them.",
    )


@check
def masked_softmax(function):
    """`function(scores, mask)`: scores (batch, source) and a mask, True at real tokens, to weights
    (batch, source) that sum to 1 over the real tokens and are 0 elsewhere."""

    def fill(value, dim=-1):
        return lambda scores, mask: scores.masked_fill(~mask, value).softmax(dim)

    def by_powers(scores, mask):
        powers = scores.exp() * mask
        return powers / powers.sum(-1, keepdim=True)

    yes, no = True, False
    compare(
        "masked_softmax",
        function,
        package_softmax,
        {
            "one row, all of it real": (torch.tensor([[1.0, 2.0]]), torch.tensor([[yes, yes]])),
            "a padded row": (torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[yes, yes, no]])),
            "two rows": (torch.randn(2, 3), torch.tensor([[yes, no, no], [yes, yes, yes]])),
            "negative scores": (torch.randn(2, 4) - 30, torch.arange(4) < torch.tensor([[2], [3]])),
            "many rows": (torch.randn(5, 9), torch.arange(9) < torch.randint(1, 10, (5, 1))),
            "scores of more than 88": (
                torch.tensor([[120.0, 119.0, 500.0]]), torch.tensor([[yes, yes, no]])
            ),
        },
        {
            "The mask is inverted: True stands at real tokens.": lambda scores, mask: (
                scores.masked_fill(mask, -torch.inf).softmax(-1)
            ),
            "Masked after the softmax: the rows no longer sum to 1.": lambda scores, mask: (
                scores.softmax(-1) * mask
            ),
            "Padding has the score 0, not minus infinity, and e^0 is 1.": fill(0.0),
            "Softmax over the wrong axis: it runs over the sentences of the batch.": (
                fill(-torch.inf, 0)
            ),
            "Padding is not masked.": lambda scores, mask: scores.softmax(-1),
            "Not divided by the sum: weights of a row sum to 1.": lambda scores, mask: (
                scores.exp() * mask
            ),
            "The sum runs over the whole batch; every row has its own.": lambda scores, mask: (
                scores.exp() * mask / (scores.exp() * mask).sum()
            ),
            "That is the logarithm of the weights.": lambda scores, mask: (
                fill(-torch.inf)(scores, mask).log()
            ),
            "Divided by the sum of the scores, without e to their power.": lambda scores, mask: (
                scores * mask / (scores * mask).sum(-1, keepdim=True)
            ),
            "e^x is too large for a float where x is more than 88. torch's softmax takes care.": (
                by_powers
            ),
        },
        why="Padding gets exactly nothing.",
    )  # fmt: skip


def _random_states(batch, target, source, query, state):
    return torch.randn(batch, target, query), torch.randn(batch, source, state)


@check
def luong_general(function):
    """`function(query, states, W)`: queries (batch, target, query width), source states (batch,
    source, state width) and W (query width, state width) to scores (batch, target, source)."""

    def reference(query, states, W):
        return query @ W @ states.transpose(1, 2)

    def case(batch, target, source, query, state):
        states = _random_states(batch, target, source, query, state)
        return *states, torch.randn(query, state)

    compare(
        "luong_general",
        function,
        reference,
        {
            "one query, two states": case(1, 1, 2, 2, 2),
            "two queries, three states": case(1, 2, 3, 2, 2),
            "other widths": case(1, 2, 3, 4, 2),
            "a batch of three": case(3, 2, 4, 5, 3),
            "as many queries as states": case(4, 4, 4, 4, 4),
        },
        {
            "W is missing: that is the score “dot”.": lambda query, states, W: (
                query @ states.transpose(1, 2)
            ),
            "W is turned: its rows belong to the query, its columns to the states.": (
                lambda query, states, W: query @ W.T @ states.transpose(1, 2)
            ),
            "That is the weights already; scores come before softmax.": lambda query, states, W: (
                reference(query, states, W).softmax(-1)
            ),
            "Divided by the root of the width: the transformer does so, Luong does not.": (
                lambda query, states, W: reference(query, states, W) / states.shape[-1] ** 0.5
            ),
            "Divided by the width.": lambda query, states, W: (
                reference(query, states, W) / states.shape[-1]
            ),
            "A mean stands where the sum over the width belongs.": lambda query, states, W: (
                reference(query, states, W) / W.numel()
            ),
            "states.T turns all three axes round; only the last two are to change places.": (
                lambda query, states, W: query @ W @ states.permute(2, 1, 0)
            ),
            "Batch and source changed places; the last two axes are to.": (
                lambda query, states, W: query @ W @ states.transpose(0, 1)
            ),
            "tanh belongs to the score “concat”, not to this one.": lambda query, states, W: (
                reference(query, states, W).tanh()
            ),
        },
        why="One product of matrices scores all pairs.",
    )


@check
def bahdanau_scores(function):
    """`function(query, states, W, U, v)`: queries (batch, target, query width), source states
    (batch, source, state width), W (width, query width), U (width, state width) and v (width,) to
    scores (batch, target, source)."""

    def scores(inside=torch.tanh, outside=lambda x: x, swap=False, product=False, apart=False):
        def function(query, states, W, U, v):
            W, U = (U, W) if swap else (W, U)
            q, k = (query @ W.T)[:, :, None], (states @ U.T)[:, None]
            if apart:
                return (q.tanh() + k.tanh()) @ v
            return outside(inside(q * k if product else q + k) @ v)

        return function

    def case(batch, target, source, query, state, width):
        states = _random_states(batch, target, source, query, state)
        return *states, torch.randn(width, query), torch.randn(width, state), torch.randn(width)

    compare(
        "bahdanau_scores",
        function,
        scores(),
        {
            "one query, two states": case(1, 1, 2, 2, 2, 2),
            "two queries, three states": case(1, 2, 3, 2, 2, 4),
            "other widths": case(1, 2, 3, 4, 2, 3),
            "a batch of three": case(3, 2, 5, 4, 3, 2),
            "as many queries as states": case(3, 3, 3, 3, 3, 3),
        },
        {
            "tanh is missing.": scores(inside=lambda x: x),
            "tanh stands around the whole; it belongs inside, before v.": (
                scores(inside=lambda x: x, outside=torch.tanh)
            ),
            "tanh is taken of each part; it belongs around their sum.": scores(apart=True),
            "W and U changed places: W goes with the query.": scores(swap=True),
            "The parts are multiplied; they are to be added.": scores(product=True),
            "That is the weights already; scores come before softmax.": (
                scores(outside=lambda x: x.softmax(-1))
            ),
            "v is missing: the numbers are added without weights.": (
                lambda query, states, W, U, v: scores()(query, states, W, U, torch.ones_like(v))
            ),
            "A mean over the width stands where the sum belongs.": (
                lambda query, states, W, U, v: scores()(query, states, W, U, v / len(v))
            ),
            "A sigmoid stands where tanh belongs.": scores(inside=torch.sigmoid),
        },
        why="Every query meets every state.",
    )


@check
def alignment_error(function):
    """`function(links, gold)`: for each sentence a set of the model's links and one of the gold
    links, all (source, target) positions, to the alignment error rate of the whole."""

    def counts(links, gold):
        both = [len(a & s) for a, s in zip(links, gold, strict=True)]
        return sum(both), sum(map(len, links)), sum(map(len, gold))

    def of_counts(formula):
        return lambda links, gold: formula(*counts(links, gold))

    def mean(links, gold):
        rates = [metrics.alignment_error_rate([a], [s]) for a, s in zip(links, gold, strict=True)]
        return sum(rates) / len(rates)

    one = [{(0, 0), (1, 0), (2, 1)}], [{(0, 0), (2, 1), (3, 1), (3, 2)}]
    other = [{(0, 0)}, {(0, 0), (1, 2), (2, 1)}], [{(0, 0)}, {(0, 1), (1, 2)}]
    compare(
        "alignment_error",
        function,
        metrics.alignment_error_rate,
        {
            "one sentence": one,
            "two sentences": other,
            "all links right": ([{(0, 0), (1, 1)}], [{(0, 0), (1, 1)}]),
            "no link right": ([{(0, 0)}], [{(0, 1), (1, 1)}]),
            "a sentence without links": ([set(), {(1, 0)}], [{(0, 0)}, {(1, 0)}]),
        },
        {
            "The mean of the sentences' rates; links are counted over all of them.": mean,
            "That is the share of the model's links that are wrong; gold links count too.": (
                of_counts(lambda both, a, s: 1 - both / a)
            ),
            "That is the share of gold links that are missing; the model's links count too.": (
                of_counts(lambda both, a, s: 1 - both / s)
            ),
            "That is the share that is right; the error is 1 minus it.": (
                of_counts(lambda both, a, s: 2 * both / (a + s))
            ),
            "The factor 2 is missing.": of_counts(lambda both, a, s: 1 - both / (a + s)),
            "Divided by the links of the union; AER adds up |A| and |S|.": (
                of_counts(lambda both, a, s: 1 - both / (a + s - both))
            ),
            "Links that both have are divided by all, without 1 minus.": (
                of_counts(lambda both, a, s: both / (a + s))
            ),
        },
        why="It is 0 if all links agree, and 1 if none do.",
    )  # fmt: skip


@check
def better_links(function):
    """`function(attention)`: Bahdanau's attention (target, source) over one sentence to a set of
    links (source, target), better than each target word's greatest weight alone."""
    matrices, gold = _attention()
    inputs = {f"sentence {n} of the test": (matrix,) for n, matrix in enumerate(matrices, 1)}
    found = results("better_links", function, inputs)
    if found is None:
        return
    try:
        links = [{(int(i), int(j)) for i, j in one} for one in found]
    except (TypeError, ValueError):
        told = "a set of (source, target) positions is asked for, such as {(0, 0), (2, 1)}."
        return say("✗", "better_links", told)
    rate = metrics.alignment_error_rate(links, gold)
    turned = [{(j, i) for i, j in one} for one in links]
    hint = "Every target word has a link now. Has every source word?"
    if metrics.alignment_error_rate(turned, gold) < rate:
        hint = "Likely cause: the links are turned round; the source position comes first."
    elif sum(map(len, links)) > 2 * sum(map(len, gold)):
        hint = "Likely cause: too many links; of yours most are wrong."
    elif sum(map(len, links)) < sum(map(len, gold)) / 2:
        hint = "Likely cause: too few links; most gold links are missing."
    plain = [metrics.attention_links(matrix) for matrix in matrices]
    beat(
        "better_links",
        rate,
        metrics.alignment_error_rate(plain, gold),
        higher=False,
        form="AER {:.3f}",
        why="The model knew more than the rows alone show.",
        hint=hint,
    )


@cache
def _attention() -> tuple[list, list]:
    """Bahdanau's attention over 300 gold translations of the test split, and their gold links."""
    model, pairs = phrasebook_model("bahdanau", progress=False), phrasebook.load().test[:300]
    test = Seq2SeqDataset(pairs, *phrasebook_vocabularies())
    with torch.no_grad():
        _, attention = model(collate([test[n] for n in range(len(test))]))
    sizes = zip(attention, test.target_lengths, test.source_lengths, strict=True)
    matrices = [one[: target - 1, : source - 1] for one, target, source in sizes]  # without EOS
    return matrices, [set(pair.alignment) for pair in pairs]
