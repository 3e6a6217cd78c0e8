"""A small model learns from a large one: word by word, or from the sentences it writes.

Hinton, Vinyals and Dean 2015 let a student learn the teacher's whole distribution, softened by a
temperature; Kim and Rush 2016 carry that over to translation.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from s2s_helpers.data import texts_of
from s2s_helpers.decoding import translate
from s2s_helpers.loss import Seq2SeqLoss, logits_of
from s2s_helpers.models.view import eval_view
from s2s_helpers.text import each_of
from s2s_helpers.vocabulary import PAD


class WordDistillation(nn.Module):
    """The loss of word-level distillation, for a trainer in the place of a `Seq2SeqLoss`.

    With q the teacher's and p the student's distribution of the next word, both the softmax of
    logits divided by the temperature T, and a = `weight`:

        loss = (1 - a) (- log p(y), at T = 1) + a T^2 KL(q || p)

    for every real token, both reading the gold prefix (Kim and Rush 2016, section 3.1). Softened
    gradients shrink as 1 / T^2, hence the factor (Hinton et al. 2015, section 2).
    Raises ValueError for a temperature not above 0 or a weight outside 0 to 1.
    """

    def __init__(self, teacher: nn.Module, temperature: float = 1.0, weight: float = 1.0):
        super().__init__()
        if not temperature > 0 or not 0 <= weight <= 1:
            raise ValueError(
                f"temperature must be above 0 and weight from 0 to 1, got {temperature}, {weight}"
            )
        self.teacher, self.temperature, self.weight = teacher, temperature, weight

    def of_batch(self, student: nn.Module, batch: Any) -> tuple[Tensor, int, Tensor]:
        """The sum over real tokens, how many these are, and the student's logits.

        Raises ValueError where teacher and student do not share their vocabularies.
        """
        for side in ("source_vocabulary", "target_vocabulary"):
            if getattr(student, side) != getattr(self.teacher, side):
                raise ValueError(f"teacher and student must share the {side}")
        logits = logits_of(student, batch)  # (batch, target, vocabulary)
        with torch.no_grad():
            there = batch.to(next(self.teacher.parameters(), logits).device)
            taught = logits_of(eval_view(self.teacher), there).to(logits.device)
        return *self.total(logits, taught, batch.target_output), logits

    def total(self, logits: Tensor, taught: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """The same of the logits of student and teacher, and targets (batch, target)."""
        gold, tokens = Seq2SeqLoss().total(logits, targets)
        real, T = targets != PAD, self.temperature
        log_q = (taught[real].float() / T).log_softmax(dim=-1)  # (tokens, vocabulary)
        log_p = (logits[real].float() / T).log_softmax(dim=-1)
        divergence = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
        return (1 - self.weight) * gold + self.weight * T**2 * divergence, tokens


def teacher_pairs(
    teacher: nn.Module, pairs: Sequence, beam_size: int = 5, progress: bool = True
) -> list[tuple[str, str]]:
    """The sources with the teacher's beam output as target, pairs (source, text): the data of
    sequence-level distillation (Kim and Rush 2016, section 3.2). Plain source texts will do. A
    source to which the teacher says nothing is left out."""
    sources = [
        pair if isinstance(pair, str) else texts_of(pair, number)[0]
        for number, pair in enumerate(each_of(pairs, "pairs"))
    ]
    texts = []
    starts = range(0, len(sources), 256)
    for first in tqdm(starts, "teacher", file=sys.stdout, disable=not progress):
        found = translate(teacher, sources[first : first + 256], beam_size, attention=False)
        texts += [translation.text for translation in found]
    return [(source, text) for source, text in zip(sources, texts, strict=True) if text]
