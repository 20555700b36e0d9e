"""The command line, as a user types it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from scnn.__main__ import main, recognise
from scnn.data import ESPEAK_FOLDER, load_corpus, split
from scnn.experiment import PRETRAINED
from scnn.training import load_network, save_network

QUICK = ["train", "--corpus", "espeak", "--model", "4C5-P4-10FC", "--num-steps", "4", "--epochs", "1"]
CLIP = str(next(iter(sorted(ESPEAK_FOLDER.glob("7_*.flac")))))


def call(capsys, *arguments):
    """Exit status, standard output and standard error of `scnn ARGUMENTS`."""
    status = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("command", [[], ["data"], ["train"], ["predict"], ["enrol"]])
def test_help_names_every_option_and_its_default(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    if command == ["train"]:
        for word in (
            "--num-steps",
            "--threshold",
            "--precision",
            "int8-paper",
            "--pretrained",
            "--normalization",
            "(paper: fsdd-1.0.8)",
            "AlexNet",
        ):
            assert word in text


def test_data_describes_a_corpus(capsys):
    status, out, _ = call(capsys, "data", "espeak", "--json")
    about = json.loads(out)
    assert status == 0
    assert (about["recordings"], about["sample_rate_hz"]) == (1200, 8000)
    assert about["classes"] == list("0123456789")


def test_a_missing_extra_is_an_error_like_others(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    status, _, errors = call(capsys, "data", "voices")
    assert status == 1 and errors.startswith("scnn: ") and "pip install 'scnn-audio[voices]'" in errors


def words(folder: Path, labels: Sequence[str] = ("left", "right")) -> Path:
    """A folder of two words by four voices, with some files that are not recordings."""
    clips = {index: sorted(ESPEAK_FOLDER.glob(f"{index}_*_[0-3].flac"))[:16] for index in range(len(labels))}
    for index, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for clip in clips[index]:
            shutil.copy(clip, folder / label)
    (folder / "notes.txt").write_text("about these words")
    return folder


def test_what_a_folder_holds_beside_recordings_is_told_once_a_command(capsys, tmp_path):
    folder = words(tmp_path / "words")
    status, out, err = call(capsys, "data", folder)
    assert (status, err) == (0, "")
    assert "left_out           1: notes.txt (not a recording by its ending)" in out.splitlines()
    assert json.loads(call(capsys, "data", folder, "--json")[1])["left_out"] == [
        "notes.txt (not a recording by its ending)"
    ]
    quick = ["train", "--corpus", folder, "--model", "4C5-P4-2FC", "--num-steps", "2", "--epochs", "1"]
    for _ in range(2):  # first trained, then loaded from its record
        result = subprocess.run(
            [sys.executable, "-m", "scnn", *map(str, quick)], capture_output=True, text=True, check=True
        )
        assert [line for line in result.stderr.splitlines() if "left out" in line] == [
            f"scnn: {folder}: left out 1: notes.txt (not a recording by its ending)"
        ]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_print_on_any_terminal_without_their_control_characters(tmp_path):
    evil = os.fsdecode(b"\x1b]0;title\x07caf\xe9\xc3\xa9")
    folder = words(tmp_path / evil, (evil, "no"))
    clip = folder / evil / f"{evil}.flac"
    shutil.copy(CLIP, clip)
    terminal = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for command in (["data", folder], ["predict", clip], ["predict", f"{clip}.gone", clip], ["data", evil]):
        result = subprocess.run(
            [sys.executable, "-m", "scnn", *map(os.fsencode, command)], capture_output=True, env=terminal
        )
        shown = (result.stdout + result.stderr).decode("ascii")
        assert "Traceback" not in shown
        assert r"\x1b]0;title\x07caf\udce9\xe9" in shown
        assert all(character.isprintable() or character == "\n" for character in shown)


def voice(folder: Path, labels: str = "0123456789") -> Path:
    """Two recordings of each word by one voice."""
    folder.mkdir()
    for label in labels:
        for clip in ESPEAK_FOLDER.glob(f"{label}_en-us-nyc-f4_[01].flac"):
            shutil.copy(clip, folder)
    return folder


def test_enrol_learns_a_voice_and_leaves_other_words(capsys, tmp_path):
    saved = tmp_path / "new" / "mine.safetensors"
    status, out, err = call(capsys, "enrol", voice(tmp_path / "me", "0123456"), "--save", saved, "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["recordings"], found["not_learnt"]) == (14, ["7", "8", "9"])
    assert found["right_before"] <= found["right_now"] <= 14
    about = load_network(saved)[1]
    assert about["enrolled"] == [{"corpus": "me", "examples": dict.fromkeys("0123456", 2)}]
    assert "accuracy" not in about
    clips = sorted((tmp_path / "me").iterdir())
    status, out, _ = call(capsys, "predict", "--json", "--network", saved, *clips)
    answers = [json.loads(line)["digit"] for line in out.splitlines()]
    right = [answer == clip.name[0] for answer, clip in zip(answers, clips, strict=True)]
    assert sum(right) == found["right_now"] >= 9

    first = saved.read_bytes()
    status, out, _ = call(capsys, "enrol", tmp_path / "me", "--save", saved)
    assert status == 0 and "not_learnt         7, 8, 9" in out.splitlines()
    assert saved.read_bytes() == first


def test_enrol_says_what_it_cannot_learn(capsys, tmp_path):
    saved = tmp_path / "mine.safetensors"

    def refused(folder, *options):
        status, out, err = call(capsys, "enrol", folder, "--save", saved, *options)
        assert (status, out) == (1, "") and not saved.exists()
        return err

    other = words(tmp_path / "words")
    (other / "notes.txt").unlink()
    assert "words that the network does not know (2: left; right)" in refused(other)
    assert "of two classes or more" in refused(voice(tmp_path / "one", "7"))
    assert "no such corpus or folder" in refused(tmp_path / "none")
    silent = voice(tmp_path / "silent", "01")
    for clip in silent.iterdir():
        soundfile.write(clip, np.zeros(4000), 8000)
    assert "silent, it contains no signal" in refused(silent)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"nothing")
    assert f"{foreign}: not a safetensors file" in refused(
        voice(tmp_path / "two", "01"), "--network", foreign
    )


def test_train_prints_one_line_of_results_and_remembers_them(capsys, tmp_path):
    saved = tmp_path / "new" / "net.safetensors"
    status, out, _ = call(capsys, *QUICK, "--json", "--save", saved)
    first = json.loads(out)
    assert status == 0
    assert out.count("\n") == 1
    assert 0 <= first["accuracy"] <= 1
    assert call(capsys, *QUICK, "--json")[1] == out  # including the seconds of the first training

    status, out, _ = call(capsys, "predict", "--network", saved, "--json", CLIP)
    assert status == 0
    assert set(json.loads(out)["spikes"]) == set("0123456789")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beta", "2"], "beta must lie in 0..1"),
        (["--model", "6X3-10FC"], "'6X3'"),
        (["--corpus", "nowhere"], "nowhere"),
        (["--split", "speaker:nobody"], "nobody"),
        (["--normalization", "all"], "none, clip, band, peak, train"),
        (["--model", "8FC-9FC"], "9FC, but there are 10 classes"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_valid(capsys, options, message):
    status, out, err = call(capsys, *QUICK, *options)
    assert (status, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


def test_an_unknown_option_stops_with_the_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--betta", "0.5"])
    assert stopped.value.code == 2
    assert "--betta" in capsys.readouterr().err


def test_predict_goes_on_behind_a_file_that_cannot_be_used(capsys, tmp_path):
    silent, text = tmp_path / "silent.wav", tmp_path / "text.wav"
    soundfile.write(silent, np.zeros(8000), 8000)
    text.write_text("no audio")
    status, out, err = call(capsys, "predict", silent, text, tmp_path / "none.wav", CLIP)
    assert status == 1
    assert out.startswith(CLIP)
    assert [line.split(": ")[1] for line in err.splitlines()] == list(
        map(str, (silent, text, tmp_path / "none.wav"))
    )


def test_below_its_threshold_it_is_not_sure(capsys, tmp_path):
    network, about = load_network(PRETRAINED)
    doubtful = tmp_path / "doubtful.safetensors"
    about["experiment"]["refuse"] = 0.9999
    save_network(network, doubtful, about)
    found = json.loads(call(capsys, "predict", "--json", "--network", doubtful, CLIP)[1])
    assert found["digit"] in about["classes"] and found["sure"] is False
    assert f"not sure ({found['digit']}?)" in call(capsys, "predict", "--network", doubtful, CLIP)[1]
    assert "not sure" not in call(capsys, "predict", CLIP)[1]


def test_predict_takes_any_rate_and_channels(capsys, tmp_path):
    samples, rate = soundfile.read(CLIP)
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.repeat(samples[:, None], 2, axis=1), rate)
    network, about = load_network(PRETRAINED)
    assert recognise(stereo, network, about)["spikes"] == recognise(CLIP, network, about)["spikes"]


def test_predict_refuses_a_network_that_does_not_say_how_it_hears(capsys, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a network")
    status, _, err = call(capsys, "predict", "--network", foreign, CLIP)
    assert status == 1
    assert str(foreign) in err


def test_the_packaged_network_keeps_its_accuracy(fsdd):
    corpus = load_corpus("fsdd")
    held_out = split(corpus, "official").test[::3]
    network, about = load_network(PRETRAINED)
    folder = fsdd / "recordings" if (fsdd / "recordings").is_dir() else fsdd
    found = [recognise(folder / f"{corpus.names[i]}.wav", network, about)["digit"] for i in held_out]
    right = np.mean(
        [digit == corpus.classes[corpus.labels[i]] for digit, i in zip(found, held_out, strict=True)]
    )
    assert right > 0.94  # 0.967 on all 300


def test_a_reader_that_goes_early_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "scnn", "data", "espeak"]
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")
