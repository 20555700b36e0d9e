"""NIR graphs: another simulator's spikes, the import, and networks that NIR cannot express."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from snntorch.import_nir import import_from_nir

from scnn.__main__ import main
from scnn.data import ESPEAK_FOLDER
from scnn.deploy import compiler
from scnn.deploy import nir as ours
from scnn.experiment import PRETRAINED
from scnn.models import Network, build
from scnn.neurons import Neuron
from scnn.training import load_network, save_network


def simulate(graph: nir.NIRGraph, image: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
    """The output of every node, [T, ...] by name, from NIR's equations with the forward Euler method."""
    before = {after: name for name, after in graph.edges}
    membranes = {name: 0.0 for name in graph.nodes}
    given = {name: [] for name in graph.nodes}
    order = ["input"]
    while len(order) < len(graph.nodes):
        order += [name for name in graph.nodes if before.get(name) == order[-1]]
    for _ in range(num_steps):
        now = image.astype(float)
        for name in order:
            node, dt = graph.nodes[name], graph.metadata["dt"]
            if isinstance(node, nir.Conv2d):
                now = convolve(node, now)
            elif isinstance(node, nir.Flatten):
                now = now.ravel()
            elif isinstance(node, nir.Affine):
                now = node.weight.astype(float) @ now + node.bias
            elif isinstance(node, nir.Threshold):
                now = (now > node.threshold).astype(float)
            elif not isinstance(node, nir.Input | nir.Output):
                v = membranes[name]
                slope = node.r * now
                if isinstance(node, nir.LIF | nir.LI):
                    slope = (node.v_leak - v + slope) / node.tau
                v = now = v + dt * slope
                if isinstance(node, nir.LIF | nir.IF):
                    now = (v > node.v_threshold).astype(float)
                    v = np.where(now > 0, node.v_reset, v)
                membranes[name] = v
            given[name].append(now)
    return {name: np.stack(values) for name, values in given.items()}


def convolve(node: nir.Conv2d, values: np.ndarray) -> np.ndarray:
    (height, width), (down, right) = node.weight.shape[2:], node.stride
    padded = np.pad(values, [(0, 0), *((side, side) for side in node.padding)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))[:, ::down, ::right]
    return np.einsum("chwij,ocij->ohw", windows, node.weight) + node.bias[:, None, None]


def spikes_of(given: dict[str, np.ndarray], layers: int) -> list[np.ndarray]:
    """The spikes of each layer's neurons."""
    kinds = ("lif", "if", "threshold")
    return [given[name] for i in range(1, layers + 1) for kind in kinds if (name := f"{kind}_{i}") in given]


ZERO = {"input_shape": (1, 9, 11), "reset": "zero"}


def lively(notation: str, seed: int = 0, **options) -> Network:
    """A network with random weights on a grid, so that their float32 sums are exact in any order."""
    network = build(notation, seed=seed, **ZERO | {"num_steps": 5} | options)
    with torch.no_grad():
        for index, module in enumerate(network.weights):
            module.weight.copy_(torch.round(module.weight * (256 if index else 128)) / 64)
            module.bias.copy_(torch.round(module.bias.abs() * 128) / 64)
    return network


def images(network: Network, count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(-16, 17, (count, *network.input_shape)) / 8).float()


def same(first: Network, second: Network, given: torch.Tensor) -> bool:
    traces = zip(first.trace(given), second.trace(given), strict=True)
    return all(torch.equal(one.spikes, other.spikes) for one, other in traces)


def drawn(seed: int) -> Network:
    """A network with random notation, steps and neurons."""
    rng = np.random.default_rng(seed)
    tokens, shape = [], (int(rng.integers(1, 3)), int(rng.integers(7, 13)), int(rng.integers(7, 13)))
    side = min(shape[1:])
    for _ in range(rng.integers(0, 4)):
        kernel, stride, padding = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(0, 3))
        if (side + 2 * padding - kernel) // stride + 1 < 1:
            break
        side = (side + 2 * padding - kernel) // stride + 1
        stride_of, padding_of = f"s{stride}" * (stride > 1), f"p{padding}" * (padding > 0)
        tokens.append(f"{rng.integers(2, 7)}C{kernel}{stride_of}{padding_of}")
    tokens += [f"{rng.integers(5, 30)}FC" for _ in range(rng.integers(1, 4))]
    return lively(
        "-".join(tokens),
        seed,
        input_shape=shape,
        num_steps=int(rng.integers(1, 9)),
        beta=float(rng.choice([0.0, 0.25, 0.5, 0.83, 0.9, 1.0])),
        threshold=float(rng.choice([0.3, 0.5, 1.0])),
        reset="none" if seed % 4 == 3 else "zero",
    )


