"""Augmentation: it is seeded, has the right size and effect, and is part of an experiment."""

import dataclasses

import numpy as np
import pytest
import torch

from scnn import augment
from scnn.augment import Augmentation, copies, jitter, mask, mixup, vary
from scnn.data import load_corpus
from scnn.features import Features, extract

RATE = 8000
TIME = np.arange(RATE) / RATE
TONE = np.sin(2 * np.pi * 400 * TIME).astype(np.float32)
CALM = Augmentation(
    **{"copies": 2, "pitch": (1, 1), "tempo": (1, 1), "cut": (100, 100), "tilt": (0, 0)},
    **{"resonance": 0, "echo": 0, "noise": (100, 100), "silence": 0},
)


def peak_hertz(sound: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return np.argmax(spectrum) * RATE / len(sound)


def test_the_same_generator_gives_the_same_copy_and_another_does_not():
    first, again, other = (
        vary(TONE, RATE, Augmentation(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)
    assert first.dtype == np.float32 and np.abs(first).max() <= 1


def test_resampling_moves_pitch_and_tempo_together():
    faster = augment.repitched(TONE, RATE, 1.25)
    assert len(faster) == pytest.approx(len(TONE) / 1.25, abs=2)
    assert peak_hertz(faster) == pytest.approx(500, abs=5)


@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_overlap_add_changes_the_tempo_and_keeps_the_pitch(factor):
    changed = augment.stretched(TONE, factor)
    assert len(changed) == pytest.approx(len(TONE) / factor, abs=1)
    assert peak_hertz(changed) == pytest.approx(400, abs=5)
    inside = changed[500:-500]
    assert np.abs(inside).max() == pytest.approx(1, abs=0.1)  # the periods join without gaps or doubled peaks
    assert np.sqrt(np.mean(inside**2)) == pytest.approx(0.707, abs=0.07)


def test_noise_has_the_ratio_that_was_asked_for():
    a = dataclasses.replace(CALM, noise=(10, 10))
    noisy, clean = (vary(TONE, RATE, each, np.random.default_rng(3)) for each in (a, CALM))
    noisy = noisy / noisy[1000:7000].std() * clean[1000:7000].std() * np.sqrt(1.1)
    ratio = 20 * np.log10(clean[1000:7000].std() / (noisy - clean)[1000:7000].std())
    assert ratio == pytest.approx(10, abs=1)


def test_tilt_echo_and_thinning_do_what_they_say():
    high = np.sin(2 * np.pi * 3000 * TIME)
    assert augment.tilted(high, 0.8).std() < high.std() < augment.tilted(high, -0.6).std()
    impulse = np.zeros(10)
    impulse[0] = 1
    assert augment.echoed(impulse, 4, 0.5)[[0, 4]].tolist() == [1, 0.5]
    assert np.abs(augment.thinned(np.ones(4000), 0.9)[-1]) < 1e-6


def test_an_eager_gate_cuts_soft_ends():
    soft = np.concatenate([0.01 * TONE, TONE, 0.01 * TONE])
    a = dataclasses.replace(CALM, cut=(20, 20))
    lengths = {len(vary(soft, RATE, a, np.random.default_rng(seed))) for seed in range(8)}
    assert len(soft) in lengths and min(lengths) < 1.2 * len(TONE)


def test_images_move_and_are_masked_by_the_generator_alone():
    images = torch.zeros(6, 1, 20, 28)
    images[:, :, 8:12, 10:18] = 1
    a = Augmentation()
    first, again, other = (
        mask(jitter(images, a, torch.Generator().manual_seed(s)), a, torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == images.shape and 0 <= first.min() and first.max() <= 1.001
    still = Augmentation(shift=0, stretch=0, masks=0)
    assert torch.equal(mask(jitter(images, still, torch.Generator()), still, torch.Generator()), images)


def test_mixup_mixes_images_and_targets_alike():
    images, targets = torch.eye(4)[:, None, None], torch.eye(4)
    mixed = [
        mixup(images, targets, Augmentation(mixup=1.0), torch.Generator().manual_seed(s)) for s in range(8)
    ]
    for values, wanted in mixed:
        torch.testing.assert_close(values[:, 0, 0], wanted)
        torch.testing.assert_close(wanted.sum(1), torch.ones(4))
    assert any(not torch.equal(wanted, targets) for _, wanted in mixed)
    assert any(torch.equal(wanted, targets) for _, wanted in mixed)


def test_copies_begin_with_the_clip_and_are_kept(monkeypatch):
    corpus = load_corpus("espeak")
    part = dataclasses.replace(
        corpus, waveforms=corpus.waveforms[:6], labels=corpus.labels[:6], names=corpus.names[:6]
    )
    features = Features("logmel", bands=20, frame=256, hop=128, width=56, normalization="clip")
    chosen = np.array([0, 3])
    images = copies(part, features, Augmentation(copies=2), chosen)
    assert images.shape == (2, 3, 1, 32, 56)
    assert torch.equal(images[:, 0], extract(part, features).values[chosen])
    assert not torch.equal(images[:, 1], images[:, 2])
    monkeypatch.setattr(augment, "vary", None)  # a second call reads
    assert torch.equal(copies(part, features, Augmentation(copies=2), chosen), images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"copies": -1}, "copies must be a whole number from 0 to 64"),
        ({"pitch": (1.4, 0.7)}, "pitch must be two numbers in 0.5..2.0, the lower first"),
        ({"noise": 10}, "noise must be two numbers in -20.0..100.0"),
        ({"echo": 2.0}, "echo must be a number in 0..1.0"),
        ({"mixup": float("nan")}, "mixup must be a number in 0..10.0"),
    ],
)
def test_wrong_values_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**parameters)
