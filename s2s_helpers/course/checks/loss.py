"""The checks of notebook 04."""

import math
from itertools import pairwise

import torch
from sacrebleu.metrics import BLEU
from torch.nn import functional as F

from s2s_helpers.course.checks.running import beat, check, compare, predict, results, say
from s2s_helpers.course.recipes import phrasebook_datasets
from s2s_helpers.data import Batch, collate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import perplexity
from s2s_helpers.vocabulary import PAD, SOS

__all__ = [
    "beat_the_bigram",
    "brevity_penalty",
    "corpus_perplexity",
    "predict_smoothed_minimum",
    "smoothed_loss",
    "token_loss",
]


@check
def predict_smoothed_minimum(guess):
    """`guess`: the least smoothed loss of a position, in nats, at ε = 0.3 and K = 4."""
    q = torch.tensor([0.775, 0.075, 0.075, 0.075])
    wide = torch.tensor([0.7, 0.1, 0.1, 0.1])
    causes = {
        "The plain loss has its least value 0 at certainty; a smoothed one has not.": 0.0,
        "That is -log q'(y), of the right token alone; the sum runs over all tokens.": -math.log(
            q[0]
        ),
        "That is -log(1 - ε); where is ε/K, and where are the other tokens?": -math.log(0.7),
        "The others' share alone; the right token's term belongs to the sum.": -0.225
        * math.log(0.075),
        "ε spread over the K - 1 other tokens; it goes to all K, the right one too.": -(
            wide * wide.log()
        )
        .sum()
        .item(),
        "In bits, with log to base 2; the notebook counts nats.": -(q * q.log2()).sum().item(),
    }
    predict(
        "predict_smoothed_minimum",
        guess,
        -(q * q.log()).sum().item(),
        within=0.01,
        mistakes=causes,
        why="It is the entropy of q', and no model can get below it.",
        form="{:.3f}",
    )


def batches() -> dict[str, tuple]:
    """Logits and targets, from one token up."""
    draw = torch.randn
    ids = torch.randint(1, 6, (3, 4))
    return {
        "one token": (draw(1, 1, 3), torch.tensor([[2]])),
        "one row with padding": (draw(1, 3, 4), torch.tensor([[2, 3, PAD]])),
        "two rows of 3 and 1 tokens": (draw(2, 3, 5), torch.tensor([[4, 1, 2], [3, PAD, PAD]])),
        "as many rows as positions": (draw(4, 4, 6), F.pad(ids, (0, 0, 0, 1), value=3).tril(1)),
        "a row of padding only": (draw(2, 2, 4), torch.tensor([[1, 3], [PAD, PAD]])),
        "very large logits": (1e4 * draw(3, 4, 6), ids),
    }


@check
def token_loss(function):
    """`function(logits, targets)`: the mean surprise of the real tokens, in nats."""

    def picked(logits, targets, dim=-1):
        return -logits.log_softmax(dim).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    def mean(values, targets):
        return values[targets != PAD].mean()

    def of_rows(values, real):
        return ((values * real).sum(1)[real.any(1)] / real.sum(1)[real.any(1)]).mean()

    compare(
        "token_loss",
        function,
        lambda logits, targets: Seq2SeqLoss()(logits, targets).item(),
        batches(),
        {
            "Padding is counted: the mean runs over all positions.": lambda z, y: picked(
                z, y
            ).mean(),
            "Padding is left out of the sum, but not of the number that divides it.": lambda z, y: (
                picked(z, y)[y != PAD].sum() / y.numel()
            ),
            "Divided by the number of rows, not of real tokens.": lambda z, y: (
                picked(z, y)[y != PAD].sum() / len(y)
            ),
            "That is the sum; the mean of the real tokens is asked for.": lambda z, y: picked(z, y)[
                y != PAD
            ].sum(),
            "A mean of the rows' means: tokens of short rows count more.": lambda z, y: of_rows(
                picked(z, y), y != PAD
            ),
            "The sign: surprise is -log p.": lambda z, y: -mean(picked(z, y), y),
            "Softmax over the wrong axis: the last one, the vocabulary, is right.": lambda z, y: (
                mean(picked(z, y, 1), y)
            ),
            "Softmax over the wrong axis: over the batch, not the vocabulary.": lambda z, y: mean(
                picked(z, y, 0), y
            ),
            "log of a softmax that has rounded to 0: log-softmax stays finite.": lambda z, y: (
                -mean(z.softmax(-1).log().gather(-1, y.unsqueeze(-1)).squeeze(-1), y)
            ),
            "exp of large logits is infinite: subtract the largest first.": lambda z, y: (
                -mean(
                    (z.exp() / z.exp().sum(-1, keepdim=True))
                    .log()
                    .gather(-1, y.unsqueeze(-1))
                    .squeeze(-1),
                    y,
                )
            ),
            "Logits are read as if they were log p: softmax is missing.": lambda z, y: (
                -mean(z.gather(-1, y.unsqueeze(-1)).squeeze(-1), y)
            ),
            "p is averaged and not log p: the logarithm is missing.": lambda z, y: (
                -mean((-picked(z, y)).exp(), y)
            ),
            "The loss of the likeliest token, not of the right one.": lambda z, y: (
                -mean(z.log_softmax(-1).amax(-1), y)
            ),
        },
        why="Every training in this course lowers this number.",
    )


