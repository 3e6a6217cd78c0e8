"""Muon against the singular value decomposition, PyTorch's own, and AdamW."""

import pytest
import torch
from small_trainings import DATASET, VOCABULARY, StopAt, flat, real_model
from torch import nn

from s2s_helpers.data import make_loader
from s2s_helpers.models import AttentionSeq2Seq, Seq2Seq, TransformerSeq2Seq
from s2s_helpers.models.forecaster import Forecaster, Scaling
from s2s_helpers.training import Muon, Seq2SeqTrainer, StopTraining, training_config
from s2s_helpers.training.muon import hidden_matrices, orthogonalised


class Layers(nn.Module):
    """A hidden layer of each shape, with all that Muon leaves alone."""

    def __init__(self):
        super().__init__()
        self.source_vocabulary = self.target_vocabulary = range(11)
        self.embedding = nn.Embedding(11, 8)
        self.square, self.tall, self.wide = nn.Linear(8, 8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.gru = nn.GRU(8, 6)
        self.energy, self.output = nn.Linear(6, 1), nn.Linear(6, 11)

    def set_gradients(self, seed):
        torch.manual_seed(seed)
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)


def layers():
    torch.manual_seed(0)
    return Layers()


@pytest.mark.parametrize("rows, columns", [(16, 16), (12, 40), (40, 12)])
def test_singular_vectors_stay_and_values_come_near_1(rows, columns):
    u, _, v = torch.linalg.svd(torch.randn(3, rows, columns), full_matrices=False)
    values = torch.rand(3, min(rows, columns)) * 0.9 + 0.1
    values /= values.norm(dim=1, keepdim=True)  # as a part of the matrix's norm
    assert values.min() > 0.02
    found = orthogonalised(7.0 * u * values[:, None] @ v)  # the size of a gradient is no matter
    here = u.mT @ found @ v.mT  # diagonal where the singular vectors are the same
    values = here.diagonal(dim1=1, dim2=2)
    assert (here - torch.diag_embed(values)).abs().max() < 1e-4
    assert values.min() > 0.9 and values.max() < 1.1


