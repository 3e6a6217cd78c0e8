"""A trained transformer as two ONNX graphs, which ONNX Runtime runs without PyTorch's layers."""

import copy
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from s2s_helpers.files import hashes_of, new_folder
from s2s_helpers.models import Memory, Seq2SeqModel, State, TransformerSeq2Seq
from s2s_helpers.models.interface import check_ids
from s2s_helpers.models.transformer import additive
from s2s_helpers.optional import import_optional
from s2s_helpers.vocabulary import vocabulary_from_dict

# The files of an exported model, and the graphs' inputs and outputs by name.
WEIGHTS = "weights.bin"
SIDES = ("source", "target")
GRAPHS = {
    "encoder.onnx": (["source", "source_mask"], ["states", "keys"]),
    "step.onnx": (["tokens", "past", "keys", "source_mask"], ["logits", "present", "attention"]),
}


class EncoderGraph(nn.Module):
    """`encode` in plain tensors: source (batch, source) to states (batch, source, width) and the
    cross-attention's keys and values (batch, layers, 2, heads, source, width of a head)."""

    model: TransformerSeq2Seq

    def __init__(self, model: TransformerSeq2Seq):
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = additive(source_mask)[:, None, None]  # (batch, 1, 1, source)
        x = self.model.embed(self.model.source_embedding, source)  # (batch, source, width)
        for layer in self.model.encoder:
            x, _ = layer(x, mask)
        x = self.model.encoder_norm(x)
        pairs = [torch.stack(layer.cross.keys_values(x), 1) for layer in self.model.decoder]
        return x, torch.stack(pairs, 1)


class StepGraph(nn.Module):
    """`step` in plain tensors: tokens (lines,) and the keys and values of all tokens before them,
    (lines, layers, 2, heads, past, width of a head), to logits and the same with one more; and if
    asked for, the cross-attention's weights (lines, layers, heads, source)."""

    model: TransformerSeq2Seq

    def __init__(self, model: TransformerSeq2Seq, attention: bool = False):
        super().__init__()
        self.model, self.attention = model, attention

    def forward(
        self, tokens: Tensor, past: Tensor, keys: Tensor, source_mask: Tensor
    ) -> tuple[Tensor, ...]:
        here, grown = past.shape[4], []

        def extend(layer: int, *new: Tensor) -> tuple:
            grown.append(torch.cat([past[:, layer], torch.stack(new, 1)], dim=3))
            return grown[-1].unbind(1)

        pairs = tuple(pair.unbind(1) for pair in keys.unbind(1))
        mask = additive(source_mask)[:, None, None]  # (lines, 1, 1, source)
        memory = Memory(source_mask, keys, keys=(pairs, mask))
        cache: Any = SimpleNamespace(extend=extend)
        x = self.model.embed(self.model.target_embedding, tokens[:, None], here, here + 1)
        features, weights = self.model._decode(x, None, memory, cache)  # (lines, 1, width)
        found = self.model.output(features[:, 0]), torch.stack(grown, 1)
        return (*found, weights[:, :, :, 0]) if self.attention else found


