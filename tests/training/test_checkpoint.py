"""A training that goes on is the training that never stopped, or it says what differs."""

import copy
import inspect
import os

import numpy as np
import pytest
import torch
from small_trainings import (
    DATASET,
    PAIRS,
    VOCABULARY,
    StopAt,
    Tiny,
    batches,
    config,
    flat,
    real_model,
    real_trainer,
    rising,
    same,
    tiny,
)
from treadmill import EarlyStopping, SchedulerConfig
from treadmill.callbacks import Callback, LearningRateLogger

from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import token_accuracy
from s2s_helpers.models import (
    AttentionSeq2Seq,
    Seq2Seq,
    Seq2SeqModel,
    TransformerSeq2Seq,
    load_model,
)
from s2s_helpers.training import (
    Processes,
    Seq2SeqTrainer,
    StopTraining,
    checkpoint,
    training_config,
)
from s2s_helpers.training.distributed import ShardedBuckets, sharded_loader
from s2s_helpers.vocabulary import Vocabulary


def test_a_checkpoint_runs_no_code(tmp_path):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"model": Runs()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="broken or not a checkpoint"):
        checkpoint.read(tmp_path / "last.pt")
    assert not (tmp_path / "made").exists()


# Resuming


def without_seconds(history):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history.epochs]


@pytest.mark.parametrize("restore_best", [True, False])
@pytest.mark.parametrize(
    "stop_at, error, ema",
    [(2, RuntimeError, 0.7), (8, StopTraining, 0.7), (8, RuntimeError, None)],
)
def test_a_resumed_run_ends_as_one_never_stopped(tmp_path, stop_at, error, ema, restore_best):
    unstopped = real_model()
    expected = real_trainer(unstopped, None, ema=ema)
    expected.fit(restore_best=restore_best)
    assert expected.step == 12

    stopped = real_trainer(real_model(), tmp_path, [StopAt(stop_at, error)], ema=ema)
    if error is StopTraining:
        stopped.fit()
    else:
        with pytest.raises(error):
            stopped.fit()
    resumed = real_model(seed=4)  # a new process: other weights and generators to begin with
    trainer = real_trainer(resumed, tmp_path, ema=ema)
    trainer.fit(resume=True, restore_best=restore_best)
    assert same(resumed, unstopped)
    assert trainer.history.steps == expected.history.steps
    assert without_seconds(trainer.history) == without_seconds(expected.history)
    assert trainer.history.best_epoch == expected.history.best_epoch
    assert trainer.callbacks[1].lr_history == expected.callbacks[1].lr_history
    assert vars(trainer.callbacks[-1])["best_value"] == vars(expected.callbacks[-1])["best_value"]


def test_resuming_in_the_same_trainer_and_with_a_shuffling_generator(tmp_path):
    def loader():
        generator = torch.Generator().manual_seed(5)
        settings = {"batch_size": 3, "shuffle": True, "collate_fn": collate}
        return torch.utils.data.DataLoader(DATASET, generator=generator, **settings)

    unstopped, stopped = real_model(Seq2Seq), real_model(Seq2Seq)
    real_trainer(unstopped, None, shuffled=loader()).fit()
    stop = StopAt(5)
    trainer = real_trainer(stopped, tmp_path, [stop], shuffled=loader())
    trainer.fit()
    assert not same(stopped, unstopped)
    stop.step = None
    trainer.config.resume_training = True
    trainer.fit()
    assert same(stopped, unstopped) and trainer.history.stopped is None


def test_a_resumed_run_remembers_a_best_epoch_of_before(tmp_path):
    unstopped, resumed = tiny(), tiny(seed=1)
    made, *loaders = rising()
    expected = Seq2SeqTrainer(unstopped, made, *loaders).fit()
    assert expected.best_epoch < 4
    made = copy.deepcopy(made)
    made.checkpoint_dir = str(tmp_path)
    Seq2SeqTrainer(tiny(), made, *loaders, callbacks=[StopAt(9)]).fit()
    history = Seq2SeqTrainer(resumed, made, *loaders).fit(resume=True)
    assert history.best_epoch == expected.best_epoch and same(resumed, unstopped)


