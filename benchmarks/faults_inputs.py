"""Inputs for `faults.py`: altered recordings, networks, states and records, and a hostile server."""

import copy
import gzip
import io
import os
import random
import re
import signal
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import soundfile
import torch

from scnn import data, download, experiment, training
from scnn.experiment import Experiment, run
from scnn.features import Features, image
from scnn.files import load_tensors, save_tensors
from scnn.models import build
from scnn.training import Training, fit, load_network, save_network

Judge = Callable[[str, Callable[[], object]], None]


def words(folder: Path) -> None:
    """Write a corpus of three words: tones of three pitches, ten recordings of each."""
    generator = np.random.default_rng(0)
    for label, pitch in (("high", 1600), ("low", 200), ("middle", 700)):
        (folder / label).mkdir(parents=True)
        for take in range(10):
            times = np.arange(2400 + 200 * take) / 8000
            tone = 0.3 * np.sin(2 * np.pi * pitch * times) + 0.05 * generator.standard_normal(len(times))
            soundfile.write(folder / label / f"{take}.wav", tone, 8000)


def limit_memory(more: int) -> None:
    """Limit this process to `more` bytes beyond its current memory; works only on Linux."""
    if sys.platform == "linux":
        import resource

        has = int(re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (has + more, resource.RLIM_INFINITY))


def altered(content: bytes, draw: random.Random) -> bytes:
    """`content` with random bits flipped, bytes overwritten, deleted, inserted or appended, or truncated."""
    new = bytearray(content)
    # Half of the changes hit the start of the file, where headers are.
    reach = min(len(new), 256) if draw.random() < 0.5 else len(new)
    at, length = draw.randrange(reach), draw.choice((1, 2, 4, 8, 64))
    kind = draw.randrange(8)
    if kind < 2:
        for _ in range(draw.randint(1, 8)):
            new[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    elif kind == 2:
        new[at : at + length] = draw.randbytes(length)
    elif kind == 3:
        new[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"9", b"[")) * length
    elif kind == 4:
        del new[at : at + length]
    elif kind == 5:
        new[at:at] = draw.randbytes(length)
    elif kind == 6:
        del new[draw.randrange(len(new)) :]
    else:
        new += new[at : at + 4096]
    return bytes(new)


