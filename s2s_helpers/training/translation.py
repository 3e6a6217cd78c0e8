"""From pairs of one's own to a translator: vocabularies, a transformer, and its trainer."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from s2s_helpers.data import Batch, Seq2SeqDataset, make_loader, texts_of
from s2s_helpers.files import as_seed
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.text import each_of
from s2s_helpers.training.config import set_seed, training_config
from s2s_helpers.training.distributed import Processes, sharded_loader
from s2s_helpers.training.schedules import inverse_square_root
from s2s_helpers.training.trainer import Seq2SeqTrainer
from s2s_helpers.vocabulary import SubwordVocabulary, Vocabulary


class Stream:
    """Pairs that do not fit into memory, as a loader: an epoch is the next `chunk` pairs on each
    rank, pass after pass. `read(number, rank, world)` yields a rank's share of pass `number`."""

    def __init__(self, read: Callable[[int, int, int], Iterable], chunk: int):
        if chunk < 1:
            raise ValueError(f"chunk must be 1 or more pairs, not {chunk}")
        self.read, self.chunk, self.next = read, chunk, -1

    def chunks(self, rank: int = 0, world: int = 1, first: int = 0) -> Iterator[list]:
        """The chunks of a rank, from number `first` on. Raises ValueError for a pass of nothing."""

        def endless() -> Iterator:
            for number in count():
                some = False
                for some in self.read(number, rank, world):
                    yield some
                if not some:
                    raise ValueError("the stream has no pairs")

        pairs = islice(endless(), first * self.chunk, None)
        while True:
            yield list(islice(pairs, self.chunk))

    def deal(
        self, processes: Processes, batches_per_step: int, dataset_of: Callable, **sampling: int
    ) -> "Stream":
        """Give each rank its share of steps of so many batches; returns itself."""
        self.processes, self.batches_per_step = processes, batches_per_step
        self.dataset_of, self.sampling = dataset_of, sampling
        self.fixed_settings = {"number of processes": processes.world, "chunk": self.chunk}
        self.fixed_settings |= sampling
        return self

    def set_epoch(self, epoch: int) -> None:
        """Let the next epoch be of this chunk."""
        rank, world = self.processes.rank, self.processes.world
        if epoch != self.next:
            self.under_way = self.chunks(rank, world, epoch)
        self.next, mine = epoch + 1, self.batches_per_step // world
        make = partial(
            sharded_loader, self.dataset_of(next(self.under_way)), processes=Processes(),
            batches_per_step=mine, **self.sampling,
        )  # fmt: skip
        # All take as many steps as the one who has most.
        steps = len(make()) // mine
        steps = max(self.processes.sums(*(steps * (rank == other) for other in range(world))))
        self.loader = make(at_least=int(steps))

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)


def translation_trainer(
    pairs: Sequence | Stream, folder: str | Path | None = None,
    validation: Any = 0.05, subwords: int | None = None, epochs: int = 10,
    patience: int | None = 3, lr: float = 2e-3, warmup: int = 200, label_smoothing: float = 0.1,
    max_tokens: int = 1024, max_length: int | None = None, batches_per_step: int | None = None,
    ema: float | None = None, save_every: int | None = 100, seed: int = 0, bf16: bool = False,
    device: str = "auto", progress: bool = True, callbacks: Iterable = (),
    processes: Processes | None = None, **shape: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """An untrained transformer and the trainer that teaches it these pairs, such as `read_pairs`
    gives, on this process or those that torchrun started.

    `folder` is for last.pt and best.pt. `validation`: other pairs, or the share of these (at most
    2,000 pairs) that is held out; None: none. `subwords`: how many, for both languages together;
    None: words in small letters. `patience`: epochs without a better validation. The rate rises to
    `lr` in `warmup` steps, then falls (Vaswani et al. 2017, section 5.3). A step is
    `batches_per_step` batches (None: one on each process) of `max_tokens`, or of one pair that is
    longer; texts are cut after `max_length` tokens (None: one that does not fit into the model is
    an error). `shape`: settings of the `TransformerSeq2Seq`. Raises ValueError as these do.
    """
    processes = Processes.find() if processes is None else processes
    seed = as_seed(seed)
    batches_per_step = batches_per_step or processes.world
    if batches_per_step % processes.world:
        raise ValueError(
            f"{batches_per_step} batches per step cannot be shared by {processes.world} processes"
        )
    stream = pairs if isinstance(pairs, Stream) else None
    # Those of a stream's first chunk are for the vocabularies.
    pairs = list(each_of(pairs, "pairs")) if stream is None else next(stream.chunks())
    if isinstance(validation, float):
        held = min(2000, round(validation * len(pairs)))
        held = set(random.Random(seed).sample(range(len(pairs)), held)) if stream is None else ()
        validation = [pairs[number] for number in sorted(held)]
        pairs = [pair for number, pair in enumerate(pairs) if number not in held]
    if not pairs:
        raise ValueError("there are no pairs to learn from")
    texts = [texts_of(pair, number) for number, pair in enumerate(pairs)]
    both: Any = [Vocabulary.build(side) for side in zip(*texts, strict=True)]
    if subwords:
        both = [SubwordVocabulary.train([text for pair in texts for text in pair], subwords)] * 2
    set_seed(seed)
    model = TransformerSeq2Seq(*both, **shape)
    data_of = partial(Seq2SeqDataset, source_vocabulary=both[0], target_vocabulary=both[1])
    if stream is None:
        data = data_of(pairs, max_length=max_length)
        longest = max(max_tokens, *data.source_lengths, *data.target_lengths)
        how: Any = dict(processes=processes, batches_per_step=batches_per_step)
        loader: Any = sharded_loader(data, max_tokens=longest, seed=seed, **how)
    else:
        cut = max_length or min(max_tokens, model.max_positions)
        sampling = dict(max_tokens=max_tokens, seed=seed)
        loader = stream.deal(
            processes, batches_per_step, partial(data_of, max_length=cut), **sampling
        )
    if validation:
        validation = make_loader(data_of(validation, max_length=max_length))
    config = training_config(
        epochs, lr, accumulate=batches_per_step // processes.world, progress=progress,
        patience=patience if validation else None, checkpoint_dir=folder, device=device, bf16=bf16,
    )  # fmt: skip
    return Seq2SeqTrainer(
        model, config, loader, validation or None, Seq2SeqLoss(label_smoothing),
        {"token_accuracy": token_accuracy}, callbacks, inverse_square_root(warmup), ema,
        seed=seed, save_every=save_every, processes=processes,
    )  # fmt: skip