def test_more_epochs_or_more_patience_go_on_where_the_run_ended(tmp_path):
    unstopped, model = real_model(TransformerSeq2Seq), real_model(TransformerSeq2Seq)
    real_trainer(unstopped, None, epochs=5).fit(restore_best=False)
    real_trainer(model, tmp_path, epochs=2).fit()
    resumed = real_trainer(model, tmp_path, epochs=5)
    assert len(resumed.fit(resume=True, restore_best=False).epochs) == 5
    assert same(model, unstopped)

    folder = tmp_path / "early"
    settings = {"epochs": 9, "lr": 0.0, "checkpoint_dir": folder}
    loaders = batches(2), batches(2)
    Seq2SeqTrainer(tiny(), config(patience=2, **settings), *loaders).fit()
    for patience, epochs, stopped in ((2, 3, "early"), (4, 5, "early"), (None, 9, None)):
        trainer = Seq2SeqTrainer(tiny(), config(patience=patience, **settings), *loaders)
        history = trainer.fit(resume=True)
        assert (len(history.epochs), history.stopped) == (epochs, stopped)


def test_the_loader_is_told_the_epoch_also_after_resuming(tmp_path):
    loader = make_loader(DATASET, batch_size=3, shuffle=True)
    told, original = [], loader.batch_sampler.set_epoch
    loader.batch_sampler.set_epoch = lambda epoch: (told.append(epoch), original(epoch))
    made = config(epochs=2, checkpoint_dir=tmp_path)
    Seq2SeqTrainer(tiny(), made, loader).fit()
    made.epochs = 4
    Seq2SeqTrainer(tiny(), made, loader).fit(resume=True)
    assert told == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [AttentionSeq2Seq, TransformerSeq2Seq])
def test_best_pt_is_the_best_model_and_load_model_reads_it(tmp_path, kind):
    model = real_model(kind)
    trainer = real_trainer(model, tmp_path)
    history = trainer.fit()
    loaded = load_model(tmp_path / "best.pt")
    assert type(loaded) is kind and same(loaded, model)
    least = min(epoch["validation_loss"] for epoch in history.epochs)
    assert trainer.evaluate(trainer.val_dataloader)["loss"] == least
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"]
    torch.load(tmp_path / "last.pt", weights_only=True)


def test_a_checkpoint_with_a_lambda_in_the_config(tmp_path):
    made = config(epochs=2, checkpoint_dir=tmp_path)
    made.custom_forward_fn = lambda model, batch: (model(batch)[0], batch.target_output)
    ours, usual = tiny(), tiny()
    Seq2SeqTrainer(ours, made, batches(3)).fit()
    Seq2SeqTrainer(usual, config(epochs=2), batches(3)).fit()
    assert same(ours, usual) and (tmp_path / "last.pt").is_file()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    real_trainer(real_model(), tmp_path).fit()
    letters = Vocabulary.build(["x y z"])
    others = {
        "its model class is AttentionSeq2Seq, not Seq2Seq": real_model(Seq2Seq),
        "its model settings hidden is 8, not 10": real_model(hidden=10),
        "its model source_vocabulary tokens is .*'a'.*, not .*'x'": real_model(vocabulary=letters),
        "its model .* is .*, not None": tiny(),
    }
    for message, model in others.items():
        before = copy.deepcopy(model)
        with pytest.raises(ValueError, match=f"another run: {message}"):
            real_trainer(model, tmp_path).fit(resume=True)
        assert same(model, before)
    with pytest.raises(ValueError, match="its ema is on, not off"):
        real_trainer(real_model(), tmp_path, ema=None).fit(resume=True)


def test_checkpoints_that_are_not_there_or_broken(tmp_path):
    def resume(folder, model=None):
        Seq2SeqTrainer(model or tiny(), config(checkpoint_dir=folder), batches(2)).fit(resume=True)

    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*last\.pt"):
        resume(tmp_path)
    with pytest.raises(ValueError, match="needs the checkpoint_dir"):
        resume(None)
    Seq2SeqTrainer(tiny(), config(checkpoint_dir=tmp_path), batches(2)).fit()
    with pytest.raises(ValueError, match=r"embedding.weight is \(7, 6\), not \(50, 6\)"):
        resume(tmp_path, Tiny(size=50))
    last, best = tmp_path / "last.pt", tmp_path / "best.pt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="broken or not a checkpoint"):
        resume(tmp_path)
    torch.save({"random": Tiny()}, last)  # a pickled object, which could run code
    with pytest.raises(ValueError, match="broken or not a checkpoint"):
        resume(tmp_path)
    last.write_bytes(best.read_bytes())
    with pytest.raises(ValueError, match="not a training checkpoint"):
        resume(tmp_path)


