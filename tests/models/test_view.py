"""What decodes is the model as it is: every change of every part counts, and nothing touches it."""

import copy
import warnings

import pytest
import torch
from test_models import ENGLISH, FRENCH, MODELS, build, mixed_batch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from s2s_helpers.data import Batch
from s2s_helpers.decoding import greedy_decode
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.models import prepacked as prepacked_module
from s2s_helpers.models.interface import unroll
from s2s_helpers.models.prepacked import can_pack, packed, prepacked
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import SOS


def parts(model):
    """The names of all modules that are called while the model translates."""
    called, hooks = [], []
    for name, module in model.named_modules():
        if name:
            note = lambda *_, name=name: called.append(name)  # noqa: E731
            hooks.append(module.register_forward_hook(note))
    batch = mixed_batch()
    with torch.no_grad():
        memory = model.encode(batch.source, batch.source_mask)
        model.step(batch.target[:, 0], model.start(memory), memory)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(called))


def spoil(value):
    """Another output of the same kind."""
    if isinstance(value, PackedSequence):
        return value._replace(data=spoil(value.data))
    if isinstance(value, tuple):
        return tuple(spoil(item) for item in value)
    is_floats = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.flip(-1) * 0.5 + 0.1 if is_floats else value


def subclassed(module):
    kind = type(module)
    module.__class__ = type(
        kind.__name__,
        (kind,),
        {"forward": lambda self, *a, **k: spoil(kind.forward(self, *a, **k))},
    )


def hooked(module):
    module.register_forward_hook(lambda module, inputs, output: spoil(output))


def replaced(module):
    old = module.forward
    module.forward = lambda *a, **k: spoil(old(*a, **k))


def totals_of_steps(model, batch, hypotheses):
    """log p of each hypothesis by the model's own steps, one sentence at a time."""
    totals = []
    for row, hypothesis in enumerate(hypotheses):
        one = batch.select([row])
        target = torch.tensor([[SOS, *hypothesis.ids]])
        with torch.no_grad():
            logits, _ = unroll(model, Batch(one.source, one.source_mask, target))
        log_p = logits[0].log_softmax(-1)
        totals.append(sum(log_p[n, token].item() for n, token in enumerate(hypothesis.ids)))
    return totals


@pytest.mark.parametrize("change", [subclassed, hooked, replaced])
@pytest.mark.parametrize("name", MODELS)
def test_a_changed_part_decodes_as_it_trains(name, change):
    batch = mixed_batch(rows=5)
    whole = build(name)
    before = greedy_decode(whole, batch.source, batch.source_mask, 6)
    counted = 0
    for part in parts(whole):
        model = build(name)
        change(model.get_submodule(part))
        found = greedy_decode(model, batch.source, batch.source_mask, 6)
        expected = totals_of_steps(model, batch, found)
        assert [h.log_probability for h in found] == pytest.approx(expected, abs=1e-4), part
        counted += [h.log_probability for h in found] != [h.log_probability for h in before]
    assert counted  # dropout and the like may change nothing


@pytest.mark.parametrize("name", MODELS)
def test_decoding_leaves_the_model_as_it_was(name):
    model, batch = build(name).train(), mixed_batch()
    before = {n: dict(vars(m)) for n, m in model.named_modules()}
    expected = greedy_decode(copy.deepcopy(model).eval(), batch.source, batch.source_mask, 8)
    found = greedy_decode(model, batch.source, batch.source_mask, 8)
    assert [h.ids for h in found] == [h.ids for h in expected]
    assert {n: dict(vars(m)) for n, m in model.named_modules()} == before
    assert all(module.training for module in model.modules())


def test_a_view_follows_the_model_and_is_its_own_view():
    model, batch = build("transformer"), mixed_batch()
    view = eval_view(model)
    assert eval_view(view) is view and type(view) is type(model)
    with torch.no_grad():
        model.output.bias += 1.0
    assert torch.equal(view(batch)[0], model(batch)[0])
    ready = prepacked(model)
    assert prepacked(ready) is ready and eval_view(ready) is ready
    with pytest.raises(ValueError, match=r"made for torch\.float32, not for torch\.int8"):
        prepacked(ready, torch.int8)


