import functools
import math
import random

import torch
from checking import CheckTests

from s2s_helpers.course.checks import training
from s2s_helpers.course.recipes import phrasebook_model, phrasebook_vocabularies
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.vocabulary import PAD


def rate(step, width, warmup):
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)


def rate_by_cases(step, width, warmup):
    step, width, warmup = (torch.tensor(float(x)) for x in (step, width, warmup))
    return (step / warmup**1.5 if step < warmup else step.rsqrt()) / width.sqrt()


RATE = [
    ("max in place of min", lambda t, d, w: d**-0.5 * max(t**-0.5, t * w**-1.5)),
    ("-1.5, not -0.5", lambda t, d, w: d**-0.5 * min(t**-0.5, t * w**-0.5)),
    ("-1.5, not -1.", lambda t, d, w: d**-0.5 * min(t**-0.5, t * w**-1)),
    ("The width is missing", lambda t, d, w: min(t**-0.5, t * w**-1.5)),
    ("multiplied by", lambda t, d, w: d * rate(t, d, w)),
    ("power -0.5, not -1", lambda t, d, w: rate(t, 1, w) / d),
    ("not 0.5", lambda t, d, w: d**-0.5 * min(t**0.5, t * w**-1.5)),
    ("No way up", lambda t, d, w: (d * t) ** -0.5),
    ("No way down", lambda t, d, w: rate(min(t, w), d, w)),
    ("Shifted by one", lambda t, d, w: rate(t + 1, d, w)),
    ("the factor with its peak at 1", lambda t, d, w: rate(t, d, w) / rate(w, d, w)),
]


def clip(gradients, limit):
    norm = math.sqrt(sum((g.double() ** 2).sum().item() for g in gradients))
    return [g if norm <= limit else g * (limit / norm) for g in gradients]


def clip_as_one(gradients, limit):
    flat = torch.cat([g.reshape(-1) for g in gradients])
    flat = flat * (limit / flat.norm()).clamp(max=1)
    parts = flat.split([g.numel() for g in gradients])
    return tuple(part.view(g.shape) for part, g in zip(parts, gradients, strict=True))


def total_norm(gradients):
    return torch.cat([g.reshape(-1) for g in gradients]).norm()


def by(size):
    def scale(gradients, limit):
        factor = min(1.0, limit / (float(size(gradients)) + 1e-9))
        return [factor * g for g in gradients]

    return scale


CLIPPED = [
    ("by its own norm", lambda gs, c: [g * min(1.0, c / (g.norm().item() + 1e-9)) for g in gs]),
    ("clamped", lambda gs, c: [g.clamp(min=-c, max=c) for g in gs]),
    ("always scales", lambda gs, c: [g * c / total_norm(gs) for g in gs]),
    ("The root is missing", by(lambda gs: sum((g**2).sum() for g in gs))),
    ("Norms are added up", by(lambda gs: sum(g.norm() for g in gs))),
    ("The largest of the norms", by(lambda gs: max(g.norm() for g in gs))),
    ("The largest value", by(lambda gs: total_norm([g.abs().max() for g in gs[-1:]]))),
    ("Absolute values", by(lambda gs: sum(g.abs().sum() for g in gs))),
    ("Upside down", lambda gs, c: [g * min(1.0, total_norm(gs).item() / c) for g in gs]),
    ("the limit is missing", lambda gs, c: [g / max(1.0, total_norm(gs).item()) for g in gs]),
    ("at most 1", lambda gs, c: [g * max(1.0, c / (total_norm(gs).item() + 1e-9)) for g in gs]),
    ("Nothing is clipped", lambda gs, c: list(gs)),
    ("A list is asked for; what came is a tensor", lambda gs, c: clip(gs, c)[0]),
]


def one_step(model, optimizer, loss, batches):
    optimizer.zero_grad()
    tokens = sum(batch.tokens for batch in batches)
    for batch in batches:
        logits, _ = model(batch)
        (loss(logits, batch.target_output) * batch.tokens / tokens).backward()
    optimizer.step()


