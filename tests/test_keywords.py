"""Your own words: recorded with a simulated microphone, learnt, refused, and exported."""

import json
import sys
import types
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from scnn import __main__, keywords
from scnn.__main__ import main
from scnn.data import ESPEAK_FOLDER, chosen_from, load_corpus, read_audio, split
from scnn.training import load_network

WORDS = ("0", "1", "2")


def said(digit: str, take: int, voice: str = "en-us-m3") -> np.ndarray:
    return read_audio(ESPEAK_FOLDER / f"{digit}_{voice}_{take}.flac", keywords.RATE)


def blocks(*words: np.ndarray):
    """The output of a microphone: the words with a pause around each, in blocks of 20 ms."""
    noise = np.random.default_rng(0)
    for word in words:
        pause = noise.normal(0, 1e-4, 8000).astype(np.float32)
        stream = np.concatenate([pause, word, pause])
        yield from np.split(stream, range(320, len(stream), 320))


@pytest.fixture
def heard(monkeypatch):
    """Simulate the microphone; returns a function that speaks into it."""
    stream = []

    @contextmanager
    def microphone(rate, device):
        assert rate == keywords.RATE and device == 3
        yield blocks(*stream)

    monkeypatch.setattr(__main__, "microphone", microphone)
    return stream.extend


def test_words_are_asked_for_in_turn_and_kept(heard, tmp_path, capsys):
    folder = tmp_path / "words"
    command = ["record", "three", "five", "--out", str(folder), "--takes", "2", "--device", "3"]
    spoken = [said("3", 0), said("5", 0), said("3", 1), said("5", 1)]
    heard(spoken)
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    prompts = ["1 of 4   say: three", "2 of 4   say: five", "3 of 4   say: three", "4 of 4   say: five"]
    assert lines[:4] == prompts and "4 new recordings" in lines[4]
    corpus = load_corpus(folder)
    assert corpus.classes == ("five", "three") and set(corpus.speakers.tolist()) == {"me"}
    kept, rate = soundfile.read(folder / "three" / "me_nohash_1.wav", dtype="float32")
    assert rate == keywords.RATE
    best = np.correlate(spoken[2], kept, "full").max() / np.sqrt((kept**2).sum() * (spoken[2] ** 2).sum())
    assert best > 0.95  # the word said then, minus what the gate took for silence


def test_a_session_is_taken_up_where_it_was_broken_off(heard, tmp_path, capsys):
    folder = tmp_path / "words"
    command = ["record", "three", "five", "--out", str(folder), "--takes", "2", "--device", "3"]
    heard([said("3", 0)])
    assert main(command) == 1
    assert "scnn: the sound ended before the word was said" in capsys.readouterr().err
    first = (folder / "three" / "me_nohash_0.wav").read_bytes()
    heard([said("5", 0), said("3", 1), said("5", 1)])
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("2 of 4   say: five\n")
    assert (folder / "three" / "me_nohash_0.wav").read_bytes() == first
    assert len(list(folder.rglob("*.wav"))) == 4


def test_ctrl_c_keeps_what_was_said(monkeypatch, tmp_path, capsys):
    def stopped():
        yield from blocks(said("3", 0))
        raise KeyboardInterrupt

    @contextmanager
    def microphone(rate, device):
        yield stopped()

    monkeypatch.setattr(__main__, "microphone", microphone)
    assert main(["record", "three", "five", "--out", str(tmp_path)]) == 130
    assert "finished takes are kept" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*.wav")] == ["me_nohash_0.wav"]


