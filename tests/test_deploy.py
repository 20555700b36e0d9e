"""The integer definition: front end, conversion, and spikes compared with the trained network's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scnn.data import load_corpus
from scnn.deploy import reference
from scnn.deploy.frontend import FrontEnd
from scnn.deploy.quantize import FINE, Leak, convert, load_program, report, rounded
from scnn.experiment import Experiment, load_data, run
from scnn.features import Features, image, trim_bounds
from scnn.models import build
from scnn.quantization import Recipe, weight_of
from scnn.training import predict

LOGMEL = Features(
    kind="logmel", bands=20, height=20, width=28, frame=256, hop=256, trim_db=30, normalization="clip"
)
OTHERS = [
    replace(LOGMEL, normalization="band", trim_db=10.0),
    replace(LOGMEL, normalization="none", trim_db=None),
    replace(LOGMEL, frame=512, hop=100, bands=16, width=12),
    replace(LOGMEL, frame=2048, height=31, width=33),
]
PEAK = replace(
    LOGMEL, hop=128, preemphasis=0.97, trim_frame=512, crop="loudest", normalization="peak", equalize=0.5
)
PEAKS = [PEAK, replace(PEAK, bands=16, width=12, range_db=80, equalize=0), replace(PEAK, frame=512, hop=99)]


def int16(waveform: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Samples of a few packaged recordings."""
    return [int16(waveform) for waveform in load_corpus("espeak").waveforms[::97]]


@pytest.fixture(scope="module")
def trained(home):
    """The record of a small network that trains in seconds."""
    return run(
        Experiment(corpus="espeak", features=LOGMEL, model="4C3s2p1-P2-32FC-10FC", num_steps=4, epochs=6)
    )


@pytest.mark.parametrize(
    "features", [LOGMEL, *OTHERS, *PEAKS], ids=lambda f: f"{f.normalization}-{f.frame}-{f.width}"
)
def test_the_front_end_gives_the_image_of_the_features(clips, features):
    front_end = FrontEnd(features)
    for pcm in clips:
        wanted = image(pcm / np.float32(32768), 8000, features)
        found, (left, right) = front_end.image(pcm)
        assert np.abs(found / front_end.unit - wanted.values[0, 0].numpy()).max() < (
            0.2 if features == OTHERS[1] else 0.03
        )
        assert np.abs(found).max() <= front_end.largest
        columns = np.flatnonzero(wanted.window[0].any(dim=0))
        assert (left, right) == (columns[0], columns[-1] + 1)


def test_the_front_end_applies_the_constants_of_a_training_set(clips):
    front_end = FrontEnd(replace(LOGMEL, normalization="train"), constants=(-41.5, 17.25))
    plain = image(clips[0] / np.float32(32768), 8000, replace(LOGMEL, normalization="none"))
    wanted = torch.where(plain.window, (plain.values[:, 0] + 41.5) / 17.25, 0)
    assert np.abs(front_end.image(clips[0])[0] / front_end.unit - wanted[0].numpy()).max() < 0.02


