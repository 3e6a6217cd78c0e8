"""A vocabulary shortlist: only the target tokens that a source can call for are computed.

Of the thousands of target tokens a few hundred can stand in the translation of one sentence, yet
the output layer and the softmax go through all of them, at every step. Jean et al. 2015, *On Using
Very Large Target Vocabulary for Neural Machine Translation*, section 3.3, decode with a candidate
list: the most frequent target tokens, and for each source token its likeliest translations in a
dictionary that a word alignment has found in the training pairs.
"""

import copy
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from s2s_helpers.data import Batch, Seq2SeqDataset, collate
from s2s_helpers.decoding.search import Hypothesis, check_source
from s2s_helpers.decoding.translate import chosen_search
from s2s_helpers.files import read_file, save_file
from s2s_helpers.loss import is_changed, is_plain_linear
from s2s_helpers.models import Seq2SeqModel
from s2s_helpers.models.interface import check_ids, select_rows
from s2s_helpers.models.prepacked import PackedLinear, prepacked
from s2s_helpers.models.view import VIEW, eval_view
from s2s_helpers.vocabulary import EOS, PAD, SPECIALS

FORMAT = 1  # of saved shortlists
PAIRS = 64  # are aligned at once


class Shortlist(nn.Module):
    """Which target ids may be written, for each source id.

    always: (tokens,) ids that may stand in any translation, the four special ones among them.
    likely: (source vocabulary, tokens) more for each source id, filled up with PAD. target_size:
    how many target ids there are. Raises ValueError where these do not fit together.
    """

    always: Tensor
    likely: Tensor

    def __init__(self, always: Tensor, likely: Tensor, target_size: int):
        super().__init__()
        for name, ids, axes in ("always", always, 1), ("likely", likely, 2):
            if ids.dtype != torch.int64 or ids.dim() != axes:
                raise ValueError(f"{name} must be int64 ids with {axes} axes, got "
                                 f"{ids.dtype} {tuple(ids.shape)}")  # fmt: skip
            if ids.numel() and not 0 <= ids.min() <= ids.max() < target_size:
                raise ValueError(f"ids of {name} must lie between 0 and {target_size - 1}, got "
                                 f"{int(ids.min())} to {int(ids.max())}")  # fmt: skip
        if missing := {*range(len(SPECIALS))} - {*always.tolist()}:
            raise ValueError(f"always lacks special tokens, the ids {sorted(missing)}")
        self.register_buffer("always", always.unique())  # sorted
        self.register_buffer("likely", likely)
        self.target_size = target_size

    def check_sizes(self, model: Any) -> None:
        """Raise ValueError where this is for vocabularies of other sizes than the model's."""
        own = len(self.likely), self.target_size
        sizes = len(model.source_vocabulary), len(model.target_vocabulary)
        if own != sizes:
            raise ValueError(f"the shortlist is for {own[0]} source and {own[1]} target tokens, "
                             f"the model has {sizes[0]} and {sizes[1]}")  # fmt: skip

    def allowed(self, source: Tensor, source_mask: Tensor) -> Tensor:
        """What may be written for each row of `source` (batch, source): (batch, target vocabulary),
        True where it may. Raises ValueError for source ids that the shortlist does not know."""
        check_ids(source, self.likely, None, "source")
        rows = self.likely[source.masked_fill(~source_mask, PAD)]  # (batch, source, tokens)
        found = torch.zeros(len(source), self.target_size, dtype=torch.bool, device=source.device)
        found.scatter_(1, rows.flatten(1), True)
        found[:, self.always] = True
        return found