class Audio:
    """Altered recordings, in every format that soundfile writes here."""

    def __init__(self, folder: Path):
        self.folder, self.bases = folder, []
        tone = 0.3 * np.sin(np.arange(6000) / 3).astype(np.float32)
        for ending, kind in (
            *(("wav", kind) for kind in ("PCM_16", "PCM_24", "FLOAT", "ULAW")),
            *(("flac", "PCM_16"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("aiff", "PCM_16"), ("mp3", None)),
        ):
            for samples in (tone, np.stack([tone, tone], axis=1)):
                path = folder / f"base.{ending}"
                soundfile.write(path, samples, 8000, subtype=kind)
                self.bases.append((ending, path.read_bytes()))

    def case(self, draw: random.Random, number: int, judged: Judge) -> None:
        ending, content = self.bases[number % len(self.bases)]
        path = self.folder / f"altered.{ending}"
        path.write_bytes(altered(content, draw))
        judged(str(path), lambda: data.read_audio(path))


class Networks:
    """Altered files of a saved network."""

    about = {  # noqa: RUF012
        "classes": [*"0123456789"],
        "sample_rate": 8000,
        "normalization": [1.0, 2.0],
        "experiment": {"features": {"height": 32, "width": 32}},
    }

    def __init__(self, folder: Path):
        self.path = folder / "network.safetensors"
        network = build("3C3-P2-16FC-10FC", num_steps=4)
        save_network(network, self.path, self.about)
        self.content, self.says = self.path.read_bytes(), self.said()

    def said(self) -> tuple:
        network, about = load_network(self.path)
        weights = {name: weight.detach().numpy().tobytes() for name, weight in network.state_dict().items()}
        return str(network), weights, about

    def case(self, draw: random.Random, number: int, judged: Judge) -> None:
        self.path.write_bytes(altered(self.content, draw))
        judged(str(self.path), self.look)

    def look(self) -> None:
        assert self.said() == self.says, "altered, but accepted"


WRONG = (
    *(-1, 0, 1, 7, 2**31, 2**63, 10**30, 1e300, -1e300, 1e-300, True, None, "", "0", "\x1b[31m", [], [0], {}),
    *([1] * 1000, [[[]]], "9" * 5000, "1FC-" * 3000 + "1FC", "64C1-64C1-10FC", "4096C3-10FC", "99999FC-10FC"),
    *([1, 1024, 1024], [1, 10**5, 10**5], [64, 32, 32], 1000, 384_000, 65_536),
)


class Forged(Networks):
    """Network files that an attacker wrote with this package's own code, with an arbitrary description."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.kept, self.tensors = load_tensors(self.path, training.FORMAT)
        self.look()

    def case(self, draw: random.Random, number: int, judged: Judge) -> None:
        kept, tensors = copy.deepcopy(self.kept), dict(self.tensors)
        for _ in range(draw.randint(1, 2)):
            inside = draw.choice(_dictionaries(kept))
            new = ("frame", "hop", "bands", "height", "width", "trim_db")
            inside[draw.choice([*inside, *(new if inside.keys() & {"height"} else ())])] = draw.choice(WRONG)
        if draw.random() < 0.2:
            name = draw.choice(list(tensors))
            tensors[name] = draw.choice(
                [torch.zeros(0), tensors[name] / 0, tensors[name] * 1e38, tensors[name][:1]]
            )
        save_tensors(self.path, training.FORMAT, kept, tensors)
        judged(str(self.path), self.look)

    def look(self) -> None:
        """Use the file like `scnn predict`."""
        network, about = load_network(self.path)
        if not {"experiment", "sample_rate"} <= about.keys():
            return
        features, rate = Features(**about["experiment"]["features"]), about["sample_rate"]
        sound = 0.3 * np.sin(np.arange(3 * rate) / 3)
        try:
            images = image(sound, rate, features)
        except ValueError as error:  # the features do not fit the recording
            assert str(error).startswith("waveform: "), f"an error that does not name the parameter: {error}"
            return
        with torch.no_grad():
            network(images.values)


def _dictionaries(content: object) -> list[dict]:
    """All non-empty dictionaries in a description, at any depth."""
    if not isinstance(content, dict):
        return []
    inside = [each for value in content.values() for each in _dictionaries(value)]
    return [each for each in (content, *inside) if each]


class States:
    """Altered states of a training of two epochs, which then resumes from them."""

    def __init__(self, folder: Path):
        self.path = folder / "state.safetensors"
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(12, 1, 16, 16, generator=generator)
        self.labels = torch.arange(12) % 3
        self.train(epochs=2)
        self.content = self.path.read_bytes()
        self.expected = self.train(epochs=2)

    def train(self, epochs: int) -> tuple:
        network = build("2C3-3FC", num_steps=2, input_shape=(1, 16, 16))
        held = self.images[:3], self.labels[:3]
        history = fit(network, self.images, self.labels, held, Training(epochs=epochs), self.path)
        return history, {name: weight.numpy().tobytes() for name, weight in network.state_dict().items()}

    def case(self, draw: random.Random, number: int, judged: Judge) -> None:
        self.path.write_bytes(altered(self.content, draw))
        judged(str(self.path), self.look)

    def look(self) -> None:
        assert self.train(epochs=2) == self.expected, "altered, but accepted"


class Records:
    """Altered records of a training."""

    def __init__(self, folder: Path):
        os.environ["SCNN_HOME"] = str(folder / "home")
        words(folder / "words")
        sizes = {"num_steps": 2, "epochs": 2, "batch_size": 8}
        self.experiment = Experiment(corpus=str(folder / "words"), model="2C3-8FC-3FC", **sizes)
        record = run(self.experiment)
        self.folder, self.expected = record.folder, (record.metrics, record.made)
        self.contents = {path: path.read_bytes() for path in sorted(record.folder.iterdir())}

    def case(self, draw: random.Random, number: int, judged: Judge) -> None:
        path = draw.choice(list(self.contents))
        for each, content in self.contents.items():
            each.write_bytes(altered(content, draw) if each == path else content)
        judged("", self.look)

    def look(self) -> None:
        record = experiment._read(self.folder, self.experiment)
        unchanged = (record.metrics, record.made) == self.expected
        unchanged &= all(
            path.read_bytes() == content for path, content in self.contents.items() if path.stem != "made"
        )
        assert unchanged, "altered, but accepted"


# --- archives ---------------------------------------------------------------------------------------------


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member, content in members:
            member.size = len(content) if member.isfile() else 0
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, **values) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in values.items():
        setattr(member, key, value)
    return member


def _archive(kind: str, draw: random.Random) -> bytes:
    inside = "free-spoken-digit-dataset-1.0.10/recordings/"
    sound = draw.randbytes(draw.randint(10, 5000))
    good = _tar((_member(f"{inside}7_theo_{draw.randrange(50)}.wav"), sound))
    if kind == "altered":
        return altered(gzip.compress(good), draw)
    if kind == "altered inside":
        return gzip.compress(altered(good, draw))
    if kind == "link":
        types = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        return gzip.compress(
            _tar((_member(inside + "0_theo_0.wav", draw.choice(types), linkname="/etc/passwd"), b""))
        )
    if kind == "outside":
        name = draw.choice(("../../0_theo_0.wav", "/tmp/0_theo_0.wav", f"{inside}../../../x.wav"))
        return gzip.compress(_tar((_member(name), sound)))
    if kind == "long names":
        form = draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        return gzip.compress(_tar((_member("a" * 2**26), b""), form=form), 1)
    if kind == "zeros":
        return gzip.compress(bytes(2**28), 1) * 4
    if kind == "large member":
        return gzip.compress(_tar((_member(inside + "0_theo_0.wav"), bytes(2**27))), 1)
    if kind == "many members":
        return gzip.compress(_tar(*((_member(f"{inside}x{n}"), b"") for n in range(20_000))), 1)
    return draw.randbytes(draw.randint(0, 10_000))


KINDS = (
    *("altered", "altered inside", "link", "outside", "long names", "zeros", "large member", "many members"),
    *(
        "random",
        "endless",
        "drip",
        "redirects for ever",
        "redirect to nowhere",
        "redirect to a file",
        "status",
    ),
    *("shorter than said", "no answer"),
)


class _Hostile(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        _, kind, number = self.path.split("/")[:3]
        kind, draw = KINDS[int(kind)], random.Random(number)
        try:
            self.answer(kind, draw)
        except OSError:  # the client has closed the connection
            pass

    def answer(self, kind: str, draw: random.Random) -> None:
        if kind == "no answer":
            time.sleep(60)
        elif kind.startswith("redirect"):
            self.send_response(draw.choice((301, 302, 307)))
            places = {"redirects for ever": self.path, "redirect to a file": "file:///etc/passwd"}
            if kind in places:
                self.send_header("Location", places[kind])
            elif draw.random() < 0.5:
                self.send_header(
                    "Location", draw.choice(("http://", "http://[", "gopher://x", "http://127.0.0.1:1/"))
                )
            self.end_headers()
        elif kind == "status":
            self.send_response(draw.choice((204, 206, 400, 403, 404, 418, 429, 500, 503)))
            self.end_headers()
        elif kind in ("endless", "drip"):
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"x" if kind == "drip" else bytes(2**20))
                time.sleep(0.05 if kind == "drip" else 0)
        else:
            content = _archive(kind, draw)
            self.send_response(200)
            more = draw.randint(1, 10_000) if kind == "shorter than said" else 0
            self.send_header("Content-Length", str(len(content) + more))
            self.end_headers()
            self.wfile.write(content)


class Archives:
    """Hostile archives, from a server on the loopback interface in its own process."""

    def __init__(self, folder: Path):
        self.folder = folder
        os.environ["NO_PROXY"] = "127.0.0.1"
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
        self.port, self.child = server.server_port, os.fork()
        if self.child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            server.serve_forever()
        server.server_close()

    def close(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)

    def case(self, draw: random.Random, number: int, judged: Judge) -> None:
        url = f"http://127.0.0.1:{self.port}/{number % len(KINDS)}/{number}"

        def fetch():
            with tempfile.TemporaryDirectory(dir=self.folder) as home, warnings.catch_warnings():
                os.environ["SCNN_HOME"] = home
                hasten(url)
                try:
                    data.fetch_fsdd()
                finally:
                    large = sum(path.stat().st_size for path in Path(home).rglob("*") if path.is_file())
                    assert large < 2**20, f"{large} bytes were left"
            raise AssertionError("a hostile archive was accepted")

        judged(url, fetch)


def hasten(url: str) -> None:
    """Make downloads use `url`, and give up after seconds instead of minutes."""
    data.FSDD_URL = url
    download._TIMEOUT = (2.0, 2.0)
    download._MOST_SECONDS = 3.0