@pytest.mark.parametrize("features", [LOGMEL, OTHERS[3], PEAK], ids=["256", "2048", "peak"])
def test_loudest_samples_stay_within_the_declared_ranges(features):
    front_end = FrontEnd(features)
    square = np.where(np.arange(6000) // 9 % 2, 32767, -32768).astype(np.int64)
    alternating = np.where(np.arange(6000) % 2, 32767, -32768).astype(np.int64)
    noise = np.random.default_rng(0).choice([-32768, 32767], 6000)
    for samples in (square, alternating, noise, np.full(6000, -32768)):
        samples = front_end.emphasised(samples)
        assert np.abs(samples).max() < 2**29
        frames = front_end.frames(samples)
        assert np.abs(frames).max() < 2**29
        spectrum = front_end._fft(frames[:, 0::2], frames[:, 1::2])
        assert max(np.abs(part).max() for part in spectrum) < 2**30
        assert front_end.power(frames).max() < 2**60
        assert front_end.levels(samples).max() < 2**16


def test_trimming_in_integers_is_that_of_the_features(clips):
    for trim_db in (10.0, 30.0, 60.0):
        front_end = FrontEnd(replace(LOGMEL, trim_db=trim_db))
        for pcm in clips:
            (wanted,) = trim_bounds([pcm / np.float32(32768)], trim_db)
            assert front_end.trim_bounds(front_end.emphasised(pcm)) == tuple(wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mfcc"}, "kind='mfcc'"),
        ({"frame": 300}, "frame=300"),
        ({"frame": 4096}, "frame=4096"),
        ({"bands": 128, "height": 128, "width": 200}, "bands=128, width=200"),
        ({"trim_db": 70.0}, "trim_db=70"),
        ({"normalization": "train"}, "normalization='train'"),
        ({"crop": "loudest", "hop": 4096}, "hop=4096, width=28"),
    ],
)
def test_features_without_an_integer_form_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        FrontEnd(replace(LOGMEL, **change))


def test_samples_that_cannot_be_used_are_refused():
    front_end = FrontEnd(LOGMEL)
    with pytest.raises(ValueError, match="silent"):
        front_end.image(np.zeros(100, np.int16))
    with pytest.raises(ValueError, match="int16"):
        front_end.image(np.zeros(100))


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_whole_numbers_spike_as_the_float_network_does(reset):
    """With integer weights and a leak of one half, float32 is exact: every spike must be equal."""
    network = build("3C3s2p1-P2-6C3p1-12FC-4FC", num_steps=4, input_shape=(1, 20, 28), reset=reset, seed=1)
    program = convert(network, FrontEnd(LOGMEL), per_channel=False)
    layers = []
    with torch.no_grad():
        for layer, module in zip(program.layers, network.weights, strict=True):
            # Multiples of 8, so that the leak's shift drops nothing in three steps.
            module.weight.copy_(torch.from_numpy(layer.weights.astype(np.float32)) * 8)
            module.bias.copy_(torch.from_numpy(layer.bias // 8 * 8 % 64))
            layers.append(
                replace(
                    layer,
                    fraction=3,
                    bias=layer.bias // 8 * 8 % 64,
                    threshold=np.full(len(layer.bias), 800),
                )
            )
    network.neuron = network.output_neuron = replace(network.neuron, threshold=800.0)
    program = replace(program, layers=tuple(layers), readout="membrane")
    images = np.random.default_rng(0).integers(-3, 4, (6, 20, 28)).astype(np.int16)
    found = reference.run(program, images)
    traces = network.trace(torch.from_numpy(images[:, None]).float())
    for trace, mask in zip(traces, found.hidden, strict=False):
        bits = sum(trace.spikes[t].long() << t for t in range(4)).numpy()
        shape = (6, -1, 1, 1) if bits.ndim == 2 else bits.shape
        assert (bits.reshape(shape).transpose(0, 2, 3, 1) == mask).all()
        assert 0 < mask.mean()
    assert (traces[-1].membrane.sum(dim=0).numpy() == found.scores).all()


def test_the_leak_is_a_shift_where_it_can_be():
    assert [Leak.of(beta) for beta in (1.0, 0.5, 0.25, 0.0)] == [Leak(0), Leak(1), Leak(2), Leak(None, 0)]
    membrane = np.arange(-(2**20), 2**20, 997)
    for beta in (0.0, 0.22, 0.5, 0.9, 0.999, 1.0):
        assert np.abs(Leak.of(beta).of_membrane(membrane) - beta * membrane).max() < 35


def test_weights_are_rounded_as_in_training():
    for per_channel in (False, True):
        network = build("5FC-3FC", input_shape=(1, 4, 4), spiking=True)
        recipe = Recipe(weight_bits=4, per_channel=per_channel)
        quantised = type(network)("5FC-3FC", 2, network.neuron, (1, 4, 4), True, recipe)
        for module in quantised.weights:
            whole, scale = rounded(module.weight.detach().numpy(), 4, per_channel)
            assert np.abs(whole).max() == 7
            wanted = weight_of(module).detach().numpy()
            np.testing.assert_allclose(whole * scale[:, None], wanted, rtol=1e-6)


def test_the_proof_covers_what_happens(trained, clips):
    program = convert(trained.network(), FrontEnd(LOGMEL))
    proof = program.proof()
    assert (proof[["sum", "current", "membrane"]].to_numpy() < 2**31).all()
    assert all(layer.threshold.min() >= FINE for layer in program.layers)
    images = program.front_end.images(clips)
    first = reference.current(program.layers[0], images[..., None])
    _, membranes = reference.fire(program.layers[0], first[None], program.steps)
    assert np.abs(first).max() < proof["current"].iloc[0]
    assert np.abs(membranes).max() < proof["membrane"].iloc[0]


@pytest.mark.parametrize("readout", ["spikes", "membrane"])
def test_conversion_costs_next_to_nothing(trained, readout):
    data = load_data(trained.experiment)
    images, labels = data.part(data.split.test)
    pcm = [int16(data.corpus.waveforms[i]) for i in data.split.test]
    program = load_program(trained.folder / "network.safetensors", readout=readout)
    found = report(program, trained.network(), images, pcm, labels)
    assert found["float"] > 0.5
    assert abs(found["cost"]) <= 1.0 and found["same"] > 0.97


def test_a_relu_network_is_converted_with_clips_for_calibration(trained):
    experiment = replace(trained.experiment, model="4C3s2p1-P2-20FC-10FC")
    data = load_data(experiment)
    images, labels = data.part(data.split.train[:200])
    network = build(experiment.model, input_shape=(1, 20, 28), spiking=False)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images).membrane[0], labels).backward()
        optimizer.step()
    program = convert(network, FrontEnd(LOGMEL), calibration=images)
    found = reference.run(program, np.rint(images[:, 0].numpy() * program.front_end.unit).astype(np.int16))
    assert (found.answers == predict(network, images).numpy()).mean() > 0.97
    assert found.hidden[0].max() == 255
    with pytest.raises(ValueError, match="calibration"):
        convert(network, FrontEnd(LOGMEL))