def all_at_once(model, optimizer, loss, batches):
    """One graph for all; the gradients are handed to the optimiser."""
    parts = [loss.total(model(batch)[0], batch.target_output) for batch in batches]
    mean = sum(total for total, _ in parts) / sum(tokens for _, tokens in parts)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(mean, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def one_large_batch(model, optimizer, loss, batches):
    rows = [
        (row[row != PAD].tolist(), target[target != PAD][1:].tolist())
        for batch in batches
        for row, target in zip(batch.source, batch.target, strict=True)
    ]
    large = collate(rows)
    optimizer.zero_grad()
    loss(model(large)[0], large.target_output).backward()
    optimizer.step()


def accumulate(
    scale=lambda loss, batches, batch: loss, zero="first", step="last", total=False, tokens=1
):
    def run(model, optimizer, loss, batches):
        if zero == "first":
            optimizer.zero_grad()
        for number, batch in enumerate(batches):
            if zero == "every" or (zero == "last" and number == len(batches) - 1):
                optimizer.zero_grad()
            value = (loss.total if total else loss)(model(batch)[0], batch.target_output)
            scale(value[0] if total else value, batches, batch).backward()
            if step == "every":
                optimizer.step()
        if step == "last":
            optimizer.step()

    return run


def by_tokens(loss, batches, batch):
    return loss * batch.tokens / sum(one.tokens for one in batches)


ACCUMULATED_STEP = [
    ("all but the last are forgotten", accumulate(by_tokens, zero="every")),
    ("its mean is taken for all", accumulate(zero="last")),
    ("earlier step", accumulate(by_tokens, zero="never")),
    ("Not zeroed at the start", accumulate(lambda x, b, _: x / len(b), zero="never")),
    ("A mean of means", accumulate(lambda x, b, _: x / len(b))),
    ("means are added up", accumulate()),
    ("The sum over tokens", accumulate(total=True)),
    ("Divided by the number of batches", accumulate(lambda x, b, _: x / len(b), total=True)),
    ("Weighed by pairs", accumulate(lambda x, b, one: x * len(one) / sum(map(len, b)))),
    (
        "Padding is counted",
        accumulate(lambda x, b, one: x / sum(o.target_output.numel() for o in b), total=True),
    ),
    ("A step after each batch", accumulate(zero="every", step="every")),
    ("A step after each batch", accumulate(by_tokens, step="every")),
    ("step is missing", accumulate(by_tokens, step="never")),
]


def stop(losses, patience):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best == patience:
            return epoch + 1, best + 1
    return len(losses), best + 1


def stop_by_counting(losses, patience):
    best, waited, seen = (math.inf, 0), 0, []
    while waited < patience and len(seen) < len(losses):
        seen.append(losses[len(seen)])
        better = seen[-1] < best[0]
        best = (seen[-1], len(seen)) if better else best
        waited = 0 if better else waited + 1
    return [len(seen), best[1]]


def never_reset(losses, patience):
    best, at, bad = math.inf, 0, 0
    for epoch, loss in enumerate(losses, 1):
        if loss < best:
            best, at = loss, epoch
        else:
            bad += 1
        if bad >= patience:
            return epoch, at
    return len(losses), at


def with_ties(losses, patience):
    at = 0
    for epoch, loss in enumerate(losses):
        at = epoch if loss <= losses[at] else at
        if epoch - at >= patience:
            return epoch + 1, at + 1
    return len(losses), at + 1


def with_the_one_before(losses, patience):
    at, bad = 1, 0
    for epoch in range(2, len(losses) + 1):
        better = losses[epoch - 1] < losses[epoch - 2]
        at, bad = (epoch, 0) if better else (at, bad + 1)
        if bad == patience:
            return epoch, at
    return len(losses), at


EARLY_STOP = [
    ("an epoch too late", lambda x, p: stop(x, p + 1)),
    ("an epoch too early", lambda x, p: stop(x, p - 1) if p > 1 else (1, 1)),
    ("counted from 0", lambda x, p: (stop(x, p)[0] - 1, stop(x, p)[1] - 1)),
    ("changed places", lambda x, p: tuple(reversed(stop(x, p)))),
    ("The best is not the last one", lambda x, p: (stop(x, p)[0], stop(x, p)[0])),
    ("into the future", lambda x, p: (stop(x, p)[0], x.index(min(x)) + 1)),
    ("never stops early", lambda x, p: (len(x), x.index(min(x)) + 1)),
    ("not set back to 0", never_reset),
    ("A tie counts as better", with_ties),
    ("the epoch before", with_the_one_before),
    ("A tuple is asked for; what came is a number", lambda x, p: stop(x, p)[0]),
]


def share(i, k):
    return k / (k + math.exp(min(i / k, 700)))


def coins(gold, own, i, k):
    return torch.where(torch.rand(len(gold)) < share(i, k), gold, own)


def coins_by_loop(gold, own, i, k):
    pairs = zip(gold.tolist(), own.tolist(), strict=True)
    return torch.tensor([a if random.random() < share(i, k) else b for a, b in pairs])


def coins_by_bernoulli(gold, own, i, k):
    heads = torch.bernoulli(torch.full(gold.shape, share(i, k))).bool()
    return own.masked_scatter(heads, gold[heads])


def tossed(epsilon):
    return lambda gold, own, i, k: torch.where(torch.rand(len(gold)) < epsilon(i, k), gold, own)


def seeded(gold, own, i, k):
    torch.manual_seed(0)
    return coins(gold, own, i, k)


SCHEDULED_SAMPLING = [
    ("the wrong way round", lambda g, o, i, k: coins(o, g, i, k)),
    ("exp(-i / k)", tossed(lambda i, k: k / (k + math.exp(-i / k)))),
    ("The k in front is missing", tossed(lambda i, k: 1 / (1 + math.exp(min(i / k, 700))))),
    ("exp(i) in place", tossed(lambda i, k: k / (k + math.exp(min(i, 700))))),
    ("One coin", lambda g, o, i, k: g if torch.rand(()) < share(i, k) else o),
    ("changed places", tossed(lambda i, k: i / (i + math.exp(k / max(i, 1))))),
    (
        "follows a pattern",
        lambda g, o, i, k: torch.cat(
            [g[: round(share(i, k) * len(g))], o[round(share(i, k) * len(g)) :]]
        ),
    ),
    ("A second call gives the same", seeded),
    ("whole numbers", lambda g, o, i, k: share(i, k) * g + (1 - share(i, k)) * o),
    ("neither the row's gold", lambda g, o, i, k: coins(g, o, i, k)[torch.randperm(len(g))]),
    ("is right", tossed(lambda i, k: 0.5)),
    ("what came is a list", lambda g, o, i, k: coins(g, o, i, k).tolist()),
]


class Trained:
    """What the check looks at in a trainer; the model is made when it is looked at."""

    def __init__(self, model, step=500, batch_size=32, accumulate=1):
        self.make, self.step, self.batch_size = model, step, batch_size
        self.config = training_config(1, accumulate=accumulate, device="cpu")

    @property
    def model(self):
        return self.make()

    @property
    def train_dataloader(self):
        pairs = Seq2SeqDataset([("we sleep.", "nous dormons.")] * 64, *phrasebook_vocabularies())
        return make_loader(pairs, batch_size=self.batch_size)


@functools.cache
def untrained(kind=Seq2Seq):
    return kind(*phrasebook_vocabularies(), embedding=4, hidden=4, cell="gru", dropout=0.0)


def good():
    return phrasebook_model("rnn", progress=False)


BEAT_OWN_WORDS = [
    ("30% was to beat", Trained(untrained)),
    ("here it is Seq2Seq", Trained(functools.partial(untrained, AttentionSeq2Seq))),
    ("501 steps", Trained(good, step=501)),
    ("it has not trained yet", Trained(good, step=0)),
    ("a step takes 33 pairs", Trained(good, batch_size=33)),
    ("a step takes 64 pairs", Trained(good, accumulate=2)),
    ("what came is a number", 0.35),
]

RIGHT = {
    "predict_steps": [63, torch.tensor(63), 63.0],
    "warmed_up_rate": [rate, rate_by_cases],
    "clipped": [clip, clip_as_one],
    "accumulated_step": [one_step, all_at_once, one_large_batch],
    "early_stop": [stop, stop_by_counting],
    "scheduled_sampling": [coins, coins_by_loop, coins_by_bernoulli],
    "beat_own_words": [Trained(good), Trained(good, step=125, batch_size=8, accumulate=4)],
}
WRONG = {
    "predict_steps": [
        ("The last group has only 2 batches", 62),
        ("Half a step is none", 62.5),
        ("These are batches", 250),
        ("not 4 pairs", 500),
        ("4 batches a step", 1000),
        ("These are pairs", 2000),
        ("you say 64; it is 63", 64),
    ],
    "warmed_up_rate": RATE,
    "clipped": CLIPPED,
    "accumulated_step": ACCUMULATED_STEP,
    "early_stop": EARLY_STOP,
    "scheduled_sampling": SCHEDULED_SAMPLING,
    "beat_own_words": BEAT_OWN_WORDS,
}


class TestChecks(CheckTests):
    checks, right, wrong = training, RIGHT, WRONG


def test_a_real_trainer_makes_as_many_steps_as_predicted():
    pairs = Seq2SeqDataset([("we sleep.", "nous dormons.")] * 2000, *phrasebook_vocabularies())
    trainer = Seq2SeqTrainer(
        Seq2Seq(*phrasebook_vocabularies(), embedding=2, hidden=2, cell="gru", dropout=0.0),
        training_config(1, accumulate=4, progress=False, device="cpu"),
        make_loader(pairs, batch_size=8),
    )
    trainer.fit()
    assert trainer.step == 63
