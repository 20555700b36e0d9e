"""The cache of compiled code: when it is damaged, or cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
from scnn._jit import njit
import numpy as np

@njit(nogil=True)
def total(values):
    found = 0.0
    for value in values:
        found += value
    return found

print(total(np.arange(4.0)), sum(total._cache_hits.values()))
"""


@pytest.fixture
def answer(tmp_path):
    """The output of a separate process that compiles a function or loads it from the cache."""
    script = tmp_path / "script.py"
    script.write_text(SOURCE)

    def of(**variables):
        root = str(Path(__file__).parents[1])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
        environment |= {"PYTHONPATH": root} | {name: str(value) for name, value in variables.items()}
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split(), done.stderr

    return of


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    at = 3 * len(content) // 4
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_damaged_code_is_compiled_again(answer, tmp_path):
    kept = tmp_path / "kept"
    assert answer(NUMBA_CACHE_DIR=kept)[0] == ["6.0", "0"]
    assert answer(NUMBA_CACHE_DIR=kept)[0] == ["6.0", "1"]
    for ending, damage in (("nbi", truncated), ("nbc", truncated), ("nbc", flipped)):
        (file,) = kept.rglob(f"*.{ending}")
        file.write_bytes(damage(file.read_bytes()))
        assert answer(NUMBA_CACHE_DIR=kept) == (["6.0", "0"], "")


def test_with_nowhere_to_keep_code_a_line_says_what_to_set(answer, tmp_path):
    (tmp_path / "__pycache__").touch()  # so that the folder cannot be created
    found, said = answer(XDG_CACHE_HOME="/dev/null")
    assert found == ["6.0", "0"]
    assert "set NUMBA_CACHE_DIR to a writable folder" in said
