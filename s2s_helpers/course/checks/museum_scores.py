"""The checks of notebook 09, halls 3 and 4: a mend for each exhibit on training and evaluation."""

import functools
import random

import torch
from torch import nn

from s2s_helpers.course.checks.running import beat, check, compare, say
from s2s_helpers.course.checks.values import is_number, plain
from s2s_helpers.data import collate
from s2s_helpers.decoding import translate
from s2s_helpers.metrics import bleu, sequence_accuracy, token_accuracy
from s2s_helpers.models import Memory, Seq2SeqModel, State
from s2s_helpers.vocabulary import EOS, PAD, Vocabulary, word_detokenize

__all__ = [
    "museum_accumulation",
    "museum_beam",
    "museum_bleu",
    "museum_evaluation",
    "museum_means",
    "museum_metric",
    "museum_padding",
    "museum_quality",
    "museum_wreck",
]


# Hall 3: loss and training


@check
def museum_padding(function):
    """`function(losses, targets)`: both (batch, target), to the mean over real tokens."""
    targets = torch.tensor([[5, 3, 0, 0], [6, 7, 8, 3]])
    many = torch.randint(4, 9, (5, 8)).where(torch.arange(8) < torch.tensor([[8, 2, 5, 1, 3]]).T, 0)
    compare(
        "museum_padding",
        function,
        lambda losses, targets: losses[targets != PAD].mean(),
        {
            "no padding": (torch.tensor([[1.0, 2.0]]), torch.tensor([[5, 3]])),
            "two sentences": (torch.tensor([[1.0, 2, 4, 4], [1, 1, 2, 2]]), targets),
            "five sentences": (torch.rand(5, 8), many),
        },
        {
            "Padding counts as if it were words.": lambda losses, targets: losses.mean(),
            "Padding's losses are 0, but it is still counted in the mean.": (
                lambda losses, targets: (losses * (targets != PAD)).mean()
            ),
            "This is a mean of the sentences' means: short sentences weigh more.": (
                lambda losses, targets: (
                    (losses * (targets != PAD)).sum(1) / (targets != PAD).sum(1)
                ).mean()
            ),
            "This is the sum, not the mean.": lambda losses, targets: losses[targets != PAD].sum(),
            "Divided by the number of sentences, not of tokens.": lambda losses, targets: (
                losses[targets != PAD].sum() / len(losses)
            ),
            "The mask is inverted: only padding counts.": lambda losses, targets: losses[
                targets == PAD
            ].mean(),
            "EOS is left out; it is a token to learn.": lambda losses, targets: losses[
                (targets != PAD) & (targets != EOS)
            ].mean(),
        },
        why="The loss no longer depends on who stands beside whom.",
    )


@check
def museum_means(function):
    """`function(batches)`: (mean loss, tokens) of each batch, to the mean of a token."""

    def total(batches):
        return sum(mean * tokens for mean, tokens in batches)

    def tokens(batches):
        return sum(count for _, count in batches)

    compare(
        "museum_means",
        function,
        lambda batches: total(batches) / tokens(batches),
        {
            "two batches": ([(1.0, 30), (4.0, 10)],),
            "one batch": ([(2.5, 7)],),
            "a last batch of one token": ([(1.0, 64), (1.5, 64), (9.0, 1)],),
            "random batches": (
                [(random.uniform(0.5, 5), random.randint(1, 90)) for _ in range(9)],
            ),
        },
        {
            "Every batch weighs the same, however few tokens it has.": lambda batches: (
                sum(mean for mean, _ in batches) / len(batches)
            ),
            "Divided by the number of batches, not of tokens.": lambda batches: (
                total(batches) / len(batches)
            ),
            "The batches' means are added without their tokens.": lambda batches: (
                sum(mean for mean, _ in batches) / tokens(batches)
            ),
            "This is the sum, not the mean.": total,
            "The last batch is left out.": lambda batches: (
                total(batches[:-1]) / tokens(batches[:-1])
            ),
            "This is the last batch's mean alone.": lambda batches: batches[-1][0],
            "The weights are upside down: few tokens weigh more.": lambda batches: (
                sum(mean / count for mean, count in batches)
                / sum(1 / count for _, count in batches)
            ),
        },
        why="Sums of losses and tokens first, one division at the end.",
    )


