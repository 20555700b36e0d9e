"""One voice of eSpeak NG says words: a program for a process of its own, which `scnn.voices` starts.

eSpeak NG keeps counters (of the pitch's flutter, of its noise) that no call resets, so what it says depends
on all that it said before. In a fresh process a voice's clips are the same whatever else was made. This file
is run by its path, imports no other of this package, and answers on its standard output.
"""

import ctypes
import json
import random
import sys

import numpy as np
import soxr

RATE = 8000  # Hz, of the clips
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1  # of speak_lib.h, as the numbers of the parameters
_SPEED, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Speaker:
    """One voice.

    Args:
        voice: its name, such as "en-us+f3".
        data: the folder of eSpeak NG's data. eSpeak NG has room for some 150 letters, so it is better
            relative.
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
        """The word as float64 [samples] at 8 kHz.

        Args:
            speed: words per minute.
            pitch: 0 to 99; 50 is the voice's own.
            pitch_range: 0 to 99; 50 is the voice's own.
        """
        # At its full volume some voices are clipped.
        for number, value in ((_SPEED, speed), (_VOLUME, 40), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._espeak.espeak_SetParameter(number, value, 0)
        self._heard.clear()
        text = word.encode()
        self._espeak.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(self._heard), dtype=np.int16) / 32768
        # In double precision, so that rounding to 16 bits afterwards gives the same on every processor.
        return soxr.resample(samples, self._rate, RATE, quality="VHQ")

    def _collect(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._heard.append(ctypes.string_at(samples, 2 * count))
        return 0


def clip(speaker: Speaker, word: str, seed: str) -> np.ndarray:
    """One take, int16 [samples]; speed, pitch, loudness and the silence at both ends come from `seed`."""
    draw = random.Random(seed)
    samples = speaker.say(word, draw.randint(130, 260), draw.randint(25, 75), draw.randint(20, 90))
    peak = np.abs(samples).max()
    loud = np.flatnonzero(np.abs(samples) > 0.01 * peak)
    before, after = (draw.randint(RATE // 50, RATE * 3 // 50) for _ in range(2))  # 20 to 60 ms
    said = np.pad(samples[loud[0] : loud[-1] + 1], (before, after))
    return np.round(said * (32767 * 10 ** (draw.uniform(-24, -1) / 20) / peak)).astype(np.int16)


def main() -> None:
    """Read {library, data, voice, words, takes} from standard input; write the clips' lengths and samples."""
    wanted = json.load(sys.stdin)
    voice = wanted["voice"]
    speaker = Speaker(wanted["library"], wanted["data"], voice)
    clips = [
        clip(speaker, word, f"{word} {voice} {take}")
        for word in wanted["words"]
        for take in range(wanted["takes"])
    ]
    np.save(sys.stdout.buffer, np.array([len(samples) for samples in clips], dtype=np.int32))
    np.save(sys.stdout.buffer, np.concatenate(clips))


if __name__ == "__main__":
    main()