def test_where_there_is_no_microphone_it_is_said(monkeypatch, tmp_path, capsys):
    def none(device, kind):
        raise ValueError("No input device matching 'usb'")

    module = types.ModuleType("sounddevice")
    module.query_devices, module.PortAudioError = none, RuntimeError
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert main(["record", "three", "five", "--out", str(tmp_path / "words"), "--device", "usb"]) == 1
    assert "scnn: no microphone 'usb' can be opened" in capsys.readouterr().err
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lamp"], "must be two or more different words"),
        (["lamp", "lamp"], "must be two or more different words"),
        (["lamp", "../lamp"], "'../lamp': words and speakers' names"),
        (["lamp", "_left"], "'_left': words and speakers' names"),
    ],
)
def test_words_that_cannot_be_recorded_are_refused(heard, words, message, tmp_path, capsys):
    assert main(["record", *words, "--out", str(tmp_path / "words"), "--device", "3"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "words").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of three words by twelve packaged voices, four takes each."""
    folder = tmp_path_factory.mktemp("own") / "words"
    return keywords.as_folder(load_corpus("espeak"), WORDS, folder, takes=4)


@pytest.fixture(scope="module")
def learnt(folder, tmp_path_factory):
    """The result of learning these words, with the other digits as other words."""
    left = [digit for digit in "0123456789" if digit not in WORDS]
    others = keywords.as_folder(load_corpus("espeak"), left, tmp_path_factory.mktemp("other") / "words", 4)
    return keywords.learn(folder, epochs=120, copies=3, others=str(others))


def test_a_speaker_is_held_out_where_there_are_enough(learnt, folder):
    corpus = load_corpus(folder)
    assert learnt.held_out == "all 12 recordings of the speaker en-us-nyc-m7"
    assert set(corpus.speakers[learnt.test].tolist()) == {"en-us-nyc-m7"}
    assert learnt.record.experiment.split == "speaker:en-us-nyc-m7"


def test_takes_are_held_out_where_one_speaks_alone(tmp_path):
    corpus = load_corpus("espeak")
    alone = chosen_from(corpus, np.flatnonzero(corpus.speakers == "en-us-m3"))
    own = load_corpus(keywords.as_folder(alone, WORDS, tmp_path, takes=8))
    kind, seed = keywords._split(own, 0)
    tested = split(own, kind, seed=seed).test
    assert kind == "random"
    assert all(1 <= count < 4 for count in np.bincount(own.labels[tested], minlength=3))


def test_words_are_known_and_others_refused(learnt):
    """The bounds are loose: it is a training of seconds on synthetic voices."""
    table = learnt.words
    assert list(table.index) == [*WORDS, "other words", "noise"]
    assert table["tested"].tolist()[:3] == [4, 4, 4] and table["tested"]["noise"] == 40
    assert np.allclose(table[["right", "wrong", "not sure"]].sum(axis=1), 1)
    assert table["right"][:3].mean() > 0.6 and table["wrong"][:3].mean() < 0.2
    assert table["right"][3:].eq(0).all() and table["not sure"][3:].min() > 0.7
    for name, confidences in learnt.confidences.items():
        assert (confidences < learnt.refuse).mean() == pytest.approx(table["not sure"][name])


def test_what_is_learnt_is_written_for_a_device_and_a_page(learnt, tmp_path, capsys):
    files = keywords.write(learnt, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        *("network.safetensors", "c/README.md", "wasm/scnn.wasm", "page/index.html")
    ]
    assert files[2].stat().st_size < 100_000
    _, about = load_network(files[0])
    assert about["experiment"]["refuse"] == learnt.refuse
    page = (tmp_path / "page" / "network.js").read_text()
    shown = json.loads(page.removeprefix("globalThis.scnnNetwork = ").rstrip(";\n"))
    assert shown["classes"] == [*WORDS] and shown["refuse"] == learnt.refuse
    recordings = map(str, sorted(ESPEAK_FOLDER.glob("1_en-us-nyc-m7_[0-3].flac")))
    assert main(["predict", *recordings, "--network", str(files[0]), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = np.mean([each["digit"] == "1" and each["sure"] for each in found])
    assert right == pytest.approx(learnt.words["right"]["1"])


def test_the_command_says_what_was_held_out(learnt, monkeypatch, tmp_path, capsys):
    given = {}

    def learn(folder, **options):
        given.update(options, folder=folder)
        return learnt

    monkeypatch.setattr(keywords, "learn", learn)
    command = ["keywords", str(tmp_path), "--out", str(tmp_path / "out"), "--epochs", "7", "--seed", "3"]
    assert main(command) == 0
    assert given == {"folder": tmp_path, "epochs": 7, "copies": 6, "seed": 3}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Held out: {learnt.held_out}."
    assert f"If the confidence is below {learnt.refuse:.2f}" in "\n".join(lines)
    assert lines[-1].startswith(f"{tmp_path / 'out' / 'page' / 'index.html'}  ")


def test_too_few_recordings_are_named(tmp_path, capsys):
    corpus = load_corpus("espeak")
    alone = chosen_from(corpus, np.flatnonzero(corpus.speakers == "en-us-m3"))
    keywords.as_folder(alone, ("0", "2"), tmp_path, takes=5)
    keywords.as_folder(alone, ("1",), tmp_path, takes=4)
    assert main(["keywords", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "each word needs at least 5 recordings, better ten; too few of 1: 1 (4)" in capsys.readouterr().err