def test_bfloat16_and_a_gradient_of_zero():
    matrix = torch.randn(24, 16)
    apart = orthogonalised(matrix, torch.bfloat16) - orthogonalised(matrix)
    assert apart.norm() < 0.03 * matrix.shape[1] ** 0.5
    assert not orthogonalised(torch.zeros(2, 4, 4)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has its own since 2.9")
def test_steps_are_those_of_pytorch_but_for_the_polynomial():
    ours, theirs = layers(), layers()
    names = ("square.weight", "tall.weight", "wide.weight")
    own = Muon(ours, muon_lr=0.02, weight_decay=0.1)
    params = [dict(theirs.named_parameters())[name] for name in names]
    other = torch.optim.Muon(params, lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    for seed in range(4):
        before = {name: p.detach().clone() for name, p in ours.named_parameters()}
        for model, optimizer in (ours, own), (theirs, other):
            model.set_gradients(seed)
            optimizer.step()
        for name in names:
            mine, right = (
                dict(model.named_parameters())[name] - before[name] for model in (ours, theirs)
            )
            # Theirs puts singular values between 0.7 and 1.2, in bfloat16.
            similar = torch.cosine_similarity(mine.flatten(), right.flatten(), dim=0)
            assert similar > 0.95 and 0.8 < mine.norm() / right.norm() < 1.35
        theirs.load_state_dict(ours.state_dict())


def test_two_steps_by_the_definition():
    model, momentum, lr, decay = layers(), 0.8, 0.1, 0.2
    optimizer = Muon(model, muon_lr=lr, momentum=momentum, weight_decay=decay)
    names, mean = {"square": 1, "tall": 2, "wide": 1}, {}  # 2 = sqrt(32 / 8)
    for seed in range(2):
        before = {name: getattr(model, name).weight.detach().clone() for name in names}
        model.set_gradients(seed)
        optimizer.step()
        for name, scale in names.items():
            weight = getattr(model, name).weight
            mean[name] = momentum * mean.get(name, 0.0) + (1 - momentum) * weight.grad
            ahead = momentum * mean[name] + (1 - momentum) * weight.grad
            u, _, v = torch.linalg.svd(ahead, full_matrices=False)
            right, moved = lr * scale * u @ v, before[name] * (1 - lr * decay) - weight
            assert torch.cosine_similarity(moved.flatten(), right.flatten(), dim=0) > 0.97
            assert 0.85 < moved.norm() / right.norm() < 1.1


def test_the_gates_of_a_recurrent_layer_are_matrices_of_their_own():
    model = layers()
    optimizer = Muon(model, muon_lr=0.1, weight_decay=0.0)
    for name in "weight_ih_l0", "weight_hh_l0":
        before = getattr(model.gru, name).detach().clone()
        model.set_gradients(3)
        getattr(model.gru, name).grad[:6] *= 1000  # of one gate; the others move as far
        optimizer.step()
        moved = (getattr(model.gru, name) - before).chunk(3)
        assert max(gate.norm() for gate in moved) < 1.3 * min(gate.norm() for gate in moved)


def test_the_rest_is_adamw_to_the_bit():
    ours, theirs = layers(), layers()
    how = dict(lr=0.01, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.1)
    both = Muon(ours, **how), torch.optim.AdamW(theirs.parameters(), **how)
    for seed in range(3):
        for model, optimizer in zip((ours, theirs), both, strict=True):
            model.set_gradients(seed)
            optimizer.step()
    same = {
        name
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True)
        if torch.equal(mine, other)
    }
    others = {name for name, p in ours.named_parameters() if p not in hidden_matrices(ours)}
    assert same == others
    assert {"embedding.weight", "energy.weight", "output.weight", "gru.bias_hh_l0"} < others


@pytest.mark.parametrize("kind", [Seq2Seq, AttentionSeq2Seq, TransformerSeq2Seq])
def test_words_and_vectors_are_adamws_and_all_other_matrices_muons(kind):
    model = real_model(kind)
    names = {p: name for name, p in model.named_parameters()}
    matrices = hidden_matrices(model)
    for weight, name in names.items():
        of_words = "embedding" in name or len(VOCABULARY) in weight.shape
        assert (weight in matrices) == (
            weight.dim() == 2 and min(weight.shape) > 1 and not of_words
        )
    gates = {names[weight].rpartition(".")[2][:6] for weight, n in matrices.items() if n > 1}
    assert gates == (set() if kind is TransformerSeq2Seq else {"weight"})


def trainer(model, folder=None, callbacks=(), **settings):
    config = training_config(3, lr=0.02, muon_lr=0.03, checkpoint_dir=folder, progress=False)
    loader = make_loader(DATASET, batch_size=2, shuffle=True)
    return Seq2SeqTrainer(model, config, loader, callbacks=callbacks, **settings)


@pytest.mark.parametrize("kind", [AttentionSeq2Seq, TransformerSeq2Seq])
def test_a_trainer_learns_by_it_and_resumes_exactly(tmp_path, kind):
    whole = trainer(real_model(kind), schedule=lambda step: 0.9 ** (step - 1), ema=0.9)
    steps = whole.fit().steps
    assert steps[-1]["loss"] < 0.9 * steps[0]["loss"]
    assert [group["lr"] for group in whole.optimizer.param_groups[:2]] == [
        0.02 * 0.9**14,
        0.03 * 0.9**14,
    ]
    again = dict(schedule=lambda step: 0.9 ** (step - 1), ema=0.9)
    trainer(real_model(kind), tmp_path, [StopAt(7, StopTraining)], **again).fit()
    resumed = trainer(real_model(kind, seed=9), tmp_path, **again)
    resumed.fit(resume=True)
    assert torch.equal(flat(resumed.model), flat(whole.model))
    with pytest.raises(ValueError, match="its optimizer is Muon, not AdamW"):
        other = trainer(real_model(kind), tmp_path, **again)
        other.optimizer = torch.optim.AdamW(other.model.parameters())
        other.fit(resume=True)


@pytest.mark.parametrize("wrong", [dict(muon_lr=0), dict(muon_lr=-1), dict(momentum=1)])
def test_rates_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="above 0 and momentum from 0 to below 1"):
        Muon(layers(), **wrong)


def test_a_table_that_is_an_output_layer_as_well_is_no_hidden_matrix():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9), nn.Linear(9, 5))
    assert list(hidden_matrices(model)) == [model[1].weight, model[2].weight]
    model[1].weight = model[0].weight
    assert list(hidden_matrices(model)) == [model[2].weight]


def test_a_model_without_words_has_hidden_matrices_too():
    model = Forecaster(Scaling(4, 8, "last"), embedding=4, hidden=6)
    assert model.target_vocabulary is None and len(hidden_matrices(model)) > 3
    Muon(model)
