"""The images equal librosa's, clip by clip, and the cache always returns the requested ones."""

import dataclasses
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import sosfilt

from scnn import features
from scnn.data import Corpus, load_corpus
from scnn.features import (
    Features,
    Images,
    extract,
    filter_bank,
    image,
    normalize,
    statistics,
    trim_bounds,
)

RATE = 8000


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCNN_HOME", str(tmp_path))
    return tmp_path / "features"


def chirp(samples, seed=0):
    """A noisy tone whose level rises and falls."""
    time = np.arange(samples) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.01, samples)
    tone = np.sin(2 * np.pi * (300 + 100 * seed + 800 * time) * time)
    return (0.5 * np.hanning(samples) * tone + noise).astype(np.float32)


def corpus_of(*waveforms):
    count = len(waveforms)
    return Corpus(
        name="test",
        waveforms=waveforms,
        sample_rate=RATE,
        labels=np.zeros(count, dtype=np.int64),
        classes=("0",),
        speakers=np.full(count, "one"),
        takes=np.arange(count),
        names=tuple(f"clip_{index}" for index in range(count)),
        lists={},
        source="made for a test",
    )


@pytest.fixture
def chirps(own_cache):
    return corpus_of(*(chirp(samples, seed) for seed, samples in enumerate((4000, 900, 7000, 2500, 30000))))