def test_a_forward_put_on_a_training_model_is_refused():
    model, batch = build("transformer"), mixed_batch()
    replaced(model.decoder[0].cross)
    model.train()
    with pytest.raises(ValueError, match=r"MultiHeadAttention was replaced .* call model\.eval"):
        greedy_decode(model, batch.source, batch.source_mask)


def test_a_hook_on_a_view_for_decoding_is_refused():
    ready = prepacked(build("transformer"))
    with pytest.raises(RuntimeError, match="hook the model, then make a new view"):
        ready.decoder[0].cross.register_forward_hook(print)


def test_a_watcher_of_all_modules_sees_them():
    from torch.utils.flop_counter import FlopCounterMode

    model, batch = build("transformer"), mixed_batch()
    with FlopCounterMode(display=False) as counter:
        greedy_decode(model, batch.source, batch.source_mask, 3)
    assert "DecoderLayer.cross.query" in counter.get_flop_counts()


@pytest.mark.parametrize("name", MODELS)
def test_packed_layers_give_what_plain_ones_give(name, monkeypatch):
    monkeypatch.setattr(prepacked_module, "LEAST", dict.fromkeys(prepacked_module.LEAST, 0))
    model, batch = build(name), mixed_batch(rows=9)
    ready = prepacked(model)
    with torch.inference_mode():
        torch.testing.assert_close(ready(batch)[0], model(batch)[0], atol=1e-5, rtol=1e-5)
    made = [m for m in ready.modules() if getattr(m, "multiply", None) is not None]
    assert made or not can_pack(torch.float32)


def test_a_kept_view_has_the_weights_of_its_time(monkeypatch):
    monkeypatch.setattr(prepacked_module, "LEAST", dict.fromkeys(prepacked_module.LEAST, 0))
    model, batch = build("transformer"), mixed_batch(rows=9)
    ready = prepacked(model)
    with torch.inference_mode():
        ready(batch)
    with torch.no_grad():
        model.output.bias += 1.0
    if can_pack(torch.float32):
        assert not torch.allclose(ready(batch)[0], model(batch)[0])
    with torch.inference_mode():
        torch.testing.assert_close(
            prepacked(model)(batch)[0], model(batch)[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_a_wish_that_cannot_be_granted_is_said(dtype, monkeypatch):
    monkeypatch.setattr(prepacked_module, "can_pack", lambda dtype: False)
    with pytest.warns(UserWarning, match=r"linear layers cannot be multiplied in torch\.\w+ here"):
        prepacked(build("transformer"), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepacked(build("transformer"))  # nobody asked for float32 in particular
    with pytest.raises(ValueError, match="dtype must be float32, bfloat16 or int8"):
        prepacked(build("transformer"), torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("outputs", [40, 1200])
def test_packed_products(dtype, outputs):
    if not can_pack(dtype):
        pytest.skip(f"{dtype} cannot be packed here")
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 64, generator=generator) for n in (70, outputs))
    weight *= torch.logspace(-2, 2, outputs)[:, None]  # every output has its own scale
    bias = torch.randn(outputs, generator=generator)
    right = nn.functional.linear(x, weight, bias)
    largest = right.abs().amax(dim=0)  # (outputs,)
    share = {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.int8: 0.05}[dtype]
    for rows, given in ((x, bias), (x[:5], bias), (x, None)):
        found = packed(weight, given, dtype)(rows) + (bias if given is None else 0)
        off = ((found - right[: len(rows)]).abs() / largest).max()
        assert off < share
        assert dtype == torch.float32 or off > 1e-4  # it is rounded


def test_dropout_is_off_in_evaluation_mode_alone():
    model, batch = TransformerSeq2Seq(ENGLISH, FRENCH, width=8, heads=2, dropout=0.5), mixed_batch()
    torch.manual_seed(0)
    assert not torch.equal(model(batch)[0], model(batch)[0])
    view = eval_view(model)
    assert torch.equal(view(batch)[0], view(batch)[0])
