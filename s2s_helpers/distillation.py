"""A small model learns from a large one: knowledge distillation, word by word or by sentences.

Hinton, Vinyals and Dean 2015 let a student learn the teacher's whole distribution, softened by a
temperature. Kim and Rush 2016 carry that over to translation: word-level, every next word's
distribution (section 3.1), and sequence-level, the sentences that the teacher's beam search writes
(section 3.2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.decoding import evaluation, translate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.training import Seq2SeqTrainer, linear_warmup, set_seed, training_config
from s2s_helpers.vocabulary import PAD, Vocabulary


def distillation_loss(student: Tensor, teacher: Tensor, real: Tensor, temperature: float) -> Tensor:
    """T^2 KL(q || p), summed over the real tokens, in nats; q and p are the softmax of the teacher's
    and the student's logits over the temperature T.

    `student` and `teacher` (batch, target, vocabulary), `real` (batch, target), True at tokens that
    count. The gradient of the softened divergence shrinks as 1 / T^2, hence the factor (Hinton et
    al. 2015, section 2). Raises ValueError where the shapes disagree.
    """
    if student.shape != teacher.shape or student.shape[:-1] != real.shape:
        raise ValueError(
            f"the student's logits {tuple(student.shape)}, the teacher's {tuple(teacher.shape)} and "
            f"the mask {tuple(real.shape)} must agree: do the two share a target vocabulary?"
        )
    log_p = (student[real].float() / temperature).log_softmax(dim=-1)  # (tokens, vocabulary)
    log_q = (teacher[real].float() / temperature).log_softmax(dim=-1)
    return temperature**2 * (log_q.exp() * (log_q - log_p)).sum()


class WordDistillation(nn.Module):
    """The loss of word-level distillation, in the place of a `Seq2SeqLoss`.

    With q the teacher's and p the student's distribution of the next word, both at temperature T
    (Hinton et al. 2015, section 2; Kim and Rush 2016, section 3.1):

        loss = (1 - alpha) (- log p(y)) + alpha T^2 KL(q || p)

    for every real token, `weight` being alpha; the first term is at T = 1. The teacher reads the
    same batch, gold tokens included. `attach` hands it the batches of a trainer. Raises ValueError
    for a temperature not above 0 or a weight outside 0 to 1.
    """

    def __init__(self, teacher, temperature: float = 2.0, weight: float = 0.5):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must be from 0 to 1, got {weight}")
        self.teacher, self.temperature, self.weight = teacher, temperature, weight
        self.gold, self.wanted = Seq2SeqLoss(), None

    def attach(self, trainer: Seq2SeqTrainer) -> Seq2SeqTrainer:
        """Let the trainer's student learn from this loss; returns the trainer.

        Raises ValueError where teacher and student do not share their vocabularies.
        """
        student = trainer.model
        for side in ("source_vocabulary", "target_vocabulary"):
            if getattr(student, side) != getattr(self.teacher, side):
                raise ValueError(f"teacher and student must share the {side}")
        trainer.loss_fn, trainer.config.custom_forward_fn = self, self.read
        return trainer

    def read(self, student, batch) -> tuple[Tensor, Tensor]:
        """The student's logits and the gold targets; what the teacher says of the batch is kept for
        `total`, which comes next."""
        with evaluation(self.teacher, attention=False):
            self.wanted, _ = self.teacher(batch)
        return student(batch)[0], batch.target_output

    def total(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """The sum over real tokens, and how many these are, as `Seq2SeqLoss.total`."""
        if self.wanted is None:
            raise RuntimeError("the teacher has not read this batch: use attach(trainer)")
        total, tokens = self.gold.total(logits, targets)
        wanted, self.wanted = self.wanted.clone(), None  # a clone may take part in a gradient
        soft = distillation_loss(logits, wanted, targets != PAD, self.temperature)
        return (1 - self.weight) * total + self.weight * soft, tokens

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a real token."""
        total, tokens = self.total(logits, targets)
        return total / tokens


def teacher_pairs(
    teacher, pairs: Sequence, beam_size: int = 5, progress: bool = True, chunk: int = 256
) -> list[tuple[str, str]]:
    """The pairs with the teacher's translations in the place of the gold ones: what a student of
    sequence-level distillation trains on (Kim and Rush 2016, section 3.2).

    A pair has `.source` or is a tuple; plain texts will do, as no gold is needed.
    """
    sources = [getattr(pair, "source", pair) for pair in pairs]
    sources = [source if isinstance(source, str) else source[0] for source in sources]
    found = []
    with torch.inference_mode():
        ready = teacher.for_decoding()
    for first in tqdm(range(0, len(sources), chunk), "teacher", disable=not progress):
        found += translate(ready, sources[first : first + chunk], beam_size, attention=False)
    return [(source, each.text) for source, each in zip(sources, found, strict=True)]


def student_trainer(
    pairs: Sequence, vocabularies: tuple | None = None, steps: int = 800, width: int = 32, seed=0,
    progress: bool = True, batch_size: int = 40, lr: float = 8e-3, **settings,
) -> Seq2SeqTrainer:  # fmt: skip
    """A small transformer of one layer, untrained, and a trainer for about `steps` steps on pairs.

    `vocabularies`: source and target, the teacher's for `WordDistillation`; without, every word of
    the pairs. `settings` go to the model.
    """
    if vocabularies is None:
        texts = [(p.source, p.target) if hasattr(p, "source") else p for p in pairs]
        vocabularies = tuple(Vocabulary.build(side) for side in zip(*texts, strict=True))
    loader = make_loader(Seq2SeqDataset(pairs, *vocabularies), batch_size, shuffle=True, seed=seed)
    epochs = max(1, round(steps / len(loader)))
    set_seed(seed)
    shape = dict(width=width, heads=4, layers=1, feedforward=2 * width, dropout=0.0) | settings
    steps = epochs * len(loader)
    return Seq2SeqTrainer(
        TransformerSeq2Seq(*vocabularies, **shape),
        training_config(epochs, lr=lr, progress=progress, device="cpu"),
        loader,
        schedule=linear_warmup(max(1, steps // 10), steps),
        seed=seed,
    )
