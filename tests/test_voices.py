"""Synthetic voices: how many, the same every time, and what is said where they cannot be had."""

import numpy as np
import pytest

from scnn import voices


def test_a_voice_says_what_the_manifest_expects_whichever_others_are_made():
    pytest.importorskip("espeakng_loader", reason="the extra [voices] has it")
    (spoken,) = voices.make("voices", voices.VOICES[7:8]).values()
    lengths, samples = spoken
    assert len(lengths) == 50 and lengths.sum() == len(samples) and samples.dtype == np.int16
    known = voices.MANIFEST.read_text().split()
    assert known[known.index(f"voices/{voices.VOICES[7]}") - 1] == voices.digest(*spoken)
