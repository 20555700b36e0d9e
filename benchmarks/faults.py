"""Fault injection: kills, full disks, altered files and hostile servers (`make faults`).

All random choices depend only on the seed and the number of the case, so each case can be repeated by itself.
The counts are saved to `_build/faults.json` as they come; after an interruption, the same command resumes.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import faults_inputs as inputs
from scnn import experiment as experiments
from scnn import files
from scnn.data import Corpus
from scnn.experiment import Experiment, run, state_file
from scnn.features import Features, extract

ROOT = Path(__file__).parents[1]
PAGE, BEGIN, END = ROOT / "book" / "faults.md", "<!-- table -->", "<!-- end of table -->"
COUNTS = {"kills": 1000, "full": 46, "shared": 96, "audio": 5000, "files": 5000, "archives": 200, "bits": 40}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STUCK = 120.0  # seconds after which a process counts as stuck, even on a busy machine
# Seconds after which a killed parent's processes must be gone, or the undisturbed run time if that is longer.
# Two of Ray's helpers check for their parent only about once a minute.
ENDED = {"workers": 20.0, "search": 90.0}
SLOW, LARGE = 5.0, 2 * 2**30  # limits for reading a file or archive: seconds (more under load) and bytes


class Case(Exception):
    """The failure of one case."""


# --- processes to kill ------------------------------------------------------------------------------------


def forked(
    work: Callable[[], Any], kill: tuple[float, int] | None = None, limit: float = STUCK
) -> tuple[Any, int, int]:
    """Run `work` in a forked process; if `kill` (seconds, signal) is given, send the signal after that time.

    A fork takes milliseconds, while importing the package takes seconds. It is safe because this process has
    only one thread.

    Returns:
        The result (None if killed), the exit status, and the peak memory in bytes.
    """
    return collected(launched(work), kill, limit)


def launched(work: Callable[[], Any]) -> tuple[int, int]:
    """Fork a process that does `work`; returns its PID and the file descriptor for its answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = {"result": work()}
            status = 0
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        except BaseException:
            os._exit(130)
        os.write(writing, json.dumps(result).encode())
        os._exit(status)
    os.close(writing)
    return child, reading


def collected(process: tuple[int, int], kill: tuple[float, int] | None = None, limit: float = STUCK):
    """Like `forked`, for a process that is already running."""
    child, reading = process
    answer, end = b"", time.monotonic() + limit
    killing = None if kill is None else time.monotonic() + kill[0]
    while True:
        now = time.monotonic()
        if killing is not None and now >= killing:
            os.kill(child, kill[1])
            killing = None
        if now >= end:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            os.close(reading)
            raise Case(f"stuck for {limit:.0f} s")
        wait = (end if killing is None else killing) - now
        if select.select([reading], [], [], max(0.0, wait))[0]:
            piece = os.read(reading, 2**16)
            if not piece:
                break
            answer += piece
    os.close(reading)
    _, status, usage = os.wait4(child, 0)
    found = json.loads(answer) if answer else {}
    if "error" in found and kill is None:
        raise Case(found["error"])
    return found.get("result"), os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


class Home:
    """A home folder with a corpus of three words, a training on it, and the record of an undisturbed run."""

    def __init__(self, folder: Path, epochs: int = 8):
        self.folder, self.words = folder, folder / "words"
        os.environ["SCNN_HOME"] = str(folder / "home")
        if not self.words.exists():
            inputs.words(self.words)
        self.experiment = Experiment(
            corpus=str(self.words),
            model="3C3-P2-16FC-3FC",
            num_steps=3,
            threshold=0.3,
            epochs=epochs,
            batch_size=4,
        )
        self.runs = folder / "home" / "runs"
        self.forget()
        # The first run is in this process, so that forks inherit everything it loads and compiles.
        self.expected = self.record()
        self.forget()
        start = time.monotonic()
        assert forked(self.record)[0] == self.expected
        self.seconds = time.monotonic() - start
        self.forget()

    def record(self) -> list:
        """The parts of the record that must be the same every time."""
        record = run(self.experiment)
        weights = hashlib.sha256((record.folder / "network.safetensors").read_bytes()).hexdigest()
        history = record.history.drop(columns="seconds").to_csv()
        return [weights, record.metrics, hashlib.sha256(history.encode()).hexdigest()]

    def forget(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)

    def epochs(self) -> int:
        """Number of epochs in the state of the unfinished training; all epochs if it is finished."""
        if (self.runs / self.experiment.digest).exists():
            return self.experiment.epochs
        state = state_file(self.experiment)
        return len(files.load_tensors(state, "scnn training state 2")[0]["history"]) if state.exists() else 0

    def check(self, found: list) -> None:
        """Check that the record is the expected one, and that nothing else is left."""
        if found != self.expected:
            raise Case("the record differs from the expected one")
        names = {path.name for path in self.runs.iterdir()}
        inside = {path.name for path in (self.runs / self.experiment.digest).iterdir()}
        digest = self.experiment.digest
        if names - {digest, f"{digest}.lock"} or inside != {*experiments._FILES, "made.json"}:
            raise Case(f"left behind: {sorted(names | inside)}")


