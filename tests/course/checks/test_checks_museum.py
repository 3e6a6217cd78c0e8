"""The checks of the bug museum: mends are accepted, and what else people write is told why not."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
import torch
from checking import CheckTests, answer_of
from torch.nn import functional as F

from s2s_helpers.course.checks import museum, museum_scores
from s2s_helpers.data import Seq2SeqDataset, collate
from s2s_helpers.decoding import greedy_decode, translate
from s2s_helpers.metrics import bleu, sequence_accuracy, token_accuracy
from s2s_helpers.vocabulary import EOS, PAD, word_detokenize, word_tokenize

INFINITY = float("inf")


# 1 counter


def counter(pairs):
    english, french = {}, {}
    for source, target in pairs:
        for word in source:
            if word not in english:
                english[word] = len(english) + 4
        for word in target:
            french.setdefault(word, len(french) + 4)
    return english, french


def counter_sorted(pairs):
    sides = [sorted({word for pair in pairs for word in pair[side]}) for side in (0, 1)]
    return [dict(zip(words, itertools.count(4))) for words in sides]


def counter_shared(pairs):
    number, tables = 4, ({}, {})
    for pair in pairs:
        for table, sentence in zip(tables, pair, strict=True):
            for word in sentence:
                if word not in table:
                    table[word] = number
                    number += 1
    return tables


def counter_goes_on(pairs):
    english, french = counter(pairs)
    return english, {word: number + len(english) for word, number in french.items()}


def counter_from(first):
    return lambda pairs: tuple(
        {word: number - 4 + first for word, number in table.items()} for table in counter(pairs)
    )


def counter_by_place(pairs):
    tables = {}, {}
    for side in (0, 1):
        number = 4
        for pair in pairs:
            for word in pair[side]:
                tables[side][word] = number
                number += 1
    return tables


def counter_one_table(pairs):
    words = dict.fromkeys(word for pair in pairs for sentence in pair for word in sentence)
    table = {word: number + 4 for number, word in enumerate(words)}
    return table, table


# 2 truncation


def truncation(ids, max_length):
    if len(ids) > max_length:
        ids = [*ids[: max_length - 1], EOS]
    return ids, len(ids)


def truncation_other(ids, max_length):
    words = ids[:-1][: max_length - 1]
    return (*words, EOS), len(words) + 1


# 3 split


def split(pairs, size):
    different = sorted(set(pairs))
    random.shuffle(different)
    return different[:-size], different[-size:]


def split_keeping_copies(pairs, size):
    held_out = set(random.sample(sorted(set(pairs)), size))
    return [p for p in pairs if p not in held_out], [p for p in pairs if p in held_out]


def split_after_shuffle(pairs, size):
    pairs = random.sample(pairs, len(pairs))
    return pairs[size:], pairs[:size]


# 4 bridge


def bridge(final):
    return torch.stack(
        [torch.cat([final[2 * n], final[2 * n + 1]], dim=1) for n in range(len(final) // 2)], dim=1
    )


def bridge_permuted(final):
    twice, batch, hidden = final.shape
    return final.permute(1, 0, 2).reshape(batch, twice // 2, 2 * hidden)


# 5 mask


def mask_loop(scores, mask):
    rows = []
    for row, real in zip(scores, mask, strict=True):
        powers = row.exp() * real
        rows.append(powers / powers.sum(-1, keepdim=True))
    return torch.stack(rows)


# 8 positions


def positions_loop(x, table):
    return torch.stack([x[:, t] + table[t] for t in range(x.shape[1])], dim=1)


# 10 half


def half(scores, mask):
    top = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).amax(-1, keepdim=True)
    powers = ((scores - top).clamp(max=0).float().exp() * mask).double()
    return (powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)).to(scores.dtype)


def half_where(scores, mask):
    weights = scores.masked_fill(~mask, -INFINITY).float().softmax(-1)
    return torch.where(mask, weights, torch.zeros_like(weights)).type(scores.dtype)


def half_added(scores, mask):
    minus = torch.tensor(-1e9).to(scores.dtype)
    return (scores + (1 - mask.to(scores.dtype)) * minus).softmax(-1)


# 12 means


def without_the_last(batches):
    *batches, _ = batches
    return sum(m * n for m, n in batches) / sum(n for _, n in batches)


# 13 accumulation


def accumulation(loss_of, optimizer, batches, every):
    steps = 0
    for start in range(0, len(batches), every):
        group = batches[start : start + every]
        optimizer.zero_grad()
        for batch in group:
            (loss_of(batch) / len(group)).backward()
        optimizer.step()
        steps += 1
    return steps


def accumulation_at_once(loss_of, optimizer, batches, every):
    steps = 0
    while batches[steps * every :]:
        losses = [loss_of(batch) for batch in batches[steps * every : (steps + 1) * every]]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        steps += 1
    return steps


def accumulating(zero="group", divide=True, rest=False, step="group"):
    """The loop as it is mostly written, with a mistake."""

    def epoch(loss_of, optimizer, batches, every):
        steps = 0
        optimizer.zero_grad()
        for number, batch in enumerate(batches):
            if zero == "batch":
                optimizer.zero_grad()
            loss = loss_of(batch)
            (loss / min(every, len(batches)) if divide else loss).backward()
            if step == "batch" or (number + 1) % every == 0:
                optimizer.step()
                steps += 1
                if zero == "group":
                    optimizer.zero_grad()
        return steps

    return epoch


# 14 metric


def metric_renamed(metric, hypotheses, references):
    try:
        return metric(hypotheses, references)
    except ValueError as error:
        raise RuntimeError("the metric failed") from error


def metric_instead(value):
    def score(metric, hypotheses, references):
        try:
            return metric(hypotheses, references)
        except Exception:
            return value

    return score


def metric_of_what_fits(metric, hypotheses, references):
    fitting = [*zip(hypotheses, references)]  # noqa: B905
    return metric(*map(list, zip(*fitting, strict=True))) if fitting else 0.0


# 15 evaluation


def evaluation(model, measure):
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            return measure(model)
    finally:
        model.train(before)


@torch.inference_mode()
def evaluation_by_module(model, measure):
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    value = measure(model)
    for module, mode in modes:
        module.training = mode
    return value


def evaluating(quiet=True, after="train", top=False):
    def evaluate(model, measure):
        if top:
            model.training = False
        else:
            model.eval()
        with torch.set_grad_enabled(not quiet):
            value = measure(model)
        if after == "train":
            model.train()
        return value

    return evaluate


def evaluation_without_eval(model, measure):
    with torch.no_grad():
        return measure(model)


# 16 beam


def beam(hypotheses):
    best, best_score = None, -math.inf
    for ids, log_p in hypotheses:
        if log_p / len(ids) > best_score:
            best, best_score = ids, log_p / len(ids)
    return best


def beam_by(key):
    return lambda hypotheses: max(hypotheses, key=key)[0]


# 17 BLEU


def french(tokens):
    return [word_detokenize(sentence, language="fr") for sentence in tokens]


def spaced(texts):
    return [" ".join(word_tokenize(text)) for text in texts]


def lower(texts):
    return [text.lower() for text in texts]


def sacrebleu_itself(tokens, references):
    from sacrebleu import corpus_bleu

    return corpus_bleu(french(tokens), [references]).score


# 18 quality


def encoded(model, pairs):
    data = Seq2SeqDataset(pairs, model.source_vocabulary, model.target_vocabulary)
    return collate([data[n] for n in range(len(data))])


def quality(model, pairs):
    sources, targets = zip(*pairs, strict=True)
    return sequence_accuracy([t.text for t in translate(model, list(sources))], list(targets))


def quality_by_ids(model, pairs):
    batch = encoded(model, pairs)
    found = greedy_decode(model, batch.source, batch.source_mask)
    gold = [model.target_vocabulary.encode(target) for _, target in pairs]
    return np.mean([one.ids == other for one, other in zip(found, gold, strict=True)])


def quality_forced(model, pairs):
    batch = encoded(model, pairs)
    return token_accuracy(model(batch)[0], batch.target_output)


def quality_forced_with_padding(model, pairs):
    batch = encoded(model, pairs)
    return (model(batch)[0].argmax(2) == batch.target_output).double().mean().item()


def quality_forced_sentences(model, pairs):
    batch = encoded(model, pairs)
    right = (model(batch)[0].argmax(2) == batch.target_output) | (batch.target_output == PAD)
    return right.all(dim=1).double().mean()


def quality_of_words(model, pairs):
    hits = words = 0
    for source, target in pairs:
        said = translate(model, [source])[0].text.split()
        words += len(target.split())
        hits += sum(one == other for one, other in zip(said, target.split()))  # noqa: B905
    return hits / words


def quality_of_beginnings(model, pairs):
    hits = 0
    for source, target in pairs:
        said = translate(model, [source])[0].text.split()
        hits += all(one == other for one, other in zip(said, target.split()))  # noqa: B905
    return hits / len(pairs)


RIGHT = {
    "museum_counter": [counter, counter_sorted],
    "museum_truncation": [truncation, truncation_other],
    "museum_split": [split, split_keeping_copies],
    "museum_bridge": [bridge, bridge_permuted],
    "museum_mask": [
        mask_loop,
        lambda s, m: s.masked_fill(m.unsqueeze(1) == 0, -1e9).softmax(dim=2),
        lambda s, m: torch.softmax(s.double() + (1 - m.double())[:, None] * -1e12, dim=-1),
    ],
    "museum_squeeze": [
        lambda logits: logits.squeeze(1).argmax(dim=-1),
        lambda logits: logits.argmax(-1).reshape(-1),
        lambda logits: torch.tensor([row[0].argmax().item() for row in logits]),
    ],
    "museum_positions": [
        positions_loop,
        lambda x, table: x + table[: x.size(1)].unsqueeze(0),
        lambda x, table: torch.einsum("btw->btw", x) + table.narrow(0, 0, x.size(1)),
    ],
    "museum_future": [
        lambda n: torch.ones(n, n).tril().bool(),
        lambda n: torch.arange(n)[:, None] >= torch.arange(n),
        lambda n: torch.tensor([[j <= i for j in range(n)] for i in range(n)]),
    ],
    "museum_half": [half, half_where],
    "museum_padding": [
        lambda losses, targets: losses[targets != PAD].mean(),
        lambda losses, targets: (losses * (targets > 0)).sum() / (targets > 0).sum(),
        lambda losses, targets: statistics.mean(
            one.item()
            for one, target in zip(losses.flatten(), targets.flatten(), strict=True)
            if target != PAD
        ),
    ],
    "museum_means": [
        lambda batches: sum(m * n for m, n in batches) / sum(n for _, n in batches),
        lambda batches: np.average([m for m, _ in batches], weights=[n for _, n in batches]),
    ],
    "museum_accumulation": [accumulation, accumulation_at_once],
    "museum_metric": [lambda metric, hyps, refs: metric(hyps, refs), metric_renamed],
    "museum_evaluation": [evaluation, evaluation_by_module],
    "museum_beam": [
        beam,
        beam_by(lambda h: h[1] / len(h[0])),
        lambda hypotheses: sorted(hypotheses, key=lambda h: -h[1] / len(h[0]))[0][0],
    ],
    "museum_bleu": [
        lambda tokens, references: bleu(french(tokens), references),
        sacrebleu_itself,
    ],
    # Greedily, a sentence is right exactly if each word is right after the right ones before it.
    "museum_quality": [quality, quality_by_ids, quality_forced_sentences],
    "museum_wreck": [0.52, torch.tensor(0.75)],
}
WRONG = {
    "museum_counter": [
        ("one counter", counter_shared),
        ("goes on where the first", counter_goes_on),
        ("starts at 0", counter_from(0)),
        ("one too late", counter_from(5)),
        ("uses up a number", counter_by_place),
        ("share one dictionary", counter_one_table),
        ("two dictionaries are asked for", lambda pairs: counter(pairs)[0]),
        ("a list and a list", lambda pairs: [list(table) for table in counter(pairs)]),
    ],
    "museum_truncation": [
        ("EOS is cut off", lambda ids, n: (ids[:n], min(len(ids), n))),
        ("before it was cut", lambda ids, n: (truncation(ids, n)[0], len(ids))),
        ("before the cut", lambda ids, n: (ids[:n], len(ids))),
        (
            "One too many",
            lambda ids, n: (ids if len(ids) <= n else [*ids[:n], EOS], min(len(ids), n + 1)),
        ),
        ("sentences that have one", lambda ids, n: ([*ids[: n - 1], EOS], min(len(ids) + 1, n))),
        ("beginning", lambda ids, n: (ids[-n:], len(ids[-n:]))),
    ],
    "museum_split": [
        ("keeps them too", lambda pairs, n: (pairs, random.sample(pairs, n))),
        ("Copies of a pair", split_after_shuffle),
        ("Copies of a pair", lambda pairs, n: (pairs[n:], pairs[:n])),
        (
            "overlap",
            lambda pairs, n: (list(dict.fromkeys(pairs))[n - 1 :], list(dict.fromkeys(pairs))[:n]),
        ),
        (
            "leave a pair out",
            lambda pairs, n: (list(dict.fromkeys(pairs))[n + 1 :], list(dict.fromkeys(pairs))[:n]),
        ),
        ("changed places", lambda pairs, n: split(pairs, n)[::-1]),
        ("two lists of pairs are asked for", lambda pairs, n: split(pairs, n)[0]),
    ],
    "museum_bridge": [
        ("view and reshape", lambda f: f.contiguous().view(f.shape[1], -1, 2 * f.shape[2])),
        ("Only one direction", lambda f: f[::2].transpose(0, 1)),
        ("the backward one", lambda f: f[1::2].transpose(0, 1)),
        ("have changed places", lambda f: torch.cat([f[1::2], f[::2]], dim=2).transpose(0, 1)),
        ("mixed up", lambda f: torch.cat(f.chunk(2), dim=2).transpose(0, 1)),
        ("added", lambda f: (f[::2] + f[1::2]).transpose(0, 1)),
        ("layers stand where", lambda f: torch.cat([f[::2], f[1::2]], dim=2)),
    ],
    "museum_mask": [
        ("not masked at all", lambda s, m: s.softmax(-1)),
        ("inverted", lambda s, m: s.masked_fill(m[:, None], -INFINITY).softmax(-1)),
        ("is no mask", lambda s, m: (s * m[:, None]).softmax(-1)),
        ("is no mask", lambda s, m: s.masked_fill(~m[:, None], 0).softmax(-1)),
        ("after the softmax", lambda s, m: s.softmax(-1) * m[:, None]),
        ("over the targets", lambda s, m: s.masked_fill(~m[:, None], -1e9).softmax(1)),
        ("too mild", lambda s, m: s.masked_fill(~m[:, None], -1).softmax(-1)),
    ],
    "museum_squeeze": [
        ("squeeze(0)", lambda logits: logits.squeeze(0).argmax(-1)),
        ("bare squeeze()", lambda logits: logits.squeeze().argmax(-1)),
        ("over the time", lambda logits: logits.argmax(1)),
        ("over the batch", lambda logits: logits.argmax(0)),
        ("Only the first", lambda logits: logits[0].argmax(-1)),
        ("still there", lambda logits: logits.argmax(-1)),
        ("largest logits", lambda logits: logits.squeeze(1).max(-1).values),
    ],
    "museum_positions": [
        ("row of the batch", lambda x, table: x + table[: x.size(0)].unsqueeze(1)),
        ("Nothing is added", lambda x, table: x),
        ("position 0", lambda x, table: x + table[:1]),
        ("Shifted by one", lambda x, table: x + table[1 : x.size(1) + 1]),
        ("multiplied", lambda x, table: x * table[: x.size(1)]),
        ("tokens themselves", lambda x, table: table[: x.size(1)].expand_as(x)),
        ("in place", lambda x, table: x.add_(table[: x.size(1)])),
    ],
    "museum_future": [
        ("is open", lambda n: torch.ones(n, n).bool()),
        ("Transposed", lambda n: torch.ones(n, n).triu().bool()),
        ("Inverted", lambda n: torch.ones(n, n).triu(1).bool()),
        ("diagonal is closed", lambda n: torch.ones(n, n).tril(-1).bool()),
        ("one too far", lambda n: torch.ones(n, n).tril(1).bool()),
        ("sees itself alone", lambda n: torch.eye(n).bool()),
        ("close nothing", lambda n: torch.ones(n, n).tril()),
        ("numbers to add", torch.nn.Transformer.generate_square_subsequent_mask),
    ],
    "museum_half": [
        ("not a number", half_added),
        ("65504", lambda s, m: s.masked_fill(~m, -1e9).softmax(-1)),
        ("0 / 0", lambda s, m: s.masked_fill(~m, -INFINITY).softmax(-1)),
        ("equal weights", lambda s, m: s.masked_fill(~m, torch.finfo(s.dtype).min).softmax(-1)),
        ("dtype", lambda s, m: half(s.float(), m)),
        ("not masked", lambda s, m: s.softmax(-1)),
        ("too mild", lambda s, m: s.masked_fill(~m, -5).softmax(-1)),
    ],
    "museum_padding": [
        ("as if it were words", lambda losses, targets: losses.mean()),
        ("still counted", lambda losses, targets: (losses * (targets != 0)).mean()),
        (
            "sentences' means",
            lambda losses, targets: torch.stack(
                [one[target != 0].mean() for one, target in zip(losses, targets, strict=True)]
            ).mean(),
        ),
        ("the sum", lambda losses, targets: (losses * (targets != 0)).sum()),
        (
            "number of sentences",
            lambda losses, targets: (losses * (targets != 0)).sum() / losses.shape[0],
        ),
        ("inverted", lambda losses, targets: losses[targets == 0].mean()),
        ("EOS is left out", lambda losses, targets: losses[(targets != 0) & (targets != 3)].mean()),
    ],
    "museum_means": [
        ("weighs the same", lambda batches: statistics.mean(m for m, _ in batches)),
        ("number of batches", lambda batches: sum(m * n for m, n in batches) / len(batches)),
        ("without their tokens", lambda bs: sum(m for m, _ in bs) / sum(n for _, n in bs)),
        ("is the sum", lambda batches: sum(m * n for m, n in batches)),
        ("is left out", without_the_last),
        ("last batch's mean alone", lambda batches: batches[-1][0]),
    ],
    "museum_accumulation": [
        ("are forgotten", accumulating(zero="batch")),
        ("never zeroed", accumulating(zero=None)),
        ("added, not averaged", accumulating(divide=False)),
        ("are lost", accumulating()),
        ("its own gradient alone", accumulating(zero="batch", divide=False, step="batch")),
        ("for every batch", accumulating(zero=None, step="batch")),
    ],
    "museum_metric": [
        ("looks like a bad score", metric_instead(0.0)),
        ("nan goes unnoticed", metric_instead(math.nan)),
        ("is still a number", metric_instead(-1.0)),
        ("perfect score", metric_instead(1.0)),
        ("returns None", metric_instead(None)),
        ("never called", lambda metric, hyps, refs: 0.0),
        ("thrown away", metric_of_what_fits),
    ],
    "museum_evaluation": [
        ("no_grad does not", evaluation_without_eval),
        ("gradients are recorded", lambda model, measure: measure(model)),
        ("not given back", evaluating(after=None)),
        ("for nothing", evaluating(quiet=False)),
        ("where it was off", evaluating()),
        ("Only the outer", evaluating(top=True)),
        ("recorded, and the mode", evaluating(quiet=False, after=None)),
    ],
    "museum_beam": [
        ("Sums are compared", beam_by(lambda h: h[1])),
        ("worst", lambda hypotheses: min(hypotheses, key=lambda h: h[1] / len(h[0]))[0]),
        ("longest wins", beam_by(lambda h: len(h[0]))),
        ("Probabilities", beam_by(lambda h: math.exp(h[1]) / len(h[0]))),
        ("Multiplied", beam_by(lambda h: h[1] * len(h[0]))),
        ("leaves EOS out", beam_by(lambda h: h[1] / (len(h[0]) - 1))),
        ("square", beam_by(lambda h: h[1] / len(h[0]) ** 2)),
    ],
    "museum_bleu": [
        ("joined by spaces", lambda ts, refs: bleu([" ".join(t) for t in ts], refs)),
        (
            "not comparable",
            lambda ts, refs: bleu([" ".join(t) for t in ts], spaced(refs), tokenize="none"),
        ),
        ("lower-cased", lambda ts, refs: bleu(lower(french(ts)), lower(refs))),
        (
            "mean of the sentences",
            lambda ts, refs: statistics.mean(
                bleu([t], [r]) for t, r in zip(french(ts), refs, strict=True)
            ),
        ),
        ("changed places", lambda ts, refs: bleu(refs, french(ts))),
        ("0 to 100", lambda ts, refs: bleu(french(ts), refs) / 100),
        ("Characters", lambda ts, refs: bleu(french(ts), refs, tokenize="char")),
    ],
    "museum_quality": [
        ("Teacher-forced: every word", quality_forced),
        ("padding counts", quality_forced_with_padding),
        ("Words are counted", quality_of_words),
        ("only begins right", quality_of_beginnings),
        ("percentage", lambda model, pairs: 100 * quality(model, pairs)),
        ("Everything counts", lambda model, pairs: 1.0),
        ("not their share", lambda model, pairs: len(pairs) * quality(model, pairs)),
    ],
    "museum_wreck": [
        ("still aboard", 0.31),
        ("copy", 0.0),
        ("percentage", 52.0),
        ("teacher-forced", 0.993),
        ("a number is asked for", "right"),
        ("from 0 to 1", -0.5),
    ],
}


def of(module, answers):
    return {name: answers[name] for name in module.__all__}


def test_every_answer_is_for_some_check():
    assert {*museum.__all__, *museum_scores.__all__} == set(RIGHT) == set(WRONG)


class TestDataAndModels(CheckTests):
    checks, right, wrong = museum, of(museum, RIGHT), of(museum, WRONG)


class TestTrainingAndEvaluation(CheckTests):
    checks, right, wrong = museum_scores, of(museum_scores, RIGHT), of(museum_scores, WRONG)


def test_cross_entropy_agrees_with_the_exhibit_of_padding(capsys):
    """The loss of torch's own, told to ignore padding, is the mend."""

    def by_torch(losses, targets):
        # A distribution in which the right token has exactly this loss.
        right = torch.zeros(*targets.shape, 9).scatter(2, targets[..., None], -losses[..., None])
        rest = (1 - (-losses).exp()).clamp(min=1e-12).log()[..., None] - math.log(8)
        logits = rest.expand_as(right).scatter(2, targets[..., None], -losses[..., None])
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)

    assert answer_of(museum_scores.museum_padding, by_torch, capsys).startswith("✓")


@pytest.mark.parametrize("figure", [0.4, 0.96])
def test_the_wreck_is_not_passed_at_its_bounds(figure, capsys):
    assert answer_of(museum_scores.museum_wreck, figure, capsys).startswith("✗")