# In the middle of an epoch


def noisy(examples):
    """A batch in which each example has noise of its own; workers that are spawned import it."""
    drop = torch.rand(len(examples)) < 0.5
    pairs = zip(examples, drop, strict=True)
    return collate([(pair[0][-2:] if cut else pair[0], pair[1]) for pair, cut in pairs])


@pytest.mark.parametrize("stop_at", [1, 4, 7])
@pytest.mark.parametrize("workers", [0, pytest.param(2, id="two_workers")])
def test_resumed_within_an_epoch_is_as_if_never_stopped(tmp_path, stop_at, workers):
    def loader():
        """Shuffled by the global generator."""
        return torch.utils.data.DataLoader(DATASET, 2, True, collate_fn=noisy, num_workers=workers)

    settings = {"epochs": 3, "save_every": 1}
    expected = real_trainer(real_model(), None, shuffled=loader(), **settings)
    expected.fit()
    stop = [StopAt(stop_at + 1)]
    real_trainer(real_model(), tmp_path, stop, shuffled=loader(), **settings).fit()
    saved = checkpoint.read(tmp_path / "last.pt")
    assert saved["step"] == stop_at and saved["epoch_so_far"]["batches"] == stop_at % 3 * 2
    torch.rand(9), np.random.rand(9)
    resumed = real_trainer(real_model(seed=4), tmp_path, shuffled=loader(), **settings)
    resumed.fit()
    assert same(resumed.model, expected.model)
    assert resumed.history.steps == expected.history.steps
    assert without_seconds(resumed.history) == without_seconds(expected.history)
    assert resumed.callbacks[1].lr_history == expected.callbacks[1].lr_history


def test_without_a_seed_the_one_that_was_drawn_is_kept(tmp_path):
    def run(folder, stop=(), torch_seed=1):
        model = tiny(dropout=0.5)
        torch.manual_seed(torch_seed)
        made = config(3, checkpoint_dir=folder)
        Seq2SeqTrainer(model, made, batches(3, 3), seed=None, callbacks=stop).fit()
        return model

    expected = run(tmp_path / "a")
    run(tmp_path / "b", [StopAt(3)])
    assert same(run(tmp_path / "b", torch_seed=2), expected)


# A fit() that is run twice


def test_a_finished_run_returns_its_history_at_once(tmp_path, capfd):
    def trainer(seed=0):
        made, *loaders = rising()
        made.checkpoint_dir, made.progress_bar = str(tmp_path), True
        return Seq2SeqTrainer(tiny(seed), made, *loaders)

    first = trainer()
    history = first.fit()
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capfd.readouterr()
    for again in (first, trainer(1)):
        assert again.fit() == history and again.history.best_epoch == history.best_epoch
        assert same(again.model, load_weights(tmp_path / "best.pt"))
    assert capfd.readouterr() == ("", "")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def load_weights(path):
    model = Tiny()
    model.load_state_dict(checkpoint.read(path)["weights"])
    return model


def test_only_resume_false_starts_anew(tmp_path):
    made = config(2, checkpoint_dir=tmp_path)
    Seq2SeqTrainer(tiny(), made, batches(2, 2)).fit()
    made.epochs = 3
    on = Seq2SeqTrainer(tiny(1), made, batches(2, 2)).fit()
    assert [epoch["epoch"] for epoch in on.epochs] == [1, 2, 3]
    made.epochs, model, expected = 1, tiny(1), tiny(1)
    assert len(Seq2SeqTrainer(model, made, batches(2, 2)).fit(resume=False).epochs) == 1
    Seq2SeqTrainer(expected, config(1), batches(2, 2)).fit()
    assert same(model, expected) and checkpoint.read(tmp_path / "last.pt")["step"] == 2


# Every setting is taken, or compared

BASE = dict(epochs=2, lr=0.02, accumulate=2, patience=5)


