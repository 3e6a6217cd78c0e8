import math

import torch
from checking import CheckTests

from s2s_helpers.course.checks import decoding
from s2s_helpers.data import collate
from s2s_helpers.decoding import beam_search, length_penalty_of, translate
from s2s_helpers.vocabulary import EOS, PAD, SOS


def by_rows(model, source, limit):
    """Greedy decoding one sentence at a time."""
    found = []
    for row in source:
        row = row[row != PAD][None]
        memory = model.encode(row, torch.ones_like(row, dtype=torch.bool))
        state, token, ids = model.start(memory), SOS, []
        while len(ids) < limit and token != EOS:
            logits, state, _ = model.step(torch.tensor([token]), state, memory)
            token = logits[0].log_softmax(-1).argmax().item()
            ids.append(token)
        found.append(ids)
    return found


def in_batches(
    model, source, limit, stop=all, cut=True, first=(), read_sos=False, stay=False, mask=None
):
    """All rows to the end of the longest, and cut at <eos> afterwards."""
    memory = model.encode(source, source != PAD if mask is None else mask(source))
    state, tokens, steps = model.start(memory), torch.full_like(source[:, 0], SOS), []
    over = torch.zeros(len(source), dtype=torch.bool)
    while len(steps) < limit and not stop(over.tolist()):
        reads = torch.full_like(tokens, SOS) if read_sos else tokens
        logits, after, _ = model.step(reads, state, memory)
        state = state if stay else after
        tokens = logits.argmax(-1)
        over |= tokens == EOS
        steps.append(tokens)
    rows = torch.stack(steps, 1).tolist()
    if cut:
        rows = [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]
    return [[*first, *row] for row in rows]


def filled(token):
    def greedy(model, source, limit):
        rows = in_batches(model, source, limit)
        longest = max(map(len, rows))
        return [row + [token] * (longest - len(row)) for row in rows]

    return greedy


GREEDY = [
    ("It writes on after <eos>", lambda *a: in_batches(*a, cut=False)),
    ("It stops when the first row", lambda *a: in_batches(*a, stop=any)),
    ("<eos> is missing", lambda *a: [[i for i in row if i != EOS] for row in by_rows(*a)]),
    ("does not belong to the ids", lambda *a: in_batches(*a, first=[SOS])),
    ("not fed back", lambda *a: in_batches(*a, read_sos=True)),
    ("The state is not handed on", lambda *a: in_batches(*a, stay=True)),
    ("The mask is inverted", lambda *a: in_batches(*a, mask=lambda source: source == PAD)),
    ("Padding is read", lambda *a: in_batches(*a, mask=lambda source: source >= PAD)),
    ("<sos> does not count", lambda m, s, limit: in_batches(m, s, limit - 1) if limit > 1 else []),
    ("at most `limit` ids", lambda m, s, limit: in_batches(m, s, limit + 1)),
    ("filled up with <pad>", filled(PAD)),
    ("filled up with <eos>", filled(EOS)),
    ("what came is a tensor", lambda *a: torch.tensor(filled(PAD)(*a))),
]


def score(log_p, length, alpha):
    return log_p / ((5 + length) ** alpha / (5 + 1) ** alpha)


LENGTH_SCORE = [
    ("it divides", lambda p, n, a: p * ((5 + n) / 6) ** a),
    ("misses its power", lambda p, n, a: p / ((5 + n) ** a / (5 + 1))),
    ("(5 + 1) to the power of alpha is missing", lambda p, n, a: p / (5 + n) ** a),
    ("the 5 is missing", lambda p, n, a: p / n**a),
    ("Brackets are missing", lambda p, n, a: p / (5 + n) ** a / (5 + 1) ** a),
    ("not a factor", lambda p, n, a: p / ((5 + n) * a / 6) if a else p),
    ("lp is subtracted", lambda p, n, a: p - length_penalty_of(n, a)),
    ("One word too few", lambda p, n, a: score(p, n - 1, a)),
    ("One word too many", lambda p, n, a: score(p, n + 1, a)),
    ("alpha is not used", lambda p, n, a: score(p, n, 1)),
    ("Not divided", lambda p, n, a: p),
    ("The sign", lambda p, n, a: -score(p, n, a)),
    ("exp is too much", lambda p, n, a: score(math.exp(p), n, a)),
]


