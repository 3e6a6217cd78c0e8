"""Small random models of every kind, and brute force to hold decoding against."""

import itertools

import torch
from torch.nn.functional import cross_entropy

from s2s_helpers.data import Batch, collate
from s2s_helpers.decoding import length_penalty_of
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import EOS, PAD, SOS, Vocabulary

SOURCE, TINY = Vocabulary.numbered(12), Vocabulary.numbered(7)
RNN = dict(embedding=6, hidden=8)
KINDS = {
    "rnn": lambda target: Seq2Seq(SOURCE, target, **RNN),
    "bahdanau": lambda target: AttentionSeq2Seq(SOURCE, target, **RNN),
    "luong": lambda target: AttentionSeq2Seq(SOURCE, target, attention="luong", layers=2, **RNN),
    "transformer": lambda target: TransformerSeq2Seq(
        SOURCE, target, width=8, heads=2, layers=2, feedforward=12
    ),
}


class Table(Seq2SeqModel):
    """A model whose next token depends on the last alone: logits (vocabulary, vocabulary)."""

    def __init__(self, logits):
        super().__init__(SOURCE, Vocabulary.numbered(logits.shape[1]))
        self.logits = torch.nn.Parameter(logits)

    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=source)

    def start(self, memory):
        return State()

    def step(self, tokens, state, memory):
        return self.logits[tokens], state, None


def build(kind, target=TINY, seed=0, sharpness=3.0, ending=1.0):
    """A random model whose choices differ from step to step, and which ends now and then."""
    torch.manual_seed(seed)
    model = KINDS[kind](target)
    for name, parameter in model.named_parameters():
        if "norm" not in name and parameter.dim() > 1:
            parameter.data.mul_(sharpness)
    output = model.output if kind == "transformer" else model.decoder.output
    output.bias.data[EOS] += ending
    return model.eval()


def learn_to_copy(model, steps=150):
    """A model of one vocabulary, after it has learned a little of copying, and so to end."""
    optimizer, size = torch.optim.AdamW(model.parameters(), lr=1e-2), len(model.target_vocabulary)
    for _ in range(steps):
        lengths = torch.randint(1, 10, (32,)).tolist()
        rows = [[*torch.randint(4, size, (length,)).tolist(), EOS] for length in lengths]
        batch = collate([(row, row) for row in rows])
        logits, _ = model(batch)
        loss = cross_entropy(logits.flatten(0, 1), batch.target_output.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def sentences(rows=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1 + int(torch.randint(0, 7, (), generator=generator)) for _ in range(rows)]
    return [
        [*torch.randint(4, len(SOURCE), (n,), generator=generator).tolist(), EOS] for n in lengths
    ]


def padded(rows):
    return collate([(ids, None) for ids in rows])


def log_probability(model, source_ids, target_ids):
    """log p(target | source) from the teacher-forced forward pass alone."""
    source = torch.tensor([source_ids])
    target = torch.tensor([[SOS, *target_ids]])
    with torch.inference_mode():
        logits, _ = eval_view(model)(Batch(source, source != PAD, target))
    steps = logits[0].double().log_softmax(-1)
    return float(sum(steps[i, token] for i, token in enumerate(target_ids)))


def all_targets(vocabulary, max_length):
    """Every id sequence that ends in its only EOS within max_length."""
    words = [i for i in range(len(vocabulary)) if i not in (PAD, SOS, EOS)]
    for length in range(max_length):
        for start in itertools.product(words, repeat=length):
            yield [*start, EOS]


def brute_force(model, source_ids, alpha, max_length):
    scored = [
        (log_probability(model, source_ids, ids) / length_penalty_of(len(ids), alpha), ids)
        for ids in all_targets(model.target_vocabulary, max_length)
    ]
    return sorted(scored, reverse=True)


def next_step(model, source_ids, ids, cache={}):  # noqa: B006
    key = (model, tuple(source_ids), tuple(ids))
    if key not in cache:
        source = torch.tensor([source_ids])
        target = torch.tensor([[SOS, *ids, EOS]])
        with torch.inference_mode():
            logits, _ = eval_view(model)(Batch(source, source != PAD, target))
        cache[key] = logits[0, len(ids)].log_softmax(-1).tolist()
    return cache[key]