def changeable(folder, **changes):
    """A trainer with settings of every kind, some of them changed."""
    given = dict(changes)
    kind = given.pop("model", AttentionSeq2Seq)
    seed, examples = given.pop("order", 0), given.pop("examples", len(PAIRS))
    data = Seq2SeqDataset(PAIRS[:examples], VOCABULARY, VOCABULARY)
    sizes = {name: given.pop(name, None) for name in ("batch_size", "max_tokens")}
    sizes = sizes if any(sizes.values()) else {"batch_size": 2}
    loader = make_loader(data, **sizes, shuffle=given.pop("shuffle", True), seed=seed)
    if (sampler := given.pop("sampler", None)) is not None:
        loader = sharded_loader(data, **sizes, batches_per_step=2, **sampler)
    made = {name: given.pop(name, BASE.get(name)) for name in CONFIG if {name} & {*BASE, *given}}
    made = training_config(**made, checkpoint_dir=folder)
    made.progress_bar = False
    made.optimizer.optimizer_class = given.pop("optimizer", made.optimizer.optimizer_class)
    made.scheduler = given.pop("scheduler", None)
    validation = given.pop("validation_loader", make_loader(DATASET))
    settings = {"train_loader": given.pop("train_loader", loader)} | given
    return Seq2SeqTrainer(real_model(kind), made, validation_loader=validation, **settings)


CONFIG = [
    name for name in inspect.signature(training_config).parameters if name != "checkpoint_dir"
]
HALVED = SchedulerConfig("StepLR", {"step_size": 1, "gamma": 0.5})
# What may change, and what must not with both values as they are said.
TAKEN = dict(
    epochs=3, lr=0.5, weight_decay=0.5, clip=0.25, patience=1, progress=True, device="cpu",
    bf16=True, loss=Seq2SeqLoss(0.3), metrics={"accuracy": token_accuracy}, save_every=1,
    callbacks=[LearningRateLogger(False)], schedule=lambda step: 0.125, processes=Processes(),
    validation_loader=make_loader(DATASET, batch_size=3),
)  # fmt: skip
FIXED = {
    "model": (Seq2Seq, "model class is AttentionSeq2Seq, not Seq2Seq"),
    "accumulate": (3, "batches per step is 2, not 3"),
    "muon_lr": (0.03, "optimizer is AdamW, not Muon"),
    "ema": (0.9, "ema is off, not on"),
    "monitor": ("val_perplexity", "monitor is val_loss, not val_perplexity"),
    "mode": ("max", "mode is min, not max"),
    "seed": (7, "seed is 0, not 7"),
    "train_loader": (batches(2, 2, 2), "number of examples is 10, not None"),
}
OTHERS = {
    "optimizer": (torch.optim.Adam, "optimizer is AdamW, not Adam"),
    "scheduler": (HALVED, "is None, not StepLR {'step_size': 1, 'gamma': 0.5}"),
    "batch_size": (5, "batch_size is 2, not 5"),
    "max_tokens": (20, "batch_size is 2, not None"),
    "order": (3, "loader's seed is 0, not 3"),
    "shuffle": (False, "shuffle is True, not False"),
    "examples": (9, "number of examples is 10, not 9"),
    "sampler": ({}, "sampler is LengthBuckets, not ShardedBuckets"),
}


def test_every_setting_is_in_one_of_the_two_groups():
    names = {*CONFIG, *inspect.signature(Seq2SeqTrainer).parameters} - {"config"}
    assert {*TAKEN, *FIXED} == names and not {*TAKEN} & {*FIXED}
    of_loader = {*inspect.signature(make_loader).parameters} - {"dataset", "seed"}
    assert of_loader <= {*OTHERS}


@pytest.mark.parametrize("name", TAKEN)
def test_what_may_change_is_taken(tmp_path, name):
    changeable(tmp_path).fit()
    changed = changeable(tmp_path, **{"epochs": 3, name: TAKEN[name]})
    history = changed.fit()
    assert len(history.epochs) == 3 and changed.step == 9
    plain = changeable(None, epochs=3)
    plain.fit()
    if name in ("lr", "weight_decay", "clip", "bf16", "loss", "schedule"):
        assert not same(changed.model, plain.model)
    else:
        assert same(changed.model, plain.model)
    if name in ("lr", "schedule"):
        rates = [step["lr"] for step in history.steps]
        assert rates == pytest.approx([0.02] * 6 + [0.5 if name == "lr" else 0.02 / 8] * 3)


