"""From pairs of sentences to padded batches: dataset, collate, and batches of like lengths.

Sentences of one batch must be equally long, so the short ones are filled up with PAD. Padding is
work for nothing: batches are padded to their own longest sentence, and `LengthBuckets` puts
sentences of like lengths together. Masks say what is real: True for a token, False for padding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from s2s_helpers.files import as_seed
from s2s_helpers.text import each_of
from s2s_helpers.vocabulary import EOS, PAD, SOS, BaseVocabulary

BATCHES_SORTED_TOGETHER = 100  # more is less padding, fewer is more shuffling


@dataclass
class Batch:
    """Sentence pairs of one training step, as ids.

    `source` (batch, source) and `source_mask` (batch, source), True at real tokens; `target`
    (batch, target + 1), each row SOS, the sentence, EOS and then PAD, or None where the
    translation is what we look for. Raises ValueError or TypeError where these disagree.
    """

    source: Tensor
    source_mask: Tensor
    target: Tensor | None = None

    def __post_init__(self):
        if self.source.ndim != 2 or self.source.dtype != torch.int64:
            raise ValueError(
                "source must be int64 ids of shape (batch, source), "
                f"not {self.source.dtype} of shape {tuple(self.source.shape)}"
            )
        if self.source_mask.dtype != torch.bool:
            raise TypeError(f"source_mask must be boolean, not {self.source_mask.dtype}")
        if self.source_mask.shape != self.source.shape:
            raise ValueError(
                f"source_mask has shape {tuple(self.source_mask.shape)} "
                f"but source has {tuple(self.source.shape)}"
            )
        if self.target is not None:
            shape = tuple(self.target.shape)
            if len(shape) != 2 or self.target.dtype != torch.int64 or shape[1] < 2:
                raise ValueError(
                    "target must be int64 ids of shape (batch, target + 1), SOS first, "
                    f"not {self.target.dtype} of shape {shape}"
                )
            if shape[0] != len(self.source):
                raise ValueError(f"{len(self.source)} sources but {shape[0]} targets")
        # Reading a value back from an accelerator stalls it; the batch was checked before it moved.
        if self.source.device.type == "cpu":
            self._check_values()

    def _check_values(self):
        masks = {"source": self.source_mask}
        if self.target is not None:
            masks["target"] = self.target_mask
        for name, mask in masks.items():
            if not mask.any(dim=1).all():
                row = int((~mask.any(dim=1)).nonzero()[0, 0])
                raise ValueError(f"row {row} of the {name} has no real token")
            if (ids := getattr(self, name)).numel() and ids.min() < 0:
                raise ValueError(f"the {name} has the id {int(ids.min())}; ids start at 0")

    @property
    def target_input(self) -> Tensor:
        """What the decoder reads, (batch, target): from SOS to the token before the last."""
        return self.target[:, :-1]

    @property
    def target_output(self) -> Tensor:
        """What the decoder should say, (batch, target): one step ahead, up to EOS."""
        return self.target[:, 1:]

    @property
    def target_mask(self) -> Tensor:
        """True at the real tokens of `target_output`, (batch, target)."""
        return self.target_output != PAD

    @property
    def tokens(self) -> int:
        """How many real target tokens there are to predict, EOS included."""
        return int(self.target_mask.sum())

    def __len__(self) -> int:
        return len(self.source)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        target = None if self.target is None else self.target.to(device)
        return Batch(self.source.to(device), self.source_mask.to(device), target)

    def select(self, rows: Tensor | Sequence[int] | slice) -> Batch:
        """The batch of some rows, by their numbers or by a boolean mask, padded as before."""
        if isinstance(rows, (tuple, range)):  # a tuple would mean one number for each axis
            rows = list(rows)
        target = None if self.target is None else self.target[rows]
        return Batch(self.source[rows], self.source_mask[rows], target)


def texts_of(pair: Any, number: int) -> tuple[Any, Any]:
    """The two texts of a pair: a tuple, a list, a row of an array, or what has a `source` and a
    `target`, as a dict's keys or as attributes. Raises TypeError with its `number` for all else."""
    if isinstance(pair, Mapping) and {"source", "target"} <= pair.keys():
        return pair["source"], pair["target"]
    if hasattr(pair, "source") and hasattr(pair, "target"):
        return pair.source, pair.target
    if isinstance(pair, (tuple, list, np.ndarray)) and len(pair) == 2:
        return pair[0], pair[1]
    raise TypeError(f"pair {number} is not a (source, target) pair of texts: {pair!r}")


