"""Speak words with one eSpeak NG voice; `scnn.voices` runs this file as a separate process per voice.

eSpeak NG has internal counters (for pitch flutter and noise) that no call resets, so its output depends on
everything it said before. A fresh process makes a voice's clips independent of all others. This file is run
by its path, imports nothing from this package, and writes the clips to standard output.
"""

import ctypes
import json
import random
import sys

import numpy as np
import soxr

RATE = 8000  # Hz, sample rate of the clips
# Constants and parameter numbers from speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_SPEED, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Speaker:
    """One eSpeak NG voice.

    Args:
        data: eSpeak NG's data folder. Prefer a relative path: eSpeak NG has room for about 150 characters.
        voice: name of the voice, such as "en-us+f3".
    """

    def __init__(self, library: str, data: str, voice: str) -> None:
        self._espeak = ctypes.CDLL(library)
        self._heard: list[bytes] = []
        self._callback = _CALLBACK(self._collect)  # kept here: ctypes does not keep it alive
        self._rate = self._espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
        if self._rate <= 0:
            raise OSError(f"eSpeak NG could not be started with its data in {data}")
        self._espeak.espeak_SetSynthCallback(self._callback)
        if self._espeak.espeak_SetVoiceByName(voice.encode()) != 0:
            raise OSError(f"eSpeak NG has no voice {voice}")
        self._espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def say(self, word: str, speed: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Speak a word; float64 [samples] at 8 kHz.

        Args:
            speed: words per minute.
            pitch: 0 to 99; 50 is the voice's own.
            pitch_range: 0 to 99; 50 is the voice's own.
        """
        # At full volume some voices clip.
        for number, value in ((_SPEED, speed), (_VOLUME, 40), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._espeak.espeak_SetParameter(number, value, 0)
        self._heard.clear()
        text = word.encode()
        self._espeak.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(self._heard), dtype=np.int16) / 32768
        # Double precision, so that rounding to 16 bits gives the same samples on every processor.
        return soxr.resample(samples, self._rate, RATE, quality="VHQ")

    def _collect(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._heard.append(ctypes.string_at(samples, 2 * count))
        return 0


def clip(speaker: Speaker, word: str, seed: str) -> np.ndarray:
    """One take, int16 [samples]; `seed` decides speed, pitch, loudness and the silence at both ends."""
    draw = random.Random(seed)
    samples = speaker.say(word, draw.randint(130, 260), draw.randint(25, 75), draw.randint(20, 90))
    peak = np.abs(samples).max()
    loud = np.flatnonzero(np.abs(samples) > 0.01 * peak)
    before, after = (draw.randint(RATE // 50, RATE * 3 // 50) for _ in range(2))  # 20 to 60 ms
    padded = np.pad(samples[loud[0] : loud[-1] + 1], (before, after))
    return np.round(padded * (32767 * 10 ** (draw.uniform(-24, -1) / 20) / peak)).astype(np.int16)


def main() -> None:
    """Read {library, data, voice, words, takes} from standard input; write the clips' lengths and samples."""
    request = json.load(sys.stdin)
    voice = request["voice"]
    speaker = Speaker(request["library"], request["data"], voice)
    clips = [
        clip(speaker, word, f"{word} {voice} {take}")
        for word in request["words"]
        for take in range(request["takes"])
    ]
    np.save(sys.stdout.buffer, np.array([len(samples) for samples in clips], dtype=np.int32))
    np.save(sys.stdout.buffer, np.concatenate(clips))


if __name__ == "__main__":
    main()