@check
def smoothed_loss(function):
    """`function(logits, targets, epsilon)`: the mean smoothed loss of the real tokens, in nats."""

    def smoothed(right=None, others=None, counted=False, dim=-1):
        """The loss with these target shares of the right token and of each other one."""

        def loss(logits, targets, epsilon):
            K = logits.shape[-1]
            log_p, hot = logits.log_softmax(dim), F.one_hot(targets, K)
            q = torch.where(hot.bool(), right(epsilon, K), others(epsilon, K))
            values = -(q * log_p).sum(-1)
            return values.mean() if counted else values[targets != PAD].mean()

        return loss

    def share(e, K):
        return 1 - e + e / K

    def rest(e, K):
        return e / K

    compare(
        "smoothed_loss",
        function,
        lambda logits, targets, epsilon: Seq2SeqLoss(epsilon)(logits, targets).item(),
        {
            f"{label}, epsilon {epsilon}": (*args, epsilon)
            for (label, args), epsilon in zip(
                batches().items(), (0.1, 0.1, 0.2, 0.1, 0.4, 0.1), strict=True
            )
        }
        | {"epsilon 0": (*batches()["as many rows as positions"], 0.0)},
        {
            "ε is spread over the K - 1 other tokens; all K have a share, y too.": smoothed(
                lambda e, K: 1 - e, lambda e, K: e / (K - 1)
            ),
            "The right token misses its own ε/K: the shares do not sum to 1.": smoothed(
                lambda e, K: 1 - e, rest
            ),
            "The right token keeps all of its share: the factor 1 - ε is missing.": smoothed(
                lambda e, K: 1 + e / K, rest
            ),
            "ε is not divided by K: the uniform part is a mean, not a sum.": smoothed(
                lambda e, K: 1 - e + e, lambda e, K: e
            ),
            "ε and 1 - ε changed places.": smoothed(
                lambda e, K: e + (1 - e) / K, lambda e, K: (1 - e) / K
            ),
            "ε is never used: that is the plain loss.": smoothed(
                lambda e, K: 1.0, lambda e, K: 0.0
            ),
            "Padding is counted: its positions stand in the mean.": smoothed(
                share, rest, counted=True
            ),
            "Softmax over the wrong axis: the last one, the vocabulary, is right.": smoothed(
                share, rest, dim=1
            ),
            "The sign: the loss is minus a sum.": lambda z, y, epsilon: (
                -smoothed(share, rest)(z, y, epsilon)
            ),
            "The uniform part counts padding.": lambda z, y, epsilon: (
                (1 - epsilon) * F.cross_entropy(z.flatten(0, 1), y.flatten(), ignore_index=PAD)
                - epsilon * z.log_softmax(-1).mean()
            ),
        },
        why="It equals the loss that trains every model here.",
    )


@check
def corpus_perplexity(function):
    """`function(losses, tokens)`: the perplexity of a corpus, from its batches' mean losses and
    numbers of tokens."""

    def weighted(values, tokens):
        pairs = zip(values, tokens, strict=True)
        return sum(value * count for value, count in pairs) / sum(tokens)

    def exps(losses):
        return [math.exp(loss) for loss in losses]

    compare(
        "corpus_perplexity",
        function,
        lambda losses, tokens: perplexity(weighted(losses, tokens)),
        {
            "one batch": ([1.5], [40]),
            "two batches of different sizes": ([1.0, 3.0], [30, 10]),
            "a small last batch": ([2.0, 2.2, 2.1, 4.0], [64, 60, 62, 3]),
            "a loss of 0": ([0.0], [7]),
            "batches alike": ([2.0, 3.0], [5, 5]),
        },
        {
            "A mean of means: batches weigh alike, but tokens should.": lambda x, n: math.exp(
                sum(x) / len(x)
            ),
            "Perplexities are averaged; average the losses first, then exp.": lambda x, n: weighted(
                exps(x), n
            ),
            "A mean of perplexities: average losses, weighed by tokens.": lambda x, n: (
                sum(exps(x)) / len(x)
            ),
            "That is the mean loss; exp is missing.": weighted,
            "2 to the power of the loss; it is in nats, so the base is e.": lambda x, n: (
                2 ** weighted(x, n)
            ),
            "exp of a sum of means; divide by all tokens.": lambda x, n: math.exp(sum(x)),
            "Divided by the number of batches, not of tokens.": lambda x, n: math.exp(
                min(sum(a * b for a, b in zip(x, n, strict=True)) / len(x), 700)
            ),
            "Means are divided by tokens again; multiply each by its tokens first.": lambda x, n: (
                math.exp(sum(x) / sum(n))
            ),
            "The sign: perplexity is never below 1.": lambda x, n: math.exp(-weighted(x, n)),
        },
        why="It does not change with the batch size.",
    )