class Seq2SeqDataset(Dataset):
    """Sentence pairs, encoded once.

    `dataset[i]` is (source ids, target ids), each ending with EOS; `source_lengths` and
    `target_lengths` are the numbers of these ids; `pairs` keeps the text, in any form that
    `texts_of` knows. Sentences of more than `max_length` ids are cut, and still end with EOS.
    Raises ValueError or TypeError naming the pair where a sentence is empty or no text.
    """

    def __init__(
        self,
        pairs: Sequence,
        source_vocabulary: BaseVocabulary,
        target_vocabulary: BaseVocabulary,
        max_length: int | None = None,
    ):
        if max_length is not None and max_length < 2:
            raise ValueError(f"max_length must be 2 or more, a token and EOS, not {max_length}")
        self.pairs = list(each_of(pairs, "pairs"))
        if not self.pairs:
            raise ValueError("there are no pairs to make a dataset of")
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.max_length = max_length
        self._examples = [self._encode(index, pair) for index, pair in enumerate(self.pairs)]
        self.source_lengths = [len(source) for source, _ in self._examples]
        self.target_lengths = [len(target) for _, target in self._examples]

    def _encode(self, index: int, pair: Any) -> tuple[list[int], list[int]]:
        texts = texts_of(pair, index)
        try:
            source = self.source_vocabulary.encode(texts[0])
            target = self.target_vocabulary.encode(texts[1])
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"pair {index}, {texts!r}: {error}") from error
        return self._cut(source), self._cut(target)

    def _cut(self, ids: list[int]) -> list[int]:
        if self.max_length is None or len(ids) <= self.max_length:
            return ids
        # A model that never sees the end of long sentences would never learn to stop.
        return [*ids[: self.max_length - 1], EOS]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[list[int], list[int]]:
        return self._examples[index]


def lengths_of(dataset: Any) -> list[tuple[int, int]]:
    """The lengths (source, target) of all examples of a dataset or a Subset, as random_split makes
    them."""
    if isinstance(dataset, Subset):
        lengths = lengths_of(dataset.dataset)
        return [lengths[index] for index in dataset.indices]
    return list(zip(dataset.source_lengths, dataset.target_lengths, strict=True))


def _pad(sentences: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, sentences))
    return torch.tensor([[*ids, *[PAD] * (width - len(ids))] for ids in sentences])


def collate(examples: Sequence[tuple[Sequence[int], Sequence[int] | None]]) -> Batch:
    """Pad (source ids, target ids) to the longest of each side and put SOS before the targets.

    The target ids may be None, in all examples, for sentences still to be translated. Raises
    ValueError where there are no examples, or one is empty or has PAD inside.
    """
    if not examples:
        raise ValueError("there are no examples to collate")
    sources, targets = zip(*examples, strict=True)
    without_target = [target is None for target in targets]
    if any(without_target) and not all(without_target):
        raise ValueError("some examples have a target and some have none")
    for name, sentences in ("source", sources), ("target", () if any(without_target) else targets):
        for row, ids in enumerate(sentences):
            if len(ids) == 0 or PAD in ids:
                problem = "has PAD inside" if len(ids) else "is empty"
                raise ValueError(f"the {name} of example {row} {problem}")
    source = _pad(sources)  # (batch, source)
    target = None if any(without_target) else _pad([[SOS, *ids] for ids in targets])
    return Batch(source, source != PAD, target)