@pytest.mark.parametrize("seed", range(20))
def test_every_layer_spikes_as_nirs_equations_say_and_comes_back(seed, tmp_path):
    network = drawn(seed)
    ours.write(network, tmp_path / "a.nir")
    graph = nir.read(tmp_path / "a.nir")
    given = images(network, 3, seed)
    traces = network.trace(given)
    assert all(trace.spikes.any() for trace in traces)
    for index, image in enumerate(given.numpy()):
        found = spikes_of(simulate(graph, image, network.num_steps), len(traces))
        for trace, spikes in zip(traces, found, strict=True):
            assert (trace.spikes[:, index].numpy() == spikes).all(), trace.name
    back, about = ours.read(tmp_path / "a.nir")
    assert about == {} and not back.training
    assert (back.architecture, back.num_steps) == (network.architecture, network.num_steps)
    assert back.neuron == network.neuron and back.input_shape == network.input_shape
    assert same(network, back, given)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.83, 0.95])
def test_snntorch_finds_the_same_spikes_in_every_layer(beta, tmp_path, capsys):
    network = lively("4C3s2p1-6C3p1-20FC-10FC", beta=beta, threshold=0.5, num_steps=7)
    ours.write(network, tmp_path / "a.nir")
    given = images(network, 3)
    traces = network.trace(given)
    assert all(trace.spikes.mean() > 0.01 for trace in traces)
    for index, image in enumerate(given):
        other = import_from_nir(nir.read(tmp_path / "a.nir"))  # its neurons start at rest
        found: list[list] = [[] for _ in traces]
        for kept, number in zip(found, range(1, 5), strict=True):
            unit = other.get_submodule(f"lif_{number}")
            unit.register_forward_hook(lambda *called, kept=kept: kept.append(called[2].detach()))
        for _ in range(network.num_steps):
            other(image)
        for trace, spikes in zip(traces, found, strict=True):
            assert torch.equal(trace.spikes[:, index], torch.stack(spikes).float()), trace.name


def test_rounded_weights_and_layers_without_bias_are_written_as_they_compute(tmp_path):
    network = build("4C3s2p1-10FC", precision="int8-weights", threshold=0.3, **ZERO)
    bare = build("4C3s2p1-10FC", precision="int8-nobias", threshold=0.3, **ZERO)
    bare.neuron = bare.output_neuron = Neuron(reset="zero", threshold=0.3)
    for rounded in (network, bare):
        ours.write(rounded, tmp_path / "a.nir")
        back, _ = ours.read(tmp_path / "a.nir")
        given = images(rounded, 4)
        assert rounded.trace(given)[0].spikes.any() and same(rounded, back, given)


@pytest.mark.parametrize(
    ("notation", "built", "message"),
    [
        ("4C3-10FC", {"reset": "subtract"}, "^4C3: .* subtracts .* --reset zero"),
        ("4C3s2-5C3-P2-10FC", {}, "^5C3-P2: NIR has no max pooling; .* 5C3s2$"),
        ("4C3-10FC", {"precision": "int8"}, "^4C3: NIR has no membranes of 8 bits; .* int8-weights"),
        ("4C3-10FC", {"spiking": False}, "ReLU"),
        ("4C3-10FC", {"batch_norm": True}, "scnn.models.fold"),
    ],
)
def test_what_nir_cannot_say_is_refused_with_the_layer_and_what_to_do(notation, built, message, tmp_path):
    network = build(notation, **ZERO | built)
    with pytest.raises(ValueError, match=message):
        ours.write(network, tmp_path / "a.nir")
    assert not list(tmp_path.iterdir())


