"""An encoder-decoder of numbers: the attention model of `attention.py` with two layers changed.

Words have an embedding, numbers a linear layer; words have logits, the next number has quantiles.
What a vocabulary is to words, `Scaling` is to numbers: how they go in, and how they come back.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from s2s_helpers.corpora.series import numbers
from s2s_helpers.files import plain
from s2s_helpers.models.attention import AttentionSeq2Seq
from s2s_helpers.models.interface import Features, Memory

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Scaling:
    """How a model reads a history: its last `past` steps, in numbers of about size 1.

    how: what is taken off before the rest is divided by its standard deviation. "mean": the mean of
    these steps; "last": the last of them; "season": from each value the one a `period` earlier, and
    from those to come the last season's, again and again. What hardly deviates, as a climb
    that is the same each season, is divided by its largest number; what is 0 but for rounding, by
    the standard deviation of the whole history; a flat history by 1.
    """

    period: int
    past: int
    how: str = "last"

    def __post_init__(self):
        steps = self.period, self.past
        whole = all(isinstance(each, Integral) and each >= 1 for each in steps)
        if self.how not in ("mean", "last", "season") or not whole:
            raise ValueError(
                f'how must be "mean", "last" or "season", the rest whole and at least 1: {self}'
            )

    @property
    def full(self) -> int:
        """The values that a history needs to fill the window; fewer leave some of it masked."""
        return self.past + self.period * (self.how == "season")

    def __call__(self, history: Any, horizon: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Scaled values (up to past,), and the way back: value = shift (horizon,) + size * scaled.

        history: whatever `numbers` takes. Raises ValueError where it has gaps or leaves nothing to
        read, or for a horizon below 1.
        """
        history = numbers(history, "a history", self.full - self.past + 2)
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {horizon}")
        if self.how == "season":
            scaled = (history[self.period :] - history[: -self.period])[-self.past :]
            shift = np.resize(history[-self.period :], horizon)
        else:
            window = history[-self.past :]
            level = window.mean() if self.how == "mean" else window[-1]
            scaled, shift = window - level, np.full(horizon, level)
        # Differences of equal numbers are of the size of their rounding, not 0.
        rounding, largest = 1e-12 * np.abs(history[-self.full :]).max(), np.abs(scaled).max()
        spread = max(scaled.std(), largest * (scaled.std() < largest / 30))
        size = next((float(x) for x in (spread, history.std()) if x > rounding), 1.0)
        return scaled / size, shift, size


@dataclass
class Windows:
    """Scaled pieces of a series, as a `Batch` is of text.

    source: (batch, past, features); source_mask: (batch, past), True where a value stands, first in
    its row. target: (batch, horizon + 1), the last known value in the place of SOS, then what came
    next, if it is known. shift (batch, horizon) and size (batch, 1) lead back to the unit; they
    stay on the CPU, in float64: a small change of a large number needs the digits.
    """

    source: Tensor
    source_mask: Tensor
    target: Tensor
    shift: Tensor
    size: Tensor

    @classmethod
    def of(
        cls, scaling: Scaling, histories: Sequence, horizon: int, later: np.ndarray | None = None
    ) -> "Windows":
        """The windows that end histories (time,), each; later: (histories, horizon) or None.

        Raises ValueError as `Scaling` does, saying which history.
        """
        parts = []
        for number, history in enumerate(histories):
            try:
                parts.append(scaling(history, horizon))
            except ValueError as error:
                raise ValueError(f"histories[{number}]: {error}") from None
        if not parts:
            raise ValueError("there are no histories")
        scaled, shifts, sizes = zip(*parts, strict=True)
        sources = [torch.tensor(x).float() for x in scaled]
        shift, size = np.stack(shifts), np.array(sizes)[:, None]  # (batch, horizon), (batch, 1)
        target = torch.stack([source[-1:] for source in sources])  # (batch, 1)
        if later is not None:
            later = np.stack([numbers(row, "what came later") for row in np.asarray(later)])
            if later.shape != shift.shape:
                raise ValueError(f"later must be {shift.shape}, got {later.shape}")
            target = torch.cat([target, torch.tensor((later - shift) / size).float()], dim=1)
        source = pad_sequence(sources, batch_first=True)[:, :, None]  # (batch, past, 1)
        lengths = torch.tensor([[len(source)] for source in sources])
        mask = torch.arange(source.shape[1]) < lengths
        return cls(source, mask, target, torch.tensor(shift), torch.tensor(size))

    @property
    def target_input(self) -> Tensor:
        """What the decoder reads, (batch, horizon)."""
        return self.target[:, :-1]

    @property
    def target_output(self) -> Tensor:
        """What it should say, (batch, horizon)."""
        return self.target[:, 1:]

    def to(self, device: torch.device | str) -> "Windows":
        """The same windows on a device, but for the way back."""
        source, mask, target = (x.to(device) for x in (self.source, self.source_mask, self.target))
        return Windows(source, mask, target, self.shift, self.size)

    def select(self, rows: Tensor | Sequence[int] | slice) -> "Windows":
        """The windows of some rows."""
        return Windows(*(getattr(self, field.name)[rows] for field in fields(self)))


