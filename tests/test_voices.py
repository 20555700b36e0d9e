"""Synthetic voices: their number, reproducibility, and the errors if they are not available."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scnn import voices
from scnn.data import fingerprint, load_corpus

FEW = "en+klatt2", "en-us+whisper"
ROOT = Path(__file__).parents[1]
NAMED = voices.MANIFEST.read_text().split()[1::2]


@pytest.fixture
def wheel() -> Path:
    """The folder of the wheel that holds eSpeak NG, or skip."""
    found = pytest.importorskip("espeakng_loader", reason="the extra [voices] has espeakng-loader")
    return Path(found.__file__).parent


@pytest.fixture
def few(wheel, monkeypatch, tmp_path) -> Path:
    """Use only two voices, and an empty cache, which is returned."""
    monkeypatch.setattr(voices, "VOICES", FEW)
    monkeypatch.setenv("SCNN_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_wheel(monkeypatch) -> None:
    def not_found(_):
        raise voices.metadata.PackageNotFoundError

    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(voices.metadata, "version", not_found)


def variant(wheel: Path, name: str) -> tuple[str, ...]:
    """The lines in eSpeak NG's variant file that change the sound."""
    text = (wheel / "espeak-ng-data" / "voices" / "!v" / name).read_text(errors="replace")
    lines = (" ".join(line.split("//")[0].split()) for line in text.splitlines())
    silent = "#", "name", "language", "gender"
    return tuple(sorted(line for line in lines if line and not line.startswith(silent)))


def test_the_manifest_knows_all_voices_of_both_corpora():
    assert len(set(voices.VOICES)) == len(voices.VOICES) >= 80
    assert NAMED == [f"{name}/{voice}" for name in ("voices", "voices-words") for voice in voices.VOICES]


def test_no_two_voices_are_set_alike(wheel):
    # Their recordings are no evidence, because each voice has its own random speeds and pitches.
    parts = [voice.split("+") for voice in voices.VOICES]
    assert len({(accent, variant(wheel, name)) for accent, name in parts}) == len(voices.VOICES)


def test_the_manifest_is_of_the_version_that_is_pinned():
    assert f"espeakng-loader=={voices.VERSION}\n" in (ROOT / "constraints.txt").read_text()


def test_no_other_word_is_a_digit_or_sounds_like_one():
    others = voices.CORPORA["voices-words"].labels
    alike = "won to too two for fore four ate eight tree free three nein nine sex six fife five oh".split()
    assert len(set(others)) == len(others) >= 60
    assert not set(others) & {*alike, *voices.CORPORA["voices"].spoken}


@pytest.mark.parametrize("name", voices.CORPORA)
def test_a_corpus_is_what_the_manifest_expects_and_is_made_once(name, few, monkeypatch, recwarn):
    corpus = load_corpus(name)
    takes, labels = voices.CORPORA[name].takes, voices.CORPORA[name].labels
    assert corpus.classes == tuple(sorted(labels)) and corpus.name == name and corpus.sample_rate == 8000
    assert sorted(corpus.names) == sorted(
        f"{label}_{voice.replace('+', '-')}_{take}"
        for label in labels
        for voice in FEW
        for take in range(takes)
    )
    assert "synthetic" in corpus.source.lower()
    made = [str(warning.message) for warning in recwarn]
    monkeypatch.setattr(voices, "make", None)
    again = load_corpus(name)
    assert all(map(np.array_equal, corpus.waveforms, again.waveforms))
    assert made == [] == [str(warning.message) for warning in recwarn]  # none that differs from the manifest


def test_clips_are_one_word_within_short_silence(few):
    for clip in voices.load("voices"):
        assert clip.samples.dtype == np.int16
        peak = np.abs(clip.samples.astype(int)).max()
        loud = np.flatnonzero(np.abs(clip.samples.astype(int)) > 0.0095 * peak)
        margins = loud[0] / 8000, (len(clip.samples) - 1 - loud[-1]) / 8000
        assert 0.1 < len(clip.samples) / 8000 < 1.2 and 2000 < peak < 29300
        assert all(0.0199 <= margin <= 0.0601 for margin in margins), (clip.label, clip.voice, margins)


def test_takes_differ(few):
    said = {clip.samples.tobytes() for clip in voices.load("voices")}
    assert len(said) == 2 * 50


@pytest.mark.parametrize("damage", ["cut", "changed", "of other voices"])
def test_a_damaged_cache_is_made_again_with_a_word_about_it(damage, few, monkeypatch):
    first = load_corpus("voices-words")
    (file,) = few.glob("voices-words-*.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[-100:]
    elif damage == "changed":
        content[-100] ^= 1
    else:
        monkeypatch.setattr(voices, "VOICES", (FEW[0], "en-us+m1"))
    file.write_bytes(content)
    with pytest.warns(
        UserWarning, match=rf"{file.name}: damaged \(.+\); the corpus voices-words is made again"
    ):
        again = load_corpus("voices-words")
    if damage != "of other voices":
        assert all(map(np.array_equal, first.waveforms, again.waveforms))
    assert np.isin(again.speakers, [voice.replace("+", "-") for voice in voices.VOICES]).all()


def test_another_version_of_the_wheel_has_another_identity_and_says_so(few, monkeypatch):
    usual = fingerprint("voices")
    monkeypatch.setattr(voices.metadata, "version", lambda _: "9.9")
    assert fingerprint("voices") != usual
    monkeypatch.setattr(
        voices, "make", lambda name, chosen: {v: (np.array([1]), np.array([7])) for v in chosen}
    )
    monkeypatch.setattr(voices, "CORPORA", {"voices": voices._Words(("one",), ("1",), 1)})
    with pytest.warns(UserWarning, match=r"voices: 2 of 2 voices, the first is .* 0\.2\.4 \(found: 9\.9\)"):
        voices.load("voices")


def test_the_extra_is_named_where_it_is_missing(few, no_wheel):
    with pytest.raises(
        ModuleNotFoundError, match=r"espeakng_loader is missing: pip install 'scnn-audio\[voices\]'"
    ):
        load_corpus("voices")


def test_a_corpus_that_is_there_needs_no_wheel(few, request):
    name = fingerprint("voices")
    corpus = load_corpus("voices")
    request.getfixturevalue("no_wheel")
    assert fingerprint("voices") == name
    assert all(map(np.array_equal, corpus.waveforms, load_corpus("voices").waveforms))


def test_a_voice_that_fails_is_named_and_nothing_is_kept(few, monkeypatch):
    monkeypatch.setattr(voices, "VOICES", (*FEW, "xx-nowhere+f1"))
    with pytest.raises(
        OSError, match=r"failed for the voice xx-nowhere\+f1 \(1\): .*no voice xx-nowhere\+f1"
    ):
        load_corpus("voices")
    assert not list(few.glob("*.safetensors"))


def test_a_long_path_of_the_wheel_is_no_obstacle(wheel, monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "wheel").symlink_to(wheel)
    monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(deep / "wheel" / "espeak-ng-data"))
    said = voices.make("voices", FEW[:1])[FEW[0]]
    assert voices.digest(said) == voices._manifest("voices")[FEW[0]]


def test_of_two_processes_at_once_one_waits_for_the_other(few):
    program = (
        "import sys; from scnn import voices; from scnn.data import load_corpus; "
        f"voices.VOICES = {FEW!r}; make = voices.make; "
        "voices.make = lambda *given: [print('made'), make(*given)][1]; print(len(load_corpus('voices')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert sorted(re.sub(r"\s+", " ", text).strip() for text in said) == ["100", "made 100"]