def by_librosa(waveform, sample_rate, hop=512, bands=16, size=32):
    """The paper's image, computed only with librosa."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=2048 is too large")
        sound, bounds = librosa.effects.trim(waveform, top_db=10)
        mfcc = librosa.feature.mfcc(y=sound, sr=sample_rate, n_mfcc=bands, hop_length=hop)
    tall = librosa.util.pad_center(mfcc, size=size, axis=0)
    return librosa.util.pad_center(tall, size=size, axis=1), bounds


def assert_parity(corpus, indices):
    images = extract(corpus, Features(), cache=False).values
    assert images.shape == (len(corpus), 1, 32, 32) and images.dtype == torch.float32
    bounds = trim_bounds(corpus.waveforms)
    for index in indices:
        expected, trimmed = by_librosa(corpus.waveforms[index], corpus.sample_rate)
        assert tuple(bounds[index]) == tuple(trimmed), corpus.names[index]
        np.testing.assert_allclose(
            images[index, 0].numpy(), expected, rtol=0, atol=0.01, err_msg=corpus.names[index]
        )


def test_parity_with_librosa_on_every_recording(fsdd):
    corpus = load_corpus("fsdd")
    assert len(corpus) == 3000
    assert_parity(corpus, range(len(corpus)))


def test_parity_with_librosa_on_the_packaged_corpus():
    corpus = load_corpus("espeak")
    assert_parity(corpus, range(0, len(corpus), 13))


@pytest.mark.parametrize("samples", [1, 100, 511, 512, 513, 2047, 2048, 2049, 5000])
def test_parity_with_librosa_on_any_length(samples):
    waveform = chirp(samples) + np.float32(0.1)
    expected, _ = by_librosa(waveform, RATE)
    np.testing.assert_allclose(image(waveform, RATE, Features()).values[0, 0], expected, rtol=0, atol=0.01)


@pytest.mark.parametrize(("hop", "bands", "size"), [(128, 13, 33), (1024, 32, 32), (300, 40, 64)])
def test_parity_with_librosa_for_other_settings(hop, bands, size):
    features = Features(hop=hop, bands=bands, height=size, width=size)
    expected, _ = by_librosa(chirp(3900), RATE, hop=hop, bands=bands, size=size)
    np.testing.assert_allclose(image(chirp(3900), RATE, features).values[0, 0], expected, rtol=0, atol=0.01)


def test_quiet_bands_end_80_decibels_below_the_loudest():
    tone = np.sin(2 * np.pi * 440 * np.arange(4000) / RATE).astype(np.float32)
    images = image(tone, RATE, Features(kind="logmel", bands=32))
    levels = images.values[0, 0][images.window[0]]
    assert levels.max() - levels.min() == pytest.approx(80, abs=1e-4)
    expected, _ = by_librosa(tone, RATE)
    np.testing.assert_allclose(image(tone, RATE, Features()).values[0, 0], expected, rtol=0, atol=0.01)


def test_log_mel_is_librosas_in_decibels():
    waveform = chirp(3000)
    images = image(waveform, RATE, Features(kind="logmel", bands=32, width=6, trim_db=None))
    power = librosa.feature.melspectrogram(y=waveform, sr=RATE, n_mels=32, hop_length=512)
    np.testing.assert_allclose(images.values[0, 0], librosa.power_to_db(power), rtol=0, atol=0.01)


def test_energy_is_the_level_of_each_filtered_band():
    waveform = chirp(3000)
    features = Features(kind="energy", width=6, height=16, trim_db=None)
    assert features.frame == 256
    images = image(waveform, RATE, features)
    for band, sections in enumerate(filter_bank(16, RATE)):
        filtered = sosfilt(sections, waveform.astype(np.float64))
        expected = librosa.feature.rms(y=filtered, frame_length=256, hop_length=512)[0]
        np.testing.assert_allclose(images.values[0, 0, band], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("band", [0, 7, 15])
def test_tone_shows_in_its_own_band(band):
    edges = np.geomspace(100, 0.95 * RATE / 2, 17)
    tone = np.sin(2 * np.pi * np.sqrt(edges[band] * edges[band + 1]) * np.arange(RATE) / RATE)
    values = image(tone, RATE, Features(kind="energy", height=16, width=8)).values[0, 0]
    assert values[:, 4].argmax() == band
    assert values[band, 4] == pytest.approx(np.sqrt(0.5), rel=0.02)


def test_window_is_where_the_data_is():
    images = image(chirp(3000), RATE, Features(trim_db=None, bands=15))
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[8:23, 13:19] = True  # 15 coefficients, 1 + 3000 // 512 = 6 frames; odd padding has less above
    assert torch.equal(images.window[0], expected)
    assert torch.equal(images.values[0, 0] != 0, expected)


def test_frames_beyond_the_width_are_cropped_on_both_sides():
    waveform = chirp(9 * 512)
    whole = image(waveform, RATE, Features(trim_db=None, width=10)).values
    cropped = image(waveform, RATE, Features(trim_db=None, width=5))
    assert torch.equal(cropped.values, whole[..., 2:7])
    assert cropped.window[0, 8:24].all()


@pytest.mark.parametrize("kind", ["mfcc", "logmel", "energy"])
def test_image_does_not_depend_on_the_batch(chirps, kind):
    features = Features(kind=kind)
    together = extract(chirps, features, cache=False)
    for index, waveform in enumerate(chirps.waveforms):
        alone = image(waveform, RATE, features)
        torch.testing.assert_close(alone.values[0], together.values[index], rtol=0, atol=1e-4)
        assert torch.equal(alone.window[0], together.window[index])


def test_number_of_threads_is_given_back(chirps):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        extract(chirps, Features(), cache=False)
        with pytest.raises(ValueError):
            image(np.zeros(4000), RATE, Features())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_clip_normalization(chirps):
    images = extract(chirps, Features(normalization="clip"))
    for values, window in zip(images.values, images.window, strict=True):
        data = values[0][window].double()
        assert data.mean().item() == pytest.approx(0, abs=1e-5)
        assert data.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        assert not values[0][~window].any()


def test_band_normalization(chirps):
    images = extract(chirps, Features(normalization="band"))
    for values, window in zip(images.values, images.window, strict=True):
        rows = values[0, 8:24][:, window[8]].double()
        torch.testing.assert_close(rows.mean(1), torch.zeros(16).double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(rows.std(1, correction=0), torch.ones(16).double(), rtol=0, atol=1e-5)
        assert not values[0][~window].any()


def test_band_normalization_of_a_single_frame_is_zero():
    images = image(chirp(400), RATE, Features(normalization="band"))
    assert images.window.sum() == 16 and not images.values.any()


def test_training_set_normalization(chirps):
    raw = extract(chirps, Features(normalization="train"))
    assert torch.equal(raw.values, extract(chirps, Features()).values)
    training = np.array([0, 2, 3])
    mean, deviation = statistics(raw, training)
    images = normalize(raw, mean, deviation)
    assert statistics(images, training) == pytest.approx((0, 1), abs=1e-5)
    assert statistics(images, [1]) != pytest.approx((0, 1), abs=1e-2)
    assert not images.values[:, 0][~images.window].any()
    assert torch.equal(images.window, raw.window)


def test_statistics_count_the_window_alone():
    values = torch.tensor([[[[1.0, 3.0, 0.0]]], [[[9.0, 9.0, 9.0]]]])
    window = torch.tensor([[[True, True, False]], [[True, True, True]]])
    assert statistics(Images(values, window), [0]) == (2.0, 1.0)


def test_statistics_and_normalize_refuse_nothing_to_go_by(chirps):
    images = extract(chirps, Features())
    with pytest.raises(ValueError, match="indices: must name at least one clip"):
        statistics(images, [])
    with pytest.raises(ValueError, match=r"deviation=0\.0: must be a finite number above 0"):
        normalize(images, 1.0, 0.0)


def test_cache_gives_the_same_images_again(chirps, own_cache):
    first = extract(chirps, Features())
    (path,) = own_cache.glob("*.safetensors")
    written = path.stat().st_mtime_ns
    second = extract(chirps, Features())
    assert torch.equal(first.values, second.values) and torch.equal(first.window, second.window)
    assert path.stat().st_mtime_ns == written


def test_cache_is_read(chirps, own_cache, monkeypatch):
    first = extract(chirps, Features(normalization="clip"))
    monkeypatch.setattr("scnn.features._compute", None)
    # Normalisation is applied after caching, so that one file serves all kinds.
    assert torch.equal(extract(chirps, Features(normalization="clip")).values, first.values)
    assert not torch.equal(extract(chirps, Features()).values, first.values)


def test_cache_is_bypassed(chirps, own_cache):
    extract(chirps, Features(), cache=False)
    assert not own_cache.exists()


def test_cache_tells_settings_and_waveforms_apart(chirps, own_cache):
    reference = extract(chirps, Features())
    extract(chirps, Features(hop=256))
    extract(dataclasses.replace(chirps, sample_rate=16000), Features())
    louder = dataclasses.replace(chirps, waveforms=tuple(2 * clip for clip in chirps.waveforms))
    assert not torch.equal(extract(louder, Features()).values, reference.values)
    assert len(list(own_cache.glob("*.safetensors"))) == 4


def cut(content):
    return content[:-100]


def flip(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


def empty(content):
    return b""


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_damaged_cache_is_computed_again(chirps, own_cache, damage):
    first = extract(chirps, Features())
    (path,) = own_cache.glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{path.name} is damaged .* again"):
        again = extract(chirps, Features())
    assert torch.equal(first.values, again.values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(chirps, Features())
    assert {file.suffix for file in own_cache.iterdir()} == {".safetensors", ".lock"}


def test_cache_that_cannot_be_written_is_told_of_and_done_without(chirps, own_cache, monkeypatch):
    expected = extract(chirps, Features(), cache=False)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scnn.files.os.fsync", full)
    with pytest.warns(UserWarning, match=r"could not be .*No space left.*These features are not cached"):
        images = extract(chirps, Features())
    assert torch.equal(images.values, expected.values)
    assert not list(own_cache.glob("*.safetensors")) and not list(own_cache.glob(".*"))


def test_of_many_that_want_the_same_images_one_computes_them(chirps, own_cache, monkeypatch):
    computed, compute = [], features._compute
    monkeypatch.setattr(features, "_compute", lambda *a: computed.append(None) or compute(*a))
    with ThreadPoolExecutor(24) as pool:
        images = list(pool.map(lambda _: extract(chirps, Features()), range(24)))
    assert len(computed) == 1
    assert all(torch.equal(one.values, images[0].values) for one in images)


def test_more_frames_than_memory_holds_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^waveform: 100000 samples with hop=1 and frame=2048 are too many"):
        image(np.ones(100_000), RATE, Features(hop=1))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "wavelet"}, "kind='wavelet': must be one of mfcc, logmel, energy"),
        ({"normalization": "max"}, "normalization='max': must be one of none, clip, band, peak, train"),
        ({"bands": 0}, "bands=0: must be a whole number of at least 1"),
        ({"bands": 33}, "bands=33: must be at most height=32"),
        ({"bands": 129, "height": 200}, "bands=129: must be at most 128 for kind='mfcc'"),
        ({"hop": 0}, "hop=0: must be a whole number of at least 1"),
        ({"hop": 51.2}, "hop=51.2: must be a whole number of at least 1"),
        ({"frame": -1}, "frame=-1: must be a whole number of at least 1"),
        ({"frame": 255}, "frame=255: must be even"),
        ({"width": 0}, "width=0: must be a whole number of at least 1"),
        ({"height": 10**6}, "height=1000000: must be at most 1024"),
        ({"frame": 2**30}, "frame=1073741824: must be at most 65536"),
        ({"trim_db": True}, "trim_db=True: must be a number of dB above 0, or None"),
        ({"trim_db": 0}, "trim_db=0: must be a number of dB above 0, or None"),
        ({"trim_db": "ten"}, "trim_db='ten': must be a number of dB above 0, or None"),
    ],
)
def test_wrong_parameters_are_named_with_what_is_valid(parameters, message):
    with pytest.raises(ValueError) as raised:
        Features(**parameters)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(4000), "silent"),
        (np.zeros(0), r"not empty, got shape \(0,\)"),
        (np.ones((2, 4000)), r"got shape \(2, 4000\)"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.ones(4000, np.int16), "of floats in .* got int16"),
    ],
)
def test_unusable_waveforms_are_refused(waveform, message):
    with pytest.raises(ValueError, match=rf"^waveform: .*{message}"):
        image(waveform, RATE, Features())
    with pytest.raises(ValueError, match=rf"^clip_1: .*{message}"):
        extract(corpus_of(chirp(3000), waveform), Features(), cache=False)


def test_sample_rate_is_checked():
    with pytest.raises(ValueError, match="sample_rate=0: must be above 0 Hz"):
        image(chirp(3000), 0, Features())


def test_preemphasis_comes_before_the_trimming():
    """A hiss 35 dB below a hum is trimmed, unless pre-emphasis raises it first."""
    time = np.arange(4000) / RATE
    hum = np.sin(2 * np.pi * 120 * time).astype(np.float32)
    hiss = 0.018 * np.sin(2 * np.pi * 3500 * time).astype(np.float32)
    both = np.concatenate([hiss, hum])
    settings = {"kind": "logmel", "bands": 20, "frame": 256, "hop": 128, "width": 80, "trim_frame": 512}
    plain, lifted = (
        image(both, RATE, Features(**settings, trim_db=30.0, preemphasis=p)) for p in (0.0, 0.97)
    )
    assert plain.window[0].any(0).sum() < 40 < lifted.window[0].any(0).sum()


def test_the_loudest_frames_are_kept_where_asked_for():
    quiet = np.random.default_rng(0).normal(size=24000).astype(np.float32) * 0.01
    quiet[18000:20000] *= 50
    settings = {"kind": "logmel", "bands": 20, "frame": 256, "hop": 128, "width": 40, "trim_db": None}
    middle, loudest = (image(quiet, RATE, Features(**settings, crop=crop)) for crop in ("middle", "loudest"))
    levels = [images.values[images.window[:, None]].max() for images in (middle, loudest)]
    assert levels[1] > levels[0] + 20


def test_below_the_peak_silence_is_zero_and_a_gain_changes_nothing():
    generator = np.random.default_rng(1)
    sound = generator.normal(size=6000).astype(np.float32) * np.hanning(6000).astype(np.float32)
    features = Features("logmel", bands=20, frame=256, hop=128, width=60, normalization="peak", equalize=0.5)
    first, second = (image(gain * sound, RATE, features) for gain in (0.9, 0.09))
    assert first.values.min() == 0 and first.values.max() == pytest.approx(2)
    silence = np.concatenate([sound, 1e-4 * sound[:2000]])
    ends = image(silence, RATE, dataclasses.replace(features, trim_db=None, width=80)).values
    assert (ends[0, 0, :, -20:] == 0).all()
    torch.testing.assert_close(first.values, second.values, atol=1e-3, rtol=0)


def test_equalising_takes_out_half_of_what_a_filter_adds():
    sound = np.random.default_rng(2).normal(size=6000).astype(np.float32)
    coloured = np.convolve(sound, [1.0, 0.9])[:6000].astype(np.float32)
    differences = []
    for equalize in (0.0, 0.5, 1.0):
        settings = {"frame": 256, "hop": 128, "width": 60, "trim_db": None, "normalization": "peak"}
        features = Features("logmel", bands=20, equalize=equalize, **settings)
        first, second = (image(each, RATE, features).values for each in (sound, coloured))
        differences.append((first - second).abs().mean().item())
    assert differences[0] > differences[1] > differences[2]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"preemphasis": 1.5}, "preemphasis=1.5: must be a number from 0 to 1"),
        ({"trim_frame": 510}, "trim_frame=510: must be a multiple of 4"),
        ({"crop": "first"}, "crop='first': must be one of middle, loudest"),
        ({"normalization": "peak"}, "normalization='peak' needs levels in dB"),
        ({"kind": "logmel", "range_db": 0}, "range_db=0: must be a number from 1 to 80"),
    ],
)
def test_wrong_new_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Features(**parameters)
