"""The C generated from a program: the same bits as the reference on every target, and no crashes."""

import errno
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from unicorn import UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE, arm_const

from scnn import files
from scnn.__main__ import main
from scnn.data import ESPEAK_FOLDER, load_corpus
from scnn.deploy import compiler, convert, cost, emit, load_program, measure, reference, tuned
from scnn.deploy.frontend import FrontEnd
from scnn.experiment import Experiment, run
from scnn.features import Features, image
from scnn.models import build
from scnn.quantization import Recipe

LOGMEL = Features(
    kind="logmel", bands=16, height=18, width=24, frame=128, hop=256, trim_db=30, normalization="clip"
)
PEAK = {"hop": 100, "preemphasis": 0.97, "trim_frame": 512, "crop": "loudest", "normalization": "peak",
        "equalize": 0.5}  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Samples of packaged recordings: ordinary ones, and a short, a long, a quiet and a loud one."""
    some = [np.rint(waveform * 32768).astype(np.int16) for waveform in load_corpus("espeak").waveforms[::151]]
    loud = np.random.default_rng(0).choice([-32768, 32767], 2000).astype(np.int16)
    return [*some, some[0][2000:2050], np.concatenate(some), some[1] // 256, loud, np.ones(1, np.int16)]


@pytest.fixture(scope="module")
def network(home):
    """The file of a small trained network."""
    model = "4C3s2p1-P2-32FC-10FC"
    record = run(Experiment(corpus="espeak", features=LOGMEL, model=model, num_steps=4, epochs=3))
    return record.folder / "network.safetensors"


def lively(notation: str, clips, spiking: bool = True, bits: int | None = None, seed: int = 0, **options):
    """A program with random weights, large enough that every layer is active."""
    features = replace(LOGMEL, **options.pop("features", {}))
    shape = (1, features.height, features.width)
    network = build(notation, spiking=spiking, input_shape=shape, seed=seed, **options)
    with torch.no_grad():
        for module in network.weights[1:]:
            module.weight *= 3
            module.bias.abs_()
    images = image(clips[0] / np.float32(32768), 8000, features).values
    readout = "membrane" if seed % 2 else "spikes"
    return convert(network, FrontEnd(features), bits=bits, calibration=images, readout=readout)


RANDOM = {
    "spiking": ("6C3s2p1-P2-9C3p1-12FC-10FC", {"num_steps": 4}),
    "wide steps": ("5C5s2-7C3s2p2-P3s2-10FC", {"num_steps": 8, "beta": 0.83, "bits": 4, "seed": 1}),
    "shallow": ("4FC", {"num_steps": 2, "beta": 1.0, "threshold": 0.3, "seed": 3}),
    "image to units": ("30FC-20FC-10FC", {"num_steps": 3, "beta": 0.0, "bits": 2, "reset": "zero"}),
    "no reset": ("3C2-P2-6FC", {"num_steps": 5, "reset": "none", "features": {"normalization": "band"}}),
    "untrimmed": ("8C3s3p1-8FC", {"features": {"trim_db": None, "normalization": "none"}, "num_steps": 4}),
    "many rows": ("24C3p1-33FC-10FC", {"num_steps": 4, "seed": 5}),
    "below the peak": ("4C3s2p1-6C3s2p1-10FC", {"num_steps": 4, "features": PEAK}),
    "trained with 4 bits": ("5C3s2p1-12FC-10FC", {"num_steps": 4, "precision": "int4-weights", "seed": 7}),
    "relu": ("6C3s2p1-P2-9C3p1-12FC-10FC", {"spiking": False}),
    "relu, 2 bits": ("5C3s2-18C3s2p1-10FC", {"spiking": False, "bits": 2}),
    "relu, one output": ("4C3s2p1-1C3p1-6C3p1-10FC", {"spiking": False, "seed": 2}),
    "relu, 4 bits": ("5C3s2-7C3s2p1-P3s1-10FC", {"spiking": False, "bits": 4, "features": {"frame": 512}}),
}


@pytest.mark.parametrize("name", RANDOM)
def test_any_notation_gives_the_bits_of_the_reference(name, clips, tmp_path):
    notation, options = RANDOM[name]
    program = lively(notation, clips, **options)
    found = reference.recognise(program, clips)
    assert all(0 < layer.mean() for layer in found.hidden)
    assert measure.verify(measure.Host(program, tmp_path), clips) == 0
    target = measure.CortexM(program, tmp_path)
    assert measure.verify(target, [clips[0], clips[-1]]) == 0


def test_a_trained_network_is_the_same_on_every_target(network, clips, tmp_path):
    program = load_program(network)
    assert measure.verify(measure.Host(program, tmp_path), clips) == 0
    assert measure.verify(measure.Wasm(program, tmp_path), clips) == 0
    for core in compiler.CORES:
        assert measure.verify(measure.CortexM(program, tmp_path, core), clips[:1]) == 0


def test_a_bit_that_differs_is_found(clips, tmp_path):
    program = lively("4C3s2p1-10FC", clips, num_steps=4)
    target = measure.Host(program, tmp_path)
    layer = program.layers[0]
    target.program = replace(program, layers=(replace(layer, bias=layer.bias + 9999), *program.layers[1:]))
    assert measure.verify(target, clips) > 0


def test_instructions_are_counted_the_same_every_time(clips, tmp_path):
    program = lively("4C3s2p1-10FC", clips, num_steps=4)
    target = measure.CortexM(program, tmp_path)
    first, again = (measure.instructions(target, clips[:3]) for _ in range(2))
    assert first.equals(again)
    assert {"transform", "layer_1", "layer_2", "sum"} <= set(first.index)
    assert 10_000 < first.loc["sum", "mean"] < 2_000_000
    sizes = measure.sizes(target)
    assert sizes["constants"] > 0.9 * sum(emit.emit(program, tmp_path).values())
    assert sizes["ram"] >= 2 * LOGMEL.height * LOGMEL.width


def test_an_estimate_counts_frames_multiplications_and_connections(clips, tmp_path):
    features = replace(LOGMEL, frame=256)
    seen = image(clips[0] / np.float32(32768), 8000, features)
    frames = int(seen.window[0].any(dim=0).sum())
    shape = (1, features.height, features.width)
    first, second = 4 * 9 * 12 * 9, 4 * 12 * 9 * 10  # multiplications of 4C3s2p1 and of 10FC
    least = 24_000 * frames + 1.5 * first

    def estimate(**parameters):
        network = build("4C3s2p1-10FC", num_steps=4, input_shape=shape, **parameters)
        return network, cost.estimate(network, seen.values, seen.window)

    assert estimate(spiking=False)[1] == pytest.approx(least + 1.5 * second)
    assert estimate(threshold=1e6)[1] == pytest.approx(least)  # no neuron spikes
    network, found = estimate(threshold=0.1)
    active = (network.trace(seen.values)[0].spikes > 0).any(dim=0).float().mean().item()
    assert found == pytest.approx(least + 3 * active * second, rel=1e-6) and active > 0.1
    program = convert(network, FrontEnd(features))
    counted = cost.word(measure.CortexM(program, tmp_path), clips[:1])
    assert 0.5 < found / (counted.front_end + counted.network) < 2


def test_the_cost_of_a_word(clips, tmp_path):
    """Energy, and where a spiking layer breaks even with the dense one."""
    notation = "6C3s2p1-8C3s2p1-10FC"
    program = lively(notation, clips, num_steps=4)
    found = cost.word(measure.CortexM(program, tmp_path), clips[:2])
    assert 0 < found.accesses < found.network == pytest.approx(sum(found.layers), abs=200)
    assert found.flash > sum(emit.emit(program, tmp_path).values())
    spent = cost.energy(1000, 0, found)
    assert spent["arithmetic"] == 0.1 and list(spent.values()) == sorted(spent.values())
    assert spent["word"] - spent["processor"] == pytest.approx(0.07 * found.front_end)

    points = cost.by_activity(program, tmp_path, clips[:2], [128, 512])
    dense = cost.word(measure.CortexM(lively(notation, clips, spiking=False), tmp_path), clips[:2])
    names = [layer.name for layer in program.layers]
    even = cost.break_even(points, dict(zip(names, dense.layers, strict=True)))
    assert list(even.index) == names[1:]
    most = points.groupby("layer")["active"].max() - points.groupby("layer")["active"].min()
    assert most["8C3s2p1"] > 0.02 and even.loc["8C3s2p1", "slope"] > 0
    line = even.loc["8C3s2p1"]
    assert line["base"] + line["slope"] * line["active"] == pytest.approx(1)
    silent = cost.break_even(points.assign(active=0.0), dict(zip(names, dense.layers, strict=True)))
    assert silent.isna().all(axis=None)


def test_loads_and_stores_are_counted(clips, tmp_path):
    """A dense layer reads each packed word of weights once."""
    program = lively("64FC-10FC", clips, spiking=False, features={"height": 16, "bands": 16, "width": 16})
    target = measure.CortexM(program, tmp_path)
    seen = [0, 0]  # accesses to constants and to RAM, by the emulator's own hook
    start, size = target._elf.functions["layer_2"]

    def access(machine, kind, address, *_):
        inside = start <= machine.reg_read(arm_const.UC_ARM_REG_PC) < start + size
        seen[address >= measure.RAM] += inside

    target._machine.hook_add(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, access)
    target.run(clips[0])
    constants, ram = seen
    assert 64 * 10 / 4 <= constants < 64 * 10 / 2
    assert ram >= 64 / 4 * 10 / 4
    assert target.words_accessed(["layer_2"]) == constants + ram


def test_packed_weights_can_be_read_again():
    rows = np.random.default_rng(0).integers(-1, 2, (5, 19)).astype(np.int8)
    packed = emit.packed_rows(rows, 2)
    assert packed.shape == (5, 8)
    fields = (packed.reshape(5, 2, 1, 4) >> np.arange(0, 8, 2)[:, None] & 3)[..., [0, 2, 1, 3]]
    assert (np.where(fields > 1, fields.astype(int) - 4, fields).reshape(5, -1)[:, :19] == rows).all()


@pytest.fixture(scope="module")
def recogniser(network, tmp_path_factory):
    """The program for this machine, built to crash on undefined behaviour."""
    folder = tmp_path_factory.mktemp("c")
    assert main(["export", str(network), "--out", str(folder)]) == 0
    binary = folder / "recogniser"
    sources = [str(folder / name) for name in ("main.c", *emit.CORE, emit.STREAM)]
    checks = ["-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"]
    compiler.compile_c([*compiler.WARNINGS, *checks, *sources, "-o", str(binary)])
    return binary


def answer(binary, *names, stdin=b""):
    return subprocess.run([binary, *map(str, names)], input=stdin, capture_output=True, timeout=60)


def test_the_recogniser_answers_wav_files_and_raw_samples(recogniser, network, tmp_path):
    program = load_program(network)
    for name in ("3_en-gb-x-rp-f5_1", "7_en-us-f2_4"):
        samples, rate = soundfile.read(ESPEAK_FOLDER / f"{name}.flac", dtype="int16")
        soundfile.write(tmp_path / "clip.wav", samples, rate)
        wanted = reference.recognise(program, [samples])
        for done in (
            answer(recogniser, tmp_path / "clip.wav"),
            answer(recogniser, "-", stdin=samples.tobytes()),
        ):
            _, digit, _, *scores = done.stdout.decode().split()
            assert done.returncode == 0
            assert digit == program.classes[wanted.answers[0]]
            assert [int(score.split(":")[1]) for score in scores] == wanted.scores[0].tolist()


def test_the_recogniser_says_what_is_wrong_with_a_file(recogniser, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(800, np.int16), 8000)
    soundfile.write(tmp_path / "fast.wav", np.ones(800, np.int16), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "silent.wav").read_bytes()[:30])
    names = [tmp_path / f"{name}.wav" for name in ("silent", "fast", "text", "cut", "none")]
    done = answer(recogniser, *names)
    words = ("silent", "sample rate", "not a WAV file", "damaged", "cannot be opened")
    assert done.returncode == 1 and not done.stdout
    for line, name, word in zip(done.stderr.decode().splitlines(), names, words, strict=True):
        assert line.startswith(str(name)) and word in line


def test_no_file_crashes_the_recogniser(recogniser, tmp_path):
    soundfile.write(tmp_path / "good.wav", np.arange(-500, 500, dtype=np.int16) * 60, 8000)
    good, random = (tmp_path / "good.wav").read_bytes(), np.random.default_rng(0)
    names = []
    for number in range(150):
        data = bytearray(good[: random.integers(8, len(good)) if number % 2 else len(good)])
        for _ in range(random.integers(1, 6)):
            data[random.integers(0, min(len(data), 60 if number % 3 else len(data)))] = random.integers(256)
        names.append(tmp_path / f"{number}.wav")
        names[-1].write_bytes(data)
    done = answer(recogniser, *names)
    assert done.returncode in (0, 1)
    assert len(done.stdout.splitlines()) + len(done.stderr.splitlines()) == len(names)


class Page:
    """Makes the calls of scnn.mjs from Python."""

    def __init__(self, wasm: bytes):
        import wasmtime

        self.store = wasmtime.Store()
        module = wasmtime.Module(self.store.engine, wasm)
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)

    def call(self, name: str, *arguments: int) -> int:
        return self.exports[f"scnn_{name}"](self.store, *arguments)

    def read(self, start: int, size: int) -> bytes:
        return bytes(self.exports["memory"].read(self.store, start, start + size))

    def recognise(self, pcm: np.ndarray) -> tuple[int, list[int], bytes]:
        """Answer, scores, and the activity of every layer."""
        self.exports["memory"].write(self.store, pcm.astype("<i2").tobytes(), self.call("input"))
        answer = self.call("answer", len(pcm))
        scores = np.frombuffer(self.read(self.call("answers"), 4 * self.call("classes")), "<i4").tolist()
        return answer, scores, self.read(self.call("traced"), self.call("end", self.call("records") - 1))


def test_the_page_has_what_it_needs(network, tmp_path, clips):
    assert main(["export", str(network), "--to", "wasm", "--out", str(tmp_path)]) == 0
    assert "recognise(samples)" in (tmp_path / "scnn.mjs").read_text()
    wasm, program = (tmp_path / "scnn.wasm").read_bytes(), load_program(network)
    assert wasm == compiler.wasm(program), "another build has other bytes"
    page = Page(wasm)
    assert page.call("rate") == 8000 and page.call("classes") == 10
    wanted = reference.recognise(program, clips[:2])
    for index, pcm in enumerate(clips[:2]):
        answer, scores, _ = page.recognise(pcm)
        assert answer == wanted.answers[index] and scores == wanted.scores[index].tolist()
    assert page.call("answer", page.call("most_samples") + 1) == -1 and page.call("records") == 0


@pytest.mark.parametrize(
    ("name", "most"),
    [("spiking", 8), ("no reset", 8), ("relu", 1), ("shallow", 3)],  # with more, sums might exceed 32 bits
)
def test_a_page_may_try_other_steps_and_thresholds(name, most, clips):
    notation, options = RANDOM[name]
    program = lively(notation, clips, **options)
    page = Page(compiler.wasm(program))
    assert page.call("most_steps") == most
    seen = set()
    for steps, threshold in [(program.steps, 256), (1, 200), (most, 512), (most, 128)]:
        assert page.call("tune", steps, threshold) == (0 if program.spiking or threshold == 256 else -1)
        now = tuned(program, steps, threshold) if program.spiking else program
        wanted = reference.recognise(now, clips)
        images = now.front_end.images(clips).astype("<i2")
        for index, pcm in enumerate(clips):
            layers = b"".join(layer[index].tobytes() for layer in wanted.hidden)
            answer, scores = wanted.answers[index], wanted.scores[index].tolist()
            assert page.recognise(pcm) == (answer, scores, images[index].tobytes() + layers)
        seen.add(wanted.scores.tobytes() + b"".join(layer.tobytes() for layer in wanted.hidden))
    assert len(seen) == (4 if program.spiking else 1)
    for steps, threshold in [(0, 256), (most + 1, 256), (1, 127), (1, 513)]:
        assert page.call("tune", steps, threshold) == -1


def test_tuning_says_what_is_out_of_range(clips):
    program = lively("6C3s2p1-10FC", clips, num_steps=4)
    with pytest.raises(ValueError, match=r"steps=9, threshold=256: must be in 1\.\.8 and 128\.\.512"):
        tuned(program, 9)
    with pytest.raises(ValueError, match="ReLU"):
        tuned(lively("6C3s2p1-10FC", clips, spiking=False), 2)
    heavy = replace(program.layers[-1], fraction=20)
    with pytest.raises(ValueError, match="10FC: with steps=8 its sums could reach"):
        tuned(replace(program, layers=(*program.layers[:-1], heavy)), 8)


def test_export_refuses_what_has_no_integer_form(capsys, network, tmp_path):
    assert main(["export", str(network), "--out", str(tmp_path), "--bits", "3"]) == 1
    assert "bits must be one of 8, 4, 2" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["c", "wasm"])
def test_an_export_that_finds_no_room_leaves_the_old_one(to, capsys, network, tmp_path, monkeypatch):
    export = ["export", str(network), "--to", to, "--out", str(tmp_path / "out")]
    assert main(export) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    flushed = []

    def full(path):
        flushed.append(path)
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_flush", full)
    assert main([*export, "--bits", "4"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_trained_recipe_keeps_its_own_weights():
    network = build("4C3s2p1-10FC", num_steps=4, input_shape=(1, 18, 24))
    trained = type(network)(
        network.architecture, 4, network.neuron, network.input_shape, True, Recipe(weight_bits=4)
    )
    program = convert(trained, FrontEnd(LOGMEL))
    assert [layer.bits for layer in program.layers] == [4, 4]
    assert json.loads(program.proof()["bits"].to_json(orient="values")) == [4, 4]


def test_outputs_of_own_scales_are_brought_to_one(clips):
    """If each output has its own scale, membranes are compared as in training."""
    network = build("10FC", num_steps=4, input_shape=(1, 18, 24), precision="int4-weights")
    with torch.no_grad():
        network.weights[0].weight *= torch.linspace(0.1, 1, 10)[:, None]
    program = convert(network, FrontEnd(LOGMEL), readout="membrane")
    taken = program.front_end.images(clips)
    wanted = network(torch.from_numpy(taken[:, None] / np.float32(256))).membrane.sum(dim=0).detach().numpy()
    found = reference.run(program, taken).scores * program.layers[0].scale.max()
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
