"""Files on disk: unusable homes, files that are complete or absent, and no leftovers."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from scnn.files import atomic_write, cache_dir, locked, sweep, write_together


def loop(path: Path) -> None:
    path.symlink_to(path)


HOMES = {
    "of nobody": ("~nosuchuser/home", None),
    "a file": ("home", lambda path: path.write_text("")),
    "below a file": ("home/below", lambda path: path.parent.write_text("")),
    "a dangling link": ("home", lambda path: path.symlink_to("nowhere")),
    "a loop": ("home", loop),
    "a zero byte": ("home\0", None),
}


@pytest.mark.parametrize("home", HOMES)
def test_a_home_that_cannot_be_used_is_named_with_its_variable(home, tmp_path, monkeypatch):
    name, prepare = HOMES[home]
    place = name if name.startswith("~") else str(tmp_path / name)
    if prepare is not None:
        prepare(Path(place))
    monkeypatch.setattr(os, "environ", {**os.environ, "SCNN_HOME": place})
    with pytest.raises(OSError, match=r"^SCNN_HOME='.*(home|~nosuchuser).*' cannot be used \(.+\); set"):
        cache_dir()


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path):
    path = tmp_path / "new" / "file[1]"
    with atomic_write(path) as file:
        file.write_text("first")
    with pytest.raises(
        OSError, match=r"file\[1\] could not be written \(.*No space left.*\); it was left as"
    ):
        with atomic_write(path) as file:
            file.write_text("half of the sec")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_files_that_belong_together_are_all_written_or_none(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    folder = tmp_path / "new"
    old = {"a": b"first", "b": b"second"}
    assert write_together(folder, old) == [folder / "a", folder / "b"]
    (folder / "other").write_text("the user's")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"b could not .* \(.*too large.*\); .*new was left as it was"):
            write_together(folder, {"a": b"third", "b": bytes(20_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old | {"other": b"the user's"}


def test_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    # In containers several processes can have PID 1, and threads share their process's PID.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path, barrier, failed = tmp_path / "file", threading.Barrier(24), []

    def write(number: int) -> None:
        barrier.wait()
        try:
            for _ in range(20):
                with atomic_write(path) as file:
                    file.write_text(f"{number}" * 1000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number % 10,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    text = path.read_text()
    assert len(text) == 1000 and len(set(text)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path):
    old, new = tmp_path / ".file[1].0123.part", tmp_path / ".file[1].4567.part"
    other = tmp_path / ".another.0123.part"
    for left in (old, new, other):
        left.write_text("half")
    for left in (old, other):
        os.utime(left, (time.time() - 7200,) * 2)
    with atomic_write(tmp_path / "file[1]") as file:
        file.write_text("whole")
    assert not old.exists() and new.exists() and other.exists()
    sweep(tmp_path)
    assert new.exists() and not other.exists()
    sweep(tmp_path, seconds=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file[1]"]


def test_one_thread_at_a_time(tmp_path):
    inside, most = [], []

    def work() -> None:
        with locked(tmp_path / "thing"):
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_a_lock_that_cannot_be_made_names_the_home(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"thing.lock cannot be written \(.*\); set SCNN_HOME"):
        with locked(tmp_path / "file" / "thing"):
            pass
