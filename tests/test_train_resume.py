"""Runs that end and go on: by breaks, signals and kill -9, from any iterable, and in two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from training_toys import (
    LONG,
    QUIET,
    SGD,
    Pairs,
    assert_same,
    last_of,
    noisy_loss,
    plain_loss,
    small_net,
    weights,
)

from guided.train import train
from guided.training.files import read_state, write_state
from guided.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).resolve().parents[1]


def logged(out, key):
    return [json.loads(line)[key] for line in (out / "log.jsonl").read_text().splitlines()]


RESUMED = {
    "adamw": {},
    "bf16, accumulate": {"precision": "bf16", "accumulate": 2},
    "momentum": {"optimizer": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.9)},
    "muon": {"optimizer": OPTIMIZERS["muon"]},
    "adagrad": {"optimizer": lambda groups: torch.optim.Adagrad(groups, lr=1.0)},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_in_pieces_is_bit_equal_to_a_whole_one(name, tmp_path):
    schedule = {"images": 80, "lr": 0.01, "warmup": 16, "decay": "cosine", "ema": 0.9, "save_every": 24}
    arguments = {**QUIET, **schedule, **RESUMED[name]}
    nets = [small_net().to(memory_format=torch.channels_last) for _ in range(4)]
    whole = list(train(nets[0], Pairs(4), noisy_loss, out=tmp_path / "a", **arguments))
    for step in train(nets[1], Pairs(4), noisy_loss, out=tmp_path / "b", **arguments):
        if step.step == 4:
            break
    with pytest.raises(ZeroDivisionError):  # a fault in the caller's part of the loop leaves a checkpoint too
        for step in train(nets[2], Pairs(4), noisy_loss, out=tmp_path / "b", **arguments):
            assert step.step == 5
            _ = 1 / 0
    rest = list(train(nets[3], Pairs(4), noisy_loss, out=tmp_path / "b", **arguments))
    assert [s.step for s in rest] == list(range(6, len(whole) + 1))
    assert [s.loss for s in rest] == [s.loss for s in whole[5:]]
    assert_same(weights(nets[3]), weights(nets[0]))
    assert_same(weights(rest[-1].ema), weights(whole[-1].ema))
    assert_same(*(read_state(tmp_path / run / "training" / "state.safetensors")[0] for run in "ab"))
    assert logged(tmp_path / "b", "step") == [s.step for s in whole]


def test_a_complete_run_yields_its_last_step_once_more_and_can_be_made_longer(tmp_path):
    first = list(train(small_net(), Pairs(4), plain_loss, images=12, out=tmp_path, **QUIET))
    net = small_net()
    (again,) = train(net, Pairs(4), plain_loss, images=12, out=tmp_path, **QUIET)
    assert again.numbers() == first[-1].numbers() and again.saved and not again.stopped
    assert_same(weights(again.ema), weights(first[-1].ema))
    longer = list(train(net, Pairs(4), plain_loss, images=20, out=tmp_path, **QUIET))
    assert [step.step for step in longer] == [4, 5]


def test_tied_weights_are_saved(tmp_path):
    def tied():
        net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        net[1].weight = net[0].weight
        return net

    net, again = tied(), tied()
    last_of(train(net, Pairs(4), plain_loss, images=8, out=tmp_path, **QUIET))
    last_of(train(again, Pairs(4), plain_loss, images=8, out=tmp_path, **QUIET))
    assert_same(weights(net), weights(again))
    assert again[0].weight is again[1].weight


def test_an_unfinished_write_leaves_the_state_before_it(tmp_path, monkeypatch):
    path = tmp_path / "training" / "state.safetensors"
    write_state(path, {"a": torch.ones(3)}, {"step": 1})

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_state(path, {"a": torch.zeros(3)}, {"step": 2})
    monkeypatch.undo()
    tensors, numbers = read_state(path)
    assert numbers == {"step": 1} and torch.equal(tensors["a"], torch.ones(3))
    write_state(path, {"a": torch.zeros(3)}, {"step": 3})
    assert read_state(path)[1] == {"step": 3} and [p.name for p in path.parent.iterdir()] == [path.name]


def test_resuming_another_run_is_refused(tmp_path):
    last_of(train(small_net(), Pairs(4), plain_loss, images=8, out=tmp_path, **QUIET))

    def resume(net=None, batches=None, **changed):
        net, batches = net or small_net(), batches or Pairs(4)
        return train(net, batches, plain_loss, images=80, out=tmp_path, **QUIET, **changed)

    with pytest.raises(ValueError, match="seed=0, not 3; use 0 or another out"):
        resume(seed=3)
    with pytest.raises(ValueError, match="batch_size=4, not 5"):
        resume(batches=Pairs(5))
    with pytest.raises(ValueError, match="accumulate=1, not 2"):
        resume(accumulate=2)
    with pytest.raises(ValueError, match="optimizer=AdamW, not SGD"):
        resume(**SGD)
    with pytest.raises(ValueError, match=r"another network: 0.bias is \(6,\) there, \(7,\) here"):
        resume(net=small_net(width=7))
    with pytest.raises(ValueError, match=r"another network: 3.bias is missing there, \(3,\) here"):
        resume(net=nn.Sequential(*small_net(), nn.BatchNorm2d(3)))
    (tmp_path / "training" / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(ValueError, match=r"not a training state .* move it away"):
        resume()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(number, tmp_path):
    handler = signal.getsignal(number)
    steps = []
    for step in train(small_net(), Pairs(4), plain_loss, images=400, out=tmp_path, **QUIET):
        steps.append(step)
        assert signal.getsignal(number) != handler
        if step.step == 3:
            os.kill(os.getpid(), number)
    assert [s.stopped for s in steps] == [s.saved for s in steps] == [False, False, False, True]
    assert read_state(tmp_path / "training" / "state.safetensors")[1]["step"] == 4
    assert signal.getsignal(number) == handler
    steps = train(small_net(), Pairs(4), plain_loss, images=400, out=tmp_path, **QUIET)
    assert next(steps).step == 5
    steps.close()
    assert signal.getsignal(number) == handler


def test_a_second_interrupt_raises_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        for _ in train(small_net(), Pairs(4), plain_loss, images=400, out=tmp_path, **QUIET):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # let the first one be handled
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# batches from any iterable


def test_any_iterable_of_batches_is_begun_again_and_resumed(tmp_path):
    data = [Pairs(4).batch(i) for i in range(3)]

    class Cycled(Pairs):
        def batch(self, index, rank=0, world=1):
            return data[index % 3]

    pure, streamed, resumed = small_net(), small_net(), small_net()
    last_of(train(pure, Cycled(4), noisy_loss, images=32, **QUIET))
    for step in train(streamed, data, noisy_loss, images=32, out=tmp_path, **QUIET):
        if step.step == 5:
            break
    last_of(train(resumed, data, noisy_loss, images=32, out=tmp_path, **QUIET))
    assert_same(weights(pure), weights(resumed))


def test_unfit_iterables_are_named():
    data = [Pairs(4).batch(0), Pairs(3).batch(0)]
    with pytest.raises(ValueError, match="batches is empty"):
        train(small_net(), [], plain_loss, images=8, **QUIET)
    with pytest.raises(ValueError, match=r"batch 1 holds 3 images and the first 4: .*drop_last=True"):
        last_of(train(small_net(), data, plain_loss, images=8, **QUIET))
    with pytest.raises(ValueError, match="batches ended after 1 and cannot be begun again"):
        last_of(train(small_net(), iter(data[:1]), plain_loss, images=8, **QUIET))


# whole processes

PROGRAM = """
import os, signal, sys, time
import torch
from guided.train import train
from training_toys import LONG, QUIET, Pairs, noisy_loss, plain_loss, small_net, weights