def by_sorting(log_p, scores, k):
    every = [
        (scores[line].item() + value, line, token)
        for line, row in enumerate(log_p.tolist())
        for token, value in enumerate(row)
    ]
    values, lines, tokens = zip(*sorted(every, reverse=True)[:k], strict=True)
    return torch.tensor(values), torch.tensor(lines), torch.tensor(tokens)


def by_unravel(log_p, scores, k):
    totals = log_p.double() + scores.view(-1, 1)
    values, places = totals.view(-1).sort(descending=True)
    lines, tokens = torch.unravel_index(places[:k], log_p.shape)
    return [values[:k], lines, tokens]


def flat(totals, k, size):
    values, places = totals.flatten().topk(k)
    return values, places // size, places % size


def line_by_line(log_p, scores, k):
    values, tokens = (log_p + scores[:, None]).max(dim=1)
    order = values.argsort(descending=True)[:k]
    return values[order], order, tokens[order]


def turned(log_p, scores, k):
    values, lines, tokens = by_sorting(log_p, scores, k)
    return values, tokens, lines


BEAM_STEP = [
    ("not added", lambda p, s, k: flat(p, k, p.shape[1])),
    ("The best of each line", line_by_line),
    ("changed places", turned),
    (
        "The worst k",
        lambda p, s, k: tuple(
            -x if n == 0 else x for n, x in enumerate(flat(-p - s[:, None], k, p.shape[1]))
        ),
    ),
    (
        "Worst first",
        lambda p, s, k: tuple(reversed(x.tolist()) and x.flip(0) for x in by_sorting(p, s, k)),
    ),
    ("divided by the number of lines", lambda p, s, k: flat(p + s[:, None], k, len(p))),
    ("divided by k", lambda p, s, k: flat(p + s[:, None], k, k)),
    ("Logarithms are multiplied", lambda p, s, k: flat(p * s[:, None], k, p.shape[1])),
    ("must match the size", lambda p, s, k: flat(p + s, k, p.shape[1])),
    (
        "given as tokens",
        lambda p, s, k: (*by_sorting(p, s, k)[:2], (p + s[:, None]).view(-1).topk(k).indices),
    ),
    ("Probabilities are returned", lambda p, s, k: flat((p + s[:, None]).exp(), k, p.shape[1])),
    ("3 are right", lambda p, s, k: (p + s[:, None]).flatten().topk(k)),
]


def cooled(logits, temperature, top_k):
    least = logits.sort(descending=True).values[min(top_k, len(logits)) - 1]
    return torch.where(logits >= least, logits / temperature, -math.inf).softmax(-1)


def cooled_by_powers(logits, temperature, top_k):
    p = logits.double().log_softmax(-1).div(temperature)
    p = (p - p.max()).exp()
    p[p.argsort()[: max(0, len(p) - top_k)]] = 0
    return p / p.sum()


SHARPENED = [
    ("Multiplied by the temperature", lambda z, T, k: cooled(z, 1 / T, k)),
    ("it divides logits", lambda z, T, k: cooled(z, 1, k) / T),
    ("The power 1/T is there", lambda z, T, k: cooled(z, 1, k) ** (1 / T)),
    ("not divided by their sum", lambda z, T, k: (z / T).softmax(-1) * (cooled(z, 1, k) > 0)),
    ("got logit 0", lambda z, T, k: torch.where(cooled(z, 1, k) > 0, z / T, 0.0).softmax(-1)),
    (
        "The least likely",
        lambda z, T, k: torch.where(cooled(-z, 1, k) > 0, z / T, -math.inf).softmax(-1),
    ),
    ("One word too few", lambda z, T, k: cooled(z, T, k - 1) if k > 1 else z * math.nan),
    ("One word too many", lambda z, T, k: cooled(z, T, k + 1)),
    ("top_k is not used", lambda z, T, k: (z / T).softmax(-1)),
    ("The temperature is not used", lambda z, T, k: cooled(z, 1.0, k)),
    ("softmax is missing", lambda z, T, k: torch.where(cooled(z, 1, k) > 0, z / T, -math.inf)),
    ("sorted by probability", lambda z, T, k: cooled(z, T, k).sort(descending=True).values),
    ("Its shape is (2,)", lambda z, T, k: (z.sort(descending=True).values[:k] / T).softmax(-1)),
]


