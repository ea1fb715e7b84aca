"""Checkpoints: a training that was stopped ends as if it had not been, and nothing else is ever gone on from."""

import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import struct
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_families import CONFIGS, new, parts  # noqa: F401

from cdlib import store
from cdlib.base import disk
from cdlib.data.datasets.digits import images_and_classes
from cdlib.data.design import Wanted
from cdlib.measure import utility
from cdlib.models import checkpoint, families, stages, train
from cdlib.models.checkpoint import Checkpoint
from cdlib.models.procedures import Recipe
from cdlib.store import cache, measured

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = CONFIGS["pixel"]
IMAGES = images_and_classes()[0][:20]
X = families.new(SMALL, 0).prepare(IMAGES)
RECIPE = Recipe(steps=6, lr=1e-3, schedule="one_cycle", batch_size=8)
ALWAYS = 1e-12  # minutes between two checkpoints


class Stopped(Exception):
    """The machine died."""


class Sometimes(Checkpoint):
    """A checkpoint that is due after some of the steps only."""

    def __init__(self, *where, seed=0):
        super().__init__(*where)
        self.random = random.Random(seed)

    def due(self):
        return self.random.random() < 0.6


class Watch:
    """Counts the steps of a training, tells how many were of earlier sittings, and ends it after some."""

    def __init__(self, stop=None):
        self.stop, self.done, self.earlier = stop, 0, 0

    def __call__(self, n=None, seconds=0.0):
        self.earlier += n or 0
        self.done += n or 1
        if self.stop and self.done >= self.stop:
            raise Stopped


def small(seed=0):
    """A U-Net of the digits, and no average."""
    return families.new(SMALL, seed), None


def run_through(start, x, recipe, kept=None, stop=None, seed=3, **how):
    """A trained model, what training left beside it, and what was watched. Raises Stopped."""
    (model, average), watch = start(), Watch(stop)
    return model, train.train(model, x, recipe, seed, average, watch, checkpoint=kept, **how), watch


def stopped(start, x, recipe, kept, stop, **how):
    """Train up to some step only."""
    with pytest.raises(Stopped):
        run_through(start, x, recipe, kept, stop, **how)


def same(a, b):
    """Whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_equal(one, other):
    """Two trainings ended alike, bit for bit."""
    (a, left_a, _), (b, left_b, _) = one, other
    assert same(a.state(), b.state()) and same(left_a.raw, left_b.raw)
    np.testing.assert_array_equal(left_a.losses, left_b.losses)
    assert left_a.ema_step == left_b.ema_step


def assert_goes_on(start, x, recipe, path, stops=(2, 5), **how):
    """A training that is stopped after these steps, and one that is not, end alike."""
    for k, stop in enumerate(stops):
        stopped(start, x, recipe, Sometimes(path, ALWAYS, seed=sum(stops) + k), stop, **how)
    kept = Checkpoint(path, ALWAYS)
    ended = run_through(start, x, recipe, kept, **how)
    assert_equal(ended, run_through(start, x, recipe, **how))
    assert path.is_file()
    assert (ended[2].earlier > 0) == (kept.seconds > 0)
    return ended[2].earlier


@pytest.fixture
def path(tmp_path):
    """Where a checkpoint goes."""
    return tmp_path / "unfinished" / "one.pt"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained model with an average, in a file."""
    path, recipe = tmp_path_factory.mktemp("saved") / "m.safetensors", replace(RECIPE, ema="fresh")
    model, left, _ = run_through(small, X, recipe)
    families.save(model, path, {"recipe": recipe.as_dict(), "ema_step": left.ema_step}, left.raw)
    return path


KINDS = list(itertools.product(["adam", "adamw"], ["constant", "cosine", "one_cycle"], [0, 2], ["none", "fresh", "continued"]))


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)), ids=["-".join(map(str, k)) for k in KINDS])
def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(number, kind, path, saved):
    optimizer, schedule, epochs, ema = kind
    flip, timesteps = number // 2 % 2 == 1, ["uniform", "antithetic"][number % 2]
    how = dict(optimizer=optimizer, schedule=schedule, epochs=epochs, ema=ema, timesteps=timesteps, horizontal_flip=flip)
    recipe = replace(RECIPE, weight_decay=0.1, warmup_steps=3, **how)
    assert recipe.n_steps(len(X)) == 6
    start = partial(families.continuing, saved) if ema == "continued" else small
    stops = sorted(random.Random(number).sample(range(1, 6), 2))
    assert_goes_on(start, families.new(SMALL, 0).prepare(IMAGES, flip), recipe, path, stops)