@check
def museum_accumulation(function):
    """`function(loss_of, optimizer, batches, every)`: one pass, a step after `every` batches; the
    number of steps."""

    def watched(epoch):
        """What an epoch does to one weight, with the gradient b for a batch b."""
        if not callable(epoch):
            return epoch

        @functools.wraps(epoch)
        def run(batches, every):
            weight, path = nn.Parameter(torch.zeros(())), []
            optimizer = torch.optim.SGD([weight], lr=1.0)
            optimizer.register_step_post_hook(lambda *_: path.append(round(weight.item(), 4)))
            with torch.enable_grad():
                steps = epoch(lambda batch: weight * batch, optimizer, batches, every)
            return (
                steps
                if steps is None or steps is ...
                else {"steps": steps, "the weight after each": path}
            )

        return run

    def epoch(loss_of, optimizer, batches, every, zero=0, rest=True, mean=None, once=False):
        """The right loop, and its mistakes: zero the gradient before this batch of a group, ..."""
        steps = 0
        for number, batch in enumerate(batches):
            start = number - number % every
            group = min(every, len(batches) - start)
            if zero == "each" or (zero is not None and number % every == zero):
                optimizer.zero_grad()
            (loss_of(batch) / (group if mean is None else mean)).backward()
            last = number % every == every - 1 or (rest and number == len(batches) - 1)
            if last or once:
                optimizer.step()
                steps += 1
        return steps

    def mistaken(**changes):
        return watched(lambda *args: epoch(*args, **changes))

    watched(epoch)(
        [1.0], 1
    )  # torch loads half of itself at the first step: not on a learner's time
    compare(
        "museum_accumulation",
        watched(function),
        lambda batches, every: watched(epoch)(batches, every),
        {
            "two batches, one step": ([1.0, 3.0], 2),
            "two groups": ([1.0, 3.0, 2.0, 2.0], 2),
            "a step for each batch": ([1.0, 4.0], 1),
            "a last group that is not full": ([1.0, 3.0, 2.0, 2.0, 5.0], 4),
        },
        {
            "The gradient is zeroed for every batch: all of a group but the last are forgotten.": (
                mistaken(zero="each")
            ),
            "The gradient is never zeroed: old groups go on pulling.": mistaken(zero=None),
            "The batches' gradients are added, not averaged: the step is too long.": mistaken(
                mean=1
            ),
            "Batches after the last full group are lost.": mistaken(rest=False),
            "There is a step for every batch.": mistaken(once=True),
            "There is a step for every batch, with its own gradient alone.": mistaken(
                zero="each", mean=1, once=True
            ),
            "There is a step for every batch, with a part of its own gradient.": mistaken(
                zero="each", once=True
            ),
            "All of a group but the last are forgotten, and the last is not divided.": mistaken(
                zero="each", mean=1
            ),
        },
        why="One step from many pieces is one step from a large batch.",
    )


# Hall 4: evaluation


@check
def museum_metric(function):
    """`function(metric, hypotheses, references)`: the metric's value, and its errors."""

    def watched(score):
        """An error of the metric's must come through; which one it is then does not matter."""
        if not callable(score):
            return score

        @functools.wraps(score)
        def run(metric, hypotheses, references):
            try:
                metric(list(hypotheses), list(references))
            except ValueError:
                try:
                    return score(metric, hypotheses, references)
                except Exception:
                    return "an error"
            return score(metric, hypotheses, references)

        return run

    def instead(value):
        def score(metric, hypotheses, references):
            try:
                return metric(hypotheses, references)
            except Exception:
                return value

        return watched(score)

    def shortened(metric, hypotheses, references):
        count = min(len(hypotheses), len(references))
        return metric(hypotheses[:count], references[:count]) if count else 0.0

    compare(
        "museum_metric",
        watched(function),
        watched(lambda metric, hypotheses, references: metric(hypotheses, references)),
        {
            "two sentences, one right": (sequence_accuracy, ["a", "b"], ["a", "c"]),
            "nothing right": (sequence_accuracy, ["a"], ["b"]),
            "a sentence too few": (sequence_accuracy, ["a"], ["a", "b"]),
            "no sentences": (sequence_accuracy, [], []),
        },
        {
            "The error is swallowed: 0.0 looks like a bad score.": instead(0.0),
            "The error is swallowed: nan goes unnoticed, as every comparison with it is False.": (
                instead(float("nan"))
            ),
            "The error is swallowed: -1 or 1 is still a number, and gets plotted.": instead(-1.0),
            "The error is swallowed and a perfect score comes back.": instead(1.0),
            "The metric is never called.": watched(lambda metric, hypotheses, references: 0.0),
            "What does not match up is thrown away, and the rest scored.": watched(shortened),
        },
        why="A metric that fails must never look like a bad score.",
    )