def foreign(*nodes: tuple[str, nir.NIRNode], edges=(), more=(), metadata=None) -> nir.NIRGraph:
    """A chain of a 2 x 3 image, the nodes, and an output of the last one's shape; plus extra parts."""
    shapes = nir.Input(np.array([1, 2, 3])), nir.Output(nodes[-1][1].output_type["output"])
    named = {"image": shapes[0], **dict(nodes), "answer": shapes[1]}
    return nir.NIRGraph(named | dict(more), [*pairwise(named), *edges], metadata or {"num_steps": 3})


def lif(shape=(4,), **changes) -> nir.LIF:
    given = {"tau": 2e-4, "r": 2.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.LIF(**{name: np.broadcast_to(value, shape).copy() for name, value in given.items()})


FLAT = ("flat", nir.Flatten(np.array([1, 2, 3]), start_dim=0))
DENSE = ("dense", nir.Affine(np.ones((4, 6), np.float32), np.zeros(4, np.float32)))
LINEAR = ("dense", nir.Linear(np.ones((4, 6), np.float32)))
SQUARE = ("square", nir.Linear(np.eye(4, dtype=np.float32)))
LEAKY = ("leaky", nir.LI(*(np.full(4, value) for value in (2e-4, 2.0, 0.0))))


def uneven(**changes) -> tuple[str, nir.Conv2d]:
    given = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1} | changes
    return "conv", nir.Conv2d(
        (2, 3), np.ones((1, 1, 1, 1), np.float32), bias=np.zeros(1, np.float32), **given
    )


def layer(*nodes: tuple[str, nir.NIRNode], **more) -> nir.NIRGraph:
    return foreign(FLAT, DENSE, *nodes, **more)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: foreign(("pool", nir.AvgPool2d(*np.ones((3, 2), int)))), "node 'pool': .* found AvgPool2d"),
        (lambda: layer(), "node 'answer': expected LIF, .* found Output"),
        (lambda: layer(SQUARE), "node 'square': expected LIF, .* found Linear"),
        (lambda: layer(LEAKY), "node 'answer': expected Threshold, found Output"),
        (lambda: layer(("u", lif(tau=[1e-4, 2e-4, 2e-4, 2e-4]))), "node 'u': tau must be the same"),
        (lambda: layer(("u", lif(tau=5e-5))), "node 'u': tau is 5e-05, shorter"),
        (lambda: layer(("u", lif(r=1.0))), "node 'u': r must be 2, not 1"),
        (lambda: layer(("u", lif(v_leak=0.1))), "node 'u': v_leak must be 0, not 0.1"),
        (lambda: layer(("u", lif(v_reset=-1.0))), "node 'u': v_reset must be 0, not -1"),
        (lambda: layer(("u", lif(v_threshold=-1.0))), "threshold must be a number from 0"),
        (lambda: layer(("u", lif()), SQUARE, ("w", lif(v_threshold=2.0))), "node 'w': its units differ"),
        (lambda: layer(("u", lif()), SQUARE, ("w", lif()), edges=[("w", "square")]),
         "node 'w': it leads to two nodes"),
        (lambda: layer(("u", lif()), more={"second": nir.Input(np.array([4]))}, edges=[("second", "u")]),
         "node 'second': it is not on the path"),
        (lambda: foreign(uneven(stride=(1, 2)), ("u", lif((1, 2, 2)))), "node 'conv': .* both directions"),
        (lambda: foreign(uneven(dilation=(2, 2)), ("u", lif((1, 2, 3)))), "node 'conv': .* dilation"),
        (lambda: layer(("u", lif()), metadata={"other": 1}), "does not contain num_steps"),
        (lambda: foreign(FLAT), "has no layers"),
        (lambda: lif(), "not a NIR graph"),
    ],
)  # fmt: skip
def test_a_graph_that_is_no_such_network_is_refused_with_its_node(graph, message, tmp_path):
    nir.write(tmp_path / "a.nir", graph())
    with pytest.raises(ValueError, match=message) as raised:
        ours.read(tmp_path / "a.nir")
    assert str(raised.value).startswith(f"{tmp_path / 'a.nir'}: ")