def test_a_training_goes_on_from_its_last_checkpoint(path):
    stopped(small, X, RECIPE, Checkpoint(path, ALWAYS), 4)
    assert run_through(small, X, RECIPE, Checkpoint(path, ALWAYS))[2].earlier == 4


def test_ascent_goes_on(path):
    assert assert_goes_on(small, X, RECIPE, path, (3, 5), ascend=True)


def test_adam_of_8_bits_goes_on(path):
    assert assert_goes_on(small, X, replace(RECIPE, optimizer="adam_8bit", ema="fresh"), path, (3, 5))


def test_a_pruned_model_goes_on(path):
    def pruned():
        model = families.new(SMALL, 0)
        model.prune(0.4)
        return model, None

    assert assert_goes_on(pruned, X, RECIPE, path, (3, 5))


@pytest.mark.parametrize("kind", ["latent", "text_to_image"])
def test_the_other_families_go_on(kind, path, parts):  # noqa: F811
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    start = lambda: (new(kind, parts), None)  # noqa: E731
    recipe = replace(RECIPE, batch_size=4, ema="fresh")
    assert assert_goes_on(start, new(kind, parts).prepare(images, True), recipe, path, (3, 5))


def test_a_compiled_network_goes_on_and_one_that_is_not_takes_the_same_names(path):
    def compiled():
        model = families.new(SMALL, 0)
        model.unet.compile = partial(model.unet.compile, backend="eager")
        return model, None

    assert assert_goes_on(compiled, X, replace(RECIPE, compile=True), path, (3, 5))
    assert torch.load(path, weights_only=True)["state"]["model"].keys() == families.new(SMALL, 0).state().keys()


def test_the_state_of_the_optimiser_keeps_the_order_of_its_memory(path):
    def channels_last():
        model = families.new(SMALL, 0)
        model.unet.to(memory_format=torch.channels_last)
        return model, None

    seen = []

    class Seen(Checkpoint):
        def write(self, training):
            super().write(training)
            seen.append([t.stride() for s in training.optimizer.state.values() for t in s.values()])

    stopped(channels_last, X, RECIPE, Seen(path, ALWAYS), 2)
    assert_equal(run_through(channels_last, X, RECIPE, Seen(path, ALWAYS)), run_through(channels_last, X, RECIPE))
    assert len(seen) == 5 and seen.count(seen[0]) == 5
    assert any(len(stride) == 4 and stride[1] == 1 for stride in seen[0])


LONG = replace(RECIPE, steps=120, ema="fresh", epochs=40)


def train_long(path):
    """A training with a checkpoint after each step, in a process of its own."""
    torch.set_num_threads(1)
    run_through(small, X, LONG, Checkpoint(path, ALWAYS))


def test_kills_at_any_moment_end_in_the_same_bits(path, server):
    rng, context = random.Random(time.time_ns()), multiprocessing.get_context("forkserver")
    for _ in range(3):
        before = path.stat().st_mtime_ns if path.exists() else 0
        worker = context.Process(target=train_long, args=(path,))
        worker.start()
        while worker.is_alive() and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    with Checkpoint(path, ALWAYS) as kept:
        ended = run_through(small, X, LONG, kept)
        assert ended[2].earlier > 2
    assert_equal(ended, run_through(small, X, LONG))
    assert not path.exists() and {left.suffix for left in path.parent.iterdir()} <= {".tmp"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        lambda data: data.replace(struct.pack(">d", 0.001), struct.pack(">d", 0.002)),
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "one byte short", "half", "one bit", "a number changed", "zeros"],
)
def test_a_torn_checkpoint_is_not_used_and_is_replaced(path, spoil):
    recipe = replace(RECIPE, schedule="constant")
    stopped(small, X, recipe, Checkpoint(path, ALWAYS), 3)
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    assert path.read_bytes() != whole
    stopped(small, X, recipe, Sometimes(path, 1.0), 1)  # of which none is due
    ended = run_through(small, X, recipe, Checkpoint(path, ALWAYS))
    assert ended[2].earlier == 0
    assert_equal(ended, run_through(small, X, recipe))
    assert run_through(small, X, recipe, Checkpoint(path, ALWAYS))[2].earlier == 5


