"""The checks of notebook 05."""

import functools
import math
from types import SimpleNamespace

import torch
from treadmill import EarlyStopping

from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.checks.running import (
    beat,
    check,
    compare,
    predict,
    results,
    say,
    unfinished,
)
from s2s_helpers.course.checks.values import kind
from s2s_helpers.course.recipes import phrasebook_vocabularies
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import Seq2Seq
from s2s_helpers.models.view import eval_view
from s2s_helpers.training.schedules import inverse_sigmoid, inverse_square_root
from s2s_helpers.vocabulary import PAD, Vocabulary

__all__ = [
    "accumulated_step",
    "beat_own_words",
    "clipped",
    "early_stop",
    "predict_steps",
    "scheduled_sampling",
    "warmed_up_rate",
]


@check
def predict_steps(guess):
    """`guess`: the optimiser steps of an epoch, 2,000 pairs in batches of 8, 4 batches a step."""
    pairs = Seq2SeqDataset(phrasebook.load().train[:2000], *phrasebook_vocabularies())
    batches = len(make_loader(pairs, batch_size=8))
    predict(
        "predict_steps",
        guess,
        math.ceil(batches / 4),
        mistakes={
            "The last group has only 2 batches, but their gradient makes a step, too.": batches
            // 4,
            "Half a step is none: the 2 batches that are left over make a whole one.": batches / 4,
            "These are batches; 4 of them make one step.": batches,
            "2,000 / 4: a step takes 4 batches, not 4 pairs.": 2000 // 4,
            "4 steps a batch; it is 4 batches a step.": 4 * batches,
            "These are pairs.": 2000,
        },
        why="A schedule counts these steps, so its warm-up must, too.",
    )


@check
def warmed_up_rate(function):
    """`function(step, width, warmup)`: lrate of Vaswani et al. 2017, section 5.3."""
    compare(
        "warmed_up_rate",
        function,
        lambda step, width, warmup: inverse_square_root(warmup)(step) / math.sqrt(width * warmup),
        {
            "halfway up": (30, 64, 60),
            "on the way down": (600, 64, 60),
            "the peak": (60, 64, 60),
            "the first step": (1, 16, 10),
            "the paper's peak": (4000, 512, 4000),
            "a warm-up of 1 step": (7, 64, 1),
        },
        {
            "max in place of min: the smaller of the two counts.": lambda t, d, w: (
                d**-0.5 * max(t**-0.5, t * w**-1.5)
            ),
            "The warm-up has the power -1.5, not -0.5.": lambda t, d, w: (
                d**-0.5 * min(t**-0.5, t * w**-0.5)
            ),
            "The warm-up has the power -1.5, not -1.": lambda t, d, w: (
                d**-0.5 * min(t**-0.5, t / w)
            ),
            "The width is missing: the rate has the factor width ** -0.5.": lambda t, d, w: min(
                t**-0.5, t * w**-1.5
            ),
            "The width is multiplied by; its power is -0.5.": lambda t, d, w: (
                d**0.5 * min(t**-0.5, t * w**-1.5)
            ),
            "The width has the power -0.5, not -1.": lambda t, d, w: min(t**-0.5, t * w**-1.5) / d,
            "The step has the power -0.5 on the way down, not 0.5.": lambda t, d, w: (
                d**-0.5 * min(t**0.5, t * w**-1.5)
            ),
            "No way up: for small steps the second term counts.": lambda t, d, w: d**-0.5 * t**-0.5,
            "No way down: after the warm-up it falls.": lambda t, d, w: (
                d**-0.5 * min(w**-0.5, t * w**-1.5)
            ),
            "Shifted by one: the first step is step 1.": lambda t, d, w: (
                d**-0.5 * min((t + 1) ** -0.5, (t + 1) * w**-1.5)
            ),
            "That is the factor with its peak at 1, not the paper's rate.": lambda t, d, w: (
                inverse_square_root(w)(t)
            ),
        },
        why="Small first steps, while Adam's means have seen little.",
        tolerance=1e-7,
    )