@pytest.mark.parametrize("name", [*FIXED, *OTHERS])
def test_what_must_not_change_is_named_with_both_values(tmp_path, name):
    value, message = (FIXED | OTHERS)[name]
    changeable(tmp_path).fit()
    before = (tmp_path / "last.pt").read_bytes()
    other = changeable(tmp_path, **{"epochs": 3, name: value})
    weights = flat(other.model)
    with pytest.raises(ValueError) as error:
        other.fit()
    assert message in str(error.value) and str(error.value).endswith(
        "fit(resume=False) starts anew"
    )
    assert (tmp_path / "last.pt").read_bytes() == before and torch.equal(flat(other.model), weights)


@pytest.mark.parametrize("name", ["neighbours", "at_least"])
def test_how_batches_are_dealt_out_must_not_change(tmp_path, name):
    default = inspect.signature(ShardedBuckets).parameters[name].default
    changeable(tmp_path, sampler={}).fit()
    other = changeable(tmp_path, sampler={name: 3 if default == 0 else False})
    with pytest.raises(ValueError, match=f"{name} is {default}, not"):
        other.fit()


def test_a_scheduler_by_epoch_follows_another_lr_and_must_stay(tmp_path):
    changeable(tmp_path, scheduler=HALVED).fit()
    steps = changeable(tmp_path, epochs=4, lr=0.2, scheduler=HALVED).fit().steps
    assert [step["lr"] for step in steps[::3]] == pytest.approx([0.02, 0.01, 0.05, 0.025])
    other = {"scheduler": SchedulerConfig("StepLR", {"step_size": 1, "gamma": 0.9})}
    with pytest.raises(ValueError, match=r"'gamma': 0.5}, not StepLR .*'gamma': 0.9}"):
        changeable(tmp_path, epochs=5, **other).fit()


class Counts(Callback):
    """Of no class that a checkpoint knows."""


def test_callbacks_find_their_state_wherever_they_stand(tmp_path):
    def run(patience, callbacks, epochs):
        made = config(epochs, lr=0.0, patience=patience, checkpoint_dir=tmp_path)
        trainer = Seq2SeqTrainer(tiny(), made, batches(2), batches(2), callbacks=callbacks)
        return trainer, trainer.fit()

    mine = EarlyStopping("val_perplexity", 9, verbose=False)
    run(9, [mine, LearningRateLogger(False)], 3)
    other = EarlyStopping("val_perplexity", 9, verbose=False)
    later = [Counts(), LearningRateLogger(False), EarlyStopping("loss", 99, verbose=False), other]
    _, history = run(4, later, 9)
    assert len(history.epochs) == 5 and history.stopped == "early"  # 1 and patience, not 3 + 1 + 4
    assert other.wait == 4 and later[1].lr_history == [0.0] * 5
    assert later[2].wait == 1  # it has seen two epochs, and the first was the best


def test_a_model_that_could_not_be_loaded_is_refused_before_the_first_step(tmp_path):
    class Forgetful(Seq2Seq):
        def __init__(self, source_vocabulary, target_vocabulary, size):
            super().__init__(source_vocabulary, target_vocabulary, embedding=size, hidden=size)

    trainer = Seq2SeqTrainer(
        Forgetful(VOCABULARY, VOCABULARY, 4), config(checkpoint_dir=tmp_path), batches(2)
    )
    with pytest.raises(ValueError, match="settings lack size"):
        trainer.fit()
    assert trainer.step == 0 and not list(tmp_path.iterdir())
    assert issubclass(Forgetful, Seq2SeqModel)


def test_numbers_of_numpy_can_be_resumed(tmp_path):
    """Those given, and those that a callback puts where it should not."""

    class Puts(Callback):
        def on_batch_end(self, trainer, batch_idx, metrics, **kwargs):
            trainer.optimizer.param_groups[0]["weight_decay"] = np.float64(0.5)
            trainer.history.steps[-1]["mine"] = np.int64(3)

    for epochs in (1, 2):
        made = training_config(
            np.int64(epochs), lr=np.float64(0.1), weight_decay=np.float32(0.25), progress=False,
            checkpoint_dir=tmp_path,
        )  # fmt: skip
        schedule = lambda step: np.float64(1 / step)  # noqa: E731
        trainer = Seq2SeqTrainer(tiny(), made, batches(2), callbacks=[Puts()], schedule=schedule)
        assert len(trainer.fit().epochs) == epochs