@pytest.mark.parametrize("code", [False, True], ids=["another kind", "one that would run code"])
def test_a_file_that_is_no_checkpoint_is_not_used(path, code):
    families.save(families.new(SMALL, 0), path, {})
    if code:
        torch.save(Stopped("never made"), path)
    assert run_through(small, X, RECIPE, Checkpoint(path, ALWAYS))[2].earlier == 0


def brighter():
    """The images, one pixel of one of them by one in 255 brighter."""
    x = X.clone()
    x[7, 0, 0, 3, 3] += 2 / 255
    return x


OTHERS = {
    "recipe": dict(recipe=replace(RECIPE, lr=1.1e-3)),
    "seed": dict(seed=4),
    "start": dict(start=partial(small, 1)),
    "images": dict(x=brighter()),
    "fewer images": dict(x=X[:-1]),
    "sign": dict(ascend=True),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_training_is_not_used_and_is_replaced(path, other):
    stopped(small, X, RECIPE, Checkpoint(path, ALWAYS), 3)
    how = dict(start=small, x=X, recipe=RECIPE) | other
    ended = run_through(kept=Checkpoint(path, ALWAYS), **how)
    assert ended[2].earlier == 0
    assert_equal(ended, run_through(**how))
    assert run_through(kept=Checkpoint(path, ALWAYS), **how)[2].earlier == 5


def test_a_checkpoint_of_another_average_or_by_other_versions_is_not_used(path, saved, monkeypatch):
    recipe = replace(RECIPE, ema="continued")

    def seen_more():
        model, average = families.continuing(saved)
        average.optimization_step += 1
        return model, average

    start = partial(families.continuing, saved)
    stopped(start, X, recipe, Checkpoint(path, ALWAYS), 3)
    assert run_through(seen_more, X, recipe, Checkpoint(path, 1.0))[2].earlier == 0
    monkeypatch.setattr(measured, "versions", lambda: {"torch": "0.0"})
    assert run_through(start, X, recipe, Checkpoint(path, 1.0))[2].earlier == 0
    monkeypatch.undo()
    assert run_through(start, X, recipe, Checkpoint(path, 1.0))[2].earlier == 3


def test_nothing_is_written_after_the_last_step_nor_before_the_minutes_are_over(path, monkeypatch):
    written = []
    monkeypatch.setattr(Checkpoint, "write", lambda self, training: written.append(training.step))
    run_through(small, X, RECIPE, Checkpoint(path, 1.0))
    assert written == []
    run_through(small, X, RECIPE, Checkpoint(path, ALWAYS))
    assert written == [1, 2, 3, 4, 5]


def test_no_minutes_write_nothing_and_read_nothing(path):
    run_through(small, X, RECIPE, Checkpoint(path, 0.0))
    assert not path.parent.exists()
    stopped(small, X, RECIPE, Checkpoint(path, ALWAYS), 3)
    assert run_through(small, X, RECIPE, Checkpoint(path, 0.0))[2].earlier == 0


def test_the_minutes_count_from_the_last_writing(path, monkeypatch):
    now, steps = [0.0], []
    monkeypatch.setattr(checkpoint, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))

    class Slow(Checkpoint):
        def write(self, training):
            steps.append(training.step)
            now[0] += 30
            super().write(training)

    def minute(*_):
        now[0] += 60

    train.train(small()[0], X, replace(RECIPE, steps=8), 0, progress=minute, checkpoint=Slow(path, 3.0))
    assert steps == [4, 7]


def test_seconds_are_of_all_sittings_up_to_the_checkpoint(path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))

    class Second(Watch):
        def __call__(self, *earlier):
            now[0] += not earlier
            super().__call__(*earlier)

    for stop, seconds in ((3, 0.0), (5, 2.0), (6, 3.0)):
        kept = Checkpoint(path, 1 / 60)
        with pytest.raises(Stopped):
            train.train(small()[0], X, RECIPE, 3, progress=Second(stop), checkpoint=kept)
        assert kept.seconds == pytest.approx(seconds)