def nucleus(p, top_p):
    values, places = p.sort(descending=True)
    reached = values.cumsum(0)
    count = min(int((reached < top_p).sum()) + 1, len(p))
    kept = torch.zeros_like(p)
    kept[places[:count]] = values[:count]
    return kept / kept.sum()


def nucleus_by_loop(p, top_p):
    kept, total = [0.0] * len(p), 0.0
    for place in sorted(range(len(p)), key=lambda i: -p[i]):
        if total < top_p:
            kept[place] = p[place].item()
            total += kept[place]
    return torch.tensor([one / total for one in kept])


def counted(extra):
    def cut(p, top_p):
        values, places = p.sort(descending=True)
        count = int((values.cumsum(0) <= top_p).sum()) + extra
        kept = torch.zeros_like(p).scatter(0, places[:count], values[:count])
        return kept / kept.sum()

    return cut


NUCLEUS = [
    ("is left out", counted(0)),
    ("do not sum to 1", lambda p, t: p * (nucleus(p, t) > 0)),
    ("One word too many", counted(2)),
    ("with 1 - top_p", lambda p, t: torch.where(p >= 1 - t, p, 0) / p[p >= 1 - t].sum()),
    ("compared with top_p", lambda p, t: torch.where(p >= t, p, 0) / p[p >= t].sum()),
    (
        "From the least likely up",
        lambda p, t: (
            (q := torch.where(torch.tensor([(p[p < x].sum() < t).item() for x in p]), p, 0))
            / q.sum()
        ),
    ),
    (
        "in the vocabulary's order",
        lambda p, t: (q := torch.where(p.cumsum(0) - p < t, p, 0)) / q.sum(),
    ),
    ("sorted by probability", lambda p, t: nucleus(p, t).sort(descending=True).values),
    ("a softmax of probabilities", lambda p, t: (p * (nucleus(p, t) > 0)).softmax(-1)),
]


def penalised(model, sentences):
    return [t.text for t in translate(model, sentences, beam_size=5, length_penalty=1.0)]


def penalised_by_search(model, sentences):
    """All in one padded batch; the runners-up are dropped."""
    batch = collate([(model.source_vocabulary.encode(text), None) for text in sentences])
    found = beam_search(model, batch.source, None, 5, 1.0, n_best=2, attention=False)
    return tuple(model.target_vocabulary.decode(best.ids) for best, *_ in found)


BEAT_THE_BEAM = [
    ("was to beat", lambda m, s: [t.text for t in translate(m, s)]),
    ("Longer?", lambda m, s: [t.text for t in translate(m, s, 5, length_penalty=0.0)]),
    ("nothing was written", lambda m, s: [""] * len(s)),
    ("the English sentences", lambda m, s: s),
    ("not in the order", lambda m, s: sorted(penalised(m, s))),
    ("holds a Translation", translate),
    ("holds a text", lambda m, s: " ".join(penalised(m, s))),
    ("400 sentences came in, 399 went out", lambda m, s: penalised(m, s)[:-1]),
]

RIGHT = {
    "predict_beam": ["un chat dort bien", " un chat dort  bien <eos>"],
    "batched_greedy": [by_rows, in_batches],
    "length_score": [score, lambda p, n, a: p * math.exp(-a * math.log((5 + n) / 6))],
    "beam_step": [by_sorting, by_unravel],
    "sharpened": [cooled, cooled_by_powers],
    "nucleus": [nucleus, nucleus_by_loop],
    "beat_the_beam": [penalised, penalised_by_search],
}
WRONG = {
    "predict_beam": [
        ("the best of all sentences", "un lapin dort bien"),
        ("0.22 against 0.225", "un chien"),
        ("the third of the candidates", "un chat"),
        ("the last of four candidates", "le chat"),
        ("ends second", "le chat dort bien"),
        ("The empty sentence", ""),
        ("you say 2; it is 'un chat dort bien'", 2),
    ],
    "batched_greedy": GREEDY,
    "length_score": LENGTH_SCORE,
    "beam_step": BEAM_STEP,
    "sharpened": SHARPENED,
    "nucleus": NUCLEUS,
    "beat_the_beam": BEAT_THE_BEAM,
}


class TestChecks(CheckTests):
    checks, right, wrong = decoding, RIGHT, WRONG
