"""The gate that finds words in a stream, and a simulated microphone."""

import json
import sys
import types

import numpy as np
import pytest
import soundfile

from scnn import listen
from scnn.__main__ import main
from scnn.data import load_corpus
from scnn.listen import Gate, Segment, microphone

RATE = 8000


@pytest.fixture(scope="module")
def words() -> list[np.ndarray]:
    """60 synthetic words, with all digits and voices, equally loud."""
    return [word / word.std() * 0.05 for word in load_corpus("espeak").waveforms[::20]]


def stream(words, snr: float | None = None, gap=(0.4, 1.2), seed: int = 0):
    """The words in noise, with pauses between them, and the position of each in seconds."""
    draw = np.random.default_rng(seed)
    parts, where, length = [], [], 0
    for word in words:
        pause = round(draw.uniform(*gap) * RATE)
        where.append(((length + pause) / RATE, (length + pause + len(word)) / RATE))
        parts += [np.zeros(pause), word]
        length += pause + len(word)
    sound = np.concatenate([*parts, np.zeros(RATE)])
    noise = 1e-4 if snr is None else 0.05 * 10 ** (-snr / 20)
    return (sound + noise * draw.normal(size=len(sound))).astype(np.float32), where


def through(sound: np.ndarray, block: int | None = None) -> list[Segment]:
    gate = Gate(RATE)
    block = block or len(sound)
    found = [one for start in range(0, len(sound), block) for one in gate.feed(sound[start : start + block])]
    return found + gate.flush()


def assert_each_is_found(segments, where, share):
    """One segment a word, in order, each with at least `share` of its word and no more than 0.4 s besides."""
    assert len(segments) == len(where)
    for (start, samples), (begin, end) in zip(segments, where, strict=True):
        common = min(start + len(samples) / RATE, end) - max(start, begin)
        assert common >= share * (end - begin)
        assert len(samples) / RATE - common < 0.4


@pytest.mark.parametrize(("snr", "share"), [(None, 0.9), (20, 0.7), (10, 0.5), (5, 0.4)])
def test_each_word_is_one_segment(words, snr, share):
    sound, where = stream(words, snr)
    assert_each_is_found(through(sound), where, share)


def test_each_word_of_people_is_one_segment(fsdd):
    spoken = [word / word.std() * 0.05 for word in load_corpus("fsdd").waveforms[::50]]
    for snr in (40, 20):
        sound, where = stream(spoken, snr)
        assert_each_is_found(through(sound), where, 0.35)  # these are not trimmed to the word


def test_segments_are_pieces_of_the_stream_that_do_not_overlap(words):
    sound, _ = stream(words, 20)
    segments = through(sound)
    ends = [0.0]
    for start, samples in segments:
        first = round(start * RATE)
        np.testing.assert_array_equal(samples, sound[first : first + len(samples)])
        assert start >= ends[-1]
        ends.append(start + len(samples) / RATE)


@pytest.mark.parametrize("block", [7, 77, 400, 8000])
def test_the_size_of_the_blocks_makes_no_difference(words, block):
    sound, _ = stream(words[:4], 20)
    for one, other in zip(through(sound), through(sound, block), strict=True):
        assert one.start == other.start
        np.testing.assert_array_equal(one.samples, other.samples)


def test_int16_is_heard_as_float(words):
    sound, _ = stream(words[:4])
    whole = np.round(sound * 32768).astype(np.int16)
    for one, other in zip(through(whole), through(whole / np.float32(32768)), strict=True):
        assert one.start == other.start
        np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.01, 0.2])
@pytest.mark.parametrize("colour", ["white", "brown"])
def test_noise_alone_is_no_word_even_where_it_sets_in(level, colour):
    draw = np.random.default_rng(1)
    noise = draw.normal(size=60 * RATE)
    if colour == "brown":
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.ones(801) / 801, mode="same")
    noise = level * noise / noise.std()
    assert through(noise) == []
    noise[: 20 * RATE] *= 0.01
    assert through(noise) == []


def test_a_click_is_no_word_and_neither_is_an_offset():
    sound = np.full(5 * RATE, 0.3)
    sound[2 * RATE : 2 * RATE + 40] += 0.5
    assert through(sound) == []


def test_a_word_is_found_after_the_noise_has_changed(words):
    sound, _ = stream(words[:1], 30)
    noise = np.random.default_rng(0).normal(size=5 * RATE)
    sound = np.concatenate([0.0001 * noise, 0.01 * noise, sound[4000:] + 0.01 * noise[: len(sound) - 4000]])
    (found,) = through(sound)
    assert found.start > 9.5


