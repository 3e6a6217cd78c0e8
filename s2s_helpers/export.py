"""A trained transformer as two ONNX graphs, which translate without PyTorch's own layers.

`export_onnx` writes an encoder and one step of the decoder; `OnnxModel` speaks the four verbs over
ONNX Runtime, so `translate` and beam search take it as they take any model; `quantize_int8` makes
the weights of both graphs int8.
"""

import copy
import json
import logging
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_helpers.hub import needed
from s2s_helpers.models import Memory, MultiHeadAttention, Seq2SeqModel, State, TransformerSeq2Seq
from s2s_helpers.models.interface import check_ids
from s2s_helpers.vocabulary import vocabulary_from_dict

GRAPHS = ("encoder.onnx", "step.onnx")


class GraphAttention(MultiHeadAttention):
    """Multi-head attention in one operation: the written-out softmax asks how long a row is, and a
    graph must be the same for every length."""

    def forward(self, x: Tensor, keys_values: tuple, mask: Tensor | None):
        mixed = F.scaled_dot_product_attention(self.split(self.query(x)), *keys_values, mask)
        return self.output(mixed.transpose(1, 2).flatten(2)), None


class EncoderGraph(nn.Module):
    """`encode` as plain tensors."""

    def __init__(self, model: TransformerSeq2Seq):
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (batch, source) and mask to states (batch, source, width) and the cross-attention's
        keys and values (batch, layers, 2, heads, source, d)."""
        x = self.model.embed(self.model.source_embedding, source)
        for layer in self.model.encoder:
            x, _ = layer(x, source_mask)
        x = self.model.encoder_norm(x)
        pairs = [torch.stack(layer.cross.keys_values(x), 1) for layer in self.model.decoder]
        return x, torch.stack(pairs, 1)


class StepGraph(nn.Module):
    """`step` as plain tensors: the cache goes in and comes out."""

    def __init__(self, model: TransformerSeq2Seq):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, past: Tensor, keys: Tensor, source_mask: Tensor):
        """Tokens (lines,), keys and values of the tokens so far (lines, layers, 2, heads, past, d),
        and what the encoder gave; returns logits (lines, vocabulary) and the past with one more."""
        model, here, grown = self.model, past.shape[4], []

        def extend(layer: int, *new: Tensor) -> tuple:
            grown.append(torch.cat([past[:, layer], torch.stack(new, 1)], dim=3))
            return grown[-1].unbind(1)

        memory = Memory(source_mask, keys, keys=tuple(pair.unbind(1) for pair in keys.unbind(1)))
        x = model.embed(model.target_embedding, tokens[:, None], here, here + 1)
        features, _ = model._decode(x, None, memory, SimpleNamespace(extend=extend))
        return model.output(features[:, 0]), torch.stack(grown, 1)


@contextmanager
def quiet():
    """Without the exporter's notes on its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def new_folder(folder):
    """A folder to write into, that gets its name at the end: whole or not at all.

    Raises FileExistsError where something of that name is there.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: remove it, or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        yield scratch
        os.rename(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def export_onnx(model: TransformerSeq2Seq, folder) -> Path:
    """Write a transformer's encoder and decoder step as ONNX graphs into a new folder.

    Batch, source length and the number of tokens so far are free in the graphs, up to the model's
    positions. Raises TypeError for another kind of model, FileExistsError where the folder exists,
    ImportError without onnx and onnxscript.
    """
    if type(model) is not TransformerSeq2Seq:
        raise TypeError(f"only a TransformerSeq2Seq can be exported, not a {type(model).__name__}")
    for package in ("onnx", "onnxscript"):
        needed(package)
    model = copy.deepcopy(model).eval().requires_grad_(False)
    model.wants_attention = False
    for module in model.modules():
        if type(module) is MultiHeadAttention:
            module.__class__ = GraphAttention
    lines, time = torch.export.Dim("lines"), torch.export.Dim("time", max=model.max_positions)
    past = torch.export.Dim("past", max=model.max_positions - 1)
    layers, heads = model.settings["layers"], model.settings["heads"]
    source, mask = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool)
    cache = torch.zeros(2, layers, 2, heads, 3, model.width // heads)
    encoder, step = EncoderGraph(model), StepGraph(model)
    _, keys = encoder(source, mask)
    by_source, by_line = {0: lines, 1: time}, {0: lines}
    jobs = {
        "encoder": (encoder, (source, mask), (by_source, by_source)),
        "step": (
            step, (source[:, 0], cache, keys, mask),
            (by_line, {0: lines, 4: past}, {0: lines, 4: time}, by_source),
        ),
    }  # fmt: skip
    names = {
        "encoder": (["source", "source_mask"], ["states", "keys"]),
        "step": (["tokens", "past", "keys", "source_mask"], ["logits", "present"]),
    }
    with new_folder(folder) as scratch, quiet():
        for name, (graph, inputs, shapes) in jobs.items():
            torch.onnx.export(
                graph.eval(), inputs, str(scratch / f"{name}.onnx"), dynamo=True, verbose=False,
                dynamic_shapes=shapes, external_data=False,
                input_names=names[name][0], output_names=names[name][1],
            )  # fmt: skip
        about = {
            "source_vocabulary": model.source_vocabulary.to_dict(),
            "target_vocabulary": model.target_vocabulary.to_dict(),
            "max_positions": model.max_positions,
            "cache": [layers, 2, heads, 0, model.width // heads],
        }
        (scratch / "model.json").write_text(json.dumps(about), encoding="utf-8")
    return Path(folder)


def quantize_int8(folder, new) -> Path:
    """Copy an exported model into a new folder, with weights of 8 bits.

    Dynamic quantization: weights are rounded once to int8 with a scale for each column, activations
    at every call to 8 bits with the scale of what is there; products are summed in int32. Weights
    keep to 7 bits, as processors without VNNI would overflow in 16 bits otherwise.
    """
    needed("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = Path(folder)
    check_folder(folder)
    with new_folder(new) as scratch, quiet():
        for name in GRAPHS:
            quantize_dynamic(
                folder / name, scratch / name, per_channel=True, reduce_range=True,
                weight_type=QuantType.QInt8,
            )  # fmt: skip
        shutil.copy(folder / "model.json", scratch)
    return Path(new)


def check_folder(folder: Path) -> None:
    """Raise FileNotFoundError where a file of an exported model is missing."""
    for name in (*GRAPHS, "model.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: export_onnx(model, folder) writes one")


class OnnxModel(Seq2SeqModel):
    """An exported model, run by ONNX Runtime on so many threads of the CPU.

    `encode`, `start` and `step` as any model's, without gradients and attention weights. Raises
    FileNotFoundError for an incomplete folder.
    """

    wants_attention = False

    def __init__(self, folder, threads: int = 1):
        folder = Path(folder)
        check_folder(folder)
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        sides = ("source_vocabulary", "target_vocabulary")
        super().__init__(*(vocabulary_from_dict(about[side]) for side in sides))
        self.max_positions, self.cache = about["max_positions"], about["cache"]
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # says: on the CPU
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.sessions = [
            runtime.InferenceSession(str(folder / name), options, ["CPUExecutionProvider"])
            for name in GRAPHS
        ]

    def run(self, graph: int, **inputs: Tensor) -> list[Tensor]:
        """The outputs of the encoder (0) or the step (1)."""
        arrays = {name: value.detach().numpy() for name, value in inputs.items()}
        return [torch.from_numpy(array) for array in self.sessions[graph].run(None, arrays)]

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        states, keys = self.run(0, source=source, source_mask=source_mask)
        return Memory(mask=source_mask, states=states, keys=keys)

    def start(self, memory: Memory) -> State:
        return State(hidden=(torch.zeros(len(memory.mask), *self.cache),))

    def step(self, tokens: Tensor, state: State, memory: Memory):
        (past,), keys, mask = state.hidden, memory.keys, memory.mask
        logits, past = self.run(1, tokens=tokens, past=past, keys=keys, source_mask=mask)
        return logits, State(hidden=(past,), position=state.position + 1), None
