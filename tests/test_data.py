"""Corpora: their contents, bad audio and bad downloads, and splits that never overlap."""

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from scnn import data, download
from scnn.data import default_corpus, fetch_fsdd, fingerprint, load_corpus, split
from scnn.espeak import make
from scnn.files import cache_dir

RATE = 8000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)


def write(path: Path, samples: np.ndarray = TONE, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype)
    return path


# The packaged corpus


@pytest.fixture(scope="module")
def espeak() -> data.Corpus:
    return load_corpus("espeak")


def test_espeak_is_ten_digits_by_twelve_voices_by_ten_takes(espeak):
    assert len(espeak) == 1200
    assert espeak.classes == tuple("0123456789")
    assert len(set(espeak.speakers)) == 12
    counts = Counter(zip(espeak.labels.tolist(), espeak.speakers.tolist(), strict=True))
    assert set(counts.values()) == {10} and len(counts) == 120
    assert (espeak.takes[espeak.lists["test"]] < 5).all() and len(espeak.lists["test"]) == 600


def test_espeak_takes_differ(espeak):
    assert len({waveform.tobytes() for waveform in espeak.waveforms}) == len(espeak)


def test_espeak_fits_in_four_megabytes():
    assert sum(file.stat().st_size for file in data.ESPEAK_FOLDER.glob("*.*")) <= 4e6


def test_espeak_is_mono_float_within_full_scale(espeak):
    assert espeak.sample_rate == RATE
    assert all(
        w.ndim == 1 and w.dtype == np.float32 and 0.05 < np.abs(w).max() <= 1 for w in espeak.waveforms
    )
    assert all(0.1 < len(w) / RATE < 1 for w in espeak.waveforms)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_making_the_corpus_twice_gives_the_same_samples(tmp_path):
    for folder in ("first", "second"):
        make.make(tmp_path / folder, voices=("en-gb+whisper", "en-us+m3"), takes=1)
    manifests = [(tmp_path / folder / "manifest.sha256").read_text() for folder in ("first", "second")]
    assert manifests[0] == manifests[1] and len(manifests[0].splitlines()) == 20


# The Free Spoken Digit Dataset


def test_fsdd_is_six_speakers_by_fifty_takes(fsdd):
    corpus = load_corpus("fsdd", download=False)
    assert len(corpus) == 3000 and corpus.classes == tuple("0123456789")
    assert set(Counter(zip(corpus.labels, corpus.speakers, strict=True)).values()) == {50}
    index = corpus.names.index("7_jackson_32")
    assert (corpus.labels[index], corpus.speakers[index], corpus.takes[index]) == (7, "jackson", 32)


def test_fsdd_samples_are_those_of_the_file(fsdd):
    folder = fsdd / "recordings" if (fsdd / "recordings").is_dir() else fsdd
    corpus = load_corpus("fsdd", download=False)
    stored = soundfile.read(folder / "9_theo_16.wav", dtype="float32")[0]  # the longest
    assert np.array_equal(corpus.waveforms[corpus.names.index("9_theo_16")], stored)


def test_fsdd_1_0_8_is_the_papers_three_speakers(fsdd):
    corpus = load_corpus("fsdd-1.0.8", download=False)
    assert len(corpus) == 1500 and set(corpus.speakers) == {"jackson", "nicolas", "theo"}
    parts = split(corpus, "official")
    assert set(corpus.takes[parts.test]) == set(range(5)) and len(parts.test) == 150


def test_fsdd_loads_in_seconds(fsdd):
    load_corpus("fsdd", download=False)
    start = time.process_time()
    load_corpus("fsdd", download=False)
    assert time.process_time() - start < 3  # about 0.8


# A small FSDD to download: two digits, six speakers, six takes


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    files = {}
    for digit in range(2):
        for number, speaker in enumerate(("george", "jackson", "lucas", "nicolas", "theo", "yweweler")):
            for take in range(6):
                stored = io.BytesIO()
                tone = TONE[: 1000 + 100 * take + 10 * number + digit]
                soundfile.write(stored, tone, RATE, "PCM_16", format="WAV")
                files[f"{digit}_{speaker}_{take}.wav"] = stored.getvalue()
    return files


