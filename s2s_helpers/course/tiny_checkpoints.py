"""Small stand-ins for the checkpoints of T5, BART and Marian, where there is no hub."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from s2s_helpers.models.pretrained import Pretrained, quiet_transformers
from s2s_helpers.optional import import_optional

# What a class's name starts with, and the special tokens before and after the pieces: the order of
# ids that the real ones have.
TINY = {
    "t5": ("T5", ["<pad>", "</s>", "<unk>"], [f"<extra_id_{i}>" for i in range(20)]),
    "bart": ("Bart", ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"]),
    "marian": ("Marian", ["</s>", "<unk>"], ["<pad>"]),
}


def tiny_tokenizer(kind: str, texts: Sequence[str], size: int) -> Any:
    """A tokenizer of up to `size` pieces learned from texts (unigram, Kudo 2018), numbered as this
    kind's is."""
    parts, (_, before, after) = import_optional("tokenizers"), TINY[kind]
    tokenizer = parts.Tokenizer(parts.models.Unigram())
    tokenizer.pre_tokenizer = parts.pre_tokenizers.Metaspace()
    tokenizer.decoder = parts.decoders.Metaspace()
    options = dict(special_tokens=before, unk_token="<unk>", show_progress=False)
    trainer = parts.trainers.UnigramTrainer(vocab_size=size - len(after), **options)
    tokenizer.train_from_iterator(texts, trainer)
    frame = ["<s>", "$A", "</s>"] if kind == "bart" else ["$A", "</s>"]
    ends = [(token, tokenizer.token_to_id(token)) for token in frame if token != "$A"]
    tokenizer.post_processor = parts.processors.TemplateProcessing(frame, special_tokens=ends)
    return quiet_transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>",
        additional_special_tokens=after,
    )  # fmt: skip


def tiny_checkpoint(
    kind: str, texts: Sequence[str], folder: str | os.PathLike, vocabulary: int = 2000,
    width: int = 64, heads: int = 4, layers: int = 2, seed: int = 0,
) -> Path:  # fmt: skip
    """Random weights and a tokenizer for `texts` in a new folder, as `load_pretrained` wants them.

    Raises ValueError for a kind other than "t5", "bart" and "marian".
    """
    if kind not in TINY:
        raise ValueError(f"kind must be one of {sorted(TINY)}, got {kind!r}")
    library, name = quiet_transformers(), TINY[kind][0]
    tokenizer = tiny_tokenizer(kind, texts, vocabulary)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    start = eos if kind == "bart" else pad
    options = dict(vocab_size=len(tokenizer), d_model=width, pad_token_id=pad, eos_token_id=eos)
    if kind == "t5":
        options |= dict(num_layers=layers, num_heads=heads, d_kv=width // heads, d_ff=2 * width)
        options |= dict(dropout_rate=0.0)
    else:
        sizes = dict(layers=layers, attention_heads=heads, ffn_dim=2 * width).items()
        options |= {f"{side}_{k}": size for side in ("encoder", "decoder") for k, size in sizes}
        options |= dict(dropout=0.0, init_std=width**-0.5, max_position_embeddings=256)
        options |= dict(scale_embedding=kind == "marian", forced_eos_token_id=None)
    config = getattr(library, f"{name}Config")(decoder_start_token_id=start, **options)
    ending = "MTModel" if kind == "marian" else "ForConditionalGeneration"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Pretrained.of(getattr(library, name + ending)(config), tokenizer).save(folder)
