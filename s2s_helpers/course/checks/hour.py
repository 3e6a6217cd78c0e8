"""The checks of notebook 00: padding, a loss, an accuracy, attention and a mask, in short."""

import math

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from s2s_helpers.course.checks.running import check, compare, predict
from s2s_helpers.models.attention import masked_softmax
from s2s_helpers.models.transformer import causal_mask
from s2s_helpers.vocabulary import EOS, PAD

__all__ = ["decoder_mask", "dot_attention", "pad", "predict_uniform_loss", "rows_without_a_mistake"]


@check
def predict_uniform_loss(guess):
    """`guess`: the smoothed loss, in nats, of a model that finds all of 1,000 tokens equally
    likely."""
    predict(
        "predict_uniform_loss",
        guess,
        math.log(1000),
        within=0.02,
        mistakes={
            "The loss is minus the logarithm: probabilities are below 1, so it is positive.": (
                -math.log(1000)
            ),
            "In bits, with log to base 2; the notebook counts nats.": math.log2(1000),
            "With log to base 10; the notebook's log is the natural one.": 3.0,
            "That is the probability, not minus its logarithm.": 0.001,
            "Only the first part of the loss; the second is 0.1 times the same number.": (
                0.9 * math.log(1000)
            ),
            "Only the second part of the loss.": 0.1 * math.log(1000),
        },
        why="Both parts are log K, whatever the smoothing: what training has to get below.",
        form="{:.2f}",
    )


@check
def pad(function):
    """`function(rows, fill)`: lists of ids, and the id to fill up with, to a tensor of all rows."""

    def reference(rows, fill):
        rows = [torch.tensor(row) for row in rows]
        return pad_sequence(rows, batch_first=True, padding_value=fill)

    compare(
        "pad",
        function,
        reference,
        {
            "one row": ([[5, 6, EOS]], PAD),
            "a short and a long row": ([[5, EOS], [7, 8, 9, EOS]], PAD),
            "the long row first": ([[7, 8, 9, EOS], [5, EOS], [EOS]], PAD),
            "filled with 9": ([[5, EOS], [7, 8, EOS]], 9),
        },
        {
            "Filled up on the left; the mask and the RNN expect it on the right.": (
                lambda rows, fill: reference([row[::-1] for row in rows], fill).flip(1)
            ),
            "One column too many.": lambda rows, fill: F.pad(
                reference(rows, fill), (0, 1), value=fill
            ),
            "Filled up with 0, not with `fill`.": lambda rows, fill: reference(rows, 0),
            "Rows are cut to the shortest; fill the short ones up.": lambda rows, fill: (
                torch.tensor([row[: min(map(len, rows))] for row in rows])
            ),
        },
        why="A rectangle, which can go through the model at once.",
    )


@check
def rows_without_a_mistake(function):
    """`function(found, correct)`: ids (batch, target) twice, to the fraction of rows that agree up
    to and including the first EOS of `correct`."""

    def counts(correct):
        ended = (correct == EOS).cumsum(1)
        return (ended == 0) | ((ended == 1) & (correct == EOS))  # (batch, target)

    def reference(found, correct):
        return ((found == correct) | ~counts(correct)).all(dim=1).double().mean().item()

    found = torch.tensor([[5, 6, EOS, 9], [5, 7, EOS, PAD], [5, EOS, PAD, PAD], [8, 8, 8, EOS]])
    correct = torch.tensor([[5, 6, EOS, PAD], [5, 6, EOS, PAD], [5, EOS, 4, 4], [8, 8, 8, EOS]])
    early = torch.tensor([[5, 6, 6, PAD]]), torch.tensor([[5, 6, EOS, PAD]])
    compare(
        "rows_without_a_mistake",
        function,
        reference,
        {
            "four rows": (found, correct),
            "only the end is missing": early,
            "all agree": (correct.clone(), correct),
            "a wrong first token": (found[:2] + torch.tensor([[1, 0, 0, 0]]), correct[:2]),
        },
        {
            "What comes after <eos> is compared, too.": lambda found, correct: (
                (found == correct).all(dim=1).double().mean().item()
            ),
            "Tokens are counted, not whole rows.": lambda found, correct: (
                (found == correct)[counts(correct)].double().mean().item()
            ),
            "The <eos> itself is not compared: a row that goes on is a mistake.": (
                lambda found, correct: (
                    ((found == correct) | (correct == EOS) | ~counts(correct))
                    .all(dim=1).double().mean().item()
                )
            ),
            "That is the number of rows; divide it by all.": lambda found, correct: float(
                ((found == correct) | ~counts(correct)).all(dim=1).sum()
            ),
            "That is the fraction of rows with a mistake.": lambda found, correct: (
                1 - reference(found, correct)
            ),
        },
        why="One wrong word makes a wrong sentence.",
    )  # fmt: skip


