"""The models, and how they are saved."""

from s2s_helpers.models.attention import (
    AttentionDecoder,
    AttentionSeq2Seq,
    BahdanauAttention,
    LuongAttention,
)
from s2s_helpers.models.forecaster import Forecaster, Scaling, Windows
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.models.pointer import CopyDataset, CopyVocabulary, CoverageLoss, PointerGenerator
from s2s_helpers.models.pretrained import Pretrained
from s2s_helpers.models.rnn import Bridge, Decoder, Encoder, Seq2Seq
from s2s_helpers.models.saving import load_model, model_from_dict, model_to_dict, save_model
from s2s_helpers.models.transformer import MultiHeadAttention, TransformerSeq2Seq

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
    "Forecaster",
    "LuongAttention",
    "Memory",
    "MultiHeadAttention",
    "PointerGenerator",
    "Pretrained",
    "Scaling",
    "Seq2Seq",
    "Seq2SeqModel",
    "State",
    "TransformerSeq2Seq",
    "Windows",
    "load_model",
    "model_from_dict",
    "model_to_dict",
    "save_model",
]
