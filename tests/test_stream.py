"""Words in a stream, in integers: the C hears the same as Python, however the stream is cut."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from scnn.__main__ import main
from scnn.data import load_corpus
from scnn.deploy import compiler, convert, cost, emit, measure, stream
from scnn.deploy.frontend import FrontEnd, pcm
from scnn.deploy.quantize import Program
from scnn.deploy.stream import Stream, Word
from scnn.features import Features, image
from scnn.listen import Gate
from scnn.models import build

RATE = 8000
LOGMEL = Features(
    kind="logmel", bands=16, height=18, width=24, frame=128, hop=256, trim_db=30, normalization="clip"
)
CHECKS = ("-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined")  # undefined behaviour crashes


def made(spiking: bool = True, readout: str = "membrane", rate: int = RATE) -> Program:
    """A program with random weights, whose answers vary widely in confidence."""
    network = build("4C3s2p1-16FC-10FC", spiking=spiking, input_shape=(1, 18, 24), num_steps=4, seed=1)
    with torch.no_grad():
        for module in network.weights[1:]:
            module.weight *= 4
    images = image(load_corpus("espeak").waveforms[0], RATE, LOGMEL).values
    return convert(network, FrontEnd(LOGMEL, rate), readout=readout, calibration=images)


def spoken(words, snr: float = 30, seed: int = 0) -> np.ndarray:
    """The words in noise, int16 [samples], with pauses; one pause is longer than everything a gate keeps."""
    draw = np.random.default_rng(seed)
    parts = [np.zeros(4 * RATE)]
    for word in words:
        parts += [word / word.std() * 0.05, np.zeros(round(draw.uniform(0.4, 1.2) * RATE))]
    sound = np.concatenate(parts)
    return pcm(sound + 0.05 * 10 ** (-snr / 20) * draw.normal(size=len(sound)))


def in_python(program: Program, samples: np.ndarray) -> list[Word]:
    heard = Stream(program)
    return heard.feed(samples) + heard.flush()


def in_pieces(target, samples: np.ndarray, longest: int, seed: int = 0) -> list[Word]:
    """The words that `target` hears when the samples arrive in pieces of random length."""
    draw, words, at = np.random.default_rng(seed), [], 0
    while at < len(samples):
        size = int(draw.integers(1, longest + 1))
        words += target.hear(samples[at : at + size])
        at += size
    return words + target.finish()


@pytest.fixture(scope="module")
def words() -> list[np.ndarray]:
    return load_corpus("espeak").waveforms[::109]


@pytest.mark.parametrize(
    "options", [{}, {"readout": "spikes"}, {"spiking": False}], ids=["membrane", "spikes", "relu"]
)
def test_c_hears_what_python_hears_however_the_stream_is_cut(options, words, tmp_path):
    program, samples = made(**options), spoken(words)
    refused = np.median([word.confidence for word in in_python(program, samples)]) / stream.CONFIDENCE
    program = replace(program, refuse=float(refused))
    wanted = in_python(program, samples)
    assert len(wanted) == len(words)
    assert {word.sure for word in wanted} == {True, False}
    target = measure.Host(program, tmp_path, CHECKS, streaming=True)
    for longest in (len(samples), 17, 20_000):  # one stream after another
        assert in_pieces(target, samples, longest) == wanted


def test_a_cortex_m_hears_what_python_hears(words, tmp_path):
    program, samples = made(), spoken(words[:4])
    for core in compiler.CORES:
        target = measure.CortexM(program, tmp_path, core, streaming=True)
        assert in_pieces(target, samples, 500) == in_python(program, samples)


def test_what_listening_costs(words, tmp_path):
    found = cost.listening(made(), tmp_path, [pcm(word) for word in words[:3]])
    assert 8 * RATE < found.gate < 40 * RATE < found.speaking < found.gate + 3 * found.answer
    samples = 2 * 263 * RATE // 100  # 2.5 s, the frame that opens the gate, and those before it
    assert samples < found.ram < samples + 500
    assert 500 < found.flash < 6000
    with pytest.raises(ValueError, match="no word is heard"):
        cost.listening(made(), tmp_path, [np.zeros(4000, np.int16)])


@pytest.mark.parametrize("rate", [16_000, 2000])  # at one of them, the filter uses upper halves
def test_another_rate(rate, words, tmp_path):
    samples = spoken(words[:6])
    samples = np.repeat(samples, 2) if rate > RATE else samples[:: RATE // rate]
    program = made(rate=rate)
    wanted = in_python(program, samples)
    assert len(wanted) == 6
    assert in_pieces(measure.Host(program, tmp_path, CHECKS, streaming=True), samples, 999) == wanted


def _music(time: np.ndarray) -> np.ndarray:
    """Four tones a second without end: anything longer than a word is cut."""
    return 0.1 * np.sin(2 * np.pi * 440 * time) * (1.1 + np.sin(2 * np.pi * 4 * time))


def test_c_bears_any_sound(tmp_path):
    program, draw = made(), np.random.default_rng(0)
    target = measure.Host(program, tmp_path, CHECKS, streaming=True)
    time = np.arange(10 * RATE) / RATE
    square = np.where(np.sin(2 * np.pi * 300 * time) * (time % 1 > 0.6) > 0, 32767, -32768).astype(np.int16)
    sounds = {
        "silence": np.zeros(5 * RATE, np.int16),
        "offset": np.full(5 * RATE, 9000, np.int16),
        "noise sets in": pcm(np.repeat([0.001, 0.1], 3 * RATE) * draw.normal(size=6 * RATE)),
        "music": pcm(_music(time)),
        "clipped": square,
        "the loudest": np.where(np.arange(5 * RATE) % 2, 32767, -32768).astype(np.int16),
        "anything": draw.integers(-32768, 32768, 5 * RATE).astype(np.int16),
        "bursts": pcm(0.3 * draw.normal(size=10 * RATE) * (draw.random(100).repeat(RATE // 10) > 0.8)),
        "one sample": np.ones(1, np.int16),
        "nothing": np.zeros(0, np.int16),
    }
    found = {}
    for name, samples in sounds.items():
        found[name] = in_python(program, samples)
        assert in_pieces(target, samples, 1234) == found[name], name
    quiet = {"silence", "offset", "noise sets in", "one sample", "nothing"}
    assert {name for name, heard in found.items() if not heard} >= quiet
    assert all(found[name] for name in ("music", "clipped", "bursts"))
    assert max(word.length for word in found["music"]) > 2.4 * RATE
    for heard in found.values():
        ends = [word.start + word.length for word in heard]
        assert all(end <= after.start for end, after in zip(ends, heard[1:], strict=False))


def test_shorter_words_take_less_memory(words, tmp_path):
    program = made()
    samples = np.concatenate([spoken(words[:3]), pcm(_music(np.arange(5 * RATE) / RATE))])
    heard = Stream(program, longest=60)
    wanted = heard.feed(samples) + heard.flush()
    assert max(word.length for word in wanted) <= (12 + 1 + 60) * RATE // 100
    target = measure.Host(program, tmp_path, [*CHECKS, "-DSCNN_LONGEST=60"], streaming=True)
    assert in_pieces(target, samples, 700) == wanted != in_python(program, samples)
    with pytest.raises(ValueError, match="longest=30: must be 31 frames or more"):
        Gate(RATE, longest=30)


def test_a_word_is_the_same_in_any_stream_and_answers_as_alone(words):
    """Its samples are those that `Gate` cuts out, and its answer is that for a recording of them."""
    program, samples = made(), spoken(words[:5])
    gate = Gate(RATE)
    segments = gate.feed(samples) + gate.flush()
    for word, segment in zip(in_python(program, samples), segments, strict=True):
        assert (word.start, word.length) == (round(segment.start * RATE), len(segment.samples))
        alone = samples[word.start : word.start + word.length]
        assert word.answer == stream.reference.recognise(program, [alone]).answers[0]


@pytest.mark.parametrize("options", [{}, {"readout": "spikes"}, {"spiking": False}])
def test_the_confidence_is_that_of_floating_point(options):
    program, draw = made(**options), np.random.default_rng(0)
    scale = program.layers[-1].scale
    seen = []
    for spread in (0.01, 0.5, 3, 100):
        values = draw.normal(0, spread, 10) + draw.normal(0, 0.1, (program.steps, 10))
        membranes = np.rint(values / scale).astype(np.int64)
        shares = torch.softmax(torch.from_numpy(membranes * scale), dim=1).mean(dim=0).numpy()
        for answer in range(10):
            found = stream.confidence(program, membranes, answer) / stream.CONFIDENCE
            assert found == pytest.approx(shares[answer], abs=0.002)
            seen.append(found)
    assert min(seen) == 0 and max(seen) > 0.9


def lines(capsys, *arguments: str) -> list[str]:
    assert main(["listen", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture(scope="module")
def program_on_disk(tmp_path_factory):
    """The packaged network's C, compiled with all checks."""
    folder = tmp_path_factory.mktemp("c")
    assert main(["export", "--out", str(folder)]) == 0
    sources = [str(folder / name) for name in ("main.c", *emit.CORE, emit.STREAM)]
    compiler.compile_c([*compiler.WARNINGS, *CHECKS, *sources, "-o", str(folder / "scnn")])
    return folder / "scnn"


