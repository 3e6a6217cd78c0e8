"""A trained transformer in CTranslate2, a runtime in C++ that does the whole search by itself.

It is the fastest way to translate on a processor (Klein et al. 2020, *Efficient and High-Quality
Neural Machine Translation with OpenNMT*): its layers are fused, and between two steps of a search
it never comes back to Python. For the same reason it has no hooks and gives no attention weights.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2s_helpers.decoding.search import (
    Hypothesis,
    check_length_penalty,
    check_source,
    length_penalty_of,
)
from s2s_helpers.files import hashes_of, new_folder
from s2s_helpers.loss import is_changed
from s2s_helpers.models import Seq2SeqModel, TransformerSeq2Seq
from s2s_helpers.models import transformer as parts
from s2s_helpers.models.interface import check_ids
from s2s_helpers.optional import import_optional
from s2s_helpers.production.shortlist import Shortlist
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK, vocabulary_from_dict

COMPUTE_TYPES = ("float32", "int8")
PATIENCE = 3  # times beam_size hypotheses shall have ended, where one times may miss the best
VMAP = "vmap.txt"  # the name that the runtime has for a shortlist
KNOWN = (
    *(TransformerSeq2Seq, parts.EncoderLayer, parts.DecoderLayer, parts.MultiHeadAttention),
    *(parts.FeedForward, parts.Residual, nn.ModuleList, nn.Embedding, nn.Linear, nn.LayerNorm),
    *(nn.ReLU, nn.Dropout, nn.Identity),
)  # what the runtime computes as these classes do


def export_ctranslate2(
    model: TransformerSeq2Seq, folder: str | os.PathLike, compute_type: str = "float32",
    shortlist: Shortlist | None = None,
) -> Path:  # fmt: skip
    """Write a model, with its vocabularies, as a new folder that CTranslate2 reads.

    `compute_type` is what the weights are kept in: "float32", or "int8" (a quarter of the bytes,
    with a scale for each row). With a `shortlist` only what it allows will be written. Raises
    TypeError for another kind of model, ValueError for another compute_type, a shortlist that does
    not fit, and where a part of the model was changed, since the runtime has layers of its own;
    FileExistsError where the folder exists.
    """
    if type(model) is not TransformerSeq2Seq:
        raise TypeError(f"only a TransformerSeq2Seq can be exported, not a {type(model).__name__}")
    if compute_type not in COMPUTE_TYPES:
        raise ValueError(f"compute_type must be one of {COMPUTE_TYPES}, got {compute_type!r}")
    for name, module in model.named_modules():
        if type(module) not in KNOWN or is_changed(module):
            raise ValueError(f"{name or 'the model'} was changed: CTranslate2 has the layers of "
                             "a TransformerSeq2Seq, and no others")  # fmt: skip
    vmap = None if shortlist is None else vocabulary_map(model, shortlist)
    import_optional("ctranslate2")
    spec = specification(model)
    about = {"max_positions": model.max_positions, "compute_type": compute_type}
    for side in "source", "target":
        vocabulary = getattr(model, f"{side}_vocabulary")
        about[f"{side}_vocabulary"] = vocabulary.to_dict()
        getattr(spec, f"register_{side}_vocabulary")(vocabulary.tokens(range(len(vocabulary))))
    tokens = model.target_vocabulary.tokens(range(4))
    for name, number in ("unk", UNK), ("bos", SOS), ("eos", EOS), ("decoder_start", SOS):
        setattr(spec.config, f"{name}_token", tokens[number])
    spec.config.layer_norm_epsilon = model.decoder[0].cross_residual.norm.eps
    spec.validate()
    spec.optimize(None if compute_type == "float32" else compute_type)
    with new_folder(folder) as scratch:
        spec.save(str(scratch))
        (scratch / "model.json").write_text(json.dumps(about), encoding="utf-8")
        if vmap is not None:
            (scratch / VMAP).write_bytes(vmap.encode())
    return Path(folder)


def vocabulary_map(model: TransformerSeq2Seq, shortlist: Shortlist) -> str:
    """A shortlist in the runtime's words: a line for each source token, a tab, and the target
    tokens it calls for, with spaces between them; before the first tab nothing, for those that may
    always be written. Raises ValueError for a token with a space or another break in it, which
    these lines cannot hold, and where the vocabularies have other sizes."""
    shortlist.check_sizes(model)
    vocabularies = model.source_vocabulary, model.target_vocabulary
    source, target = (each.tokens(range(len(each))) for each in vocabularies)
    for token in chain(source, target):
        if not {*" \t\r\n"}.isdisjoint(token):
            raise ValueError(f"the token {token!r} has a space or a break in it, for which the "
                             "runtime has no shortlist: export the model without one")  # fmt: skip
    rows = [[number for number in row if number != PAD] for row in shortlist.likely.tolist()]
    lines = zip(["", *source], [shortlist.always.tolist(), *rows], strict=True)
    lines = (f"{token}\t{' '.join(target[number] for number in row)}\n" for token, row in lines)
    return "".join(lines)


def specification(model: Any) -> Any:
    """The model's weights in the places that CTranslate2 has for them."""
    from ctranslate2.specs import TransformerSpec

    pre = model.settings["norm_first"]
    spec = TransformerSpec.from_config(len(model.encoder), model.settings["heads"], pre_norm=pre)
    table = torch.zeros(model.max_positions, model.width) if model.table is None else model.table
    for side, layers, embedding in (
        (spec.encoder, model.encoder, model.source_embedding),
        (spec.decoder, model.decoder, model.target_embedding),
    ):
        theirs = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        theirs.weight = numbers(embedding.weight)
        side.scale_embeddings = math.sqrt(model.width)
        side.position_encodings.encodings = numbers(table)
        for place, layer in zip(side.layer, layers, strict=True):
            own = layer.attention
            attention(place.self_attention, layer.attention_residual.norm, own.output,
                      [[own.query, own.key, own.value]])  # fmt: skip
            if side is spec.decoder:
                own = layer.cross
                attention(place.attention, layer.cross_residual.norm, own.output,
                          [[own.query], [own.key, own.value]])  # fmt: skip
            norm(place.ffn.layer_norm, layer.feedforward_residual.norm)
            linear(place.ffn.linear_0, [layer.feedforward[0]])
            linear(place.ffn.linear_1, [layer.feedforward[2]])
    if pre:
        norm(spec.encoder.layer_norm, model.encoder_norm)
        norm(spec.decoder.layer_norm, model.decoder_norm)
    linear(spec.decoder.projection, [model.output])
    return spec


