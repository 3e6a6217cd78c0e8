"""What training makes small: the surprise of the right tokens, padding left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2s_helpers.vocabulary import PAD


class Seq2SeqLoss(nn.Module):
    """Cross-entropy over real tokens, with label smoothing.

    For one position with the right token y among K, and ε = `label_smoothing`, the target
    distribution moves a share ε from y to all tokens alike (Szegedy et al. 2016, §7, with u
    uniform; Vaswani et al. 2017, §5.4, use ε = 0.1):

        q'(k) = (1 - ε) δ(k, y) + ε / K
        loss  = - Σ_k q'(k) log p(k) = (1 - ε) (- log p(y)) + ε (- 1/K Σ_k log p(k))

    where p = softmax(logits). Positions whose target is PAD count for nothing.
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to below 1, not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a real token, in nats: one number.

        `logits` (batch, target, vocabulary) and `targets` (batch, target), or any other leading
        shape the two share. Raises ValueError where shapes disagree or every target is PAD.
        """
        total, tokens = self.total(logits, targets)
        return total / tokens

    def total(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """The sum over real tokens, and how many these are.

        To weigh tokens alike across batches of different sizes, add up both, then divide.
        """
        if logits.shape[:-1] != targets.shape:
            raise ValueError(
                f"logits of shape {tuple(logits.shape)} need targets of shape "
                f"{tuple(logits.shape[:-1])}, not {tuple(targets.shape)}"
            )
        real = targets != PAD
        tokens = int(real.sum())
        if tokens == 0:
            raise ValueError("every target is PAD: there is no token to learn from")
        if not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[-1]:
            raise ValueError(
                f"targets must be ids from 0 to {logits.shape[-1] - 1}, as there are logits; "
                f"they go from {int(targets.min())} to {int(targets.max())}"
            )
        log_p = torch.log_softmax(logits, dim=-1)  # (batch, target, vocabulary)
        loss = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # (batch, target)
        if self.label_smoothing > 0:
            uniform = -log_p.mean(dim=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        return loss[real].sum(), tokens

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}"