@check
def museum_evaluation(function):
    """`function(model, measure)`: measure(model), in evaluation mode and without gradients; then
    the model is as it was."""

    def watched(evaluate):
        if not callable(evaluate):
            return evaluate

        @functools.wraps(evaluate)
        def run(training):
            model, found = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)).train(training), {}

            def measure(model):
                found["the model in training mode"] = model.training
                found["its dropout in training mode"] = model[0].training
                found["gradients are recorded"] = torch.is_grad_enabled()
                return 0.75

            with torch.enable_grad():
                value = evaluate(model, measure)
                after = torch.is_grad_enabled()
            if value is None or value is ...:
                return value
            found["afterwards in training mode"] = model.training and model[0].training
            found["afterwards gradients are recorded"] = after
            return found | {"value": value}

        return run

    def evaluate(model, measure, quiet=True, back=True):
        was = model.training
        model.eval()
        with torch.set_grad_enabled(not quiet):
            value = measure(model)
        if back:
            model.train(was if back is True else back == "train")
        return value

    def top_only(model, measure):
        model.training = False
        with torch.no_grad():
            value = measure(model)
        model.training = True
        return value

    def by_hand(model, measure):
        with torch.no_grad():
            return measure(model)

    compare(
        "museum_evaluation",
        watched(function),
        lambda training: watched(evaluate)(training),
        {"a model in training": (True,), "a model that was in evaluation mode": (False,)},
        {
            "no_grad does not turn dropout off: the model is still in training mode.": watched(
                by_hand
            ),
            "The model stays in training mode, and gradients are recorded.": watched(
                lambda model, measure: measure(model)
            ),
            "The mode is not given back: what follows would train without dropout.": watched(
                lambda *args: evaluate(*args, back=False)
            ),
            "Gradients are still recorded, which takes memory for nothing.": watched(
                lambda *args: evaluate(*args, quiet=False)
            ),
            "Gradients are still recorded, and the mode is not given back.": watched(
                lambda *args: evaluate(*args, quiet=False, back=False)
            ),
            "Training mode is turned on even where it was off before.": watched(
                lambda *args: evaluate(*args, back="train")
            ),
            "Only the outer module is told: dropout inside goes on. model.eval() tells all.": (
                watched(top_only)
            ),
        },
        why="The same model gives the same figure twice.",
    )


