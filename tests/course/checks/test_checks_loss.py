import math

import torch
from checking import CheckTests
from torch.nn import functional as F

from s2s_helpers.course.checks import loss
from s2s_helpers.course.recipes import phrasebook_datasets
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.vocabulary import PAD, SOS


def by_gather(logits, targets):
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    picked = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -picked[targets != PAD].mean()


def by_torch(logits, targets):
    return F.cross_entropy(logits.mT, targets, ignore_index=PAD)


def by_loops(logits, targets):
    total = count = 0
    for row, ids in zip(logits.double(), targets.tolist(), strict=True):
        for z, y in zip(row, ids, strict=True):
            if y != PAD:
                total, count = total + torch.logsumexp(z, 0) - z[y], count + 1
    return float(total / count)


def cells(logits, targets, dim=-1):
    return -logits.log_softmax(dim).gather(-1, targets[..., None])[..., 0]


def mean_of_rows(logits, targets):
    rows = []
    for values, ids in zip(cells(logits, targets), targets, strict=True):
        if (ids != PAD).any():
            rows.append(values[ids != PAD].mean())
    return torch.stack(rows).mean()


TOKEN_LOSS = [
    ("Padding is counted", lambda z, y: cells(z, y).mean()),
    ("Padding is counted", lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten())),
    ("but not of the number", lambda z, y: (cells(z, y) * (y != PAD)).mean()),
    ("number of rows", lambda z, y: cells(z, y)[y != PAD].sum() / z.shape[0]),
    ("That is the sum", lambda z, y: cells(z, y)[y != PAD].sum()),
    ("mean of the rows' means", mean_of_rows),
    ("The sign", lambda z, y: -by_gather(z, y)),
    ("Softmax over the wrong axis", lambda z, y: cells(z, y, 1)[y != PAD].mean()),
    ("over the batch", lambda z, y: cells(z, y, 0)[y != PAD].mean()),
    (
        "log-softmax stays finite",
        lambda z, y: F.nll_loss(z.softmax(-1).log().mT, y, ignore_index=PAD),
    ),
    (
        "subtract the largest",
        lambda z, y: (
            -(z.exp() / z.exp().sum(-1, keepdim=True))
            .log()
            .gather(-1, y[..., None])[..., 0][y != PAD]
            .mean()
        ),
    ),
    ("softmax is missing", lambda z, y: -z.gather(-1, y[..., None])[..., 0][y != PAD].mean()),
    (
        "the logarithm is missing",
        lambda z, y: -z.softmax(-1).gather(-1, y[..., None])[..., 0][y != PAD].mean(),
    ),
    ("not of the right one", lambda z, y: -z.log_softmax(-1).max(-1).values[y != PAD].mean()),
    ("A number is asked for", lambda z, y: cells(z, y) * (y != PAD)),
]


def shares(logits, targets, epsilon):
    """The loss with the whole target distribution written out."""
    K = logits.shape[-1]
    q = torch.full_like(logits, epsilon / K).scatter_(
        -1, targets[..., None], 1 - epsilon + epsilon / K
    )
    return -(q * logits.log_softmax(-1)).sum(-1)[targets != PAD].mean()


def two_parts(logits, targets, epsilon):
    real = targets != PAD
    log_p = logits.double().log_softmax(-1)[real]
    plain = -log_p[torch.arange(len(log_p)), targets[real]].mean()
    return ((1 - epsilon) * plain - epsilon * log_p.mean()).item()


def smooth(right, other, padding=False, dim=-1):
    def loss(z, y, e):
        K = z.shape[-1]
        q = torch.full_like(z, other(e, K)).scatter(-1, y[..., None], right(e, K))
        losses = (-q * z.log_softmax(dim)).sum(-1)
        return losses.mean() if padding else losses[y != PAD].mean()

    return loss


SMOOTHED_LOSS = [
    ("K - 1 other tokens", smooth(lambda e, K: 1 - e, lambda e, K: e / (K - 1))),
    ("misses its own", smooth(lambda e, K: 1 - e, lambda e, K: e / K)),
    (
        "the factor 1 - ε is missing",
        lambda z, y, e: by_gather(z, y) - e * z.log_softmax(-1).mean(-1)[y != PAD].mean(),
    ),
    (
        "not divided by K",
        lambda z, y, e: (1 - e) * by_gather(z, y) - e * z.log_softmax(-1).sum(-1)[y != PAD].mean(),
    ),
    ("changed places", lambda z, y, e: shares(z, y, 1 - e)),
    ("never used", lambda z, y, e: by_gather(z, y)),
    ("Padding is counted", smooth(lambda e, K: 1 - e + e / K, lambda e, K: e / K, padding=True)),
    ("wrong axis", smooth(lambda e, K: 1 - e + e / K, lambda e, K: e / K, dim=1)),
    ("The sign", lambda z, y, e: -shares(z, y, e)),
    (
        "uniform part counts padding",
        lambda z, y, e: (1 - e) * by_gather(z, y) - e * z.log_softmax(-1).mean(),
    ),
]


def corpus(losses, tokens):
    return math.exp(sum(a * b for a, b in zip(losses, tokens, strict=True)) / sum(tokens))


def corpus_in_tensors(losses, tokens):
    losses, tokens = torch.tensor(losses, dtype=torch.float64), torch.tensor(tokens)
    return ((losses * tokens).sum() / tokens.sum()).exp()