@check
def clipped(function):
    """`function(gradients, limit)`: a list of tensors, scaled so that their norm as one vector is
    at most `limit`."""

    def norm(gradients):
        return torch.cat([g.flatten() for g in gradients]).norm()

    def scaled(gradients, factor):
        return [g * factor for g in gradients]

    def down_to(size):
        """Scale by the limit over this size, at most 1."""
        return lambda gs, limit: scaled(gs, min(1.0, limit / max(float(size(gs)), 1e-12)))

    def by_torch(gradients, limit):
        parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for parameter, g in zip(parameters, gradients, strict=True):
            parameter.grad = g.clone()
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        return [parameter.grad for parameter in parameters]

    compare(
        "clipped",
        function,
        by_torch,
        {
            "two tensors of norms 3 and 4": (
                [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])],
                2.0,
            ),
            "a norm below the limit": ([torch.tensor([0.3, 0.4]), torch.tensor([0.1])], 1.0),
            "each below the limit, not all": ([0.8 * torch.eye(1), torch.tensor([0.0, 0.8])], 1.0),
            "one tensor": ([torch.randn(3, 4)], 0.5),
            "three shapes": ([100 * torch.randn(2, 3), torch.randn(4), torch.randn(1)], 1.0),
            "all zero": ([torch.zeros(2), torch.zeros(3)], 1.0),
        },
        {
            "Each tensor is clipped by its own norm; that of all counts.": lambda gs, limit: [
                down_to(norm)([g], limit)[0] for g in gs
            ],
            "Single values are clamped: that changes the gradient's direction.": lambda gs, limit: [
                g.clamp(-limit, limit) for g in gs
            ],
            "It always scales to the limit; what is shorter must stay.": lambda gs, limit: scaled(
                gs, limit / float(norm(gs))
            ),
            "The root is missing: that is the square of the norm.": down_to(
                lambda gs: norm(gs) ** 2
            ),
            "Norms are added up; add up their squares.": down_to(
                lambda gs: sum(g.norm() for g in gs)
            ),
            "The largest of the norms; it is the norm of all as one vector.": down_to(
                lambda gs: max(g.norm() for g in gs)
            ),
            "The largest value; it is the norm of all as one vector.": down_to(
                lambda gs: max(g.abs().max() for g in gs)
            ),
            "Absolute values are added up; the norm is the root of the sum of squares.": down_to(
                lambda gs: sum(g.abs().sum() for g in gs)
            ),
            "Upside down: the factor is the limit over the norm.": lambda gs, limit: scaled(
                gs, min(1.0, float(norm(gs)) / limit)
            ),
            "Divided by the norm; the limit is missing.": lambda gs, limit: scaled(
                gs, 1 / max(1.0, float(norm(gs)))
            ),
            "max in place of min: the factor is at most 1.": lambda gs, limit: scaled(
                gs, max(1.0, limit / max(float(norm(gs)), 1e-12))
            ),
            "Nothing is clipped.": lambda gs, limit: gs,
        },
        why="One factor for all keeps the direction.",
    )


