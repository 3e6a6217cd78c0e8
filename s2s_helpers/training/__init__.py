"""Training on Treadmill, on one process or several."""

from s2s_helpers.training.trainer import (
    History,
    Seq2SeqTrainer,
    TeacherForcing,
    constant,
    exponential,
    gains_by_bf16,
    inverse_sigmoid,
    inverse_square_root,
    linear,
    linear_warmup,
    set_seed,
    training_config,
)
