"""A training with everything, which the tests run on one process, and by torchrun on several:

on_processes.py FOLDER EPOCHS trainer|accelerate|torch [PATIENCE]
"""

import json
import os
import sys
from pathlib import Path

import torch
from small_trainings import DATASET, Seen, real_model
from torch import distributed
from treadmill import ModelCheckpoint
from treadmill.callbacks import LearningRateLogger, MetricsLogger

from s2s_helpers.data import make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.training import (
    Processes,
    Seq2SeqTrainer,
    TeacherForcing,
    linear,
    linear_warmup,
    training_config,
)
from s2s_helpers.training.distributed import sharded_loader


def everything(folder, epochs, patience=3, seed=3):
    """Two batches a step, dropout, scheduled sampling, averages, validation, early stopping."""
    processes = Processes.find()
    model = real_model(seed=seed + 10 * processes.rank)  # rank 0's weights count
    made = training_config(
        epochs, lr=0.05, accumulate=2 // processes.world, patience=patience,
        checkpoint_dir=folder, progress=True,
    )  # fmt: skip
    return Seq2SeqTrainer(
        model, made,
        sharded_loader(DATASET, batch_size=2, processes=processes, batches_per_step=2),
        make_loader(DATASET, batch_size=3), Seq2SeqLoss(0.1), {"token_accuracy": token_accuracy},
        callbacks=[
            TeacherForcing(linear(0.02)), LearningRateLogger(), MetricsLogger(f"{folder}/log.csv"),
            ModelCheckpoint(f"{folder}/epoch.pt"), Seen(lambda trainer: trainer.step),
        ],
        schedule=linear_warmup(3, 60), ema=0.7, save_every=2,
    )  # fmt: skip


def main(folder, epochs, begun_by, patience=3):
    if begun_by == "accelerate":
        import accelerate

        accelerate.Accelerator(cpu=True)
    elif begun_by == "torch":
        distributed.init_process_group("gloo")
    Path(folder).mkdir(exist_ok=True)
    trainer = everything(folder, int(epochs), int(patience))
    history = trainer.fit()
    (seen,) = (callback.values for callback in trainer.callbacks if isinstance(callback, Seen))
    found = history.to_dict() | {"steps_seen": seen}
    for epoch in found["epochs"]:
        del epoch["seconds"]
    rank = trainer.processes.rank
    torch.save(trainer.model.state_dict(), f"{folder}/weights{rank}.pt")
    Path(f"{folder}/history{rank}.json").write_text(json.dumps(found), "utf-8")
    trainer.processes.end()


if __name__ == "__main__":
    assert "RANK" in os.environ
    main(*sys.argv[1:])