def numbers(tensor: Tensor) -> Any:
    """A tensor as an array of NumPy, float32: a copy, for it will be rounded in place."""
    return tensor.detach().float().cpu().numpy().copy()


def linear(place: Any, layers: list[nn.Linear]) -> None:
    """Layers that read the same, as one whose outputs stand after each other."""
    place.weight = numbers(torch.cat([layer.weight for layer in layers]))  # (outputs, width)
    place.bias = numbers(torch.cat([layer.bias for layer in layers]))


def norm(place: Any, layer: nn.LayerNorm) -> None:
    place.gamma, place.beta = numbers(layer.weight), numbers(layer.bias)


def attention(place: Any, before: nn.LayerNorm, output: nn.Linear, fused: list) -> None:
    norm(place.layer_norm, before)
    for target, layers in zip(place.linear, [*fused, [output]], strict=True):
        linear(target, layers)


class CTranslate2Model(Seq2SeqModel):
    """An exported model on CTranslate2, for `translate`: greedily, in a beam, with n-best.

    `threads` translate a part of each batch each. `compute_type`: what is multiplied in; None: what
    the folder holds. `settings` has a hash of each file, by which an exported model is told from
    another. A search that wants single steps (sampling, hooks) has to stay with the model itself.
    Exported with a shortlist it writes what that allows for any sentence of the batch, so what
    stands beside a sentence may change its score, and now and then its words.
    Raises FileNotFoundError where a file is missing, ValueError for another compute_type.
    """

    def __init__(
        self, folder: str | os.PathLike, threads: int = 1, compute_type: str | None = None
    ):
        if compute_type not in (None, *COMPUTE_TYPES):
            raise ValueError(f"compute_type must be one of {COMPUTE_TYPES}, got {compute_type!r}")
        names = ("model.bin", "config.json", "model.json")
        has_shortlist = Path(folder, VMAP).exists()
        names += (VMAP,) * has_shortlist
        hashes = hashes_of(folder, names, "use export_ctranslate2(model, folder)")
        about = json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))
        sides = [vocabulary_from_dict(about[f"{s}_vocabulary"]) for s in ("source", "target")]
        compute_type = compute_type or about["compute_type"]
        super().__init__(*sides, files=hashes, compute_type=compute_type)
        self.max_positions, self.threads = about["max_positions"], threads
        self.has_shortlist = has_shortlist
        self.source_tokens, self.target_tokens = (side.tokens(range(len(side))) for side in sides)
        self.numbers = {token: number for number, token in enumerate(self.target_tokens)}
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # says: on the CPU
        self.translator = import_optional("ctranslate2").Translator(
            str(folder), compute_type=compute_type, inter_threads=threads, intra_threads=1
        )

    def own_search(self, beam_size: int, length_penalty: float, n_best: int | None) -> Callable:
        """The search that `translate` shall use with these settings."""
        check_length_penalty(length_penalty)
        if not 1 <= (n_best or 1) <= beam_size:
            raise ValueError(f"n_best must lie between 1 and beam_size {beam_size}, got {n_best}")
        return partial(self.search, beam_size, length_penalty, n_best or 1)

    def search(
        self, beam_size: int, length_penalty: float, n_best: int, model: Any, source: Tensor,
        source_mask: Tensor | None = None, max_length: int | None = None, attention: bool = False,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """Up to `n_best` hypotheses for each row of `source` (batch, source), as `beam_search`
        gives them, without attention; one of `greedy_decode` for a beam_size of 1.

        The runtime stops when so many hypotheses have ended, `beam_search` when none can come out
        ahead any more: a length_penalty far above 1 or a small max_length may tell the two apart.
        """
        source_mask, limits = check_source(self, source, source_mask, max_length)
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        rows = [ids[mask].tolist() for ids, mask in zip(source, source_mask, strict=True)]
        several = PATIENCE * beam_size if beam_size > 1 else 1
        count = several if n_best > 1 or length_penalty > 1 else beam_size
        count = 1 if n_best == 1 and length_penalty == 0 else count
        limits, again = limits.tolist(), defaultdict(list)
        results = self._run(rows, max(limits), beam_size, count)
        for row, found in enumerate(results):
            bad = any({PAD, SOS} & {*one.ids} for one in found)
            long = any(len(one.ids) > limits[row] for one in found)
            if bad or long or (beam_size > 1 and not all(one.finished for one in found)):
                again[limits[row], bad].append(row)
        for (limit, bad), few in again.items():  # hardly any, of a trained model
            chosen = [rows[row] for row in few]
            found = self._run(chosen, limit, beam_size, several, (PAD, SOS) if bad else ())
            for row, some in zip(few, self._scored(chosen, found) if bad else found, strict=True):
                results[row] = [one for one in some if one.finished] or some
        for one in chain.from_iterable(results) if beam_size > 1 else ():
            one.score = one.log_probability / length_penalty_of(len(one.ids), length_penalty)
        return [sorted(found, key=lambda one: -one.score)[:n_best] for found in results]

    def _run(
        self, rows: list[list[int]], limit: int, beam_size: int, count: int, forbidden: tuple = ()
    ) -> list[list[Hypothesis]]:
        """The runtime's own search, until so many hypotheses have ended; for one it stops when that
        one is the best. What is forbidden leaves its probability to the others."""
        found = self.translator.translate_batch(
            [[self.source_tokens[number] for number in ids] for ids in rows],
            beam_size=beam_size, num_hypotheses=count, patience=max(1, count / beam_size),
            length_penalty=0.0,  # its own is another formula
            suppress_sequences=[[self.target_tokens[number]] for number in forbidden] or None,
            max_batch_size=math.ceil(len(rows) / self.threads), max_input_length=0,
            use_vmap=self.has_shortlist, max_decoding_length=limit, min_decoding_length=0,
            return_scores=True, return_end_token=True,
        )  # fmt: skip
        return [
            [
                Hypothesis([self.numbers[token] for token in tokens], log_p, log_p)
                for tokens, log_p in zip(one.hypotheses, one.scores, strict=True)
            ]
            for one in found
        ]

    def _scored(self, rows: list[list[int]], found: list) -> list[list[Hypothesis]]:
        """These hypotheses with log p where nothing is forbidden, not even by a shortlist."""
        pairs = [(ids, one) for ids, some in zip(rows, found, strict=True) for one in some]
        scored = self.translator.score_batch(
            [[self.source_tokens[number] for number in ids] for ids, _ in pairs],
            [[self.target_tokens[n] for n in one.ids if n != EOS] for _, one in pairs],
            max_input_length=0,
        )
        for (_, one), result in zip(pairs, scored, strict=True):  # which has one for an EOS, too
            one.log_probability = one.score = sum(result.log_probs[: len(one.ids)])
        return found