@check
def museum_beam(function):
    """`function(hypotheses)`: a list of (ids, log probability) to the ids with the most log
    probability a token, EOS counted."""

    def by(score):
        return lambda hypotheses: max(hypotheses, key=lambda h: score(len(h[0]), h[1]))[0]

    long, short = [5, 6, 7, 8, 9, EOS], [5, EOS]
    three = [5, 6, EOS]
    many = [([*range(4, 4 + random.randint(1, 12)), EOS], -random.uniform(1, 9)) for _ in range(12)]
    compare(
        "museum_beam",
        function,
        by(lambda n, log_p: log_p / n),
        {
            "a short one, much less probable": ([(short, -4.0), (long, -1.9)],),
            "a short one, nearly as probable": ([(short, -2.0), (long, -1.9)],),
            "a short one, more probable": ([(short, -2.0), (long, -3.0)],),
            "the short one is better": ([(short, -0.5), (three, -1.5), (long, -4.0)],),
            "EOS decides": ([(long, -4.0), (short, -1.0)],),
            "a single one": ([(three, -1.0)],),
            "twelve": (many,),
        },
        {
            "Sums are compared: every further word costs, so the shortest wins.": by(
                lambda n, log_p: log_p
            ),
            "The worst one is chosen.": by(lambda n, log_p: -log_p / n),
            "The longest wins, whatever its probability.": by(lambda n, log_p: n),
            "Probabilities are divided by the length, not their logarithms.": by(
                lambda n, log_p: 2.718281828**log_p / n
            ),
            "Multiplied by the length, not divided.": by(lambda n, log_p: log_p * n),
            "The length leaves EOS out.": by(lambda n, log_p: log_p / (n - 1)),
            "The first hypothesis is taken.": lambda hypotheses: hypotheses[0][0],
            "Divided by the square of the length: the longest are favoured.": by(
                lambda n, log_p: log_p / n**2
            ),
        },
        why="Now hypotheses of all lengths compete alike.",
    )


@check
def museum_bleu(function):
    """`function(tokens, references)`: a list of lists of French tokens, and texts, to BLEU."""

    def texts(tokens):
        return [word_detokenize(each, "fr") for each in tokens]

    def split(references):
        return [" ".join(Vocabulary([], lowercase=False).tokenize(text)) for text in references]

    few = (
        [["l'", "homme", "voit", "un", "chat", "."], ["Le", "chat", "ne", "dort", "pas", "."]],
        ["L'homme voit un chat gris.", "Le chat ne dort pas encore."],
    )
    more = (
        [*few[0], ["Est-ce", "que", "c'", "est", "l'", "ami", "de", "Paul", "?"]],
        [*few[1], "Est-ce que c'est l'ami du roi de France ?"],
    )
    compare(
        "museum_bleu",
        function,
        lambda tokens, references: bleu(texts(tokens), references),
        {"two sentences": few, "three sentences": more},
        {
            "Tokens joined by spaces are compared with plain text.": lambda tokens, references: (
                bleu([" ".join(each) for each in tokens], references)
            ),
            "Both sides are tokenised by our own rules: the score is not comparable.": (
                lambda tokens, references: bleu(
                    [" ".join(each) for each in tokens], split(references), tokenize="none"
                )
            ),
            "Everything is lower-cased first.": lambda tokens, references: bleu(
                [text.lower() for text in texts(tokens)], [text.lower() for text in references]
            ),
            "This is the mean of the sentences' scores; BLEU counts over the whole corpus.": (
                lambda tokens, references: (
                    sum(map(bleu, [[t] for t in texts(tokens)], [[r] for r in references]))
                    / len(tokens)
                )
            ),
            "Hypotheses and references have changed places.": lambda tokens, references: bleu(
                references, texts(tokens)
            ),
            "BLEU goes from 0 to 100, not to 1.": lambda tokens, references: (
                bleu(texts(tokens), references) / 100
            ),
            "Characters are counted, not words.": lambda tokens, references: bleu(
                texts(tokens), references, tokenize="char"
            ),
        },
        why="With its signature it can stand beside other people's.",
    )


class Parrot(Seq2SeqModel):
    """A model that knows which word follows which, and how each source sentence begins."""

    def __init__(self):
        source = Vocabulary(["one", "two", "three", "four", "five", "six"])
        super().__init__(
            source,
            Vocabulary(["le", "chat", "dort", "la", "fleur", "pousse", "un", "chien", "rit"]),
        )
        size = len(self.target_vocabulary)
        follows = torch.zeros(size, size)
        for pair in ("le chat", "chat dort", "la fleur", "un chien", "chien rit"):
            follows[tuple(self.target_vocabulary.encode(pair)[:2])] = 1.0
        follows[follows.sum(1) == 0, EOS] = 1.0
        self.follows = nn.Parameter(follows)
        first = ["le", "la", "le", "un", "la", "le"]
        self.first = [EOS] * 4 + [self.target_vocabulary.encode(word)[0] for word in first]

    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=source[:, :, None].float())

    def start(self, memory):
        return State()

    def step(self, tokens, state, memory):
        logits = self.follows[tokens]
        if state.position == 0:
            begins = [self.first[number] for number in memory.states[:, 0, 0].long().tolist()]
            logits = nn.functional.one_hot(torch.tensor(begins), logits.shape[1]).float()
        return logits, State(position=state.position + 1), None


