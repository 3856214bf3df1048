"""Files are whole or absent, a lock ends with its process, and a line that was cut off spoils no other."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from i2i import files
from i2i.errors import JobError, RequestError

CHILD = """
import os, sys, time
from pathlib import Path
from i2i.files import try_lock
lock = try_lock(Path(sys.argv[1]))
if os.fork() == 0:      # As a loader process that outlives its trainer.
    print("locked", flush=True)
time.sleep(60)
"""


def test_devices_and_pipes_are_written_into_and_not_replaced(tmp_path: Path) -> None:
    """Who is root in a container could replace /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with ThreadPoolExecutor(1) as pool:
            text = pool.submit((tmp_path / name).read_text)
            files.write_text(tmp_path / name, "ü" * 100_000)
            assert text.result() == "ü" * 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    if Path("/dev/full").exists():
        with pytest.raises(JobError, match=r"^/dev/full could not be written: No space left on device$"):
            files.write_text(Path("/dev/full"), "x")
        assert not Path("/dev/full").is_file()


def test_a_target_is_replaced_whole_or_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "x.txt"
    with files.atomic_path(target) as part:
        part.write_text("one")
        assert not target.exists()

    def fail(part: Path) -> None:
        part.write_text("two")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.write_atomically(target, fail)
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["x.txt"]


def test_the_mode_of_a_file_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with files.atomic_path(tmp_path / "x") as part:
        part.unlink()
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))       # As safetensors does.
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_several_writers_of_one_target_do_not_share_a_part(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "x", unique=True) as part:
        assert str(os.getpid()) in part.name
        part.touch()


def test_what_a_killed_process_left_in_a_shared_folder_is_removed_after_a_day(tmp_path: Path) -> None:
    old = time.time() - files.STALE_AGE - 60
    for name in (".dead.part", ".alive.part", "kept", ".part-dead/features.npy", ".part-alive/features.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for path in tmp_path.rglob("*"):
        if "alive" not in path.parts[-1]:
            os.utime(path, (old, old))
    os.utime(tmp_path / ".part-alive", (old, old))
    os.utime(tmp_path / ".part-alive" / "features.npy")     # Written a moment ago.
    for pattern in (".*.part", ".part-*"):
        files.remove_stale(tmp_path, pattern)
        files.remove_stale(tmp_path / "absent", pattern)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".alive.part", ".part-alive", "kept"]


def test_every_moment_of_a_write_is_a_failpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(files, "on_failpoint", reached.append)
    files.write_text(tmp_path / "x", "text")
    files.append_json_line(tmp_path / "log", {})
    assert reached == ["before-write", "before-sync", "before-rename", "after-rename", "before-append"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (lambda: files.write_text(tmp_path / "file" / "x", ""), lambda: files.append_json_line(tmp_path / "file" / "x", {})):
        with pytest.raises(JobError, match=r"file.x could not be written: "):
            write()
    for place in (tmp_path, tmp_path / "file" / "x"):
        with pytest.raises(RequestError, match=r"--json .* cannot be written; accepted: a file in a folder"):
            files.check_file("--json", str(place))
    files.check_file("--json", str(tmp_path / "absent" / "x"))
    files.check_file("--json", None)
    files.check_file("--json", os.devnull)


def test_an_output_file_in_a_folder_that_may_not_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its own folder would have to be made.  Root may write everywhere, so the answer of the system is played."""
    asked: list[Path] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    with pytest.raises(RequestError, match=r"--sheet .* cannot be written; accepted: a file in a folder that can be written"):
        files.check_file("--sheet", str(tmp_path / "absent" / "x.png"))
    assert asked == [tmp_path]


def test_a_lock_is_held_by_one_and_free_once_released(tmp_path: Path) -> None:
    lock = files.try_lock(tmp_path / ".lock")
    assert lock is not None
    code = f"from pathlib import Path; from i2i.files import try_lock; print(try_lock(Path({str(tmp_path / '.lock')!r})) is None)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
    lock.release()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    with pytest.raises(OSError, match="No such file"):
        files.try_lock(tmp_path / "absent" / ".lock")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_that_outlives_a_killed_process_does_not_keep_its_lock(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path / ".lock"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert files.try_lock(tmp_path / ".lock") is None
        process.kill()
        process.wait()
        lock = files.try_lock(tmp_path / ".lock")
        assert lock is not None
        lock.release()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert files.read_json_lines(path) == []
    files.append_json_line(path, {"images": 1})
    with open(path, "a") as file:
        file.write('{"images": 2, "lo')
    files.append_json_line(path, {"images": 3, "name": "ü\ud800"})
    assert files.read_json_lines(path) == [{"images": 1}, {"images": 3, "name": "ü\ud800"}]
    path.write_bytes(path.read_bytes() + b"\xff\n[1]\n" + json.dumps({"images": 4}).encode())
    assert [entry["images"] for entry in files.read_json_lines(path)] == [1, 3, 4]