def learn_shortlist(
    dataset: Seq2SeqDataset, per_token: int = 10, frequent: int = 1000, iterations: int = 5
) -> Shortlist:
    """The candidates that the pairs of a dataset, those trained on, speak for.

    `frequent` tokens that the targets have most often may always be written, as the special ones;
    beside them for each source token the `per_token` likeliest translations, by so many iterations
    of `translation_probabilities`. Raises TypeError for what is no dataset of pairs, ValueError for
    numbers that are too small.
    """
    if not isinstance(dataset, Seq2SeqDataset):
        raise TypeError(f"dataset must be a Seq2SeqDataset, not a {type(dataset).__name__}")
    for name, number, least in (
        ("per_token", per_token, 0), ("frequent", frequent, 0), ("iterations", iterations, 1)
    ):  # fmt: skip
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    pairs = [dataset[number] for number in range(len(dataset))]
    counts = Counter(chain.from_iterable(target for _, target in pairs))
    specials = range(len(SPECIALS))
    usual = sorted(counts.keys() - {*specials}, key=lambda token: (-counts[token], token))
    always = torch.tensor([*specials, *usual[:frequent]])
    sources, targets, p = translation_probabilities(dataset, iterations)
    rest = ~torch.isin(targets, always) & (p > 0)
    sources, targets, p = sources[rest], targets[rest], p[rest]
    order = p.argsort(descending=True, stable=True)
    order = order[sources[order].argsort(stable=True)]  # by source, then the likeliest first
    sources, targets = sources[order], targets[order]
    rank = torch.arange(len(sources)) - torch.searchsorted(sources, sources)
    likely = torch.full((len(dataset.source_vocabulary), per_token), PAD)
    first = rank < per_token
    likely[sources[first], rank[first]] = targets[first]
    return Shortlist(always, likely, len(dataset.target_vocabulary))


def translation_probabilities(
    dataset: Seq2SeqDataset, iterations: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    """p(target token | source token) of IBM Model 1 (Brown et al. 1993, section 4.1), by so many
    iterations of expectation maximisation; the source's EOS stands for the empty word.

    Returns source ids, target ids and p, (links,) each, of all that stand in a pair together, in
    the order of the ids; PAD may be among them, with p = 0.
    """
    size = len(dataset.target_vocabulary)
    pairs = [dataset[number] for number in range(len(dataset))]
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))  # for little padding
    batches = [collate(pairs[first : first + PAIRS]) for first in range(0, len(pairs), PAIRS)]

    def links(batch: Batch) -> Tensor:  # (pairs, source, target), a number for each pair of ids
        return batch.source[:, :, None] * size + batch.target_output[:, None]

    keys = torch.cat([links(batch).unique() for batch in batches]).unique()
    sources, targets = keys // size, keys % size
    p = ((sources != PAD) & (targets != PAD)).double()
    least = torch.finfo(p.dtype).tiny  # for padding, where all is 0
    for _ in range(iterations):
        counts = torch.zeros_like(p)
        for batch in batches:
            places = torch.searchsorted(keys, links(batch))
            share = p[places]
            share /= share.sum(dim=1, keepdim=True).clamp(min=least)  # in each target token
            counts.index_add_(0, places.flatten(), share.flatten())
        totals = counts.new_zeros(len(dataset.source_vocabulary)).index_add_(0, sources, counts)
        p = counts / totals[sources].clamp(min=least)
    return sources, targets, p


def save_shortlist(shortlist: Shortlist, path: str | os.PathLike) -> None:
    """Write a shortlist to a file, whole or not at all."""
    about = {"format": FORMAT, "target_size": shortlist.target_size}
    save_file(about | dict(shortlist.state_dict()), path)