def small_training():
    """A tiny model, its optimiser, and gradients left over from an earlier step."""
    words = Vocabulary([str(number) for number in range(9)])
    model = Seq2Seq(words, words, embedding=6, hidden=8, cell="gru", dropout=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    return model, torch.optim.SGD(model.parameters(), lr=0.5)


@check
def accumulated_step(function):
    """`function(model, optimizer, loss, batches)`: one optimiser step with the mean gradient over
    all real tokens of the batches. What is compared is how far it moves the weights."""
    loss = Seq2SeqLoss(label_smoothing=0.1)

    def moved(step):
        """The movement of all weights, (weights,), by a step."""

        @functools.wraps(step)
        def run(batches):
            model, optimizer = small_training()
            before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
            step(model, optimizer, loss, batches)
            after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
            return ... if torch.equal(before, after) and stub else after - before

        return run

    stub = callable(function) and unfinished(function)

    def accumulate(each=None, divide=1.0, first=True, every=False, last=True, steps=False):
        """One step; `each` scales a batch's summed loss, `divide` the gradient in the end."""

        def step(model, optimizer, loss, batches):
            if first:
                optimizer.zero_grad()
            for batch in batches:
                if every:
                    optimizer.zero_grad()
                total, tokens = loss.total(model(batch)[0], batch.target_output)
                (total * each(batches, batch, tokens)).backward()
                if steps:
                    optimizer.step()
            if last:
                optimizer.step()

        return moved(step)

    def share(batches, batch, tokens):
        return 1 / sum(one.tokens for one in batches)

    def mean(batches, batch, tokens):
        return 1 / tokens / len(batches)

    def ids(*lengths):
        return [
            (torch.randint(4, 13, (3,)).tolist(), [*torch.randint(4, 13, (n - 1,)).tolist(), 3])
            for n in lengths
        ]

    accumulate(share)([collate(ids(1))])  # an optimiser's first step in Python takes seconds
    compare(
        "accumulated_step",
        moved(function) if callable(function) else function,
        lambda batches: accumulate(share)(batches),
        {
            "two batches of 10 and 3 tokens": ([collate(ids(6, 4)), collate(ids(3))],),
            "one batch": ([collate(ids(2, 5))],),
            "four batches": ([collate(ids(n, n + 2)) for n in (2, 3, 5, 7)],),
            "batches of one token a row": ([collate(ids(1)), collate(ids(1, 1, 1))],),
        },
        {
            "It is zeroed before every batch: all but the last are forgotten.": accumulate(
                share, every=True
            ),
            "All but the last batch are forgotten, and its mean is taken for all.": accumulate(
                lambda b, _, n: 1 / n, every=True
            ),
            "It is not zeroed at the start: an earlier step's gradient is left.": accumulate(
                share, first=False
            ),
            "Not zeroed at the start, and batches weigh alike, where tokens should.": accumulate(
                mean, first=False
            ),
            "A mean of means: batches weigh alike, but tokens should.": accumulate(mean),
            "The batches' means are added up: divide by all tokens.": accumulate(
                lambda b, _, n: 1 / n
            ),
            "The sum over tokens; divide by their number.": accumulate(lambda *_: 1.0),
            "Divided by the number of batches; it is the number of all tokens.": accumulate(
                lambda b, *_: 1 / len(b)
            ),
            "Weighed by pairs, not by tokens.": accumulate(
                lambda b, one, n: len(one) / n / sum(map(len, b))
            ),
            "Padding is counted among the tokens.": accumulate(
                lambda b, *_: 1 / sum(x.target_output.numel() for x in b)
            ),
            "A step after each batch: that is no accumulation.": accumulate(
                share, steps=True, last=False
            ),
            "A step after each batch, with its own mean: that is no accumulation.": accumulate(
                lambda b, _, n: 1 / n, every=True, steps=True, last=False
            ),
            "Nothing has moved: the optimiser's step is missing.": accumulate(share, last=False),
        },
        why="A large batch, in the memory of a small one.",
    )


@check
def early_stop(function):
    """`function(losses, patience)`: the epoch after which to stop and the best epoch, from 1."""

    def by_treadmill(losses, patience):
        trainer, best, epoch = SimpleNamespace(stop_training=False), 0, 0
        callback = EarlyStopping("val_loss", patience, "min", verbose=False)
        for epoch, loss in enumerate(losses, 1):
            before = callback.best_value
            callback.on_epoch_end(trainer, epoch - 1, {"val_loss": loss})
            best = epoch if callback.best_value < before else best
            if trainer.stop_training:
                break
        return epoch, best

    def loop(losses, patience, tie=False, reset=True, previous=False):
        """The same by hand, and ways to get it wrong."""
        best, at, wait, last = math.inf, 0, 0, 0
        for last, loss in enumerate(losses, 1):
            if loss < best or (tie and loss == best):
                at, wait = last, 0 if reset else wait
                best = loss
            else:
                wait += 1
                best = loss if previous else best
                if wait >= patience:
                    break
        return last, at

    compare(
        "early_stop",
        function,
        by_treadmill,
        {
            "it gets worse, patience 2": ([3.0, 2.0, 2.5, 2.2, 1.0, 0.9], 2),
            "always better": ([3.0, 2.0, 1.0], 2),
            "a second wind, patience 2": ([3.0, 3.1, 2.0, 2.1, 1.9, 1.95, 2.0, 1.0], 2),
            "a tie, patience 1": ([2.0, 2.0, 1.0], 1),
            "it swings, patience 3": ([2.0, 2.5, 2.2, 2.4, 2.3, 1.0], 3),
            "worse from the first, patience 1": ([1.0, 2.0, 3.0], 1),
            "one epoch": ([1.5], 3),
        },
        {
            "Patience is off by one: it stops an epoch too late.": lambda x, p: loop(x, p + 1),
            "Patience is off by one: it stops an epoch too early.": lambda x, p: (
                loop(x, p - 1) if p > 1 else (1, 1)
            ),
            "Epochs are counted from 0; they are asked for from 1.": lambda x, p: tuple(
                n - 1 for n in loop(x, p)
            ),
            "The two changed places: first where it stops, then the best.": lambda x, p: loop(x, p)[
                ::-1
            ],
            "The best is not the last one; that is why the best weights are kept.": lambda x, p: (
                (loop(x, p)[0],) * 2
            ),
            "It looks into the future: epochs after the stop are never run.": lambda x, p: (
                loop(x, p)[0],
                1 + x.index(min(x)),
            ),
            "It never stops early.": lambda x, p: (len(x), 1 + x.index(min(x))),
            "The count is not set back to 0 by a better epoch.": lambda x, p: loop(
                x, p, reset=False
            ),
            "A tie counts as better; it is not.": lambda x, p: loop(x, p, tie=True),
            "Compared with the epoch before; it is the best so far that counts.": lambda x, p: loop(
                x, p, previous=True
            ),
        },
        why="It ends a training that only learns its training data by heart.",
    )


@check
def scheduled_sampling(function):
    """`function(gold, own, i, k)`: for each row (batch,) the gold token with probability
    k / (k + exp(i / k)), else the model's own (Bengio et al. 2015, section 2.4)."""
    name, rows = "scheduled_sampling", 20_000
    gold = torch.randint(4, 50, (rows,))
    inputs = {
        "i = 4, k = 3": (gold, gold + 100, 4, 3),
        "i = 0, k = 5": (gold, gold + 100, 0, 5),
        "i = 90, k = 20": (gold, gold + 100, 90, 20),
        "i = 3000, k = 10": (gold, gold + 100, 3000, 10),
    }

    @functools.wraps(function, updated=())
    def twice(gold, own, i, k):
        first = function(gold, own, i, k)
        return None if first is None or first is ... else (first, function(gold, own, i, k))

    found = results(name, twice if callable(function) else function, inputs)
    if found is None:
        return None
    for (label, (gold, own, i, k)), (came, again) in zip(inputs.items(), found, strict=True):
        epsilon = inverse_sigmoid(k)(i)
        if not isinstance(came, torch.Tensor) or came.shape != gold.shape:
            shape = (
                f"a tensor of shape {tuple(came.shape)}" if hasattr(came, "shape") else kind(came)
            )
            told = f"tokens of shape {tuple(gold.shape)} are asked for; what came is {shape}."
            return say("✗", name, f"wrong on “{label}”. {told}")
        if came.is_floating_point():
            return say(
                "✗",
                name,
                f"wrong on “{label}”. Tokens are whole numbers, not {came.dtype}.",
                "Likely cause: a mean of both was taken; each row reads one or the other.",
            )
        is_gold = came == gold
        if not (is_gold | (came == own)).all():
            return say(
                "✗",
                name,
                f"wrong on “{label}”. Some tokens are neither the row's gold one nor its own.",
                "Likely cause: rows changed places, or the two were mixed.",
            )
        share = is_gold.double().mean().item()
        told = f"wrong on “{label}”. {share:.2f} of the tokens are gold; {epsilon:.2f} is right."
        if abs(share - epsilon) > 0.02:
            causes = [
                (1 - epsilon, "The coin is the wrong way round: epsilon is the share of gold."),
                (k / (k + math.exp(-i / k)), "exp(-i / k) in place of exp(i / k)."),
                (1 / (1 + math.exp(i / k)), "The k in front is missing: k / (k + exp(i / k))."),
                (k / (k + math.exp(min(i, 700))), "exp(i) in place of exp(i / k)."),
                (round(share), "One coin for the whole batch; each row tosses its own."),
                (i / (i + math.exp(k / max(i, 1))), "i and k changed places."),
            ]
            likely = [cause for value, cause in causes if abs(value - share) < 0.02]
            return say("✗", name, told, *(f"Likely cause: {cause}" for cause in likely[:1]))
        if 0.1 < epsilon < 0.9:
            alike = (is_gold[1:] == is_gold[:-1]).double().mean().item()
            if abs(alike - epsilon**2 - (1 - epsilon) ** 2) > 0.05:
                return say(
                    "✗",
                    name,
                    f"wrong on “{label}”. The share is right, but rows are not "
                    "drawn one by one: which are gold follows a pattern.",
                )
            if torch.equal(came, again):
                return say(
                    "✗",
                    name,
                    f"wrong on “{label}”. A second call gives the same tokens.",
                    "Likely cause: a seed is set inside; each step needs new luck.",
                )
    say(
        "✓", name, f"right on {len(inputs)} inputs. It teaches a decoder to live with its mistakes."
    )


@functools.cache
def validation_batch():
    pairs = Seq2SeqDataset(phrasebook.load().validation[:300], *phrasebook_vocabularies())
    return collate([pairs[number] for number in range(len(pairs))])


def own_words(model) -> float:
    """The share of validation words that stand where the reference has them, when the model reads
    its own words."""
    batch = validation_batch()
    with torch.inference_mode():
        model = eval_view(model)
        memory = model.encode(batch.source, batch.source_mask)
        state, tokens, right = model.start(memory), batch.target_input[:, 0], 0
        for wanted in batch.target_output.T:
            logits, state, _ = model.step(tokens, state, memory)
            tokens = logits.argmax(dim=-1)
            right += ((tokens == wanted) & (wanted != PAD)).sum().item()
    return right / batch.tokens


@check
def beat_own_words(trainer):
    """`trainer`: a `Seq2SeqTrainer` that has trained a `Seq2Seq`, at most 500 steps of 32 pairs."""
    name = "beat_own_words"
    if trainer is None or trainer is ...:
        return say("…", name, "not written yet.")
    if not all(hasattr(trainer, part) for part in ("model", "step", "train_dataloader")):
        return say("✗", name, f"a trainer is asked for; what came is {kind(trainer)}.")
    if type(trainer.model) is not Seq2Seq:
        return say("✗", name, f"the model is {kind(trainer.model)}; here it is Seq2Seq.")
    if not trainer.step:
        return say("✗", name, "it has not trained yet: call its fit(restore_best=False) first.")
    if trainer.step > 500:
        return say("✗", name, f"{trainer.step} steps; 500 are allowed.")
    pairs = len(next(iter(trainer.train_dataloader))) * trainer.config.accumulate_grad_batches
    if pairs > 32:
        return say("✗", name, f"a step takes {pairs} pairs; 32 are allowed.")
    beat(
        name,
        own_words(trainer.model),
        0.30,
        form="{:.0%}",
        why="Of the validation words, by the model's own.",
        hint="Less gold, more different pairs, a wider model, another rate?",
    )