def kills_of_trainings(home: Home, draw: random.Random, number: int) -> None:
    """Kill a training. Every fifth time it is then finished, and must give the undisturbed record."""
    before = home.epochs()
    found, status, _ = forked(home.record, (draw.uniform(0, home.seconds), draw.choice(SIGNALS)))
    if home.epochs() < before:
        raise Case(f"{before} epochs were saved, but only {home.epochs()} after the kill")
    if found is None and status == 0:
        raise Case("ended without a result")
    if found is not None or number % 5 == 4:
        home.check(home.record_or(found))
        home.forget()


def kills_of_records(home: Home, draw: random.Random, number: int) -> None:
    """Kill the writing of a record after the last epoch: no epoch may be trained again."""
    unfinished = state_file(home.experiment).parent
    kept = home.folder / "kept"
    if not kept.exists():
        forked(home.until_record)
        shutil.copytree(unfinished, kept)
    home.forget()
    home.runs.mkdir(parents=True)
    shutil.copytree(kept, unfinished)
    forked(home.without_training, (draw.uniform(0, 0.5 * home.seconds), draw.choice(SIGNALS)))
    home.check(forked(home.without_training)[0])


class Trainings(Home):
    def record_or(self, found: list | None) -> list:
        return forked(self.record)[0] if found is None else found

    def until_record(self) -> None:
        """Train, and stop before any part of the record is written."""

        def stop(*_):
            raise KeyboardInterrupt

        experiments.save_network = stop
        run(self.experiment)

    def without_training(self) -> list:
        def fail(*_, **__):
            raise AssertionError("an epoch was trained again")

        torch.optim.Adam.step = fail
        return self.record()


class Images:
    """A corpus whose features take a while to compute, and the expected images."""

    def __init__(self, folder: Path):
        os.environ["SCNN_HOME"] = str(folder / "home")
        generator = np.random.default_rng(0)
        clips = tuple(generator.standard_normal(8000).astype(np.float32) / 8 for _ in range(200))
        zeros = np.zeros(len(clips), dtype=np.int64)
        names = tuple(f"clip {number}" for number in range(len(clips)))
        speakers = np.array(["nobody"] * len(clips))
        self.corpus = Corpus("noise", clips, 8000, zeros, ("noise",), speakers, zeros, names, {}, "noise")
        self.cache = folder / "home" / "features"
        self.expected = self.images()
        shutil.rmtree(self.cache)
        start = time.monotonic()
        assert forked(self.images)[0] == self.expected
        self.seconds = time.monotonic() - start

    def images(self) -> str:
        images = extract(self.corpus, Features())
        return hashlib.sha256(images.values.numpy().tobytes() + images.window.numpy().tobytes()).hexdigest()


def kills_of_features(images: Images, draw: random.Random, number: int) -> None:
    shutil.rmtree(images.cache, ignore_errors=True)
    forked(images.images, (draw.uniform(0, images.seconds), draw.choice(SIGNALS)))
    if number % 4 == 3:
        if forked(images.images)[0] != images.expected:
            raise Case("the images differ from the expected ones")
        left = [path.name for path in images.cache.iterdir() if path.suffix not in (".safetensors", ".lock")]
        if left:
            raise Case(f"left behind: {left}")


# --- parents of other processes ---------------------------------------------------------------------------