@check
def dot_attention(function):
    """`function(query, states, mask)`: (batch, hidden), (batch, source, hidden), (batch, source) to
    the context (batch, hidden)."""

    def mixed_by(weigh):  # (scores, mask) to weights, (batch, source) all three
        def context(query, states, mask):
            weights = weigh((states @ query[:, :, None])[..., 0], mask)  # (batch, source)
            return (weights[:, None] @ states)[:, 0]

        return context

    def softmax_of(value, dim=-1):
        return lambda scores, mask: scores.masked_fill(~mask, value).softmax(dim)

    reference = mixed_by(masked_softmax)
    whole = torch.ones(2, 3, dtype=torch.bool)
    part = torch.tensor([[True, True, False], [True, False, False]])
    more = torch.arange(6) < torch.tensor([[6], [2], [4]])
    compare(
        "dot_attention",
        function,
        reference,
        {
            "no padding": (torch.randn(2, 4), torch.randn(2, 3, 4), whole),
            "padding": (torch.randn(2, 4), torch.randn(2, 3, 4), part),
            "a single token": (torch.randn(1, 4), torch.randn(1, 1, 4), whole[:1, :1]),
            "more of all": (torch.randn(3, 8), torch.randn(3, 6, 8), more),
        },
        {
            "The mask is not used: padding gets weight.": mixed_by(
                lambda scores, mask: scores.softmax(-1)
            ),
            "The mask comes after the softmax: the weights no longer sum to 1.": (
                mixed_by(lambda scores, mask: scores.softmax(-1) * mask)
            ),
            "Padding has the score 0, not -inf: e to the 0 is 1, so it gets weight.": (
                mixed_by(softmax_of(0.0))
            ),
            "The mask is inverted: only padding is attended to.": (
                mixed_by(lambda scores, mask: softmax_of(-1e9)(scores, ~mask))
            ),
            "The softmax runs over the batch; it has to run over the source, dim=-1.": (
                mixed_by(softmax_of(-1e9, dim=0))
            ),
            "The softmax is missing.": mixed_by(lambda scores, mask: scores * mask),
            "Divided by the root of the width: the transformer does that, Luong does not.": (
                lambda q, s, m: reference(q / q.shape[-1] ** 0.5, s, m)
            ),
        },
        why="The same four lines are in every attention.",
    )


@check
def decoder_mask(function):
    """`function(target)`: ids (batch, time), padding is 0, to a boolean mask (batch, time, time),
    True where the row's position may attend to the column's."""

    def reference(target):
        return causal_mask(target.shape[1]) & (target != PAD)[:, None]

    compare(
        "decoder_mask",
        function,
        reference,
        {
            "no padding": (torch.tensor([[2, 5, 6]]),),
            "padding at the end": (torch.tensor([[2, 5, PAD, PAD]]),),
            "two rows": (torch.tensor([[2, 5, 7, 9], [2, 8, PAD, PAD]]),),
            "one token": (torch.tensor([[2], [2]]),),
        },
        {
            "Padding is not hidden.": lambda target: causal_mask(target.shape[1]).expand(
                len(target), -1, -1
            ),
            "Later positions are not hidden.": lambda target: (target != PAD)[:, None].expand(
                -1, target.shape[1], -1
            ),
            "Rows and columns changed places: row i attends to the columns up to i.": (
                lambda target: causal_mask(target.shape[1]).T & (target != PAD)[:, None]
            ),
            "Padding is hidden as a query (its row), not as a key (its column).": (
                lambda target: causal_mask(target.shape[1]) & (target != PAD)[:, :, None]
            ),
            "A position does not see itself; it has to.": lambda target: (
                causal_mask(target.shape[1]).tril(-1) & (target != PAD)[:, None]
            ),
            "The mask is inverted.": lambda target: ~reference(target),
            "One reason is enough to hide a position: `and`, not `or`.": lambda target: (
                causal_mask(target.shape[1]) | (target != PAD)[:, None]
            ),
        },
        why="Every decoder of a transformer has this mask.",
    )