@check
def brevity_penalty(function):
    """`function(hypotheses, references)`: BLEU's factor for a corpus of texts, words by spaces."""

    def lengths(texts):
        return sum(len(text.split()) for text in texts)

    def penalty(c, r):
        return min(1.0, math.exp(1 - r / c))

    compare(
        "brevity_penalty",
        function,
        lambda hypotheses, references: (
            BLEU(tokenize="none").corpus_score(hypotheses, [references]).bp
        ),
        {
            "one word too few": (["le chat dort"], ["le petit chat dort"]),
            "as long as the reference": (["le chat dort ."], ["un chien dort ."]),
            "too long": (["le chat le chat dort"], ["le chat dort"]),
            "one too short, one too long": (
                ["le chat", "un chien dort et dort"],
                ["le petit chat dort", "un chien dort"],
            ),
            "ten short sentences": (["le chat"] * 10, ["le chat dort ici"] * 10),
        },
        {
            "r/c is upside down, or the arguments changed places.": lambda h, r: penalty(
                lengths(r), lengths(h)
            ),
            "It grows above 1 for long texts; 1 is the most.": lambda h, r: math.exp(
                1 - lengths(r) / lengths(h)
            ),
            "A mean of the sentences' penalties; BLEU adds up all lengths.": lambda h, r: (
                sum(penalty(lengths([a]), lengths([b])) for a, b in zip(h, r, strict=True)) / len(h)
            ),
            "That is c/r; the penalty is exp(1 - r/c).": lambda h, r: min(
                1.0, lengths(h) / lengths(r)
            ),
            "Characters are counted, not words.": lambda h, r: penalty(
                len("".join(h)), len("".join(r))
            ),
            "Sentences are counted, not words.": lambda h, r: penalty(len(h), len(r)),
            "max in place of min: good lengths give 1, short ones less.": lambda h, r: max(
                1.0, math.exp(1 - lengths(r) / lengths(h))
            ),
            "The 1 is missing: exp(1 - r/c) is 1 where the lengths are equal.": lambda h, r: min(
                1.0, math.exp(-lengths(r) / lengths(h))
            ),
        },
        why="Without it, saying little and only what is sure would win.",
    )


@check
def beat_the_bigram(function):
    """`function(batch)`: logits (batch, target, vocabulary) that have not seen what they predict.

    Measured on the phrasebook's validation pairs.
    """
    name = "beat_the_bigram"
    train, validation = phrasebook_datasets()
    V = len(train.target_vocabulary)
    whole = collate([validation[number] for number in range(len(validation))])
    few = collate([validation[number] for number in range(8)])
    half = 4  # positions up to here stay, the rest of the target becomes another sentence's
    mixed = torch.cat([few.target[:, : half + 1], few.target.roll(1, 0)[:, half + 1 :]], dim=1)
    inputs = {
        "8 sentences": (few,),
        "8 sentences that go on in another way": (Batch(few.source, few.source_mask, mixed),),
        "the validation pairs": (whole,),
    }
    found = results(name, function, inputs, patience=6)
    if found is None:
        return None
    for value, (batch,) in zip(found, inputs.values(), strict=True):
        shape = (*batch.target_output.shape, V)
        if not isinstance(value, torch.Tensor) or value.shape != shape:
            came = getattr(value, "shape", type(value).__name__)
            came = tuple(came) if isinstance(came, torch.Size) else came
            return say("✗", name, f"logits of shape {shape} are asked for; what came is {came}.")
    one, other, logits = (value.detach().float() for value in found)
    if not torch.allclose(one[:, : half + 1], other[:, : half + 1], atol=1e-4):
        return say(
            "✗",
            name,
            "it looks ahead: with other words after position 4, its logits before them change.\n"
            "Likely cause: it reads batch.target_output, or target_input of later positions.",
        )
    loss = Seq2SeqLoss()
    pairs = [before * V + y for _, ids in train for before, y in pairwise([SOS, *ids])]
    counts = torch.tensor(pairs).bincount(minlength=V * V).view(V, V)
    bigram = loss((counts + 0.01).log()[whole.target_input], whole.target_output).item()
    mine = loss(logits, whole.target_output).item()
    if not math.isfinite(mine):
        return say(
            "✗",
            name,
            f"the loss is {mine}: a right word got probability 0, or a logit is nan.\n"
            "Likely cause: log of a count of 0. Add a little to every count first.",
        )
    sums = logits[whole.target_output != PAD].sum(-1)
    hint = "Likely cause: these are probabilities; logits are asked for, so take their log."
    if (logits < 0).any() or not torch.allclose(sums, torch.ones(()), atol=1e-3):
        shifted = loss(logits[:, 1:], whole.target_output[:, :-1]).item()
        hint = "What does the bigram not look at? Two words back, and the English."
        if shifted < mine - 1:
            hint = (
                "Likely cause: shifted by one. Position t of target_input precedes target_output's."
            )
    beat(
        name,
        perplexity(mine),
        perplexity(bigram),
        higher=False,
        form="{:.2f}",
        hint=hint,
        why="Perplexity on the validation pairs, lower is better.",
    )