def test_a_full_disk_stops_no_training(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    expected = f"^{path}: step [1-5] is not kept: .*No space left on device"
    with monkeypatch.context() as patch, pytest.warns(UserWarning) as warned:
        patch.setattr(os, "replace", full)
        ended = run_through(small, X, RECIPE, Checkpoint(path, ALWAYS))
    assert len(warned) == 5 and all(re.match(expected, str(w.message)) for w in warned)
    assert list(path.parent.iterdir()) == []
    assert_equal(ended, run_through(small, X, RECIPE))


def test_a_loss_that_is_not_finite_ends_the_training_at_the_next_checkpoint_and_leaves_none(path, monkeypatch):
    drawn_loss, n_steps = train.drawn_loss, []
    monkeypatch.setattr(train, "drawn_loss", lambda *a: drawn_loss(*a) * (float("nan") if len(n_steps) == 2 else 1))
    with pytest.raises(train.NotFinite, match="the loss of step 3 of 6 is not finite"), Checkpoint(path, ALWAYS) as kept:
        train.train(small()[0], X, RECIPE, 3, progress=lambda: n_steps.append(path.is_file()), checkpoint=kept)
    assert n_steps == [True, True] and not path.exists()


def test_a_checkpoint_stays_when_its_training_is_stopped_and_goes_with_its_end(path):
    for error in (Stopped, KeyboardInterrupt, MemoryError, ZeroDivisionError):
        with pytest.raises(error), Checkpoint(path, ALWAYS) as kept:
            run_through(small, X, RECIPE, kept)
            raise error
        assert path.is_file()
    with Checkpoint(path, ALWAYS):
        pass
    assert not path.exists()


@pytest.mark.parametrize("ema", ["none", "fresh"])
def test_kept_models_are_those_of_their_steps_as_they_would_be_evaluated(path, tmp_path, ema):
    recipe = replace(RECIPE, steps=4, schedule="constant", ema=ema)
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "99.safetensors").write_bytes(b"of another training")
    ended = run_through(small, X, recipe, Checkpoint(path, ALWAYS, tmp_path / "steps"))
    assert_equal(ended, run_through(small, X, recipe))
    assert sorted(p.name for p in (tmp_path / "steps").glob("*.safetensors")) == [f"{k}.safetensors" for k in (1, 2, 3)]
    for k in (1, 2, 3):
        found = families.load(tmp_path / "steps" / f"{k}.safetensors")
        assert same(found.state(), run_through(small, X, replace(recipe, steps=k))[0].state())


MEMBERS, SEEDS = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool), np.array([1, 0])


def wanted(procedure):
    """Two coalitions of the four contributors."""
    return Wanted("some coalitions", procedure, MEMBERS, SEEDS)


def changed(run, **values):
    """The same run with other parameters."""
    return store.Run(run.notebook, run.params | values)


def files(run):
    """Names of all checkpoints, and of what was left beside them."""
    return [p.name for p in (run.folder / "models" / "unfinished").glob("*")]


@pytest.fixture
def unlucky(monkeypatch):
    """Makes the given steps of all that are taken fail, as by a worker that dies; `unlucky.taken` counts them."""

    class Unlucky:
        at, taken = set(), 0

    def loss(*given, drawn_loss=train.drawn_loss):
        Unlucky.taken += 1
        if Unlucky.taken in Unlucky.at:
            raise Stopped(f"step {Unlucky.taken}")
        return drawn_loss(*given)

    monkeypatch.setattr(train, "drawn_loss", loss)
    return Unlucky


@pytest.mark.parametrize("procedure", ["retrain", "finetune", "sparse_finetune", "gradient_ascent"])
def test_a_coalition_that_was_stopped_has_the_same_values_and_leaves_no_checkpoint(run, made, unlucky, procedure):
    often = changed(run, checkpoint_minutes=ALWAYS, ema="fresh")
    whole = changed(often, name="whole")
    shutil.copytree(made, whole.folder)
    expected = utility.measure(whole, wanted(procedure))
    n_steps, unlucky.taken, unlucky.at = unlucky.taken, 0, {2, 4}
    table = utility.measure(often, wanted(procedure))
    assert unlucky.taken == n_steps + 2
    seconds = ["train_seconds", "sample_seconds"]
    assert table.drop(columns=seconds).equals(expected.drop(columns=seconds))
    for key in table.key:
        a, b = run.measured.arrays(key), whole.measured.arrays(key)
        assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
    assert files(often) == files(whole) == []