def load_shortlist(path: str | os.PathLike) -> Shortlist:
    """Read what `save_shortlist` wrote. Raises FileNotFoundError where there is no such file,
    ValueError where it is broken or something else."""
    saved = read_file(path, "shortlist", ": use save_shortlist(shortlist, path)")
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ValueError(f"{path} is not a shortlist of format {FORMAT}, which can be read here")
    try:
        return Shortlist(saved["always"], saved["likely"], saved["target_size"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a complete shortlist: {error}") from error


class Shortlisted(Seq2SeqModel):
    """A model that writes only what its shortlist allows, for `translate`: greedily, in a beam,
    with n-best.

    Each sentence has candidates of its own, whatever stands beside it in the batch. Probabilities
    are normalised over these alone, so scores are a little higher than the model's own; where a
    token of the model's translation is missing, another translation comes out. A search of one's
    own (sampling, hooks) has to stay with the model itself.

    Raises TypeError for a model without `features`, ValueError where the layer that gives its
    logits was changed, or the shortlist is for vocabularies of other sizes.
    """

    def __init__(self, model: Seq2SeqModel, shortlist: Shortlist):
        super().__init__(model.source_vocabulary, model.target_vocabulary)
        shortlist.check_sizes(model)
        self.model, self.path = model, output_layer_of(model)
        self.shortlist = copy.deepcopy(shortlist).to(next(model.parameters()).device)
        self.max_positions = model.max_positions

    def own_search(self, beam_size: int, length_penalty: float, n_best: int | None) -> Callable:
        """The search that `translate` shall use with these settings."""
        search = chosen_search(self.model, beam_size, length_penalty, n_best)
        return partial(self.search, search)

    def search(
        self, search: Callable, model: Any, source: Tensor, source_mask: Tensor | None = None,
        max_length: int | None = None, attention: bool = True,
    ) -> list:  # fmt: skip
        """What `search` finds for each row of `source` (batch, source) among its candidates."""
        source_mask, _ = check_source(self, source, source_mask, max_length)
        narrowed = Narrowed(prepacked(model), source, source_mask)
        found = search(narrowed, source, source_mask, max_length=max_length, attention=attention)
        for some in found:
            for one in [some] if isinstance(some, Hypothesis) else some:
                one.ids = narrowed.ids[one.ids].tolist()
        return found


class Narrowed:
    """A view of a `Shortlisted` for one batch: what it reads and writes are places in `ids`, the
    candidates of all of its sentences, (candidates,). The special tokens keep their numbers, as ids
    are in order."""

    def __init__(self, view: Any, source: Tensor, source_mask: Tensor):
        allowed = view.shortlist.allowed(source, source_mask)
        self.ids = allowed.any(dim=0).nonzero()[:, 0]
        self.forbidden = torch.zeros(len(source), len(self.ids), device=source.device)
        self.forbidden.masked_fill_(~allowed[:, self.ids], float("-inf"))
        self.model = with_rows(view.model, view.path.split("."), self.ids)
        self.max_positions = view.max_positions
        self.shares_memory = self.model.shares_memory
        vars(self)[VIEW] = vars(view)[VIEW]

    def encode(self, source: Tensor, source_mask: Tensor) -> "NarrowedMemory":
        return NarrowedMemory(self.model.encode(source, source_mask), self.forbidden)

    def start(self, memory: "NarrowedMemory") -> Any:
        return self.model.start(memory.memory)

    def step(self, tokens: Tensor, state: Any, memory: "NarrowedMemory") -> tuple:
        logits, *rest = self.model.step(self.ids[tokens], state, memory.memory)
        # A beam's lines share a row of the memory.
        logits.unflatten(0, (len(memory.forbidden), -1)).add_(memory.forbidden[:, None])
        return logits, *rest  # (lines, candidates)


@dataclass
class NarrowedMemory:
    """A model's memory, and for each of its rows what may not be written: (rows, candidates), 0 or
    -inf."""

    memory: Any
    forbidden: Tensor

    def select(self, rows: Tensor) -> "NarrowedMemory":
        return NarrowedMemory(self.memory.select(rows), select_rows(self.forbidden, rows))


def output_layer_of(model: Seq2SeqModel) -> str:
    """The name of the layer that gives a model's logits."""
    if not hasattr(model, "features"):
        raise TypeError(f"a {type(model).__name__} has no method `features`, which says what layer "
                        "gives the logits")  # fmt: skip
    view, device = eval_view(model), next(model.parameters()).device
    with torch.inference_mode():
        layer = view.features(collate([([EOS], [EOS])]).to(device)).layer
    name = next(name for name, module in view.named_modules() if module is layer)
    if not (is_plain_linear(layer) or isinstance(layer, PackedLinear)):
        raise ValueError(f"the layer {name} was changed: only rows of a plain torch.nn.Linear can "
                         "be left out")  # fmt: skip
    return name


def with_rows(module: Any, path: list[str], ids: Tensor) -> Any:
    """A module of a view that shares everything with the one given, but that the layer at the end
    of the path has only these outputs."""
    if not path:
        if is_changed(module):
            raise ValueError("the layer that gives the logits got a hook, which would be lost")
        rows = nn.Linear(module.in_features, len(ids), module.bias is not None, device="meta")
        rows.weight = nn.Parameter(module.weight.detach()[ids], requires_grad=False)
        if module.bias is not None:
            rows.bias = nn.Parameter(module.bias.detach()[ids], requires_grad=False)
        return prepacked(rows, getattr(module, "dtype", None))
    name, *rest = path
    part = with_rows(getattr(module, name), rest, ids)
    new = copy.copy(module)
    vars(new).update({"_modules": {**module._modules, name: part}, name: part})
    return new
