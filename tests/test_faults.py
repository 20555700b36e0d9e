"""Fault injection: a tiny run of every part that does not need Ray, and the page with the committed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.faults_inputs import altered

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "benchmarks" / "faults.json"


@pytest.mark.skipif(not hasattr(faults.os, "fork"), reason="the processes to kill are forked")
def test_a_tiny_run_counts_every_case_and_finds_nothing(tmp_path):
    out = tmp_path / "faults.json"
    counts = ["--kills", "12", "--full", "2", "--shared", "3", "--files", "20", "--bits", "2"]
    only = ["kills, training", "kills, record", "kills, features", "sharing", "full", "networks", "forged"]
    command = [sys.executable, "-m", "benchmarks.faults", *counts, "--out", str(out), "--only", *only]
    for _ in range(2):  # the second resumes where the first ended, so it has nothing to do
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert len(parts) == len(only)
    assert all(part["done"] == part["cases"] > 0 for part in parts.values())


def test_a_case_that_fails_is_counted_with_its_reason(tmp_path):
    def case(made, draw, number):
        if number == 1:
            raise faults.Case("broken")

    part = faults.Part("name", "what", 3, lambda: (None,), case)
    kept = {"done": 0, "failed": 0, "reasons": []}
    faults.measure(part, kept, 0, lambda: None)
    assert (kept["done"], kept["failed"], kept["reasons"]) == (3, 1, ["1: broken"])


def test_altered_files_differ_and_can_be_made_again():
    draws = [[altered(bytes(1000), faults.random.Random(number)) for number in range(50)] for _ in range(2)]
    assert draws[0] == draws[1] and len(set(draws[0])) > 40


def test_the_page_shows_the_committed_run():
    result = json.loads(COMMITTED.read_text())
    assert faults.table(result) in faults.PAGE.read_text()
