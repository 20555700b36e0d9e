"""Training: loss and read-out, reproducible bits, resuming after a kill, and refused files."""

import errno
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from scnn import training
from scnn.files import load_tensors, save_tensors
from scnn.metrics import activity
from scnn.models import Network, build, fold
from scnn.neurons import Output
from scnn.training import (
    Diverged,
    StateError,
    Training,
    evaluate,
    fit,
    load_network,
    loss,
    predict,
    save_network,
    scores,
    synaptic_operations,
)

EPOCHS = 4
BATCHES = 5  # an epoch's: 75 recordings, 16 at once


def clips(count: int = 75, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of ten noisy patterns, one per class, with data in a window; and their labels."""
    patterns = torch.randn(10, 1, 9, 6, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    images = torch.zeros(count, 1, 32, 32)
    noise = torch.randn(count, 1, 9, 6, generator=generator)
    images[:, :, 11:20, 13:19] = patterns[labels] + 0.3 * noise
    return images, labels


def new_network(**parameters) -> Network:
    settings = {"architecture": "3C3-P2-16FC-10FC", "num_steps": 4, "threshold": 0.3}
    return build(**(settings | parameters))


def train(state: Path | None = None, network: Network | None = None, hook=None, **parameters):
    """Train a small network; returns it and its history."""
    network = new_network() if network is None else network
    if hook is not None:
        network.register_forward_hook(hook)
    return network, fit(network, *clips(), clips(20, seed=1), Training(epochs=EPOCHS, **parameters), state)


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[Network, list[dict[str, float]]]:
    return train()


def random_output(steps: int = 4, count: int = 7) -> Output:
    generator = torch.Generator().manual_seed(0)
    membrane = torch.randn(steps, count, 10, generator=generator)
    return Output((torch.rand(steps, count, 10, generator=generator) < 0.3).float(), membrane)


def test_loss_is_the_cross_entropy_summed_over_the_steps():
    output, labels = random_output(), torch.arange(7)
    by_hand = 0.0
    for membrane in output.membrane:
        for logits, label in zip(membrane, labels, strict=True):
            by_hand += (torch.logsumexp(logits, 0) - logits[label]).item() / 7
    assert loss(output, labels).item() == pytest.approx(by_hand, rel=1e-6)


def test_loss_of_a_relu_network_is_the_cross_entropy_of_its_logits():
    logits, labels = torch.randn(7, 10, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    wanted = functional.cross_entropy(logits, labels).item()
    assert loss(Output(None, logits[None]), labels).item() == pytest.approx(wanted, rel=1e-6)


def test_readouts():
    output = random_output()
    assert torch.equal(scores(output), output.spikes.sum(0))
    assert torch.equal(scores(output, "membrane"), output.membrane.sum(0))
    logits = Output(None, output.membrane[:1])
    assert torch.equal(scores(logits), output.membrane[0])
    assert torch.equal(scores(logits, "membrane"), output.membrane[0])
    with pytest.raises(ValueError, match="readout must be one of spikes, membrane, not 'latency'"):
        scores(output, "latency")


def replaying(output: Output):
    """A network that returns stored outputs: its images are indices of recordings."""

    def network(images: torch.Tensor) -> Output:
        return Output(output.spikes[:, images.long()], output.membrane[:, images.long()])

    return network


def test_ties_go_to_the_first_class():
    spikes = torch.zeros(4, 4, 10)
    spikes[:, 1, [3, 7, 8]] = 1  # the same count in every step
    spikes[0, 2, 9] = spikes[1, 2, 4] = spikes[3, 2, 5] = 1  # or at different steps
    spikes[:2, 3, 6] = spikes[2, 3, 1] = 1
    output = Output(spikes, torch.zeros_like(spikes))
    assert predict(replaying(output), torch.arange(4)).tolist() == [0, 3, 4, 6]


def test_confidence_is_the_answer_s_share_in_the_membranes():
    output = random_output()
    best, confidences = training.answers(replaying(output), torch.arange(7), "membrane")
    assert torch.equal(best, output.membrane.sum(0).argmax(1))
    shares = torch.softmax(output.membrane, -1).mean(0)
    assert torch.equal(confidences, torch.stack([shares[n, best[n]] for n in range(7)]))


def test_evaluation_averages_over_all_recordings():
    output, labels = (
        random_output(count=130),
        torch.arange(130) % 10,
    )  # more than two batches, the last smaller
    result = evaluate(replaying(output), torch.arange(130), labels)
    assert result["loss"] == pytest.approx(loss(output, labels).item(), rel=1e-5)
    right = output.spikes.sum(0).numpy().argmax(1) == labels.numpy()
    right_membrane = output.membrane.sum(0).numpy().argmax(1) == labels.numpy()
    assert 0 < right.mean() != right_membrane.mean() > 0
    assert result["accuracy"] == right.mean() and result["accuracy_membrane"] == right_membrane.mean()


def test_training_learns_and_keeps_its_history(uninterrupted):
    network, history = uninterrupted
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    losses = [row["loss"] for row in history]
    assert losses == sorted(losses, reverse=True)
    measured = evaluate(network, *clips(20, seed=1))
    assert {f"held_out_{name}": value for name, value in measured.items()}.items() <= history[-1].items()
    assert all(trace.spikes.any() for trace in network.trace(clips()[0]))


def test_every_recording_is_seen_once_an_epoch_in_another_order():
    seen = []

    def keep(network, inputs, output):
        if torch.is_grad_enabled():
            seen.append(inputs[0][:, 0, 11, 13])

    train(hook=keep)
    wanted = clips()[0][:, 0, 11, 13].sort().values
    epochs = torch.cat(seen).view(EPOCHS, -1)
    assert [len(batch) for batch in seen] == [16, 16, 16, 16, 11] * EPOCHS
    assert all(torch.equal(epoch.sort().values, wanted) for epoch in epochs)
    assert not any(torch.equal(first, second) for first, second in pairwise(epochs))


def test_same_seed_gives_the_same_bits_and_another_seed_others(uninterrupted):
    torch.manual_seed(5)  # must be neither used nor changed
    np.random.seed(5)  # noqa: NPY002
    before = torch.random.get_rng_state()
    again, history = train()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(weights_of(uninterrupted[0]), weights_of(again))
    assert without_seconds(history) == without_seconds(uninterrupted[1])
    assert not same(weights_of(again), weights_of(train(seed=1)[0]))


def test_schedules():
    rates = [Training(epochs=4, learning_rate=0.1, schedule="cosine").rate(epoch) for epoch in range(4)]
    half = 0.05 * math.sqrt(0.5)
    assert rates == pytest.approx([0.1, 0.05 + half, 0.05, 0.05 - half])
    assert [Training(epochs=2, learning_rate=0.1).rate(epoch) for epoch in range(2)] == [0.1, 0.1]


def test_cosine_schedule_is_trained_with(uninterrupted):
    # The first epoch has the same rate and the same bits; later ones do not.
    _, history = train(schedule="cosine")
    losses, constant = ([row["held_out_loss"] for row in rows] for rows in (history, uninterrupted[1]))
    assert losses[0] == constant[0] and losses[1] != constant[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"epochs": True}, "epochs must be a whole number of at least 1, not True"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, not 1.5"),
        ({"learning_rate": 0}, "learning_rate must be a positive number, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number, not nan"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a positive number, not '1e-3'"),  # YAML's
        ({"schedule": "step"}, "schedule must be one of constant, cosine, onecycle, not 'step'"),
        ({"learning_rate": True}, "learning_rate must be a positive number, not True"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"seed": 2**64}, "seed must be at most 9223372036854775807, not 18446744073709551616"),
        ({"spike_penalty": -0.1}, r"spike_penalty must be a number in 0..100.0, not -0.1"),
        ({"epochs": 10**6}, "epochs must be at most 10000, not 1000000"),
    ],
)
def test_training_names_the_wrong_parameter(wrong, message):
    with pytest.raises(ValueError, match=message):
        Training(**wrong)


class Interruption(Exception):
    pass


def after_calls(count: int, action):
    """A forward hook that calls `action` when the network is called for the `count`-th time."""
    calls = []

    def hook(*_):
        calls.append(None)
        if len(calls) == count:
            action()

    return hook


def interrupt():
    raise Interruption


def die():
    os.kill(os.getpid(), signal.SIGKILL)


CALLS = BATCHES + 1  # of the network in an epoch, with the evaluation


@pytest.mark.parametrize("when", [CALLS + 2, CALLS - 1])
def test_a_loss_that_stops_being_finite_names_epoch_and_rate(tmp_path, when):
    network = new_network()

    def spoil():
        network.weights[-1].weight.data[0] = math.nan  # as after too large a step

    message = rf"no longer finite in epoch {1 + (when > CALLS)}, at a learning_rate of 0.001; try a lower one"
    with pytest.raises(Diverged, match=message):
        train(tmp_path / "state", network, hook=after_calls(when, spoil))
    assert (tmp_path / "state").exists() == (when > CALLS)


def test_a_loss_that_is_infinite_in_a_batch_ends_the_training_there(monkeypatch):
    calls = []
    monkeypatch.setattr(training, "step", lambda *_: calls.append(None) or (math.inf, 0))
    with pytest.raises(Diverged, match=r"in epoch 1, at a learning_rate of 0\.01"):
        train(learning_rate=0.01)
    assert len(calls) == 1


# Resuming after an interruption.


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("finished", [1, 3])
def test_stopped_training_goes_on_to_the_same_weights(tmp_path, finished, schedule):
    state, expected = tmp_path / "state.safetensors", train(schedule=schedule)
    with pytest.raises(Interruption):
        train(state, hook=after_calls(finished * CALLS + 3, interrupt), schedule=schedule)
    with pytest.raises(Interruption):  # in its first batches: what was read must not have been written to
        train(state, hook=after_calls(3, interrupt), schedule=schedule)
    network, history = train(state, network=new_network(seed=9), schedule=schedule)
    assert same(weights_of(network), weights_of(expected[0]))
    assert without_seconds(history) == without_seconds(expected[1])


def test_stopped_training_with_a_frozen_layer_goes_on_to_the_same_weights(tmp_path):
    def frozen():
        network = new_network()
        network.weights[0].requires_grad_(False)
        return network

    state, expected = tmp_path / "state.safetensors", train(network=frozen())
    with pytest.raises(Interruption):
        train(state, frozen(), after_calls(2 * CALLS + 3, interrupt))
    network, _ = train(state, network=frozen())
    assert same(weights_of(network), weights_of(expected[0]))
    assert torch.equal(network.weights[0].weight, new_network().weights[0].weight)


def operations(network: Network) -> float:
    traces = []
    with torch.no_grad():
        network(clips()[0], traces)
    return synaptic_operations(network, traces).item()


def test_operations_are_those_that_spikes_cause():
    """Exact after dense layers; in a convolution, border neurons count like inner ones."""
    dense = new_network(architecture="16FC-12FC-10FC")
    counted = activity(dense, clips()[0])["synops"].iloc[1:].sum()
    assert operations(dense) == pytest.approx(counted) and counted > 50
    maps = new_network(architecture="3C3s2p1-4C3s2p1-10FC")
    assert operations(maps) == pytest.approx(activity(maps, clips()[0])["synops"].iloc[1:].sum(), rel=0.15)
    assert operations(new_network(architecture="10FC")) == 0


def test_a_penalty_on_spikes_leaves_fewer_and_survives_a_stop(tmp_path):
    free, penalised = train()[0], train(spike_penalty=1.0)
    assert operations(penalised[0]) < 0.85 * operations(free)
    state = tmp_path / "state.safetensors"
    with pytest.raises(Interruption):
        train(state, None, after_calls(2 * CALLS + 3, interrupt), spike_penalty=1.0)
    network, history = train(state, spike_penalty=1.0)
    assert same(weights_of(network), weights_of(penalised[0]))
    assert without_seconds(history) == without_seconds(penalised[1])


def test_stopped_training_with_all_that_helps_goes_on_to_the_same_weights(tmp_path):
    helped = {"schedule": "onecycle", "weight_decay": 0.01, "dropout": 0.2}
    expected = train(network=new_network(batch_norm=True), **helped)
    state = tmp_path / "state.safetensors"
    with pytest.raises(Interruption):
        hook = after_calls(2 * CALLS + 3, interrupt)
        train(state, new_network(batch_norm=True), hook, **helped)
    assert _epochs(state) == 2
    network, history = train(state, network=new_network(seed=9, batch_norm=True), **helped)
    assert same(weights_of(fold(network)), weights_of(fold(expected[0])))
    assert without_seconds(history) == without_seconds(expected[1])


def test_stop_before_the_first_epoch_ends_leaves_no_state(tmp_path):
    with pytest.raises(Interruption):
        train(tmp_path / "state", hook=after_calls(3, interrupt))
    assert not list(tmp_path.iterdir())


def test_finished_training_is_not_trained_on(tmp_path, uninterrupted):
    train(tmp_path / "state")
    network, history = train(tmp_path / "state", hook=after_calls(1, interrupt))
    assert same(weights_of(network), weights_of(uninterrupted[0]))
    assert without_seconds(history) == without_seconds(uninterrupted[1])


def train_and_be_killed(state: Path) -> None:
    """Four processes resume one training in turn, and each is killed at a different moment."""

    def killed(prepare) -> None:
        child = os.fork()
        if child == 0:
            hook = prepare()
            train(state, hook=hook)
            os._exit(0)  # not reached
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def while_writing():
        def half(path, content):
            with open(path, "wb") as file:
                file.write(content[: len(content) // 2])
            die()

        Path.write_bytes = half

    def before_renaming():
        os.replace = lambda *_: die()

    killed(lambda: after_calls(CALLS + 2, die))  # in the second epoch
    assert _epochs(state) == 1
    killed(while_writing)
    killed(before_renaming)
    assert _epochs(state) == 1
    killed(lambda: after_calls(2 * CALLS, die))  # two epochs later, before the second one is written
    assert _epochs(state) == 2


def _epochs(state: Path) -> int:
    return len(load_tensors(state, "scnn training state 2")[0]["history"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")
def test_training_killed_at_any_moment_goes_on_to_the_same_weights(tmp_path, uninterrupted):
    # In a separate process, which forks before PyTorch has started any thread.
    state = tmp_path / "state.safetensors"
    script = (
        f"import sys; from pathlib import Path; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import test_training; test_training.train_and_be_killed(Path({str(state)!r}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    network, history = train(state)
    assert same(weights_of(network), weights_of(uninterrupted[0]))
    assert without_seconds(history) == without_seconds(uninterrupted[1])


def test_state_of_another_training_is_refused_and_left_alone(tmp_path):
    state = tmp_path / "state"
    train(state)
    before = state.read_bytes()
    for other in ({"seed": 1}, {"network": new_network(beta=0.9)}, {"network": build("B")}):
        with pytest.raises(StateError, match=r"state: belongs to another training; remove it"):
            train(state, **other)
    assert state.read_bytes() == before


# Files that are refused. A pickle in place of a file must never be loaded, because it can run any code.


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def forged(path: Path, form: str, change) -> None:
    """The file after `change(about, tensors)` has altered its contents, with a matching checksum."""
    about, tensors = load_tensors(path, form)
    change(about, tensors)
    save_tensors(path, form, about, tensors)


def of_another_format(path: Path) -> None:
    save_tensors(path, "scnn network 99", {}, {"a": torch.zeros(2)})


def of_an_older_format(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path, {"format": "scnn network 1", "network": "{}", "about": "{}"})


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def say_otherwise(path: Path) -> None:
    """The file with its description altered, at the same length."""
    content = path.read_bytes()
    assert content.count(b"num_steps") == 1
    path.write_bytes(content.replace(b'num_steps\\": 4', b'num_steps\\": 5'))


def take_the_bits_for_whole_numbers(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"U32"', 1))


def nest(path: Path) -> None:
    text = b'{"__metadata__":' + b"[" * 10**5
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lie_about_shapes(path: Path) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name.endswith("weights.1.weight"))
    header[name]["shape"] = [10**6, 10**6]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def header_beyond_the_file(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])


DAMAGES = {  # name: (what happens to the file, the reason given)
    "empty": (lambda path: path.write_bytes(b""), "not a safetensors file, or a damaged one"),
    "text": (lambda path: path.write_text("hello, I am no network"), "not a safetensors file"),
    "truncated": (truncate, "not a safetensors file, or a damaged one"),
    "shapes": (lie_about_shapes, "not a safetensors file, or a damaged one"),
    "header": (header_beyond_the_file, "not a safetensors file, or a damaged one"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "bang"))), "not a safetensors"),
    "torch": (lambda path: torch.save(Bomb(path.parent / "bang"), path), "not a safetensors file"),
    "old torch": (
        lambda path: torch.save(Bomb(path.parent / "bang"), path, _use_new_zipfile_serialization=False),
        "not a safetensors file",
    ),
    "no header": (lambda path: save_file({"a": torch.zeros(2)}, path), "its header says format None"),
    "other format": (of_another_format, "its header says format 'scnn network 99'; this reads 'scnn"),
    "older format": (of_an_older_format, "its header says format 'scnn network 1'; this reads 'scnn"),
    "a bit": (flip_a_bit, "its contents have changed since they were written: the checksum"),
    "description": (say_otherwise, "its contents have changed since they were written: the checksum"),
    "whole numbers": (
        take_the_bits_for_whole_numbers,
        "not a safetensors file.* dtype U32",
    ),
    "half precision": (
        lambda path: save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, path, {"scnn": "{}"}),
        "not a safetensors file, or a damaged one .* dtype BF16",
    ),
    "deep": (nest, "not a safetensors file, or a damaged one"),
    "infinite JSON": (
        lambda path: save_file({"a": torch.zeros(2)}, path, {"scnn": '{"about": NaN}'}),
        "its header says format None",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_refused_with_the_reason_and_never_executed(tmp_path, damage):
    path = tmp_path / "network.safetensors"
    write, message = DAMAGES[damage]
    save_network(new_network(), path)
    write(path)
    with pytest.raises(ValueError, match=f"network.safetensors: {message}"):
        load_network(path)
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_state_is_refused_with_the_reason_and_never_executed(tmp_path, damage):
    state = tmp_path / "state.safetensors"
    write, message = DAMAGES[damage]
    train(state)
    write(state)
    with pytest.raises(StateError, match=f"state.safetensors: {message}"):
        train(state)
    assert not (tmp_path / "bang").exists()


def test_network_and_state_are_not_taken_for_each_other(tmp_path):
    train(tmp_path / "state")
    save_network(new_network(), tmp_path / "network")
    with pytest.raises(ValueError, match="says format 'scnn training state 2'; this reads 'scnn network 2'"):
        load_network(tmp_path / "state")
    with pytest.raises(StateError, match="says format 'scnn network 2'; this reads 'scnn training state 2'"):
        train(tmp_path / "network")


def describe(**changes):
    """Alters the description of the network in the header."""

    def change(about, tensors):
        about["network"] |= changes

    return change


def beside(**entries):
    """Alters what is kept beside the network."""

    def change(about, tensors):
        about["about"] |= entries

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, _: about.pop("network"), r"header is not valid \('network'\)"),
        (lambda about, _: about.pop("about"), r"header is not valid \('about'\)"),
        (lambda about, _: about.update(network="{"), "header is not valid"),
        (lambda about, _: about.update(network=[1]), "header is not valid"),
        (lambda about, _: about.update(about=[1]), "about must be a dictionary"),
        (describe(architecture="6X3"), "'6X3' in architecture '6X3' is not a layer"),
        (describe(architecture=None), "header is not valid"),
        (describe(architecture="9" * 20 + "FC"), "header is not valid"),
        (describe(neuron={"beta": 7}), "beta must lie in 0..1, not 7"),
        (describe(neuron={"gamma": 7}), "gamma"),
        (describe(num_steps=-1), "num_steps must be a whole number of at least 1, not -1"),
        (describe(num_steps="many"), "num_steps must be a whole number of at least 1, not 'many'"),
        (describe(input_shape=[1, 32]), "input_shape must be channels, height and width"),
        (describe(input_shape=[1, 40, 32]), "its weights do not fit 3C3-P2-16FC-10FC"),
        (describe(architecture="6C3-128FC-10FC"), "its weights do not fit 6C3-128FC-10FC"),
        (describe(architecture="9999999999FC-10FC"), "'9999999999FC-10FC' .* is too large"),
        (
            describe(architecture="-".join(["1FC"] * 200_000)),
            "architecture must be text, of at most 64 layers",
        ),
        (describe(architecture="-".join(["1FC"] * 65)), "architecture has 65 layers, at most 64"),
        (describe(num_steps=10**6), "num_steps must be at most 1000, not 1000000"),
        (describe(num_steps=1000, input_shape=[1, 4000, 4000]), "too large"),
        (describe(num_steps=True), "num_steps must be a whole number"),
        (describe(input_shape=[True, 32, 32]), "input_shape must be"),
        (describe(spiking="yes"), "spiking must be True or False, not 'yes'"),
        (describe(neuron={"threshold": 1e300}), r"threshold must be a number from 0 to 1e\+30"),
        (describe(neuron={"slope": 1e300}), r"slope must be a number above 0, up to 1e\+30"),
        (describe(neuron={"beta": "0.5"}), "beta must be a number, not '0.5'"),
        (describe(neuron={"membrane_bits": 8.0}), "membrane_bits must be a whole number"),
        (describe(recipe={"weight_bits": 8.0}), "weight_bits must be 0 or a whole number"),
        (describe(surprise=1), "surprise"),
        (lambda _, tensors: tensors.pop("weights.2.bias"), "its weights do not fit"),
        (lambda _, tensors: tensors.update(more=torch.zeros(1)), "its weights do not fit"),
        (
            lambda _, tensors: tensors.update({"weights.2.bias": torch.zeros(10, dtype=torch.float16)}),
            "F16",
        ),
        (lambda _, tensors: tensors["weights.2.bias"].fill_(math.nan), "weights that are not finite numbers"),
        (lambda _, tensors: tensors["weights.2.bias"].fill_(math.inf), "weights that are not finite numbers"),
        (beside(classes=["a", "b"]), "classes must be 10 different names, not"),
        (beside(classes=["a"] * 10), "classes must be 10 different names, not"),
        (beside(classes="0123456789"), "classes must be 10 different names, not"),
        (beside(classes=list(range(10))), "classes must be names .* not 0"),
        (beside(classes=[*"012345678", "\x1b[31m"]), r"classes must be names .* not '\\x1b\[31m'"),
        (beside(classes=[*"012345678", "a\u202eb"]), "classes must be names .*202e"),
        (beside(classes=[*"012345678", "a" * 101]), "classes must be names of 1 to 100 characters"),
        (beside(sample_rate=10**9), "sample_rate must be at most 384000"),
        (beside(sample_rate="8000"), "sample_rate must be a whole number"),
        (beside(normalization=[0.0]), "normalization must be None, or mean and deviation"),
        (beside(normalization=[0.0, 0.0]), "normalization must be a mean and a deviation above 0"),
        (beside(normalization=[1e300, 1.0]), "normalization must be a mean and a deviation above 0"),
        (beside(normalization=["0", "1"]), "normalization must be a number, not '0'"),
        (beside(experiment={"features": {"frame": 2**30}}), "frame=1073741824: must be at most 65536"),
        (beside(experiment={"features": {"height": 10**6}}), "height=1000000: must be at most 1024"),
        (beside(experiment={"features": {"height": 64}}), "features give images of 64 x 32"),
        (beside(experiment=[]), "header is not valid"),
    ],
)
def test_network_that_does_not_fit_its_description_is_refused(tmp_path, change, message):
    path = tmp_path / "network.safetensors"
    save_network(new_network(), path)
    forged(path, training.FORMAT, change)
    with pytest.raises(ValueError, match=f"network.safetensors: .*{message}"):
        load_network(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda about, _: about.pop("history"),
        lambda about, _: about.update(history=[]),
        lambda about, _: about.update(history=about["history"] * 2),
        lambda about, _: about.update(history=about["history"][1:]),
        lambda about, _: about["history"][0].pop("loss"),
        lambda about, _: about["history"][0].update(loss="small"),
        lambda about, _: about.update(history="long"),
        lambda about, _: about.pop("training"),
        lambda _, tensors: tensors.pop("weight/weights.0.bias"),
        lambda _, tensors: tensors.pop("exp_avg/weights.0.bias"),
        lambda _, tensors: tensors.update({"weight/weights.0.bias": torch.zeros(5)}),
        lambda _, tensors: tensors.update({"exp_avg/weights.0.bias": torch.zeros(5)}),
        lambda _, tensors: tensors.update(odd=torch.zeros(5)),
    ],
)
def test_state_that_was_tampered_with_is_refused(tmp_path, change):
    state = tmp_path / "state.safetensors"
    train(state)
    forged(state, "scnn training state 2", change)
    with pytest.raises(StateError, match=r"state.safetensors: "):
        train(state)


# Files that are written.


@pytest.mark.parametrize("parameters", [{}, {"reset": "zero", "beta": 0.25}, {"spiking": False}])
def test_network_comes_back_as_it_was_saved(tmp_path, parameters):
    network = new_network(seed=3, **parameters)
    save_network(network, tmp_path / "deep" / "network", {"note": ["a", "b"]})
    before = torch.random.get_rng_state()
    loaded, about = load_network(tmp_path / "deep" / "network")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert about == {"note": ["a", "b"]}
    assert same(weights_of(network), weights_of(loaded)) and str(network) == str(loaded)
    images = clips()[0]
    first, second = network(images), loaded(images)
    assert torch.equal(first.membrane, second.membrane)


def test_header_is_plain_text(tmp_path):
    save_network(build("B"), tmp_path / "network", {"note": "kept"})
    content = (tmp_path / "network").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["scnn"])
    assert header["format"] == "scnn network 2" and header["about"]["about"] == {"note": "kept"}
    assert header["about"]["network"]["architecture"] == "6C3-128FC-10FC"


def test_equal_networks_give_equal_files(tmp_path):
    for name in ("first", "second"):
        save_network(new_network(), tmp_path / name, {"classes": [*"0123456789"], "sample_rate": 8000})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_path_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "network"
    save_network(new_network(), path)
    assert same(weights_of(load_network(path)[0]), weights_of(new_network()))


def test_weights_that_are_not_finite_are_not_saved_for_others_to_find(tmp_path):
    with pytest.raises(ValueError, match="classes must be 10 different names"):
        save_network(new_network(), tmp_path / "network", {"classes": ["a"]})
    assert not list(tmp_path.iterdir())


def test_loaded_network_can_be_trained_on_and_its_file_stays(tmp_path):
    save_network(new_network(), tmp_path / "network")
    before = (tmp_path / "network").read_bytes()
    loaded, _ = load_network(tmp_path / "network")
    train(network=loaded)
    assert not same(weights_of(loaded), weights_of(new_network()))
    assert (tmp_path / "network").read_bytes() == before
    assert same(weights_of(load_network(tmp_path / "network")[0]), weights_of(new_network()))


def test_missing_network_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        load_network(tmp_path / "nowhere")


@pytest.fixture
def full_disk(monkeypatch):
    """Simulates a full disk: writing stops in the middle from then on."""

    def half(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(Path, "write_bytes", half)


def test_full_disk_leaves_the_old_network(tmp_path, full_disk):
    save_network(new_network(), tmp_path / "network")
    full_disk()
    with pytest.raises(OSError, match=r"network.*No space left on device.*left as it was"):
        save_network(new_network(seed=1), tmp_path / "network")
    assert [file.name for file in tmp_path.iterdir()] == ["network"]
    assert same(weights_of(load_network(tmp_path / "network")[0]), weights_of(new_network()))


def test_training_goes_on_once_there_is_room_again(tmp_path, full_disk, monkeypatch, uninterrupted):
    with pytest.raises(OSError, match=r"state.*No space left on device"):
        train(tmp_path / "state", hook=after_calls(CALLS + 1, full_disk))
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    assert _epochs(tmp_path / "state") == 1
    monkeypatch.undo()
    network, _ = train(tmp_path / "state")
    assert same(weights_of(network), weights_of(uninterrupted[0]))


def test_each_epoch_is_told_of_and_where_training_goes_on(tmp_path):
    told, state = [], tmp_path / "state.safetensors"

    def listen(network, history):
        assert not network.training
        told.append([row["epoch"] for row in history])
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(new_network(), *clips(), clips(20, seed=1), Training(epochs=3), state, on_epoch=listen)
    fit(new_network(), *clips(), clips(20, seed=1), Training(epochs=3), state, on_epoch=listen)
    assert told == [[1], [1, 2], [1, 2], [1, 2, 3]]
