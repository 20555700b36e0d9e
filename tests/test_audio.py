"""Single recordings: what is read from a file, and the errors for unusable ones."""

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from scnn import audio
from scnn.audio import ENDINGS, read_audio

RATE = 8000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)


def write(path: Path, samples: np.ndarray = TONE, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype)
    return path


def frequency(samples: np.ndarray, rate: int) -> float:
    """The strongest frequency, in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples))


def test_read_audio_gives_the_samples_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav")
    assert np.array_equal(read_audio(path), soundfile.read(path, dtype="float32")[0])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.wav: no such file"):
        read_audio(tmp_path / "gone.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is no audio" * 100])
def test_unreadable_file_is_named(tmp_path, content):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.wav: cannot be read as audio"):
        read_audio(tmp_path / "bad.wav")


def test_empty_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.wav: empty"):
        read_audio(write(tmp_path / "none.wav", np.zeros(0, np.float32)))


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silent_file_is_named(tmp_path, level):
    with pytest.raises(ValueError, match=r"quiet.wav: silent"):
        read_audio(write(tmp_path / "quiet.wav", np.full(4000, level, np.float32)))


def test_channels_that_cancel_are_silent(tmp_path):
    with pytest.raises(ValueError, match=r"phase.wav: silent when mixed to mono: its 2 channels cancel out"):
        read_audio(write(tmp_path / "phase.wav", np.stack([TONE, -TONE], axis=1), subtype="FLOAT"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(tmp_path, value):
    samples = TONE.copy()
    samples[7] = value
    with pytest.raises(ValueError, match=r"odd.wav: .*not finite"):
        read_audio(write(tmp_path / "odd.wav", samples, subtype="FLOAT"))


def test_stereo_is_mixed_down(tmp_path):
    path = write(tmp_path / "two.wav", np.stack([TONE, 0 * TONE], axis=1), subtype="FLOAT")
    assert np.allclose(read_audio(path), TONE / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_other_rate_is_resampled(tmp_path, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    samples = read_audio(write(tmp_path / "fast.wav", tone, rate))
    assert samples.dtype == np.float32 and abs(len(samples) - RATE) <= 1
    assert frequency(samples, RATE) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_long_file_is_cropped_to_its_loudest_part(tmp_path):
    samples = np.full(10 * RATE, 0.001, np.float32)
    samples[6 * RATE : 6 * RATE + len(TONE)] = TONE
    cropped = read_audio(write(tmp_path / "long.wav", samples), max_seconds=1.0)
    assert len(cropped) == RATE
    assert np.sum(cropped**2) == pytest.approx(np.sum(TONE**2), rel=1e-3)


def test_louder_than_full_scale_is_scaled_back(tmp_path):
    samples = read_audio(write(tmp_path / "loud.wav", 8 * TONE, subtype="FLOAT"))
    assert np.allclose(samples, TONE / np.abs(TONE).max(), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"sample_rate": 0}, {"max_seconds": 0.0}, {"max_seconds": np.nan}])
def test_wrong_parameter_is_named(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        read_audio(write(tmp_path / "a.wav"), **wrong)


# Every format


def encoded(kind: str, subtype: str | None = None, samples: np.ndarray = TONE) -> bytes:
    stored = io.BytesIO()
    soundfile.write(stored, samples, RATE, subtype, format=kind)
    return stored.getvalue()


@pytest.mark.parametrize(
    ("ending", "kind", "subtype"),
    [
        ("wav", "WAV", "FLOAT"),
        ("flac", "FLAC", None),
        ("ogg", "OGG", "VORBIS"),
        ("opus", "OGG", "OPUS"),
        ("mp3", "MP3", None),
        ("aif", "AIFF", None),
        ("au", "AU", None),
        ("caf", "CAF", None),
        ("w64", "W64", None),
        ("sph", "NIST", None),
        ("voc", "VOC", None),
    ],
)
def test_all_that_libsndfile_writes_is_read(tmp_path, ending, kind, subtype):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(encoded(kind, subtype))
    samples = read_audio(path)
    assert path.suffix in ENDINGS
    assert len(samples) == len(TONE) and frequency(samples, RATE) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("ending", ["raw", "au", "vox", "gsm", "txt"])
def test_what_has_no_header_is_not_guessed_at(tmp_path, ending):
    (tmp_path / f"a.{ending}").write_bytes(TONE.tobytes())
    with pytest.raises(ValueError, match=rf"a\.{ending}: cannot be read as audio"):
        read_audio(tmp_path / f"a.{ending}")


# Files that are truncated, or do not give their length


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize(
    "kind", ["WAV", "RF64", "AIFF", "AU", "CAF", "W64", "NIST", "SVX", "FLAC", "OGG", "OPUS", "MP3", "ADPCM"]
)
def test_a_truncated_file_is_called_truncated(tmp_path, kind, share):
    noisy = TONE + np.random.default_rng(0).normal(0, 0.01, len(TONE)).astype(np.float32)
    form = {"OPUS": ("OGG", "OPUS"), "ADPCM": ("WAV", "IMA_ADPCM")}.get(kind, (kind, None))
    whole = encoded(*form, samples=np.tile(noisy, 4))
    (tmp_path / "cut.wav").write_bytes(whole)
    read_audio(tmp_path / "cut.wav")
    (tmp_path / "cut.wav").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cut\.wav: truncated"):
        read_audio(tmp_path / "cut.wav")


@pytest.mark.parametrize("whole", [True, False])  # whether the file's size is filled in
@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_streamed_wav_is_read_to_its_end(tmp_path, size, whole):
    stored = bytearray(encoded("WAV"))
    stored[40:44] = struct.pack("<I", size)
    if not whole:
        stored[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    (tmp_path / "stream.wav").write_bytes(stored)
    assert np.array_equal(read_audio(tmp_path / "stream.wav"), read_audio(write(tmp_path / "a.wav")))


def test_a_streamed_flac_is_read_to_its_end(tmp_path):
    stored = bytearray(encoded("FLAC"))
    stored[21] &= 0xF0
    stored[22:26] = bytes(4)  # the number of samples
    (tmp_path / "stream.flac").write_bytes(stored)
    assert np.array_equal(read_audio(tmp_path / "stream.flac"), read_audio(write(tmp_path / "a.flac")))


def test_an_empty_wav_with_a_chunk_behind_it_is_empty(tmp_path):
    stored = encoded("WAV", samples=np.zeros(0, np.float32)) + b"LIST\x04\0\0\0INFO"
    (tmp_path / "none.wav").write_bytes(stored)
    with pytest.raises(ValueError, match=r"none\.wav: empty"):
        read_audio(tmp_path / "none.wav")


def test_an_mp3_whose_length_would_be_guessed_is_refused(tmp_path):
    fading = np.concatenate([TONE * np.linspace(0, 1, len(TONE)) for _ in range(20)]).astype(np.float32)
    stored = encoded("MP3", samples=fading)
    second = stored.index(stored[:3], 4)
    (tmp_path / "vbr.mp3").write_bytes(stored[second:])  # without the first frame, which contains the length
    with pytest.raises(ValueError, match=r"vbr\.mp3: its length is not in its header"):
        read_audio(tmp_path / "vbr.mp3")


def test_a_forged_number_of_samples_takes_no_memory(tmp_path):
    stored = bytearray(encoded("FLAC"))
    stored[21] |= 0x0F
    stored[22:26] = b"\xff" * 4  # 68 billion samples
    (tmp_path / "forged.flac").write_bytes(stored)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"forged\.flac: truncated"):
        read_audio(tmp_path / "forged.flac")
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_a_small_file_that_decodes_to_gigabytes_is_refused_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_MOST", 2**23)
    write(tmp_path / "bomb.flac", np.zeros(2**23 + 1, np.int16))
    assert (tmp_path / "bomb.flac").stat().st_size < 1e5
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.flac: too long, .* 1049 s"):
        read_audio(tmp_path / "bomb.flac")
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


def test_a_recording_of_many_blocks_gives_what_one_block_gives(tmp_path, monkeypatch):
    samples = np.random.default_rng(0).normal(0, 0.1, (100_000, 2)) * np.linspace(0, 1, 100_000)[:, None]
    samples[60_000:70_000] *= 3
    path = write(tmp_path / "long.wav", samples, subtype="FLOAT")
    at_once = [read_audio(path, max_seconds=seconds) for seconds in (0.5, 3.0, 100.0)]
    monkeypatch.setattr(audio, "_BLOCK", 1001)
    in_blocks = [read_audio(path, max_seconds=seconds) for seconds in (0.5, 3.0, 100.0)]
    for one, other in zip(at_once, in_blocks, strict=True):
        assert np.array_equal(one, other)
    assert [len(one) for one in at_once] == [4000, 24000, 100_000]


def test_less_than_a_frame_is_too_short(tmp_path):
    assert len(read_audio(write(tmp_path / "frame.wav", TONE[:200]))) == 200
    with pytest.raises(ValueError, match=r"click\.wav: too short, 24\.9 ms of at least 25 ms"):
        read_audio(write(tmp_path / "click.wav", TONE[:199]))


def test_a_rate_that_no_recording_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"odd\.wav: its sample rate is 1 Hz; valid are 1000 to 768000"):
        read_audio(write(tmp_path / "odd.wav", rate=1))


# Names


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
@pytest.mark.parametrize("name", [b"caf\xe9.wav", "caf\u00e9 \u732b.wav".encode(), b"two\nlines.wav"])
def test_any_name_can_be_read(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(encoded("WAV"))
    assert len(read_audio(path)) == len(TONE)


def test_an_error_shows_a_name_without_its_control_characters(tmp_path):
    path = tmp_path / "\x1b[31mred\udcff.wav"
    path.write_bytes(b"")
    with pytest.raises(ValueError) as refused:
        read_audio(path)
    assert r"\x1b[31mred\udcff.wav: cannot be read" in str(refused.value)