PARENT = """
import json, sys
from pathlib import Path
from scnn.experiment import Experiment, run_all
import dataclasses

def main():
    base = Experiment.from_json(sys.argv[1])
    if sys.argv[2] == "search":
        from scnn.search import search
        space = {"beta": (0.1, 0.9), "threshold": [0.2, 0.3, 0.4]}
        base = dataclasses.replace(base, validation=0.2)
        found = search(base, space, trials=3, grace=base.epochs, max_concurrent=1).table
        print(found.drop(columns="seconds").to_csv(), flush=True)
    else:
        records = run_all([dataclasses.replace(base, seed=seed) for seed in range(4)], workers=2)
        print([record.metrics for record in records], flush=True)

if __name__ == "__main__":
    main()
"""


class Parents:
    """Scripts that start child processes, which are recognised by a token in their environment."""

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind
        self.home = Home(folder, epochs=6)
        self.script = folder / "parent.py"
        self.script.write_text(PARENT)
        self.expected = self.seconds = None
        start = time.monotonic()
        self.expected = self.finished()
        self.seconds = time.monotonic() - start
        self.forget()

    def forget(self) -> None:
        self.home.forget()
        shutil.rmtree(self.folder / "home" / "searches", ignore_errors=True)

    def start(self) -> tuple[subprocess.Popen, str]:
        token = f"{os.getpid()}.{time.monotonic_ns()}"
        command = [sys.executable, str(self.script), self.home.experiment.to_json(), self.kind]
        environment = os.environ | {"SCNN_FAULTS": token, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ), token

    def finished(self) -> str:
        process, _ = self.start()
        try:
            said, wrong = process.communicate(timeout=2 * STUCK)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise Case(f"stuck for {2 * STUCK:.0f} s") from error
        if process.returncode:
            raise Case(f"failed: {wrong.strip().splitlines()[-1:]}")
        return said