@pytest.fixture
def small(tmp_path, monkeypatch, recordings) -> Path:
    """Set an empty cache (returned), no SCNN_FSDD, and the small FSDD's manifest in place of the real one."""
    manifest = tmp_path / "fsdd.sha256"
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in recordings.items()]
    manifest.write_text("".join(lines))
    monkeypatch.setattr(data, "FSDD_MANIFEST", manifest)
    monkeypatch.delenv("SCNN_FSDD", raising=False)
    monkeypatch.setenv("SCNN_HOME", str(tmp_path / "home"))
    return cache_dir()


def pack(files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """A tar.gz like GitHub's for a tag, with `extra` members at the end."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.10/recordings/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return stored.getvalue()


class Server:
    """A loopback web server with one file, which counts the requests."""

    def __init__(
        self,
        content: bytes,
        status: int = 200,
        sent: int | None = None,
        delay: float = 0.0,
        answer: Callable[[BaseHTTPRequestHandler], None] | None = None,  # instead of sending the content
    ):
        server = self
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked += 1
                if answer is not None:
                    with contextlib.suppress(OSError):  # the client may have gone
                        answer(self)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                time.sleep(delay)
                self.wfile.write(content[len(content) // 2 : sent])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1.0.10.tar.gz"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Start a server, and have FSDD downloaded from it."""
    servers = []

    def start(content: bytes, **options) -> Server:
        servers.append(Server(content, **options))
        monkeypatch.setattr(data, "FSDD_URL", servers[-1].url)
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def left_over(home: Path) -> list[str]:
    """What a download left in the cache, except its lock and its failure note."""
    return sorted({file.name for file in home.iterdir()} - {"fsdd.lock", "fsdd.failed"})


def test_download_is_verified_kept_and_used_again(small, serve, recordings):
    server = serve(pack(recordings))
    corpus = load_corpus("fsdd")
    assert len(corpus) == 72 and len(corpus.lists["test"]) == 60
    assert len(load_corpus("fsdd-1.0.8", download=False)) == 36
    assert default_corpus("fsdd") == "fsdd"
    assert server.asked == 1 and left_over(small) == [data.FSDD_FOLDER]


def test_without_download_the_error_names_cache_and_variable(small):
    with pytest.raises(FileNotFoundError, match=r"not in the cache .*SCNN_FSDD"):
        load_corpus("fsdd", download=False)


def test_altered_recording_is_refused(small, serve, recordings):
    serve(pack(recordings | {"1_theo_3.wav": recordings["1_theo_4.wav"]}))
    with pytest.raises(ValueError, match=r"refused .*1_theo_3.wav is not the published .*SCNN_FSDD"):
        fetch_fsdd()
    assert left_over(small) == []


def test_incomplete_archive_is_refused(small, serve, recordings):
    serve(pack({name: content for name, content in recordings.items() if name != "0_lucas_2.wav"}))
    with pytest.raises(ValueError, match=r"1 of 72 recordings are missing, the first is 0_lucas_2.wav"):
        fetch_fsdd()
    assert left_over(small) == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_archive_is_refused(small, serve, recordings, share):
    whole = pack(recordings)
    serve(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"refused and discarded"):
        fetch_fsdd()
    assert left_over(small) == []


def test_archive_with_a_damaged_byte_is_refused(small, serve, recordings):
    whole = bytearray(pack(recordings))
    whole[len(whole) // 2] ^= 0xFF
    serve(bytes(whole))
    with pytest.raises(ValueError, match=r"refused and discarded"):
        fetch_fsdd()
    assert left_over(small) == []


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../../escaped"),
        member("free-spoken-digit-dataset-1.0.10/recordings/../../escaped"),
        member("/escaped"),
        member("free-spoken-digit-dataset-1.0.10/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("free-spoken-digit-dataset-1.0.10/link", tarfile.LNKTYPE, "../../escaped"),
        member("free-spoken-digit-dataset-1.0.10/pipe", tarfile.FIFOTYPE),
    ],
    ids=["parent", "inner-parent", "absolute", "symlink", "hardlink", "pipe"],
)
def test_archive_that_leads_outside_is_refused(small, serve, recordings, evil):
    serve(pack(recordings, extra=(evil,)))
    with pytest.raises(ValueError, match=r"is a link or a special file, or lies outside the archive"):
        fetch_fsdd()
    assert left_over(small) == []
    assert not list(small.parent.rglob("escaped"))


def test_interrupted_download_says_what_to_do(small, serve, recordings):
    whole = pack(recordings)
    serve(whole, sent=len(whole) - 1000)
    with pytest.raises(ConnectionError, match=r"could not be downloaded .*try again.*SCNN_FSDD"):
        fetch_fsdd()
    assert left_over(small) == []


def test_refusing_server_says_what_to_do(small, serve):
    serve(b"no", status=404)
    with pytest.raises(ConnectionError, match=r"404.*SCNN_FSDD"):
        fetch_fsdd()
    assert left_over(small) == []


def flood(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(2**16))


def flood_chunk_size(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"0" * 2**16)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"0")
        time.sleep(0.1)