@contextmanager
def quietly() -> Iterator[None]:
    """Silence from exporters, which talk of their own insides."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def export_onnx(
    model: TransformerSeq2Seq, folder: str | os.PathLike, attention: bool = False
) -> Path:
    """Write the encoder and one step of the decoder as ONNX graphs into a new folder.

    Batch, source length and the number of tokens so far stay free, up to the model's positions.
    `attention`: whether a step gives the attention weights too, which takes it a little longer.
    What both graphs need, such as a common table of embeddings, is kept once, in weights.bin.
    Changed parts are exported as they are. Raises TypeError for another kind of model, ValueError
    where this one's `encode` or `step` was replaced, FileExistsError where the folder exists.
    """
    if type(model) is not TransformerSeq2Seq:
        raise TypeError(f"only a TransformerSeq2Seq can be exported, not a {type(model).__name__}")
    if replaced := sorted({"encode", "start", "step", "embed", "_decode"} & vars(model).keys()):
        raise ValueError(f"a model with a {' and '.join(replaced)} of its own cannot be exported")
    import_optional("onnxscript")
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    longest = model.max_positions
    rows = {0: "lines", 1: "time"}  # names of sizes that stay free
    heads = model.settings["heads"]
    cache = (len(model.decoder), 2, heads, 3, model.width // heads)
    source, mask = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool)
    encoder, step = EncoderGraph(model), StepGraph(model, attention)
    inputs = source[:, 0], torch.zeros(2, *cache), encoder(source, mask)[1], mask
    shapes = {0: "lines"}, {0: "lines", 4: "past"}, {0: "lines", 4: "time"}, rows
    jobs = (
        ("encoder.onnx", encoder, (source, mask), (rows, rows)),
        ("step.onnx", step, inputs, shapes),
    )
    with new_folder(folder) as scratch, quietly():
        for name, graph, example, free in jobs:
            reads, gives = GRAPHS[name]
            gives = gives if attention else gives[:2]
            torch.onnx.export(
                graph.eval(), example, str(scratch / name), input_names=reads, output_names=gives,
                dynamic_shapes=free, dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
        store_once(scratch)
        about = {f"{s}_vocabulary": getattr(model, f"{s}_vocabulary").to_dict() for s in SIDES}
        about |= {"max_positions": longest, "cache": [*cache[:3], 0, cache[4]]}
        (scratch / "model.json").write_text(json.dumps(about), encoding="utf-8")
    return Path(folder)


def store_once(folder: Path) -> None:
    """Move the weights out of a folder's graphs into one file, where equal ones stand once."""
    onnx = import_optional("onnx")
    places: dict[bytes, int] = {}
    with (folder / WEIGHTS).open("wb") as file:
        for name in GRAPHS:
            graph = onnx.load(folder / name)
            for tensor in graph.graph.initializer:
                if len(data := tensor.raw_data) < 1024:
                    continue
                if (key := hashlib.sha256(data).digest()) not in places:
                    file.write(bytes(-file.tell() % 64))  # a runtime may read them where they lie
                    places[key] = file.tell()
                    file.write(data)
                place = dict(location=WEIGHTS, offset=places[key], length=len(data))
                onnx.external_data_helper.set_external_data(tensor, **place)
                tensor.ClearField("raw_data")
            (folder / name).write_bytes(graph.SerializeToString())


def quantize_int8(folder: str | os.PathLike, new: str | os.PathLike) -> Path:
    """Copy an exported model into a new folder, with weights of 8 bits (dynamic quantization).

    The matrices of linear layers are rounded once, with a scale for each column, and what they are
    multiplied with at every call, with the scale of what is there. Matrices keep to 7 bits: in 8,
    sums overflow on processors without VNNI. Tables of embeddings are rounded too; one that is also
    the output layer then stands there twice. All else stays float32: attention's own products,
    softmax, norms, biases, positions.

    Raises FileNotFoundError where `folder` holds none, FileExistsError where `new` exists.
    """
    quantization = import_optional("onnxruntime.quantization")
    with new_folder(new) as scratch, quietly():
        shutil.copy(Path(folder) / "model.json", scratch)
        for name in GRAPHS:
            quantization.quantize_dynamic(
                Path(folder) / name, scratch / name, per_channel=True, reduce_range=True
            )
        store_once(scratch)
    return Path(new)


class OnnxModel(Seq2SeqModel):
    """An exported model on ONNX Runtime, with so many threads: the methods of any model, without
    gradients, and with attention weights where they were exported. `settings` has a hash of each
    file, by which an exported model is told from another. Raises FileNotFoundError where a file is
    missing."""

    def __init__(self, folder: str | os.PathLike, threads: int = 1):
        names = ("model.json", WEIGHTS, *GRAPHS)
        hashes = hashes_of(folder, names, "use export_onnx(model, folder)")
        about = json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))
        sides = (vocabulary_from_dict(about[f"{side}_vocabulary"]) for side in SIDES)
        super().__init__(*sides, files=hashes)
        self.max_positions, self.cache = about["max_positions"], about["cache"]
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # says: on the CPU
        runtime = import_optional("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self.encoder, self.stepper = (
            runtime.InferenceSession(str(Path(folder, name)), options, ["CPUExecutionProvider"])
            for name in GRAPHS
        )

    @staticmethod
    def run(session: Any, **inputs: Tensor) -> list[Tensor]:
        """What the graph gives, as tensors."""
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(array) for array in found]

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        states, keys = self.run(self.encoder, source=source, source_mask=source_mask)
        return Memory(mask=source_mask, states=states, keys=keys)

    def start(self, memory: Memory) -> State:
        return State(hidden=(torch.zeros(len(memory.mask), *self.cache),))

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        past = dict(past=state.hidden[0], keys=memory.keys, source_mask=memory.mask)
        logits, past, *weights = self.run(self.stepper, tokens=tokens, **past)
        attention = weights[0] if weights else None  # (lines, layers, heads, source)
        return logits, State(hidden=(past,), position=state.position + 1), attention
