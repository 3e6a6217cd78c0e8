import pytest
import torch
from checking import CheckTests
from torch import nn
from torch.nn import functional as F

from s2s_helpers.course.checks import rnn
from s2s_helpers.decoding import greedy_decode
from s2s_helpers.vocabulary import EOS, PAD, SOS


def lstm_by_cell(x, h, c, lstm):
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({name: getattr(lstm, f"{name}_l0") for name in names})
    return cell(x, (h, c))


def lstm_by_torch(x, h, c, lstm):
    _, (h, c) = lstm(x[:, None], (h[None].contiguous(), c[None].contiguous()))
    return h[0], c[0]


def gates(x, h, lstm):
    from_x = F.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0)
    return (from_x + F.linear(h, lstm.weight_hh_l0, lstm.bias_hh_l0)).chunk(4, -1)


def lstm_plain(x, h, c, lstm):
    i, f, g, o = gates(x, h, lstm)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def lstm_wrong_order(x, h, c, lstm):
    i, f, o, g = gates(x, h, lstm)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def lstm_swapped_gates(x, h, c, lstm):
    f, i, g, o = gates(x, h, lstm)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def lstm_sigmoid_candidate(x, h, c, lstm):
    i, f, g, o = map(torch.sigmoid, gates(x, h, lstm))
    c = f * c + i * g
    return o * c.tanh(), c


def lstm_no_tanh(x, h, c, lstm):
    h, c = lstm_plain(x, h, c, lstm)
    return gates_o(h, c), c


def gates_o(h, c):
    return h / c.tanh() * c


def lstm_one_bias(x, h, c, lstm):
    i, f, g, o = (x @ lstm.weight_ih_l0.T + h @ lstm.weight_hh_l0.T + lstm.bias_ih_l0).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def lstm_like_gru(x, h, c, lstm):
    i, _, g, o = gates(x, h, lstm)
    c = (1 - i.sigmoid()) * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def lstm_chunked_rows(x, h, c, lstm):
    i, f, g, o = (x @ lstm.weight_ih_l0.T + h @ lstm.weight_hh_l0.T).chunk(4)
    return i, f + g + o


def lstm_in_place(x, h, c, lstm):
    i, f, g, o = gates(x, h, lstm)
    c *= f.sigmoid().detach()
    c += (i.sigmoid() * g.tanh()).detach()
    return o.sigmoid() * c.tanh(), c


def ends_by_loop(states, mask):
    half = states.shape[2] // 2
    rows = []
    for state, real in zip(states, mask, strict=True):
        last = int(real.nonzero().max())
        rows.append(torch.cat([state[last, :half], state[0, half:]]))
    return torch.stack(rows)


def ends_by_gather(states, mask):
    forward, backward = states.chunk(2, dim=-1)
    last = (mask.long().sum(1) - 1).view(-1, 1, 1).expand(-1, 1, forward.shape[-1])
    return torch.cat([forward.gather(1, last).squeeze(1), backward[:, 0]], dim=1)


def halves(states, mask, forward, backward, swap=False):
    half = states.shape[2] // 2
    rows = torch.arange(len(states))
    ends = states[rows, forward, :half], states[rows, backward, half:]
    return torch.cat(ends[::-1] if swap else ends, -1)


def last_of(mask, back=1):
    return mask.sum(1) - back


def greedy_with_package(model, source, source_mask, most):
    return greedy_decode(model, source, source_mask, max_length=most)[0].ids


def greedy_by_loop(
    model, source, source_mask, most, sos=False, eos=True, feed=True, carry=True, stop=True, more=0,
    best=torch.Tensor.argmax, first=SOS,
):  # fmt: skip
    memory = model.encode(source, source_mask)
    state = model.start(memory)
    token = torch.full((1,), first)
    written = []
    for _ in range(most + more):
        logits, new_state, _ = model.step(token, state, memory)
        if carry:
            state = new_state
        chosen = best(logits[0], -1)
        if feed:
            token = chosen.reshape(1)
        if chosen == EOS and not eos:
            break
        written.append(chosen if more == 0 else int(chosen))  # a tensor of one id will do as well
        if stop and chosen == EOS:
            break
    return [SOS, *written] if sos else written


def by(**options):
    return lambda *arguments: greedy_by_loop(*arguments, **options)


def batch_of_ids(model, source, source_mask, most):
    memory = model.encode(source, source_mask)
    return model.step(torch.tensor([[SOS]]), model.start(memory), memory)


def fitted(vectors, lengths, new):
    one = torch.ones(len(vectors), 1)
    weights = torch.linalg.lstsq(torch.cat([vectors, one], 1), lengths[:, None]).solution
    return (torch.cat([new, one[: len(new)]], 1) @ weights)[:, 0]


def fitted_around_the_mean(vectors, lengths, new):
    centre, mean = vectors.double().mean(0), lengths.double().mean()
    return (new.double() - centre) @ torch.linalg.pinv(vectors.double() - centre) @ (
        lengths.double() - mean
    ) + mean


def mean_of_many(vectors, lengths, new):
    return lengths[torch.cdist(new, vectors).topk(300, largest=False).indices].mean(1)