def alive(token: str) -> list[int]:
    """PIDs of the processes with the token in their environment (Linux only)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            running = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if running and f"SCNN_FAULTS={token}".encode() in folder.joinpath("environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def kills_of_parents(parents: Parents, draw: random.Random, number: int) -> None:
    process, token = parents.start()
    try:
        process.wait(draw.uniform(0.1, 1.0) * parents.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(SIGNALS[number % 3])
    try:
        process.communicate(timeout=STUCK)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise Case(f"does not end after {SIGNALS[number % 3].name}") from error
    limit = max(ENDED[parents.kind], parents.seconds)
    end = time.monotonic() + limit
    while orphans := alive(token):
        if time.monotonic() > end:
            for orphan in orphans:
                os.kill(orphan, signal.SIGKILL)
            raise Case(f"{len(orphans)} processes still run {limit:.0f} s after {SIGNALS[number % 3].name}")
        time.sleep(0.1)
    if number % 3 == 2:
        if parents.finished() != parents.expected:
            raise Case("the results differ from the expected ones")
        left = [path.name for path in parents.home.runs.iterdir() if path.suffix in (".unfinished", ".part")]
        if left:
            raise Case(f"left behind: {left}")
        parents.forget()


# --- sharing, and full disks ------------------------------------------------------------------------------


def sharing(images: Images, home: Home, draw: random.Random, number: int) -> None:
    """Many ask at once: processes for a training; processes with the same PID, or threads, for features."""
    kind = number % 3
    count = (4, 16, 24)[kind]
    if kind == 2:
        shutil.rmtree(images.cache, ignore_errors=True)
        answers = forked(lambda: _threads(images, count))[0]
    else:
        home.forget()
        shutil.rmtree(images.cache, ignore_errors=True)
        trained = home.folder / f"trained-{number}"

        def work():
            os.getpid = lambda: 1  # as can happen in containers
            if kind == 1:
                return images.images()
            fit = experiments.fit

            def counted(*arguments, **options):
                with trained.open("a") as file:
                    file.write("x")
                return fit(*arguments, **options)

            experiments.fit = counted
            return home.record()

        answers = [collected(process)[0] for process in [launched(work) for _ in range(count)]]
        if kind == 0 and trained.read_text() != "x":
            raise Case("trained more than once")
    expected = home.expected if kind == 0 else images.expected
    if answers != [expected] * count:
        raise Case(f"{sum(answer != expected for answer in answers)} of {count} gave a wrong answer, or none")


def _threads(images: Images, count: int) -> list:
    answers = [None] * count
    barrier = threading.Barrier(count)

    def work(place):
        barrier.wait()
        answers[place] = images.images()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def full_disk(home: Home, draw: random.Random, number: int) -> None:
    """The disk fills up at the n-th file: the error must name the file, and the training must then resume."""
    home.forget()
    shutil.rmtree(home.folder / "home" / "features", ignore_errors=True)
    experiments._images.cache_clear()
    allowed = number % (home.experiment.epochs + 7)

    def work():
        written, sync = [], os.fsync

        def full(handle):
            written.append(handle)
            if len(written) > allowed:
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                raise OSError(28, "No space left on device")
            sync(handle)

        os.fsync = full
        try:
            return home.record()
        except OSError as error:
            if "could not be written" not in str(error) or str(home.folder) not in str(error):
                raise
            return "refused"

    answer = forked(work)[0]
    if answer not in ("refused", home.expected):
        raise Case("a wrong record was written")
    home.check(forked(home.record)[0])


def same_bits(home: Home, draw: random.Random, number: int) -> None:
    home.forget()

    def work():
        torch.set_num_threads(1 + number % 2)
        return home.record()

    home.check(forked(work)[0])


# --- files and archives -----------------------------------------------------------------------------------


def judged(place: str, work: Callable[[], Any]) -> None:
    """Do `work` on a file with limited memory: it must not hang, and any error must name `place`."""

    def bounded():
        inputs.limit_memory(LARGE)
        start = time.monotonic()
        try:
            work()
        except (ValueError, OSError) as error:
            if place not in str(error):
                return f"an error that does not name {place}: {type(error).__name__}: {str(error)[:200]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        seconds = time.monotonic() - start
        patience = SLOW * max(1.0, os.getloadavg()[0] / os.cpu_count())
        return f"{seconds:.1f} s" if seconds > patience else None

    answer, status, memory = forked(bounded, limit=STUCK)
    if status:
        raise Case(f"the process died with status {status}")
    if answer:
        raise Case(answer)
    if memory > LARGE:
        raise Case(f"{memory / 2**30:.1f} GB of memory")


# --- what is run ------------------------------------------------------------------------------------------


class Part:
    """One row of the table: a number of cases, each run as `case(*prepare(), draw, number)`."""

    def __init__(self, name: str, what: str, cases: int, prepare, case):
        self.name, self.what, self.cases = name, what, cases
        self.prepare, self.case = prepare, case


def parts(options: argparse.Namespace, scratch: Path) -> list[Part]:
    kills, searches = options.kills, max(1, options.kills // 50) if options.kills else 0
    features_kills, records_kills = 3 * kills // 10, kills // 4
    trainings = kills - features_kills - records_kills - 2 * searches

    def place(name: str) -> Path:
        (scratch / name).mkdir(parents=True, exist_ok=True)
        return scratch / name

    def shared():
        return Images(place("shared")), Trainings(place("shared"))

    def judged_case(made, draw, number):
        made.case(draw, number, judged)

    some = options.files
    return [
        Part("kills, training", "SIGKILL, SIGTERM or SIGINT while a network is trained", trainings,
             lambda: (Trainings(place("training")),), kills_of_trainings),
        Part("kills, record", "the same while a record is written", records_kills,
             lambda: (Trainings(place("record")),), kills_of_records),
        Part("kills, features", "the same while features are computed and cached", features_kills,
             lambda: (Images(place("features")),), kills_of_features),
        Part("kills, workers", "the parent of two training processes is killed", searches,
             lambda: (Parents(place("workers"), "workers"),), kills_of_parents),
        Part("kills, search", "a search on Ray is killed", searches,
             lambda: (Parents(place("search"), "search"),), kills_of_parents),
        Part("sharing", "4 processes share a training; 16 processes with the same PID or 24 threads, a cache",
             options.shared, shared, sharing),
        Part("full disk", "the disk fills up at the n-th file", options.full,
             lambda: (Trainings(place("full")),), full_disk),
        Part("audio", "altered recordings", options.audio,
             lambda: (inputs.Audio(place("audio")),), judged_case),
        Part("networks", "altered network files", 2 * some // 5,
             lambda: (inputs.Networks(place("networks")),), judged_case),
        Part("forged", "forged network files with a valid checksum", some // 10,
             lambda: (inputs.Forged(place("forged")),), judged_case),
        Part("states", "altered training states", 7 * some // 20,
             lambda: (inputs.States(place("states")),), judged_case),
        Part("records", "records with an altered file", some - 2 * some // 5 - some // 10 - 7 * some // 20,
             lambda: (inputs.Records(place("records")),), judged_case),
        Part("archives", "hostile archives from a server", options.archives,
             lambda: (inputs.Archives(place("archives")),), judged_case),
        Part("same bits", "the same seed, on one thread and on two", options.bits,
             lambda: (Trainings(place("bits")),), same_bits),
    ]  # fmt: skip


def measure(part: Part, kept: dict[str, Any], seed: int, save: Callable[[], None]) -> None:
    start, saved, before = time.monotonic(), time.monotonic(), kept.get("seconds", 0.0)
    made = part.prepare()
    with tqdm(total=part.cases, initial=kept["done"], desc=part.name, disable=None) as bar:
        while kept["done"] < part.cases:
            number = kept["done"]
            try:
                part.case(*made, random.Random(f"{seed} {part.name} {number}"), number)
            except Case as error:
                kept["failed"] += 1
                kept["reasons"] = [*kept["reasons"], f"{number}: {error}"][:20]
                bar.write(f"{part.name}, case {number}: {error}")
                for each in made:
                    if hasattr(each, "forget"):  # the next case must not see leftovers
                        each.forget()
            kept["done"] += 1
            kept["seconds"] = round(before + time.monotonic() - start, 1)
            bar.update()
            bar.set_postfix(failed=kept["failed"])
            if time.monotonic() - saved > 2:
                save()
                saved = time.monotonic()
    for each in made:
        if hasattr(each, "close"):
            each.close()


def table(result: dict[str, Any]) -> str:
    """The counts as a table for the book's page."""
    rows = ["| part | what happened | cases | failed | minutes |", "|---|---|---:|---:|---:|"]
    for name, part in result["parts"].items():
        minutes = part["seconds"] / 60
        rows.append(f"| {name} | {part['what']} | {part['done']} | {part['failed']} | {minutes:.1f} |")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join([*rows, "", f"Python {result['python']}, {versions}; {result['machine']}."])