torch.set_num_threads(1)
"""

KILLED = """
for step in train(small_net(), Pairs(4), noisy_loss, out=sys.argv[1], **LONG, **QUIET):
    time.sleep(0.01)
"""

TWO = """
drawn = []

def loss(module, batch):
    drawn.append(torch.rand(()).item())
    return plain_loss(module, batch), {"mean": batch["image"].mean()}

out, net = sys.argv[1], small_net()
both = dict(device="cpu", processes=2, progress=False)
for step in train(net, Pairs(4), loss, images=64, lr=0.01, accumulate=2, out=out + "/run", **both):
    pass
rank = int(os.environ["RANK"])
found = [weights(net), weights(step.ema), step.loss, step.grad_norm, step.metrics, drawn]
torch.save(found, f"{out}/{rank}.pt")
# a signal to one process ends both at the same step
for step in train(net, Pairs(4), noisy_loss, images=4000, out=out + "/stopped", **both):
    if rank == 1 and step.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
with open(f"{out}/{rank}.txt", "w") as file:
    file.write(f"{step.step} {step.stopped} {step.saved}")
os._exit(0)  # on a busy machine gloo's threads now and then abort the interpreter's own end
"""


def start(tmp_path, program, *arguments, torchrun=0):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + program)
    launch = f"-m torch.distributed.run --standalone --nproc_per_node={torchrun}".split() if torchrun else []
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *launch, path, *map(str, arguments)], env=environment)


def test_killed_with_sigkill_and_started_again_is_bit_equal_to_never_killed(tmp_path):
    killed = start(tmp_path, KILLED, tmp_path / "killed")
    log = tmp_path / "killed" / "log.jsonl"
    until = time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") < 38:  # past checkpoints at steps 7, 14, 21, 28, 35
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.003)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    state = "training/state.safetensors"
    reached = read_state(tmp_path / "killed" / state)[1]["step"]
    assert 35 <= reached < 100 and reached % 7 == 0
    assert start(tmp_path, KILLED, tmp_path / "killed").wait() == 0

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the program
    last_of(train(small_net(), Pairs(4), noisy_loss, out=tmp_path / "whole", **LONG, **QUIET))
    torch.set_num_threads(threads)
    (a, whole_numbers), (b, numbers) = (read_state(tmp_path / run / state) for run in ("whole", "killed"))
    assert_same(a, b)  # weights, EMA and the optimizer's moments
    assert whole_numbers["step"] == numbers["step"] == 100
    for key, expected in (("step", list(range(1, 101))), ("loss", logged(tmp_path / "whole", "loss"))):
        assert logged(tmp_path / "killed", key) == expected


def test_two_processes_with_half_the_batch_are_one_with_the_whole(tmp_path):
    pytest.importorskip("accelerate")
    assert start(tmp_path, TWO, tmp_path, torchrun=2).wait() == 0
    net = small_net()

    drawn = []

    def loss(module, batch):
        drawn.append(torch.rand(()).item())
        return plain_loss(module, batch), {"mean": batch["image"].mean()}

    step = last_of(train(net, Pairs(8), loss, images=64, lr=0.01, accumulate=2, **QUIET))
    alone = [weights(net), weights(step.ema), step.loss, step.grad_norm, step.metrics]
    *first, drawn_first = torch.load(tmp_path / "0.pt", weights_only=True)
    *second, drawn_second = torch.load(tmp_path / "1.pt", weights_only=True)
    assert_close(first, alone, rtol=1e-4, atol=1e-6)
    assert_close(second, first, rtol=0, atol=0)
    assert drawn_first == drawn and not set(drawn_first) & set(drawn_second)  # each process has its own noise
    assert logged(tmp_path / "run", "step") == [1, 2, 3, 4]  # written by one process
    ends = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert ends[0] == ends[1] and ends[0].endswith("True True")
