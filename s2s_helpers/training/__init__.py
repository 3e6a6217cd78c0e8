"""Training on Treadmill, on one process or several."""

from s2s_helpers.training.config import History, gains_by_bf16, set_seed, training_config
from s2s_helpers.training.distributed import Processes
from s2s_helpers.training.muon import Muon
from s2s_helpers.training.schedules import (
    TeacherForcing,
    constant,
    exponential,
    inverse_sigmoid,
    inverse_square_root,
    linear,
    linear_warmup,
)
from s2s_helpers.training.trainer import Seq2SeqTrainer, StopTraining
from s2s_helpers.training.translation import Stream, translation_trainer