def test_a_graph_of_another_program_is_read_if_it_is_such_a_chain(tmp_path):
    nir.write(tmp_path / "a.nir", foreign(FLAT, LINEAR, ("u", lif()), metadata={"other": 1}))
    network, about = ours.read(tmp_path / "a.nir", num_steps=6)
    assert (network.architecture, network.num_steps, network.input_shape) == ("4FC", 6, (1, 2, 3))
    assert network.neuron == Neuron(0.5, 1.0, "zero") and about == {}
    assert network(torch.full((1, 1, 2, 3), 0.1)).spikes[:, 0, 0].tolist() == [0, 0, 1, 0, 0, 1]


def test_a_damaged_file_is_refused_or_says_the_same(tmp_path):
    network, path = lively("2C3s2-6FC-3FC"), tmp_path / "a.nir"
    ours.write(network, path, {"classes": ["a", "b", "c"]})
    content, given = path.read_bytes(), images(network, 2)
    rng, refused = np.random.default_rng(0), 0
    for at in rng.choice(len(content), 100, replace=False):
        damaged = bytearray(content)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            back, about = ours.read(path)
        except ValueError as error:
            refused += str(error).startswith(f"{path}: ")
        else:
            assert same(network, back, given) and about in ({}, {"classes": ["a", "b", "c"]})
    assert refused > 10
    for damaged in (b"", b"no file of this kind", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path}: not a NIR graph, or a damaged one"):
            ours.read(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        ours.read(tmp_path / "none.nir")


def test_equal_networks_give_equal_files_and_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.nir"
    ours.write(lively("3FC"), path)
    before = path.read_bytes()
    ours.write(lively("3FC"), path)
    assert path.read_bytes() == before

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device.*left as it was"):
        ours.write(lively("4FC"), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_command_line_trains_without_the_subtraction_and_exports(home, tmp_path, capsys):
    for word in "01":
        (tmp_path / "words" / word).mkdir(parents=True)
        for clip in sorted(ESPEAK_FOLDER.glob(f"{word}_*_[0-3].flac"))[:16]:
            shutil.copy(clip, tmp_path / "words" / word)
    trained, out = tmp_path / "zero.safetensors", tmp_path / "graphs"
    quick = ["--corpus", str(tmp_path / "words"), "--model", "4C5s4-2FC", "--num-steps", "4", "--epochs", "1"]
    assert main(["train", *quick, "--reset", "zero", "--save", str(trained)]) == 0
    for given, path in ((out, out / "network.nir"), (tmp_path / "digits.nir", tmp_path / "digits.nir")):
        capsys.readouterr()
        assert main(["export", str(trained), "--to", "nir", "--out", str(given)]) == 0
        assert capsys.readouterr().out == f"{path}  {path.stat().st_size:,} bytes\n"
    network, about = load_network(trained)
    back, kept = ours.read(path)
    assert kept == json.loads(json.dumps(about)) and kept["classes"] == list("01")
    assert same(network, back, torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "16C3s2p1: a spike subtracts the threshold"),
        (["--bits", "4"], "--bits: NIR keeps the weights as trained"),
    ],
)
def test_the_command_line_says_why_it_cannot_export(options, message, tmp_path, capsys):
    assert main(["export", str(PRETRAINED), "--to", "nir", "--out", str(tmp_path / "a.nir"), *options]) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_answer_by_membrane_must_be_given_up_by_name(tmp_path, capsys):
    network, path = tmp_path / "a.safetensors", tmp_path / "a.nir"
    about = {"experiment": {"features": {"bands": 9, "height": 9, "width": 11}, "readout": "membrane"}}
    save_network(lively("4C3-10FC"), network, about)
    command = ["export", str(network), "--to", "nir", "--out", str(path)]
    assert main(command) == 1
    assert "NIR gives spikes, not membranes" in capsys.readouterr().err and not path.exists()
    assert main([*command, "--readout", "spikes"]) == 0 and path.exists()


def test_the_command_line_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    assert main(["export", "--to", "nir", "--out", str(tmp_path / "a.nir")]) == 1
    assert "pip install 'scnn-audio[edge]'" in capsys.readouterr().err