def test_what_does_not_end_is_cut(words):
    # Like music: four tones a second, none longer than the memory of the floor.
    time = np.arange(10 * RATE) / RATE
    music = 0.1 * np.sin(2 * np.pi * 440 * time) * (1.1 + np.sin(2 * np.pi * 4 * time))
    lengths = [len(samples) / RATE for _, samples in through(music)]
    assert lengths and max(lengths) <= 2.8


def test_memory_does_not_grow_with_the_stream():
    gate = Gate(RATE)
    for _ in range(50):
        gate.feed(np.zeros(RATE))
    assert len(gate._kept) < RATE


@pytest.mark.parametrize("wrong", [np.zeros((3, 2)), np.zeros(4, dtype=np.int32)])
def test_wrong_samples_are_named(wrong):
    with pytest.raises(ValueError, match=r"samples .* must be float or int16"):
        Gate(RATE).feed(wrong)
    with pytest.raises(ValueError, match="sample_rate=50"):
        Gate(50)


def test_listening_to_a_recording_prints_each_word(words, tmp_path, capsys):
    sound, where = stream(words[:40:8], gap=(0.6, 1.0))
    file = tmp_path / "long.wav"
    soundfile.write(file, np.repeat(sound, 2), 2 * RATE)
    assert main(["listen", "--file", str(file), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["start"] for one in found] == pytest.approx([begin for begin, _ in where], abs=0.15)
    assert all(0 < one["confidence"] <= 1 and set(one["spikes"]) == set("0123456789") for one in found)
    assert main(["listen", "--file", str(file)]) == 0
    for line, one in zip(capsys.readouterr().out.splitlines(), found, strict=True):
        assert line == f"{one['start']:7.2f} s  {one['digit']}  confidence {one['confidence']:.2f}"


def test_a_recording_without_a_word_is_said_to_be_one(tmp_path, capsys):
    soundfile.write(tmp_path / "hum.wav", 0.01 * np.random.default_rng(0).normal(size=5 * RATE), RATE)
    assert main(["listen", "--file", str(tmp_path / "hum.wav")]) == 0
    heard = capsys.readouterr()
    assert heard.out == "" and "hum.wav: no word" in heard.err
    assert main(["listen", "--file", str(tmp_path / "none.wav")]) == 1
    assert "none.wav: no such file" in capsys.readouterr().err


class Stream:
    """The stream of a simulated sounddevice: plays a recording at 48 kHz, then presses Ctrl-C."""

    sound = np.zeros(0)

    def __init__(self, samplerate, device, channels, dtype, callback):
        assert (samplerate, device, channels, dtype) == (48000.0, 3, 1, "float32")
        self.callback = callback

    def start(self):
        for start in range(0, len(self.sound), 4800):
            self.callback(self.sound[start : start + 4800, None].astype(np.float32), 0, None, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class PortAudioError(Exception):
    pass


@pytest.fixture
def sounddevice(monkeypatch):
    module = types.ModuleType("sounddevice")
    module.PortAudioError, module.InputStream = PortAudioError, Stream
    module.query_devices = lambda device, kind: {"default_samplerate": 48000.0}
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_the_microphone_is_listened_to_until_ctrl_c(words, sounddevice, monkeypatch, capsys):
    sound, where = stream(words[:40:8], gap=(0.6, 1.0))
    wide = np.interp(np.arange(6 * len(sound)) / 6, np.arange(len(sound)), sound)
    monkeypatch.setattr(Stream, "sound", wide)
    blocks = -(-len(wide) // 4800)

    class Queue(listen.queue.SimpleQueue):
        def get(self):
            if self.empty():
                raise KeyboardInterrupt
            return super().get()

    monkeypatch.setattr(listen.queue, "SimpleQueue", Queue)
    assert blocks > 10
    assert main(["listen", "--device", "3"]) == 0
    heard = capsys.readouterr()
    assert heard.err.startswith("Listening") and "Traceback" not in heard.err
    starts = [float(line.split()[0]) for line in heard.out.splitlines()]
    assert starts == pytest.approx([begin for begin, _ in where], abs=0.15)


def test_no_microphone_is_said_with_what_to_do(sounddevice, monkeypatch, capsys):
    def none(device, kind):
        raise sounddevice.PortAudioError("Error querying device -1")

    sounddevice.query_devices = none
    assert main(["listen"]) == 1
    assert "scnn: no microphone can be opened (Error querying device -1)" in capsys.readouterr().err
    sounddevice.query_devices = lambda *_: int("a device of that name")
    with pytest.raises(OSError, match=r"no microphone 'usb' can be opened .*--file"):
        microphone(device="usb").__enter__()


def test_no_package_and_no_portaudio_are_said_with_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen"]) == 1
    assert "pip install 'scnn-audio[listen]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["listen"]) == 1
    assert "PortAudio library not found): install it" in capsys.readouterr().err
