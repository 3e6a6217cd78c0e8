"""The models, and how they are saved: a file holds class, settings, vocabularies and weights."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

from s2s_helpers.models.attention import (
    AttentionDecoder,
    AttentionSeq2Seq,
    BahdanauAttention,
    LuongAttention,
)
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.models.pointer import CopyDataset, CopyVocabulary, CoverageLoss, PointerGenerator
from s2s_helpers.models.rnn import Bridge, Decoder, Encoder, Seq2Seq
from s2s_helpers.models.transformer import MultiHeadAttention, TransformerSeq2Seq
from s2s_helpers.vocabulary import vocabulary_from_dict

__all__ = [
    "AttentionDecoder",
    "AttentionSeq2Seq",
    "BahdanauAttention",
    "Bridge",
    "CopyDataset",
    "CopyVocabulary",
    "CoverageLoss",
    "Decoder",
    "Encoder",
    "LuongAttention",
    "Memory",
    "MultiHeadAttention",
    "PointerGenerator",
    "Seq2Seq",
    "Seq2SeqModel",
    "State",
    "TransformerSeq2Seq",
    "load_model",
    "model_from_dict",
    "model_to_dict",
    "new_folder",
    "read_file",
    "save_file",
    "save_model",
]

CLASSES = {c.__name__: c for c in (Seq2Seq, AttentionSeq2Seq, TransformerSeq2Seq, PointerGenerator)}


def model_to_dict(model: Seq2SeqModel) -> dict:
    """Class name, settings, vocabularies and weights: plain values and tensors only."""
    return {
        "class": type(model).__name__,
        "settings": model.settings,
        "source_vocabulary": model.source_vocabulary.to_dict(),
        "target_vocabulary": model.target_vocabulary.to_dict(),
        "weights": model.state_dict(),
    }


def model_from_dict(saved: dict) -> Seq2SeqModel:
    """The model that `model_to_dict` described, in evaluation mode.

    Raises ValueError where the dictionary is not a saved model or its weights do not fit.
    """
    if not isinstance(saved, dict) or "class" not in saved or "weights" not in saved:
        raise ValueError("this is not a model saved by s2s_helpers.models.save_model")
    if saved["class"] not in CLASSES:
        raise ValueError(f"unknown model class {saved['class']!r}; known: {sorted(CLASSES)}")
    vocabularies = (
        vocabulary_from_dict(saved[f"{side}_vocabulary"]) for side in ("source", "target")
    )
    model = CLASSES[saved["class"]](*vocabularies, **saved["settings"])
    try:
        model.load_state_dict(saved["weights"])
    except RuntimeError as error:
        raise ValueError(
            f"the weights do not fit a {saved['class']} of these settings: {error}"
        ) from None
    return model.eval()


def save_file(value, path) -> None:
    """torch.save that leaves either the old file or the whole new one, never a piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(value, file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def new_folder(folder):
    """A folder to write in, which gets its name at the end, whole or not at all. Raises
    FileExistsError where the name is taken."""
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(
            f"{folder} is there already: remove it, or choose another name, as this must name a "
            "new folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        (inner := Path(scratch, folder.name)).mkdir()
        yield inner
        os.rename(inner, folder)


def read_file(path, what: str, hint: str = ""):
    """What `save_file` wrote, on the CPU; a file cannot run code.

    Raises FileNotFoundError, or ValueError where the file is broken, naming `what` it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}{hint}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is broken or not a {what}: {error}") from None


def save_model(model: Seq2SeqModel, path) -> None:
    """Write the model to one file, atomically."""
    save_file(model_to_dict(model), path)


def load_model(path) -> Seq2SeqModel:
    """Read a model that `save_model` wrote, on the CPU and in evaluation mode.

    Raises FileNotFoundError, or ValueError where the file is broken or holds something else.
    """
    return model_from_dict(read_file(path, "saved model"))
