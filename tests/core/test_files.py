"""Files are whole or absent, and what they were to the user stays."""

import os
import stat

import pytest

from s4s.s4s_nodes.core import write_atomically

needs_posix = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows, and modes are others")


def parts(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


@needs_posix
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/file")
    (tmp_path / "dangling").symlink_to("there/none")
    for name in ("link", "dangling"):
        write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"new"
    assert (tmp_path / "there" / "file").read_bytes() == b"new" and not parts(tmp_path)


@needs_posix
def test_a_files_mode_stays(tmp_path):
    path = write_atomically(tmp_path / "file", b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.read_bytes() == b"new"


@pytest.mark.parametrize("links", [True, False])
def test_of_two_new_files_of_one_name_the_second_is_refused(tmp_path, monkeypatch, links):
    if not links:
        def none(*paths):
            raise OSError(95, "Operation not supported") if not os.path.lexists(paths[1]) else FileExistsError
        monkeypatch.setattr(os, "link", none)
    write_atomically(tmp_path / "file", b"first", new=True)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"second", new=True)
    assert (tmp_path / "file").read_bytes() == b"first" and not parts(tmp_path)


def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "file", b"old")

    def full(number):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    for new in (False, True):
        with pytest.raises(OSError, match="No space left"):
            write_atomically(tmp_path / ("file2" if new else "file"), b"new", new)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