CORPUS_PERPLEXITY = [
    ("A mean of means", lambda x, n: math.exp(sum(x) / len(x))),
    (
        "Perplexities are averaged",
        lambda x, n: sum(math.exp(a) * b for a, b in zip(x, n, strict=True)) / sum(n),
    ),
    ("A mean of perplexities", lambda x, n: sum(map(math.exp, x)) / len(n)),
    ("exp is missing", lambda x, n: math.log(corpus(x, n))),
    ("the base is e", lambda x, n: 2 ** math.log(corpus(x, n))),
    ("exp of a sum", lambda x, n: math.exp(sum(x))),
    (
        "number of batches",
        lambda x, n: math.exp(sum(a * b for a, b in zip(x, n, strict=True)) / len(n)),
    ),
    ("divided by tokens again", lambda x, n: math.exp(sum(x) / sum(n))),
    ("The sign", lambda x, n: 1 / corpus(x, n)),
]


def words(texts):
    return len(" ".join(texts).split())


def penalty(hypotheses, references):
    c, r = words(hypotheses), words(references)
    return 1 if c >= r else math.exp(1 - r / c)


def penalty_in_tensors(hypotheses, references):
    c, r = (
        torch.tensor(float(sum(t.count(" ") + 1 for t in ts))) for ts in (hypotheses, references)
    )
    return (1 - r / c).exp().clamp(max=1)


BREVITY_PENALTY = [
    ("changed places", lambda h, r: penalty(r, h)),
    ("upside down", lambda h, r: min(1, math.exp(1 - words(h) / words(r)))),
    ("grows above 1", lambda h, r: math.exp(1 - words(r) / words(h))),
    (
        "sentences' penalties",
        lambda h, r: sum(penalty([a], [b]) for a, b in zip(h, r, strict=True)) / len(h),
    ),
    ("That is c/r", lambda h, r: min(1, words(h) / words(r))),
    ("Characters", lambda h, r: min(1, math.exp(1 - sum(map(len, r)) / sum(map(len, h))))),
    ("Sentences are counted", lambda h, r: min(1, math.exp(1 - len(r) / len(h)))),
    ("max in place of min", lambda h, r: max(1, math.exp(1 - words(r) / words(h)))),
    ("The 1 is missing", lambda h, r: min(1, math.exp(-words(r) / words(h)))),
]


class Counted:
    """Logits from counts, made once: a bigram, and what the source words suggest."""

    def __getattr__(self, name):
        train, _ = phrasebook_datasets()
        V, S = len(train.target_vocabulary), len(train.source_vocabulary)
        counts, pairs = torch.zeros(V, V), torch.zeros(S, V)
        for source, target in train:
            after = torch.tensor(target)
            counts.index_put_(
                (torch.tensor([SOS, *target[:-1]]), after), torch.ones(len(after)), True
            )
            pairs[torch.tensor(source)[:, None], after[None]] += 1
        self.bigram = (counts + 0.01).log()
        expected = pairs.sum(1, keepdim=True) * pairs.sum(0) / pairs.sum()
        self.lift = (pairs + 0.1) / (expected + 0.1)  # (source word, target word)
        return self.__dict__[name]


made = Counted()


def with_source(batch):
    lift = made.lift[batch.source].masked_fill(~batch.source_mask[..., None], 0).amax(1)
    return made.bigram[batch.target_input] + lift.log()[:, None]


def with_source_of_rows(batch):
    """The same as probabilities' logarithm, a row at a time."""
    rows = []
    for source, reads in zip(batch.source, batch.target_input, strict=True):
        best = made.lift[source[source != PAD]].max(0).values
        rows.append((made.bigram[reads] + best.log()).double().log_softmax(-1))
    return torch.stack(rows)


def cheat(batch):
    return 5.0 * F.one_hot(batch.target_output, made.bigram.shape[0])


def whole_sentence(batch):
    """Each word that stands anywhere in the target is likelier: that is looking ahead, too."""
    there = F.one_hot(batch.target_output, made.bigram.shape[0]).amax(1, keepdim=True)
    return made.bigram[batch.target_input] + 2.0 * there


BEAT_THE_BIGRAM = [
    ("it looks ahead", cheat),
    ("it looks ahead", whole_sentence),
    ("19.53 was to beat", lambda batch: made.bigram[batch.target_input]),
    ("these are probabilities", lambda batch: with_source(batch).softmax(-1)),
    ("shifted by one", lambda batch: F.pad(with_source(batch), (0, 0, 1, 0))[:, :-1]),
    (
        "right word got probability 0",
        lambda batch: (made.bigram.exp() - 0.01).round().log()[batch.target_input],
    ),
    ("logits of shape", lambda batch: with_source(batch).flatten(0, 1)),
    ("what came is list", lambda batch: with_source(batch).tolist()),
    ("Two words back", lambda batch: torch.zeros(*batch.target_output.shape, made.bigram.shape[0])),
]

RIGHT = {
    "predict_smoothed_minimum": [0.7806, 0.78, torch.tensor(0.785)],
    "token_loss": [by_gather, by_torch, by_loops, Seq2SeqLoss()],
    "smoothed_loss": [shares, two_parts],
    "corpus_perplexity": [corpus, corpus_in_tensors],
    "brevity_penalty": [penalty, penalty_in_tensors],
    "beat_the_bigram": [with_source, with_source_of_rows],
}
WRONG = {
    "predict_smoothed_minimum": [
        ("least value 0 at certainty", 0),
        ("the sum runs over all", 0.255),
        ("That is -log(1 - ε)", 0.357),
        ("The others' share alone", 0.583),
        ("spread over the K - 1", 0.94),
        ("In bits", 1.126),
        ("you say 0.500; it is 0.780", 0.5),
    ],
    "token_loss": TOKEN_LOSS,
    "smoothed_loss": SMOOTHED_LOSS,
    "corpus_perplexity": CORPUS_PERPLEXITY,
    "brevity_penalty": BREVITY_PENALTY,
    "beat_the_bigram": BEAT_THE_BIGRAM,
}


class TestChecks(CheckTests):
    checks, right, wrong = loss, RIGHT, WRONG