def test_the_seconds_of_a_coalition_are_of_all_its_sittings(run, monkeypatch, unlucky):
    begin = Checkpoint.begin

    def long_ago(self, training, about):
        begin(self, training, about)
        self.began -= 1000 * (training.step == 0)

    monkeypatch.setattr(Checkpoint, "begin", long_ago)
    unlucky.at = {2}
    table = utility.measure(changed(run, checkpoint_minutes=ALWAYS), wanted("retrain"))
    assert sorted(table.train_seconds > 1000) == [False, True]


def test_what_is_left_of_a_measured_coalition_is_removed_the_next_time_and_of_others_not(run):
    [key, other] = utility.measure(run, wanted("retrain")).key
    for name in (key, "0" * 32):
        disk.write_bytes(run.folder / "models" / "unfinished" / f"{name}.pt", b"left")
    utility.measure(run, wanted("retrain"))
    assert files(run) == [f"{'0' * 32}.pt"]


def test_a_training_that_is_not_finite_begins_anew_each_time(run, monkeypatch):
    drawn_loss, taken = train.drawn_loss, []

    def loss(*given):
        taken.append(len(files(run)))
        return drawn_loss(*given) * (float("nan") if len(taken) % 2 == 0 else 1)

    monkeypatch.setattr(train, "drawn_loss", loss)
    with pytest.raises(RuntimeError, match="none of 2 coalitions could be measured; the first: .*step 2 of 3 is not finite"):
        utility.measure(changed(run, checkpoint_minutes=ALWAYS), wanted("retrain"))
    assert taken == [0, 1] * 6 and files(run) == []


@pytest.mark.parametrize("procedure", ["retrain", "sparse_finetune", "influence_unlearning"])
def test_the_last_model_of_a_coalition_is_kept_when_asked_and_draws_its_images(run, procedure):
    table = utility.measure(changed(run, keep_models="last"), wanted(procedure))
    for key, members in zip(table.key, table.members, strict=True):
        place = run.folder / "models" / "coalitions" / f"{key}.safetensors"
        drawn = families.load(place).draw(range(16), 2).numpy()
        np.testing.assert_array_equal(drawn, run.measured.arrays(key)["images"])
        assert cache.get(place)["coalition"]["members"] == members
    assert len(list((run.folder / "models" / "coalitions").iterdir())) == 4


def test_all_models_of_a_coalition_are_kept_when_asked(run):
    every = changed(run, keep_models="all", checkpoint_minutes=ALWAYS)
    for key in utility.measure(every, wanted("sparse_finetune")).key:
        place = run.folder / "models" / "coalitions" / key
        assert [p.name for p in sorted(place.glob("*.safetensors"))] == ["1.safetensors"]
        first, last = families.load(place / "1.safetensors"), families.load(place.with_suffix(".safetensors"))
        assert first.state().keys() == last.state().keys() and not same(first.state(), last.state())


def test_no_model_of_a_coalition_is_kept_unasked_and_none_is_trained_again_for_its_model(run, unlucky):
    table = utility.measure(run, wanted("retrain"))
    assert not (run.folder / "models" / "coalitions").exists() and not (run.folder / "models" / "unfinished").exists()
    unlucky.taken = 0
    again = utility.measure(changed(run, keep_models="last"), wanted("retrain"))
    assert unlucky.taken == 0 and again.equals(table)
    assert not (run.folder / "models" / "coalitions").exists()


@pytest.mark.parametrize("name", ["full", "sparse"])
def test_the_models_of_a_run_go_on_to_the_same_weights_and_their_steps_are_kept_beside_them(run, name, unlucky):
    make, steps = {"full": stages.full, "sparse": stages.sparse}[name], {"full": [1, 2, 3], "sparse": [1, 2, 3]}[name]
    longer = changed(run, train_steps=4, prune_steps=4)
    if name == "sparse":
        stages.full(longer)
    expected = make(longer)
    stages.path(run.folder, name).unlink()
    unlucky.taken, unlucky.at = 0, {3}
    often = changed(longer, checkpoint_minutes=ALWAYS, keep_models="all")
    with pytest.raises(Stopped):
        make(often)
    assert files(run) == [f"{name}.pt"]
    found = make(often)
    assert (found["digest"], found["losses"]) == (expected["digest"], expected["losses"])
    assert unlucky.taken == 5 and files(run) == []
    kept = [families.load(run.folder / "models" / name / f"{k}.safetensors") for k in steps]
    assert len({model.state()["conv_in.weight"].sum().item() for model in kept}) == 3