class Forecaster(AttentionSeq2Seq):
    """Reads past values, and gives quantiles of the next, one step after the other.

    `scaling`: a `Scaling`, or its settings in a dict. `quantiles`: probabilities, rising, the
    median 0.5 among them; they stand where logits stood. `features`: numbers at each past step. The
    rest as in `AttentionSeq2Seq`. There are no vocabularies. Raises ValueError for other quantiles.
    """

    def __init__(
        self, scaling: Scaling | dict, quantiles: Sequence[float] = QUANTILES, features: int = 1,
        embedding: int = 48, hidden: int = 48, cell: str = "gru", dropout: float = 0.0,
        **settings: Any,
    ):  # fmt: skip
        rising = list(quantiles) == sorted(set(quantiles))
        if 0.5 not in quantiles or not rising or not 0 < quantiles[0] <= quantiles[-1] < 1:
            raise ValueError(f"quantiles must rise between 0 and 1 and hold 0.5, got {quantiles}")
        settings |= dict(embedding=embedding, hidden=hidden, cell=cell, dropout=dropout)
        super().__init__(range(1), quantiles, **settings)  # what is long as a vocabulary is
        self.source_vocabulary = self.target_vocabulary = None
        self.scaling = Scaling(**scaling) if isinstance(scaling, dict) else scaling
        self.quantiles = plain(tuple(quantiles))
        own = dict(scaling=asdict(self.scaling), quantiles=self.quantiles, features=features)
        self.settings |= plain(own)
        self.median = self.quantiles.index(0.5)
        self.encoder.embedding = nn.Linear(features, embedding)  # type: ignore[assignment]
        # A decoder hands over values (batch, time); the layer wants them as (batch, time, 1).
        values = nn.Sequential(nn.Unflatten(-1, (-1, 1)), nn.Linear(1, embedding))
        self.decoder.embedding = values  # type: ignore[assignment]

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """Values (batch, past, features) and their mask (batch, past) to a `Memory`."""
        states, final = self.encoder(source, source_mask)  # (batch, past, hidden)
        keys = self.decoder.attention.keys(states)
        return Memory(mask=source_mask, states=states, start=self.bridge(final), keys=keys)

    def features(self, batch: Windows) -> Features:  # type: ignore[override]
        memory = self.encode(batch.source, batch.source_mask)
        start = self.start(memory)
        values, _, attention = self.decoder.features(batch.target_input, start, memory)
        return Features(values, self.decoder.output, attention)

    def forward(self, batch: Windows) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Quantiles (batch, horizon, quantiles) and attention (batch, horizon, past)."""
        if self.training and self.teacher_forcing < 1:
            return self.unroll(batch, self.teacher_forcing)
        return super().forward(batch)  # type: ignore[arg-type]

    def unroll(self, batch: Windows, teacher_forcing: float = 1.0) -> tuple[Tensor, Tensor]:
        """`forward` by `step`: each true value is read with probability `teacher_forcing`, the
        model's own median otherwise. A median, unlike a word, hands gradients back."""
        memory = self.encode(batch.source, batch.source_mask)
        state, values = self.start(memory), batch.target[:, 0]  # (batch,)
        all_quantiles, all_attention = [], []
        for true in batch.target_output.unbind(1):
            quantiles, state, attention = self.step(values, state, memory)  # (batch, quantiles)
            all_quantiles.append(quantiles)
            all_attention.append(attention)
            keep = torch.rand(true.shape, device=true.device) < teacher_forcing
            values = torch.where(keep, true, quantiles[:, self.median])
        return torch.stack(all_quantiles, dim=1), torch.stack(all_attention, dim=1)
