"""Where a model looks while it translates a sentence, and what else it could have said."""

from dataclasses import dataclass, field
from difflib import SequenceMatcher

import torch
from torch import Tensor

from s2s_helpers.data import collate
from s2s_helpers.decoding import generate, largest
from s2s_helpers.models import MultiHeadAttention
from s2s_helpers.models.view import view_of
from s2s_helpers.vocabulary import SOS, SPECIALS, UNK, word_tokenize

KINDS = ("cross", "encoder", "decoder")
MOST = 100  # tokens of a sentence: what a picture can hold


@dataclass
class Reading:
    """A sentence as one model reads and translates it.

    source: the tokens read, and target: those written, "<eos>" included. attention: by kind, each
    (layers, heads, tokens that look, tokens looked at): "cross" is target by source, "encoder"
    source by source, and "decoder" target by `past`, the tokens the decoder has read: before it
    writes target[i] it has read past[: i + 1]. A model may have none. candidates: for each target
    token the most probable (token, probability), best first. unknown: the words read as <unk>.
    """

    source: list[str]
    target: list[str]
    text: str = ""
    attention: dict[str, Tensor] = field(default_factory=dict)
    candidates: list[list[tuple[str, float]]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def past(self) -> list[str]:
        return [SPECIALS[SOS], *self.target[:-1]]

    @property
    def size(self) -> list[int]:
        """Layers and heads; 0 and 0 where there is no attention."""
        return max((list(weights.shape[:2]) for weights in self.attention.values()), default=[0, 0])

    def tokens(self, kind: str) -> tuple[list[str], list[str]]:
        """The tokens that look, and those looked at."""
        looking = self.source if kind == "encoder" else self.target
        return looking, self.past if kind == "decoder" else self.source

    def matrix(self, kind: str, layer: int | None = None, head: int | None = None):
        """One attention (tokens that look, tokens looked at): of a layer and a head, counted from
        1, or the mean over all where it is None; None where the model has not got it.

        A model with a single attention gives that, whichever layer and head are asked for.
        """
        if kind not in self.attention:
            return None
        weights = self.attention[kind]
        for dimension, wanted in ((0, layer), (1, head)):
            if wanted is not None and weights.shape[dimension] > 1:
                if wanted > weights.shape[dimension]:
                    return None
                weights = weights.narrow(dimension, wanted - 1, 1)
        return weights.mean(dim=(0, 1))

    def said(self, weights: Tensor, kind: str, side: str, position: int, most: int = 3) -> str:
        """In words, the largest weights of one token: a row of the matrix where its `side` is
        "target" (a token that looks), a column where it is "source"."""
        own, others = self.tokens(kind) if side == "target" else self.tokens(kind)[::-1]
        row = weights[position] if side == "target" else weights[:, position]
        top = row.topk(min(most, len(row))).indices.tolist()
        verb = "looks at" if side == "target" else "is looked at by"
        return f"{own[position]!r} {verb} " + ", ".join(f"{others[i]!r} {row[i]:.0%}" for i in top)


def source_ids(model, text: str) -> list[int]:
    """The ids of a text. Raises ValueError where it is empty or too long, saying by how much."""
    if not text.strip():
        raise ValueError("there is no sentence to translate: type at least one word")
    ids, limit = model.source_vocabulary.encode(text), min(MOST, model.max_positions or MOST)
    if len(ids) > limit:
        raise ValueError(f"a sentence of at most {limit} tokens fits; this one has {len(ids)}")
    return ids


def read(model, text: str, forced: dict[int, str] | None = None, best: int = 5) -> Reading:
    """Let the model translate a text greedily, with the tokens `forced` at their positions, and
    keep the `best` candidates of each position.

    Raises ValueError for a text that `source_ids` refuses, for a forced token that the model cannot
    write, and for a forced position that the translation does not reach.
    """
    ids = source_ids(model, text)
    chosen = {place: target_id(model, token) for place, token in (forced or {}).items()}
    candidates = []

    def choose(log_p, lines):
        values, tokens = largest(log_p, min(best, log_p.shape[1]))
        candidates.append((tokens[0].tolist(), values[0].exp().tolist()))
        token = chosen.get(lines.length, candidates[-1][0][0])
        return torch.tensor([token], device=log_p.device), log_p[:, token]

    source = torch.tensor([ids], device=next(model.parameters()).device)
    limit = min(2 * len(ids) + 10, MOST)
    (written,) = generate(model, source, choose=choose, max_length=limit, attention=False)
    for place in chosen:
        if not 0 <= place < len(written.ids):
            raise ValueError(
                f"there is no position {place} to force: the translation has positions 0 to "
                f"{len(written.ids) - 1}"
            )
    words = model.target_vocabulary
    pieces = model.source_vocabulary.tokenize(text)
    return Reading(
        source=model.source_vocabulary.tokens(ids),
        target=words.tokens(written.ids),
        text=words.decode(written.ids),
        attention=attentions(model, ids, written.ids),
        candidates=[
            list(zip(words.tokens(tokens), p, strict=True)) for tokens, p in candidates
        ],
        unknown=[piece for piece, index in zip(pieces, ids, strict=False) if index == UNK],
    )  # fmt: skip


def target_id(model, token: str) -> int:
    """The id of a target token. Raises ValueError for one that cannot be written."""
    words = model.target_vocabulary
    for index, known in enumerate(words.tokens(range(len(words)))):
        if known == token and token not in ("<pad>", "<sos>"):
            return index
    raise ValueError(f"{token!r} is not a token that the model can write")


def attentions(model, source: list[int], target: list[int]) -> dict[str, Tensor]:
    """All attention of a model that reads and writes these ids: see `Reading`.

    `forward` gives the cross-attention alone. A transformer's self-attention is caught on its way,
    where a `MultiHeadAttention` of a view, made for this, returns it.
    """
    caught = {"encoder": [], "decoder": []}

    def catching(forward, into):
        def caught_forward(*inputs):
            change, weights = forward(*inputs)
            into.append(weights[0])
            return change, weights

        return caught_forward

    with torch.inference_mode():
        view = view_of(model, lambda module: None, "a look at its attention")
        for name, module in view.named_modules():
            side, _, part = name.partition(".")
            if isinstance(module, MultiHeadAttention) and part.endswith(".attention"):
                module.forward = catching(module.forward, caught[side])
        batch = collate([(source, target)]).to(next(model.parameters()).device)
        _, cross = view(batch)
    found = {kind: torch.stack(layers) for kind, layers in caught.items() if layers}
    if cross is not None:
        found["cross"] = cross[0] if cross.dim() == 5 else cross[:, None]
    return {kind: found[kind].float().cpu() for kind in KINDS if kind in found}


def gold_links(pair, reading: Reading, vocabulary) -> list[tuple[int, int]]:
    """The links (source, target) of a pair's alignment, at the positions of this translation.

    Where it differs from the reference, only words that both have in the same order keep links.
    `vocabulary` is the target's. No links where the source is not read word by word.
    """
    if pair.alignment is None or len(reading.source) - 1 != len(word_tokenize(pair.source)):
        return []
    reference = vocabulary.tokenize(pair.target)
    blocks = SequenceMatcher(None, reference, reading.target, autojunk=False).get_matching_blocks()
    moved = {a + step: b + step for a, b, length in blocks for step in range(length)}
    return [(source, moved[target]) for source, target in pair.alignment if target in moved]