@pytest.mark.parametrize(
    ("built", "options", "message"),
    [
        ({"num_steps": 9}, {}, "num_steps=9"),
        ({"precision": "int8"}, {}, "membrane_bits=8"),
        ({"precision": "int8-weights"}, {"bits": 4}, "weights of 8 bits"),
        ({}, {"bits": 3}, "8, 4, 2"),
        ({}, {"readout": "rate"}, "spikes, membrane"),
        ({"input_shape": (1, 32, 32)}, {}, "the features give"),
    ],
)
def test_networks_without_an_integer_form_are_refused_by_name(built, options, message):
    network = build("4C3s2p1-10FC", **{"input_shape": (1, 20, 28), "num_steps": 4, **built})
    with pytest.raises(ValueError, match=message):
        convert(network, FrontEnd(LOGMEL), **options)


@pytest.mark.parametrize(
    ("features", "precision"),
    [(replace(LOGMEL, trim_db=40.0), "fp32"), (replace(PEAK, hop=256), "int4-weights")],
)
def test_the_official_clips_of_fsdd_cost_at_most_half_a_point(fsdd, features, precision):
    record = run(Experiment(corpus="fsdd", split="official", features=features, model="4C3s2p1-P2-32FC-10FC",
                            num_steps=4, epochs=4, learning_rate=3.0e-3, readout="membrane",
                            precision=precision))  # fmt: skip
    data = load_data(record.experiment)
    images, labels = data.part(data.split.test)
    pcm = [int16(data.corpus.waveforms[i]) for i in data.split.test]
    program = load_program(record.folder / "network.safetensors")
    assert program.readout == "membrane"
    found = report(program, record.network(), images, pcm, labels)
    assert found["float"] > 0.6
    assert found["cost"] <= 0.5
