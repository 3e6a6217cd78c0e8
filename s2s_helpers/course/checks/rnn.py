"""The checks of notebook 02: a cell, the encoder's last states, teacher forcing, decoding."""

from functools import cache

import torch
from torch import nn

from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.checks.running import beat, check, compare, predict, results, say
from s2s_helpers.course.recipes import RECIPES, phrasebook_model
from s2s_helpers.data import collate
from s2s_helpers.models import Memory, Seq2SeqModel, State
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK, Vocabulary

__all__ = [
    "final_states", "greedy_loop", "lstm_step", "predict_numbers", "read_length", "teacher_forcing",
]  # fmt: skip


@check
def predict_numbers(guess):
    """A guess: how many numbers the decoder gets of a sentence of 5 words, and of one of 20."""
    hidden = RECIPES["rnn"].settings["hidden"]
    predict(
        "predict_numbers",
        guess,
        (hidden, hidden),
        mistakes={
            "That is a state for every word; only the last ones cross the bridge.": (
                5 * hidden, 20 * hidden
            ),
            "That is one direction; the two stand side by side.": (hidden // 2, hidden // 2),
            "The directions have half of it each, and a GRU has no second state c.": (
                2 * hidden, 2 * hidden
            ),
            "That is one number for every word.": (5, 20),
            "Two numbers are asked for; it is the same number twice.": hidden,
        },
        why="However long the sentence, it has to fit.",
    )  # fmt: skip


@check
def lstm_step(function):
    """`function(x, h, c, lstm)`: x (batch, input), h and c (batch, hidden), and an nn.LSTM of one
    layer, to the next h and c."""

    def step(
        order="ifgo", candidate=torch.tanh, out=torch.tanh, bias=True, forget=True, swap=False
    ):
        def function(x, h, c, lstm):
            sums = x @ lstm.weight_ih_l0.T + h @ lstm.weight_hh_l0.T + lstm.bias_ih_l0
            sums = (sums + bias * lstm.bias_hh_l0).chunk(4, dim=-1)
            parts = dict(zip(order, sums, strict=True))
            i, f, o = (torch.sigmoid(parts[gate]) for gate in "ifo")
            c = (f if forget else 1 - i) * c + i * candidate(parts["g"])
            h = o * out(c)
            return (c, h) if swap else (h, c)

        return function

    def cut_rows(x, h, c, lstm):
        i, f, g, o = (x @ lstm.weight_ih_l0.T).chunk(4)
        return i, f, g, o

    def case(batch, inputs, hidden, zero=False):
        h, c = torch.randn(2, batch, hidden) * (not zero)
        return torch.randn(batch, inputs), h, c, nn.LSTM(inputs, hidden, batch_first=True)

    compare(
        "lstm_step",
        function,
        step(),
        {
            "one row of one number": case(1, 1, 1),
            "two rows": case(2, 3, 4),
            "a state of zeros": case(3, 2, 5, zero=True),
            "as many inputs as states": case(4, 6, 6),
        },
        {
            "The gates are taken in another order; torch's is i, f, g, o.": step("ifog"),
            "Input gate and forget gate changed places.": step("figo"),
            "The candidate g has a sigmoid; it needs tanh.": step(candidate=torch.sigmoid),
            "The tanh around c is missing where h is made.": step(out=lambda c: c),
            "One of the two biases is missing: lstm has bias_ih_l0 and bias_hh_l0.": step(
                bias=False
            ),
            "1 - i stands where f belongs: that ties the gates, as z does in a GRU.": (
                step(forget=False)
            ),
            "h and c changed places in what is returned.": step(swap=True),
            "The weights lie the other way, (4 · hidden, input): they have to be turned.": (
                lambda x, h, c, lstm: x @ lstm.weight_ih_l0 + h @ lstm.weight_hh_l0
            ),
            "chunk cuts the batch, unless told that the last axis is meant.": cut_rows,
        },
        why="That is torch's own LSTM.",
    )


@check
def final_states(function):
    """`function(states, mask)`: states (batch, source, hidden), the forward direction in the first
    half, the backward direction in the second, and the mask (batch, source); to (batch, hidden),
    each direction's state where it has read the whole sentence."""

    def take(forward=-1, backward=0, swap=False, padded=False):
        def function(states, mask):
            half = states.shape[-1] // 2
            rows, length = torch.arange(len(states)), mask.sum(1)
            length = torch.full_like(length, mask.shape[1]) if padded else length
            ends = {
                place: (length + place if place < 0 else torch.full_like(length, place))
                for place in (forward, backward)
            }
            parts = [states[rows, ends[forward], :half], states[rows, ends[backward], half:]]
            return torch.cat(parts[::-1] if swap else parts, dim=-1)

        return function

    def case(*lengths, hidden=4):
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return torch.randn(*mask.shape, hidden), mask

    def last_real_of_the_forward_only(states, mask):
        return states[torch.arange(len(states)), mask.sum(1) - 1]

    def all_at_the_end_of_the_batch(states, mask):
        return states[:, -1]

    compare(
        "final_states",
        function,
        take(),
        {
            "one sentence of two tokens": case(2),
            "sentences of 3 and 2 tokens": case(3, 2),
            "a sentence of one token": case(1),
            "one of one token beside a long one": case(5, 1, hidden=2),
            "many": case(7, 3, 6, 1, 7, 2, hidden=8),
        },
        {
            "The last column is taken: in short rows that is padding.": take(padded=True),
            "Backward too is taken at the last token, of which it has read only that one.": (
                last_real_of_the_forward_only
            ),
            "Both directions are taken from the last column.": all_at_the_end_of_the_batch,
            "Both are taken at the first token, where forward has only begun.": take(forward=0),
            "The two directions changed places.": take(swap=True),
            "Each is taken where it has only begun: forward ends at the last token.": (
                take(forward=0, backward=-1)
            ),
            "The token before the last is taken: positions start at 0.": take(forward=-2),
        },
        why="This is what the bridge gets.",
    )


@check
def teacher_forcing(function):
    """`function(target)`: target (batch, target + 1) to what the decoder reads and what it should
    say, both (batch, target)."""
    compare(
        "teacher_forcing",
        function,
        lambda target: (target[:, :-1], target[:, 1:]),
        {
            "a sentence of one word": (torch.tensor([[SOS, 5, EOS]]),),
            "two sentences": (torch.tensor([[SOS, 5, 6, EOS], [SOS, 7, EOS, PAD]]),),
            "an empty sentence": (torch.tensor([[SOS, EOS]]),),
            "random ids": (torch.randint(4, 99, (5, 8)),),
        },
        {
            "The two changed places: it reads first and says one step ahead.": lambda target: (
                target[:, 1:], target[:, :-1]
            ),
            "It should say what it just reads: nothing is shifted.": lambda target: (
                target[:, :-1], target[:, :-1]
            ),
            "It reads what it should say: nothing is shifted.": lambda target: (
                target[:, 1:], target[:, 1:]
            ),
            "It reads the whole target; after the last token nothing is left to say.": (
                lambda target: (target, target[:, 1:])
            ),
            "It should say the whole target, SOS too; that is never said.": lambda target: (
                target[:, :-1], target
            ),
            "Neither is shortened.": lambda target: (target, target),
            "Rolled round: the last is to say SOS again.": lambda target: (
                target, target.roll(-1, 1)
            ),
            "Shifted by two: it says the word after the next.": lambda target: (
                target[:, :-2], target[:, 2:]
            ),
            "SOS is missing from what it reads.": lambda target: (target[:, 1:-1], target[:, 1:]),
        },
        why="Every position is trained at once.",
    )  # fmt: skip


class Parrot(Seq2SeqModel):
    """A model of the four verbs that says the source again, as long as it is fed as it should be:
    with what it said before, and with the state that it returned."""

    def __init__(self):
        numbered = Vocabulary.numbered(30)
        super().__init__(numbered, numbered)

    def encode(self, source, source_mask):
        if source.ndim != 2 or source_mask.shape != source.shape:
            raise ValueError("encode reads ids (batch, source) and a mask of the same shape")
        return Memory(mask=source_mask, states=source[..., None])

    def start(self, memory):
        return State()

    def step(self, tokens, state, memory):
        said = memory.states[:, :, 0]  # (batch, source)
        if tokens.shape != said.shape[:1]:
            raise ValueError(f"step reads ids of shape (lines,), not {tuple(tokens.shape)}")
        place = min(state.position, said.shape[1] - 1)
        before = said[:, max(0, min(state.position - 1, place))]
        # Whoever forgets the state is at the start again, and hears the first word again.
        fits = (tokens == before) | ((tokens == SOS) & (state.position == 0))
        following = torch.where(fits, said[:, place], UNK)
        logits = nn.functional.one_hot(following, 30) * 2.0 - torch.arange(30) / 30
        return logits, State(position=state.position + 1), None


@check
def greedy_loop(function):
    """`function(model, source, source_mask, most)`: one sentence (1, source) to the list of ids
    that the model writes, EOS included, `most` at most."""

    def decode(
        most_off=0,
        feed=True,
        carry=True,
        stop=True,
        begin=(),
        end=True,
        pick=torch.argmax,
        first=SOS,
    ):
        def function(model, source, source_mask, most):
            memory = model.encode(source, source_mask)
            state, token, ids = model.start(memory), torch.tensor([first]), list(begin)
            while len(ids) < most + most_off:
                logits, after, _ = model.step(token, state, memory)
                state = after if carry else state
                best = pick(logits[0]).reshape(1)
                token = best if feed else token
                if stop and best.item() == EOS:
                    return [*ids, EOS] if end else ids
                ids.append(best.item())
            return ids

        return function

    def case(*ids, most):
        source = torch.tensor([ids])
        return Parrot(), source, torch.ones_like(source, dtype=torch.bool), most

    compare(
        "greedy_loop",
        function,
        decode(),
        {
            "two words": case(7, 5, EOS, most=9),
            "at once the end": case(EOS, most=5),
            "a sentence without an end": case(6, 8, most=4),
            "one that just fits": case(4, 9, 4, EOS, most=4),
        },
        {
            "It goes on after EOS.": decode(stop=False),
            "SOS stands at the beginning; it is read but never written.": decode(begin=(SOS,)),
            "EOS is left out; it is what says that the sentence is over.": decode(end=False),
            "SOS is fed at every step, not the word that was just written.": decode(feed=False),
            "The state that step returns is not handed to the next step.": decode(carry=False),
            "It writes one id too many where no EOS comes.": decode(most_off=1),
            "It writes one id too few where no EOS comes.": decode(most_off=-1),
            "It takes the smallest logit.": decode(pick=torch.argmin),
            "It begins with EOS; SOS is what stands before the first word.": decode(first=EOS),
        },
        why="It serves every model that speaks the four verbs.",
    )


@check
def read_length(function):
    """`function(vectors, lengths, new)`: vectors (sentences, hidden), their sentences' lengths
    (sentences,), and new vectors (others, hidden), to a guess of the lengths of these (others,)."""
    vectors, lengths, new, truth = _sentences()
    label = {f"{len(new)} new vectors": (vectors, lengths, new)}
    found = results("read_length", function, label)
    if found is None:
        return
    guess = found[0]
    if not isinstance(guess, torch.Tensor) or guess.shape != truth.shape:
        shape = tuple(guess.shape) if isinstance(guess, torch.Tensor) else type(guess).__name__
        told = f"a tensor of shape {tuple(truth.shape)} is asked for; what came is {shape}."
        return say("✗", "read_length", told)
    error = (guess.detach() - truth).abs().mean().item()
    nearest = lengths[torch.cdist(new, vectors).argmin(1)]
    hint = "A number that depends on all of the vector's numbers, each with its weight?"
    if (guess == guess.flatten()[0]).all():
        hint = "It is the same for every sentence: the vectors are not read."
    beat(
        "read_length",
        error,
        (nearest - truth).abs().mean().item(),
        higher=False,
        form="off by {:.2f} tokens",
        why="How long a sentence is, is written in the vector.",
        hint=hint,
    )


@cache
def _sentences() -> tuple:
    """Vectors and lengths of training sentences, and of test sentences."""
    model, book = phrasebook_model("rnn", progress=False), phrasebook.load()
    found = []
    for pairs in (book.train[:2000], book.test[:500]):
        batch = collate([(model.source_vocabulary.encode(pair.source), None) for pair in pairs])
        with torch.no_grad():
            memory = model.encode(batch.source, batch.source_mask)
        found += [memory.start[0][:, 0], batch.source_mask.sum(1).float()]
    return tuple(found)