@check
def museum_quality(function):
    """`function(model, pairs)`: the share of pairs whose source the model translates exactly."""

    def batch_of(model, pairs):
        sides = model.source_vocabulary, model.target_vocabulary
        return collate([tuple(v.encode(t) for v, t in zip(sides, p, strict=True)) for p in pairs])

    def forced(model, pairs):
        batch = batch_of(model, pairs)
        with torch.no_grad():
            return model(batch)[0], batch.target_output, batch.target_mask

    def padding_counted(model, pairs):
        logits, gold, _ = forced(model, pairs)
        return (logits.argmax(-1) == gold).float().mean().item()

    def whole(model, pairs):
        texts = [found.text for found in translate(model, [source for source, _ in pairs])]
        return sequence_accuracy(texts, [target for _, target in pairs])

    def told(model, pairs):
        found = translate(model, [source for source, _ in pairs])
        return [(f.text.split(), target.split()) for f, (_, target) in zip(found, pairs)]  # noqa: B905

    def by_word(model, pairs):
        hits = [sum(map(str.__eq__, said, gold)) for said, gold in told(model, pairs)]
        return sum(hits) / sum(len(gold) for _, gold in told(model, pairs))

    def begins(model, pairs):
        both = told(model, pairs)
        return sum(all(map(str.__eq__, said, gold)) for said, gold in both) / len(both)

    model = Parrot().eval()
    pairs = [
        ("one", "le chat dort"),
        ("two", "la fleur pousse"),
        ("three", "un chien rit"),
        ("four", "un chien rit"),
        ("five", "la fleur"),
        ("six", "le chat"),
    ]
    compare(
        "museum_quality",
        function,
        whole,
        {
            "three pairs": (model, pairs[:3]),
            "six pairs": (model, pairs),
            "the last two": (model, pairs[4:]),
            "one pair": (model, pairs[5:]),
        },
        {
            "Teacher-forced: every word was predicted after the right words before it.": (
                lambda model, pairs: token_accuracy(*forced(model, pairs)[:2])
            ),
            "Teacher-forced, and padding counts as right or wrong.": padding_counted,
            "Words are counted, not whole sentences.": by_word,
            "A sentence that only begins right counts as right: compare the ends too.": begins,
            "Everything counts as right.": lambda model, pairs: 1.0,
            "A share goes from 0 to 1; this is a percentage.": lambda *args: 100 * whole(*args),
            "This is the number of sentences, not their share.": lambda model, pairs: (
                len(pairs) * whole(model, pairs)
            ),
        },
        why="Nobody whispers the words any more.",
    )


@check
def museum_wreck(figure):
    """`figure`: the share of test sentences that the mended wreck translates without a mistake."""
    share = plain(figure)
    if is_number(share) and 1 < share <= 100:
        told = f"{share:g} is no share: it goes from 0 to 1."
        return say("✗", "museum_wreck", told, "Likely cause: this is a percentage, or a BLEU.")
    if is_number(share) and (share < 0 or share > 1 or share != share):
        return say("✗", "museum_wreck", f"{share:g} is no share: it goes from 0 to 1.")
    if is_number(share) and share > 0.95:
        told = f"{share:.3f} is too good for so short a training."
        cause = "the training pairs were translated, or the words were teacher-forced."
        return say("✗", "museum_wreck", told, f"Likely cause: {cause}")
    hint = "Likely cause: a bug is still aboard. Which exhibit has its symptom?"
    if is_number(share) and share < 0.02:
        hint = "Likely cause: the mask still leaks: the model can copy, and cannot translate."
    why = "All bugs are found."
    beat("museum_wreck", figure, WRECK_TO_BEAT, why=why, hint=hint)


WRECK_TO_BEAT = 0.4