def write_page(result: dict[str, Any], page: Path = PAGE) -> None:
    """Write the table to the book's page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{table(result)}\n\n{end}{after}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.faults", description=__doc__.splitlines()[0])
    for name, count in COUNTS.items():
        parser.add_argument(
            f"--{name}", type=int, default=count, metavar="N", help="number of cases (default: %(default)s)"
        )
    parser.add_argument("--only", nargs="+", metavar="PART", help="run only parts whose names start so")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "faults.json")
    parser.add_argument("--fresh", action="store_true", help="start anew instead of resuming")
    parser.add_argument(
        "--page", action="store_true", help="run nothing; write benchmarks/faults.json to the book's page"
    )
    options = parser.parse_args(arguments)
    if options.page:
        write_page(files.read_json(Path(__file__).with_name("faults.json")))
        return 0
    if not hasattr(os, "fork"):
        parser.error("this needs a system with fork, such as Linux or macOS")
    torch.set_num_threads(1)  # with more threads, forking is not safe
    asked = {name: getattr(options, name) for name in (*COUNTS, "seed")}
    result = {"asked": asked, "parts": {}}
    if options.out.exists() and not options.fresh:
        earlier = files.read_json(options.out)
        result = earlier if earlier["asked"] == asked else result
    result |= {
        "versions": {name: version(name) for name in experiments.VERSIONS},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }

    def save() -> None:
        files.write_json(options.out, result)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for part in parts(options, Path(scratch)):
            if options.only and not part.name.startswith(tuple(options.only)):
                continue
            new = {
                "what": part.what,
                "cases": part.cases,
                "done": 0,
                "failed": 0,
                "seconds": 0.0,
                "reasons": [],
            }
            kept = result["parts"].setdefault(part.name, new)
            if kept["done"] < part.cases:
                measure(part, kept, options.seed, save)
            save()
            print(
                f"{part.name:16} {kept['done']:5} cases, {kept['failed']} failed, {kept['seconds']} s",
                flush=True,
            )
    return int(any(part["failed"] for part in result["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
