"""How models are saved: a file holds class, settings, vocabularies and weights."""

from s2s_helpers.files import read_file, save_file
from s2s_helpers.models.attention import AttentionSeq2Seq
from s2s_helpers.models.interface import Seq2SeqModel
from s2s_helpers.models.pointer import PointerGenerator
from s2s_helpers.models.rnn import Seq2Seq
from s2s_helpers.models.transformer import TransformerSeq2Seq
from s2s_helpers.vocabulary import vocabulary_from_dict

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


def save_model(model: Seq2SeqModel, path) -> None:
    """Write the model to one file, atomically."""
    save_file(model_to_dict(model), path)


def load_model(path) -> Seq2SeqModel:
    """Read a model that `save_model` wrote, on the CPU and in evaluation mode.

    Raises FileNotFoundError, or ValueError where the file is broken or holds something else.
    """
    return model_from_dict(read_file(path, "saved model"))