RIGHT = {
    "predict_numbers": [(128, 128), [128, 128], torch.tensor([128, 128])],
    "lstm_step": [lstm_plain, lstm_by_cell, lstm_by_torch],
    "final_states": [ends_by_loop, ends_by_gather],
    "teacher_forcing": [
        lambda target: [target[..., :-1], target[..., 1:]],
        lambda target: (target.narrow(1, 0, target.shape[1] - 1), target.roll(-1, 1)[:, :-1]),
    ],
    "greedy_loop": [by(), greedy_with_package],
    "read_length": [fitted, fitted_around_the_mean],
}
WRONG = {
    "predict_numbers": [
        ("a state for every word", (640, 2560)),
        ("one direction", (64, 64)),
        ("no second state c", (256, 256)),
        ("one number for every word", (5, 20)),
        ("the same number twice", 128),
        ("it is (128, 128)", (128, 256)),
    ],
    "lstm_step": [
        ("another order", lstm_wrong_order),
        ("Input gate and forget gate changed places", lstm_swapped_gates),
        ("needs tanh", lstm_sigmoid_candidate),
        ("The tanh around c is missing", lstm_no_tanh),
        ("One of the two biases", lstm_one_bias),
        ("1 - i stands where f belongs", lstm_like_gru),
        ("they have to be turned", lambda x, h, c, lstm: x @ lstm.weight_ih_l0),
        ("chunk cuts the batch", lstm_chunked_rows),
        ("h and c changed places", lambda *a: lstm_plain(*a)[::-1]),
        ("what came is a tensor", lambda *a: lstm_plain(*a)[0]),
        ("c was changed in place", lstm_in_place),
    ],
    "final_states": [
        ("in short rows that is padding", lambda s, m: halves(s, m, -1, 0)),
        ("of which it has read only that one", lambda s, m: halves(s, m, last_of(m), last_of(m))),
        ("Both directions are taken from the last column", lambda s, m: s[:, -1]),
        ("where forward has only begun", lambda s, m: s[:, 0]),
        ("The two directions changed places", lambda s, m: halves(s, m, last_of(m), 0, True)),
        ("Each is taken where it has only begun", lambda s, m: halves(s, m, 0, last_of(m))),
        ("The token before the last", lambda s, m: halves(s, m, last_of(m, 2), 0)),
        ("with IndexError", lambda s, m: halves(s, m, m.sum(1), 0)),
        ("Its shape is (1, 1, 4)", lambda s, m: ends_by_loop(s, m)[:, None]),
    ],
    "teacher_forcing": [
        ("it reads first and says", lambda target: (target[:, 1:], target[:, :-1])),
        ("It should say what it just reads", lambda target: (target[:, :-1], target[:, :-1])),
        ("It reads what it should say", lambda target: (target[:, 1:], target[:, 1:])),
        ("nothing is left to say", lambda target: (target, target[:, 1:])),
        ("SOS too", lambda target: (target[:, :-1], target)),
        ("Neither is shortened", lambda target: (target, target)),
        ("to say SOS again", lambda target: (target, target.roll(-1, 1))),
        ("the word after the next", lambda target: (target[:, :-2], target[:, 2:])),
        ("SOS is missing", lambda target: (target[:, 1:-1], target[:, 1:])),
        ("1 elements; 2", lambda target: [target[:, 1:]]),
    ],
    "greedy_loop": [
        ("It goes on after EOS", by(stop=False)),
        ("read but never written", by(sos=True)),
        ("EOS is left out", by(eos=False)),
        ("SOS is fed at every step", by(feed=False)),
        ("not handed to the next step", by(carry=False)),
        ("one id too many", by(more=1)),
        ("one id too few", by(more=-1)),
        ("It begins with EOS", by(first=EOS)),
        ("the smallest logit", by(best=torch.Tensor.argmin)),
        ("ids of shape (lines,), not (1, 1)", batch_of_ids),
        ("what came is a text", lambda *a: "le chat"),
    ],
    "read_length": [
        ("the vectors are not read", lambda vectors, lengths, new: lengths.mean().expand(len(new))),
        ("was to beat", lambda v, lengths, new: lengths[torch.cdist(new, v).argmin(1)]),
        ("each with its weight", mean_of_many),
        ("what came is (40, 1)", lambda *a: fitted(*a)[:, None]),
        ("what came is list", lambda *a: fitted(*a).tolist()),
        ("was to beat", lambda *a: fitted(*a) * 2),
    ],
}


class TestChecks(CheckTests):
    checks, right, wrong = rnn, RIGHT, WRONG


@pytest.fixture(autouse=True)
def made_up_vectors(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 20, (540,), generator=draw).float()
    others = torch.randn(540, 30, generator=draw)
    mixed = torch.cat([lengths[:, None], others], 1) @ torch.randn(31, 31, generator=draw)
    values = mixed[:500], lengths[:500], mixed[500:], lengths[500:]
    monkeypatch.setattr(rnn, "_sentences", lambda: values)


def test_the_parrot_is_a_model_that_decodes():
    source = torch.tensor([[7, 8, EOS, PAD], [9, EOS, PAD, PAD]])
    written = [each.ids for each in greedy_decode(rnn.Parrot(), source)]
    assert written == [[7, 8, EOS], [9, EOS]]