@pytest.mark.parametrize("snr", [40, 20, 10])
def test_the_program_hears_what_listen_hears(snr, words, program_on_disk, tmp_path, capsys):
    samples = spoken(words[:8], snr)
    file = tmp_path / "stream.wav"
    soundfile.write(file, samples, RATE, subtype="PCM_16")
    in_integers = lines(capsys, "--file", str(file), "--integers")
    command = [program_on_disk, "--stream"]
    for names, sent in ([file], b""), (["-"], samples.astype("<i2").tobytes()):
        done = subprocess.run([*command, *names], input=sent, capture_output=True, timeout=60)
        assert done.returncode == 0 and done.stderr == b""
        assert done.stdout.decode().splitlines() == in_integers
    floats = [json.loads(line) for line in lines(capsys, "--file", str(file), "--json")]
    whole = [json.loads(line) for line in lines(capsys, "--file", str(file), "--json", "--integers")]
    assert [word["start"] for word in whole] == [word["start"] for word in floats]
    assert len(whole) >= 7
    agree = [one["digit"] == other["digit"] for one, other in zip(whole, floats, strict=True)]
    assert sum(agree) >= len(agree) - 1
    for one, other, same in zip(whole, floats, agree, strict=True):
        assert not same or one["confidence"] == pytest.approx(other["confidence"], abs=0.15)


def test_people_are_heard_in_a_stream(fsdd, tmp_path, program_on_disk, capsys):
    spoken_by_people = load_corpus("fsdd").waveforms[::120]
    file = tmp_path / "people.wav"
    soundfile.write(file, spoken(spoken_by_people), RATE, subtype="PCM_16")
    found = subprocess.run([program_on_disk, "--stream", file], capture_output=True, timeout=60).stdout
    assert found.decode().splitlines() == lines(capsys, "--file", str(file), "--integers")
    assert len(found.splitlines()) == len(spoken_by_people)


def test_the_program_says_what_is_wrong_with_a_stream(program_on_disk, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    names = [tmp_path / "text.wav", tmp_path / "none.wav"]
    done = subprocess.run([program_on_disk, "--stream", *names], capture_output=True, timeout=60)
    assert done.returncode == 1 and not done.stdout
    wrong, missing = done.stderr.decode().splitlines()
    assert "not a WAV file" in wrong and "cannot be opened" in missing
    assert subprocess.run([program_on_disk, "--stream"], capture_output=True).returncode == 2