def drip_header(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"0")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (flood, "larger than 1048576 bytes"),
        (flood_chunk_size, "chunk|line"),
        (drip, "incomplete after 2 s"),
        (drip_header, "incomplete after 2 s"),
    ],
)
def test_a_server_that_never_ends_is_left(small, serve, monkeypatch, answer, message):
    monkeypatch.setattr(download, "_MOST", 2**20)
    monkeypatch.setattr(download, "_MOST_SECONDS", 2.0)
    server = serve(b"", answer=answer)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"(?s){server.url} could not be .*({message}).*SCNN_FSDD"):
        fetch_fsdd()
    assert time.monotonic() - start < 30  # including two of waiting
    assert left_over(small) == []


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/a", "http://[::1", "http://.a", "/v1.0.10.tar.gz", "file:///a"]
)
def test_an_odd_redirect_says_what_to_do(small, serve, location):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server = serve(b"", answer=answer)
    with pytest.raises(ConnectionError, match=rf"{server.url} could not be downloaded .*SCNN_FSDD"):
        fetch_fsdd()


def extended(size: int, times: int = 1, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """The start of a tar: extended headers of `size` bytes."""
    info = tarfile.TarInfo("extended")
    info.type, info.size = kind, size
    return (info.tobuf() + bytes(size + -size % 512)) * times


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize(("size", "times"), [(2**22, 2), (100, 5000)])
def test_long_headers_take_no_memory(small, serve, recordings, kind, size, times):
    archive = gzip.compress(extended(size, times, kind) + gzip.decompress(pack(recordings)), 1)
    serve(archive)
    tracemalloc.start()
    folder = fetch_fsdd()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(list(folder.iterdir())) == 72 and peak < 8e6


def test_an_archive_that_unpacks_to_too_much_is_refused(small, serve, monkeypatch):
    monkeypatch.setattr(download, "_MOST", 2**20)
    for archive in (extended(2**20), bytes(1024) + bytes(2**20)):
        serve(gzip.compress(archive))
        with pytest.raises(ValueError, match=r"unpacked it is larger than 1048576 bytes"):
            fetch_fsdd()
    assert left_over(small) == []


def process(home: Path) -> subprocess.Popen:
    """Another process that downloads the small FSDD."""
    program = (
        "import pathlib, scnn.data as data\n"
        f"data.FSDD_URL = {data.FSDD_URL!r}\n"
        f"data.FSDD_MANIFEST = pathlib.Path({str(data.FSDD_MANIFEST)!r})\n"
        "print(len(data.load_corpus('fsdd')))"
    )
    root = Path(data.__file__).parents[1]
    environment = os.environ | {"SCNN_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, env=environment, stdout=subprocess.PIPE
    )


def test_two_processes_at_once_download_once(small, serve, recordings):
    server = serve(pack(recordings), delay=1.0)
    both = [process(small), process(small)]
    assert [other.communicate(timeout=60)[0].strip() for other in both] == [b"72", b"72"]
    assert server.asked == 1 and left_over(small) == [data.FSDD_FOLDER]


def test_killed_download_leaves_nothing_that_counts(small, serve, recordings):
    server = serve(pack(recordings), delay=30.0)
    other = process(small)
    limit = time.monotonic() + 60
    while not server.asked and time.monotonic() < limit:
        time.sleep(0.05)
    other.kill()
    other.communicate()
    assert left_over(small) == ["fsdd.partial"]
    serve(pack(recordings))
    assert len(load_corpus("fsdd")) == 72
    assert left_over(small) == [data.FSDD_FOLDER]


def test_available_falls_back_with_a_warning_and_asks_once(small, serve):
    server = serve(b"no", status=503)
    with pytest.warns(UserWarning, match=r"fsdd-1.0.8 is not available, using espeak instead: .*503"):
        assert default_corpus() == "espeak"
    with pytest.warns(UserWarning, match=r"a moment ago; delete .*fsdd.failed"):
        assert default_corpus() == "espeak"
    assert server.asked == 1
    os.utime(small / "fsdd.failed", (0, 0))
    with pytest.warns(UserWarning, match="503"):
        default_corpus()
    assert server.asked == 2


def test_available_fails_fast_without_a_network(small, monkeypatch):
    monkeypatch.setattr(data, "FSDD_URL", "http://127.0.0.1:9/nothing-listens-here.tar.gz")
    start = time.perf_counter()
    with pytest.warns(UserWarning, match="using espeak instead"):
        assert default_corpus() == "espeak"
    assert time.perf_counter() - start < 5


def test_available_leaves_the_network_alone_when_told(small, serve):
    server = serve(b"")
    with pytest.warns(UserWarning, match="not in the cache"):
        assert default_corpus(download=False) == "espeak"
    assert server.asked == 0


def copy(folder: Path, recordings: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in recordings.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("inside", ["recordings", "."])
def test_scnn_fsdd_names_the_recordings_or_the_folder_above(small, tmp_path, monkeypatch, recordings, inside):
    copy(tmp_path / "copy" / inside, recordings)
    monkeypatch.setenv("SCNN_FSDD", str(tmp_path / "copy"))
    assert len(load_corpus("fsdd", download=False)) == 72


def test_wrong_scnn_fsdd_is_an_error_not_a_fallback(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SCNN_FSDD", str(tmp_path / "nowhere"))
    for call in (lambda: load_corpus("fsdd"), default_corpus):
        with pytest.raises(FileNotFoundError, match=r"SCNN_FSDD=.*nowhere: .*missing.*unset it"):
            call()


def test_scnn_fsdd_with_the_papers_speakers_serves_1_0_8_alone(small, tmp_path, monkeypatch, recordings):
    speakers = ("jackson", "nicolas", "theo")
    kept = {name: content for name, content in recordings.items() if name.split("_")[1] in speakers}
    copy(tmp_path / "copy", kept)
    monkeypatch.setenv("SCNN_FSDD", str(tmp_path / "copy"))
    assert len(load_corpus("fsdd-1.0.8")) == 36
    with pytest.raises(FileNotFoundError, match=r"36 of the 72 recordings of fsdd are missing"):
        load_corpus("fsdd")


def test_altered_local_recording_is_refused(small, tmp_path, monkeypatch, recordings):
    copy(tmp_path / "copy", recordings | {"0_theo_0.wav": recordings["0_theo_1.wav"]})
    monkeypatch.setenv("SCNN_FSDD", str(tmp_path / "copy"))
    with pytest.raises(ValueError, match=r"0_theo_0.wav: not the published recording"):
        load_corpus("fsdd")


# Folders

pytestmark = pytest.mark.filterwarnings("ignore:.* left out ")  # most folders below cause it


def commands(folder: Path) -> Path:
    """A folder in the layout of Speech Commands: 3 classes, 2 speakers, 2 takes."""
    for label in ("yes", "no", "up"):
        for number, speaker in enumerate(("0a7c2a8d", "b4aa9fef")):
            for take in range(2):
                write(folder / label / f"{speaker}_nohash_{take}.wav", TONE[: 2000 + 500 * take + number])
    write(folder / "_background_noise_" / "tap.wav")
    (folder / "validation_list.txt").write_text("yes/0a7c2a8d_nohash_0.wav\nno/0a7c2a8d_nohash_1.wav\n")
    (folder / "testing_list.txt").write_text("up/b4aa9fef_nohash_1.wav\nleft/b4aa9fef_nohash_0.wav\n")
    return folder


def test_speech_commands_layout(tmp_path):
    corpus = load_corpus(commands(tmp_path / "speech"))
    assert corpus.name == "speech" and len(corpus) == 12
    assert corpus.classes == ("no", "up", "yes")
    assert set(corpus.speakers) == {"0a7c2a8d", "b4aa9fef"}
    parts = split(corpus, "official")
    assert [corpus.names[i] for i in parts.validation] == ["no/0a7c2a8d_nohash_1", "yes/0a7c2a8d_nohash_0"]
    assert [corpus.names[i] for i in parts.test] == ["up/b4aa9fef_nohash_1"]
    assert len(parts.train) == 9


def test_clip_in_both_lists_is_an_error(tmp_path):
    folder = commands(tmp_path / "speech")
    (folder / "testing_list.txt").write_text("yes/0a7c2a8d_nohash_0.wav\n")
    with pytest.raises(ValueError, match=r"both .* contain 1: yes/0a7c2a8d_nohash_0"):
        load_corpus(folder)


@pytest.mark.parametrize(
    "entry",
    [
        "./yes/0a7c2a8d_nohash_0.wav",
        "yes\\0a7c2a8d_nohash_0.wav",
        ".\\yes\\0a7c2a8d_nohash_0.wav",
        "/data/speech/yes/0a7c2a8d_nohash_0.wav",
        "C:\\speech\\yes\\0a7c2a8d_nohash_0.wav",
        "yes//0a7c2a8d_nohash_0.wav",
        "  yes/0a7c2a8d_nohash_0.wav\t",
        "\ufeffyes/0a7c2a8d_nohash_0.wav",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_list_entries_are_matched_however_they_are_written(tmp_path, entry, end):
    folder = commands(tmp_path)
    text = f"{entry}{end}no/0a7c2a8d_nohash_1.wav{end}"
    (folder / "validation_list.txt").write_bytes(text.encode())
    corpus = load_corpus(folder)
    named = [corpus.names[index] for index in corpus.lists["validation"]]
    assert named == ["no/0a7c2a8d_nohash_1", "yes/0a7c2a8d_nohash_0"]
    assert not any("validation" in left for left in corpus.left_out)


def test_list_entries_may_hold_spaces(tmp_path):
    for label in ("go on", "stop it"):
        for take in range(2):
            write(tmp_path / label / f"my take {take}.wav")
    (tmp_path / "testing_list.txt").write_text("go on/my take 1.wav\nstop it/my take 0.wav\n")
    corpus = load_corpus(tmp_path)
    assert [corpus.names[index] for index in corpus.lists["test"]] == ["go on/my take 1", "stop it/my take 0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"left/a.wav\nleft/b.wav\n", r"2 of its 2 entries name no recording here, the first is left/a.wav"),
        (b"", r"0 of its 0 entries"),
        ("yes/0a7c2a8d_nohash_0.wav".encode("utf-16"), "not UTF-8"),
        ("yes/0a7c2a8d_nohash_0.wav".encode("utf-16-le"), "not UTF-8 but probably UTF-16"),
        ("yes/caf\xe9.wav".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, content, message):
    folder = commands(tmp_path)
    (folder / "validation_list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"validation_list.txt: {message}"):
        load_corpus(folder)


def test_what_is_left_out_is_counted_named_and_told_once(tmp_path):
    folder = commands(tmp_path)
    write(folder / "yes" / "more" / "deep.wav")
    (folder / "yes" / "phone.m4a").write_bytes(b"of an ending that nobody reads")
    (folder / "yes" / "gone.wav").symlink_to(tmp_path / "nowhere")
    (folder / "README.md").write_text("about")
    (folder / ".hidden").write_text("passed over")
    with pytest.warns(UserWarning, match=r"left out 6: .*; and 1 more$") as told:
        corpus = load_corpus(folder)
        load_corpus(folder)
        fingerprint(folder)
    assert len(told) == 1 and len(corpus) == 12
    assert corpus.left_out == (
        "README.md (not a recording by its ending)",
        "_background_noise_/ (its name begins with _)",
        "yes/gone.wav (not a file, or a broken link)",
        "yes/more/ (a folder inside a folder of recordings)",
        "yes/phone.m4a (not a recording by its ending)",
        "testing_list.txt (1 of its 2 entries name no recording here, the first is "
        "left/b4aa9fef_nohash_0.wav)",
    )


def test_a_class_without_a_recording_is_an_error(tmp_path):
    folder = commands(tmp_path)
    (folder / "left").mkdir()
    (folder / "left" / "a.m4a").write_bytes(b"of an ending that nobody reads")
    with pytest.raises(ValueError, match=r"left: a class folder without .*begin with _ .*left/a.m4a \(not a"):
        load_corpus(folder)
    (folder / "left").rename(folder / "_left")
    assert len(load_corpus(folder)) == 12


def speakers(folder: Path, names: Iterable[str], labels: str, takes: int = 1) -> Path:
    """A folder in the layout of AudioMNIST."""
    write(folder / "clip.wav", TONE[:400])
    for speaker in names:
        (folder / speaker).mkdir()
        for label in labels:
            for take in range(takes):
                shutil.copy(folder / "clip.wav", folder / speaker / f"{label}_{speaker}_{take}.wav")
    (folder / "clip.wav").unlink()
    return folder


def test_folder_of_speakers(tmp_path):
    with pytest.warns(UserWarning, match="sub-folders are read as speakers; the classes are 3: x; y; z"):
        corpus = load_corpus(speakers(tmp_path, ("ann", "bob", "01"), "xyz", takes=2))
    assert corpus.classes == ("x", "y", "z") and set(corpus.speakers) == {"ann", "bob", "01"}
    assert len(corpus) == 18 and corpus.lists == {} and "per speaker" in corpus.source
    assert set(corpus.speakers[split(corpus, "speaker:bob").test]) == {"bob"}
    with pytest.raises(ValueError, match=r"'fold:1': .* has no folds"):
        split(corpus, "fold:1")


def test_recordings_that_name_speaker_and_class_stay_in_class_folders(tmp_path):
    for label in ("no", "yes"):
        for take in range(2):
            write(tmp_path / label / f"ann_{label}_{take}.wav")
    assert load_corpus(tmp_path).classes == ("no", "yes")


def test_audiomnist_is_known_by_its_speakers_and_has_its_published_folds(tmp_path):
    everyone = [f"{number:02}" for number in range(1, 61)]
    speakers(tmp_path / "clone" / "data", everyone, "0123456789")
    (tmp_path / "clone" / "data" / "audioMNIST_meta.txt").write_text("{}")
    corpus = load_corpus(tmp_path / "clone")
    assert corpus.name == "clone" and len(corpus) == 600 and corpus.source.startswith("AudioMNIST")
    tested = []
    for number in range(1, 6):
        parts = split(corpus, f"fold:{number}")
        train, validation, test = (
            set(corpus.speakers[part]) for part in (parts.train, parts.validation, parts.test)
        )
        assert (len(train), len(validation), len(test)) == (36, 12, 12)
        assert not (train & validation or train & test or validation & test)
        tested += sorted(test)
    assert sorted(tested) == everyone
    # The first fold, as audiomnist/train/splits.py has it.
    first = split(corpus, "fold:1")
    assert {int(one) for one in set(corpus.speakers[first.test])} == {
        5,
        13,
        18,
        22,
        26,
        32,
        33,
        42,
        45,
        51,
        52,
        60,
    }
    assert {int(one) for one in set(corpus.speakers[first.validation])} == {
        4,
        11,
        12,
        15,
        21,
        27,
        31,
        41,
        44,
        47,
        50,
        59,
    }
    official = split(corpus, "official")
    assert np.array_equal(official.test, first.test) and np.array_equal(official.validation, first.validation)
    with pytest.raises(ValueError, match=r"'fold:6': clone has fold:1, .*fold:5"):
        split(corpus, "fold:6")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_text_work_and_are_safe_to_print(tmp_path):
    folder = tmp_path / os.fsdecode(b"w\xf6rter")
    for label in ("\x1b[31mred", os.fsdecode(b"gr\xfcn"), "\u0646\u06cc\u0645\u200c\u0641"):
        (folder / label).mkdir(parents=True)
        shutil.copy(write(tmp_path / "clip.wav"), folder / label / "a.wav")
    corpus = load_corpus(folder)
    assert corpus.name == r"w\udcf6rter"
    assert corpus.classes == (r"\x1b[31mred", r"gr\udcfcn", "\u0646\u06cc\u0645\u200c\u0641")
    fingerprint(folder).encode()


@pytest.mark.parametrize("name", ["", "~nosuchuser/words", "a\0b"])
def test_a_folder_that_cannot_be_is_named(name):
    with pytest.raises(FileNotFoundError, match=r"no such corpus or folder; valid are fsdd"):
        load_corpus(name)


def test_folder_of_own_keywords_in_any_format(tmp_path):
    write(tmp_path / "on" / "a.wav")
    write(tmp_path / "on" / "b.flac")
    soundfile.write(tmp_path / "on" / "c.opus", TONE, RATE, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "on" / "d.mp3", TONE, RATE)
    write(tmp_path / "off" / "a.WAV")
    (tmp_path / "off" / "notes.txt").write_text("not audio")
    corpus = load_corpus(str(tmp_path))
    assert Counter(corpus.labels.tolist()) == {0: 1, 1: 4} and corpus.classes == ("off", "on")
    assert set(corpus.speakers) == {"unknown"} and corpus.lists == {}
    with pytest.raises(ValueError, match=r"has no test list.*'random'"):
        split(corpus, "official")


def test_folder_of_named_recordings(tmp_path, recordings):
    copy(tmp_path / "digits", recordings)
    corpus = load_corpus(tmp_path / "digits")
    assert corpus.classes == ("0", "1") and len(set(corpus.speakers)) == 6
    assert len(split(corpus, "official").train) == 12
    (tmp_path / "digits" / "testing_list.txt").write_text("./0_theo_3.wav\n")
    corpus = load_corpus(tmp_path / "digits")
    assert [corpus.names[index] for index in split(corpus, "official").test] == ["0_theo_3"]


def test_folder_without_audio_lists_what_was_found(tmp_path):
    (tmp_path / "yes").mkdir()
    (tmp_path / "no").mkdir()
    with pytest.raises(ValueError, match=r"0 loose recordings, and in sub-folders: no/ \(0\), yes/ \(0\)"):
        load_corpus(tmp_path)


def test_folder_with_one_class_lists_what_was_found(tmp_path):
    write(tmp_path / "yes" / "a.wav")
    with pytest.raises(ValueError, match=r"two classes or more.*yes/ \(1\)"):
        load_corpus(tmp_path)


def test_loose_recording_beside_class_folders_is_an_error(tmp_path):
    write(commands(tmp_path) / "stray.wav")
    with pytest.raises(ValueError, match=r"also loose recordings, such as stray.wav"):
        load_corpus(tmp_path)


def test_unnamed_loose_recording_is_an_error(tmp_path):
    write(tmp_path / "seven.wav")
    with pytest.raises(ValueError, match=r"seven.wav: .*\{class\}_\{speaker\}_\{take\}"):
        load_corpus(tmp_path)


def test_unknown_corpus_lists_the_valid_ones():
    with pytest.raises(
        FileNotFoundError, match=r"fsd: .*fsdd, fsdd-1.0.8, espeak, voices, voices-words and the path"
    ):
        load_corpus("fsd")


def test_all_bad_recordings_are_named_at_once(tmp_path):
    folder = commands(tmp_path)
    write(folder / "yes" / "silent.wav", np.zeros(400, np.float32))
    (folder / "no" / "text.wav").write_text("no audio at all")
    with pytest.raises(ValueError, match=r"(?s)2 of 14 .*text.wav: cannot be read.*silent.wav: silent"):
        load_corpus(folder)


def test_fingerprint_follows_what_would_be_loaded(tmp_path):
    folder = commands(tmp_path)
    first = fingerprint(folder)
    assert fingerprint(folder) == first
    changed = write(folder / "yes" / "0a7c2a8d_nohash_0.wav", TONE[:1234])
    second = fingerprint(folder)
    changed.unlink()
    third = fingerprint(folder)
    (folder / "testing_list.txt").unlink()
    assert len({first, second, third, fingerprint(folder)}) == 4
    assert len({fingerprint(name) for name in data.CORPORA}) == 5


# Splits

SPLITS = [
    {"kind": "random"},
    {"kind": "random", "validation": 0.2},
    {"kind": "random", "stratified": True, "validation": 0.2},
    {"kind": "official"},
    {"kind": "official", "validation": 0.1, "stratified": True},
    {"kind": "speaker:en-us-croak"},
    {"kind": "speaker:en-us-croak", "validation": 0.2},
]


@pytest.mark.parametrize("options", SPLITS)
@pytest.mark.parametrize("seed", [0, 1, 2026])
def test_parts_never_overlap_and_are_everything(espeak, options, seed):
    parts = split(espeak, **options, seed=seed)
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert np.array_equal(np.sort(together), np.arange(len(espeak)))
    for part in (parts.train, parts.validation, parts.test):
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()


def test_random_shares_are_those_asked_for(espeak):
    parts = split(espeak)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (960, 0, 240)
    parts = split(espeak, test=0.2, validation=0.2)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (720, 240, 240)


@pytest.mark.parametrize("stratified", [False, True])
def test_same_seed_same_split_other_seed_other_split(espeak, stratified):
    options = {"validation": 0.2, "stratified": stratified}
    one, same, other = (split(espeak, seed=seed, **options) for seed in (3, 3, 4))
    assert np.array_equal(one.test, same.test) and np.array_equal(one.validation, same.validation)
    assert not np.array_equal(one.test, other.test)
    assert not np.array_equal(one.validation, other.validation)


def test_validation_does_not_move_the_test_part(espeak):
    assert np.array_equal(split(espeak, seed=5).test, split(espeak, seed=5, validation=0.2).test)


@pytest.mark.parametrize("options", [{"test": 0.2, "validation": 0.2}, {"test": 0.07, "validation": 0.11}])
def test_stratified_keeps_the_shares_of_uneven_classes(tmp_path, options):
    for label, count in (("a", 60), ("b", 25), ("c", 15)):
        for number in range(count):
            write(tmp_path / label / f"{number:02}.wav", TONE[:200])
    corpus = load_corpus(tmp_path)
    parts = split(corpus, stratified=True, seed=1, **options)
    for part, share in ((parts.test, options["test"]), (parts.validation, options["validation"])):
        assert len(part) == round(share * 100)
        counts = np.bincount(corpus.labels[part], minlength=3)
        assert (np.abs(counts - share * np.array([60, 25, 15])) <= 1).all()


def test_speaker_split_holds_one_speaker_out(espeak):
    parts = split(espeak, "speaker:en-us-f2", validation=0.1)
    assert set(espeak.speakers[parts.test]) == {"en-us-f2"} and len(parts.test) == 100
    assert "en-us-f2" not in set(espeak.speakers[parts.train]) | set(espeak.speakers[parts.validation])


def test_speaker_split_can_keep_another_speaker_for_validation(espeak):
    parts = split(espeak, "speaker:en-us-f2,en-029-f1")
    assert set(espeak.speakers[parts.test]) == {"en-us-f2"}
    assert set(espeak.speakers[parts.validation]) == {"en-029-f1"} and len(parts.validation) == 100
    assert len(parts.train) == len(espeak) - 200


@pytest.mark.parametrize("named", ["bob", "en-us-f2,bob", "en-us-f2,en-029-f1,en-us-f2"])
def test_unknown_speaker_lists_the_valid_ones(espeak, named):
    with pytest.raises(ValueError, match=rf"'speaker:{named}'.*en-029-f1, .*en-us-nyc-m7"):
        split(espeak, f"speaker:{named}")


def test_unknown_kind_lists_the_valid_ones(espeak):
    with pytest.raises(ValueError, match=r"'half'.*'random', 'official', 'fold:K' and 'speaker:NAME'"):
        split(espeak, "half")


@pytest.mark.parametrize("shares", [{"test": 1.0}, {"test": -0.1}, {"validation": 1.5}])
def test_wrong_share_is_an_error(espeak, shares):
    with pytest.raises(ValueError, match=r"shares from 0 to below 1"):
        split(espeak, **shares)


@pytest.mark.parametrize("shares", [{"test": 0.0}, {"test": 0.5, "validation": 0.5}])
def test_split_without_training_or_test_clips_is_an_error(espeak, shares):
    with pytest.raises(ValueError, match=r"would be left"):
        split(espeak, **shares)