class LengthBuckets(Sampler[list[int]]):
    """A batch sampler that puts examples of like lengths together.

    `lengths` has (source, target) or one number for each example. Batches hold `batch_size`
    examples, or as many as fit in `max_tokens` when every one counts as long as the longest side of
    the longest. With `shuffle`, every pass shuffles the examples, sorts them by length within
    chunks of 100 batches, cuts batches and shuffles these; the order depends on `seed` and
    the pass's number alone. Passes count themselves from 0; `set_epoch` says which comes next.
    Without `shuffle`, examples keep their order.
    """

    def __init__(
        self, lengths: Sequence[int] | Sequence[tuple[int, int]], batch_size: int | None = None,
        max_tokens: int | None = None, shuffle: bool = True, seed: int = 0,
    ):  # fmt: skip
        if (batch_size is None) == (max_tokens is None):
            raise ValueError("give either batch_size or max_tokens, and not both")
        for name, value in ("batch_size", batch_size), ("max_tokens", max_tokens):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if len(lengths) == 0:
            raise ValueError("there are no lengths to make batches of")
        plain: Any = lengths.tolist() if isinstance(lengths, Tensor) else lengths
        # Target first: the target is where the loss and the widest layer are.
        self._sort_keys = [
            (int(length), 0) if isinstance(length, Integral) else (int(length[1]), int(length[0]))
            for length in plain
        ]
        self._longest = [max(key) for key in self._sort_keys]
        if max_tokens is not None and max(self._longest) > max_tokens:
            index = self._longest.index(max(self._longest))
            raise ValueError(
                f"example {index} has {self._longest[index]} tokens; max_tokens is {max_tokens}"
            )
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.shuffle, self.seed, self.epoch = shuffle, as_seed(seed), 0
        self._under_way: list[list[int]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be number `epoch`, as when a stopped training goes on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        self._under_way = self._batches(self.epoch)
        self.epoch += 1
        try:
            yield from self._under_way
        finally:
            self._under_way = None

    def __len__(self) -> int:
        """Batches in the pass under way, or else the next; `max_tokens` lets it vary a little."""
        if self.batch_size is not None:
            return -(-len(self._longest) // self.batch_size)
        return len(self._batches(self.epoch) if self._under_way is None else self._under_way)

    def _batches(self, epoch: int) -> list[list[int]]:
        indices = list(range(len(self._longest)))
        if not self.shuffle:
            return self._cut(indices)
        generator, keys = random.Random(f"{self.seed} {epoch}"), self._sort_keys
        generator.shuffle(indices)
        size = self.batch_size or max(1, self.max_tokens * len(indices) // sum(self._longest))
        size *= BATCHES_SORTED_TOGETHER
        batches: list[list[int]] = []
        for start in range(0, len(indices), size):
            batches += self._cut(sorted(indices[start : start + size], key=lambda i: keys[i]))
        generator.shuffle(batches)
        return batches

    def _cut(self, indices: list[int]) -> list[list[int]]:
        batches, batch, longest = [], [], 0
        for index in indices:
            longest = max(longest, self._longest[index])
            rows = len(batch) + 1
            if rows > self.batch_size if self.batch_size else rows * longest > self.max_tokens:
                batches.append(batch)
                batch, longest = [], self._longest[index]
            batch.append(index)
        return [*batches, batch]


def make_loader(
    dataset: Dataset, batch_size: int | None = None, max_tokens: int | None = None,
    shuffle: bool = False, seed: int = 0,
) -> DataLoader:  # fmt: skip
    """A DataLoader of `Batch`es, of `batch_size` pairs (64 where nothing is said) or `max_tokens`,
    from a `Seq2SeqDataset` or a Subset of one.

    With `shuffle`, batches hold like lengths and every pass has another order, reproducible from
    `seed`; `loader.batch_sampler.set_epoch(n)` goes to pass n. Without, pairs keep their order.
    """
    if batch_size is None and max_tokens is None:
        batch_size = 64
    buckets = LengthBuckets(lengths_of(dataset), batch_size, max_tokens, shuffle, seed)
    # A DataLoader draws a number at every pass; from a generator of its own, this leaves the
    # global one, and so dropout, as it is.
    return DataLoader(
        dataset, batch_sampler=buckets, collate_fn=collate, generator=torch.Generator()
    )


def padding_share(loader: DataLoader) -> float:
    """The share of padding among all ids of one pass, source and target together, from 0 to 1.

    The loader's next pass stays the one it was.
    """
    epoch = getattr(loader.batch_sampler, "epoch", None)
    real = total = 0
    for batch in loader:
        for mask in (batch.source_mask, batch.target_mask):
            real += int(mask.sum())
            total += mask.numel()
    if epoch is not None:
        loader.batch_sampler.set_epoch(epoch)
    return 1 - real / total
