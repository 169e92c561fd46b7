"""Oracles: the bytes that were written to the files, and `Path.read_bytes`."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bytelm.data import build_corpus, documents
from bytelm.data.corpus import from_documents
from bytelm.errors import DataError

CONTENT = {
    "b.txt": b"bee",
    "a/z.bin": bytes(range(256)),
    "a.txt": "größe".encode("latin-1"),
    "a/empty": b"",
    "B": b"\x00\x00",
    "a/b/c.py": b"pass\n",
}
IN_ORDER = ["B", "a.txt", "a/b/c.py", "a/empty", "a/z.bin", "b.txt"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "files"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def contents(corpus) -> list[bytes]:
    return [document.tobytes() for document in corpus]


def test_a_folder_is_read_whole_in_the_order_of_the_path_bytes(folder, cache):
    corpus = build_corpus([folder], cache_dir=cache)
    assert corpus.names == tuple(f"{folder}/{name}" for name in IN_ORDER)
    assert contents(corpus) == [CONTENT[name] for name in IN_ORDER]
    assert corpus.num_bytes == sum(path.stat().st_size for path in folder.rglob("*.*")) + 2
    assert corpus.fingerprint == from_documents(contents(corpus)).fingerprint


def test_paths_keep_the_order_in_which_they_are_given(folder, cache):
    corpus = build_corpus([folder / "b.txt", folder / "a"], cache_dir=cache)
    assert contents(corpus) == [CONTENT[n] for n in ("b.txt", "a/b/c.py", "a/empty", "a/z.bin")]


def test_suffixes_choose_in_folders_only(folder, cache):
    corpus = build_corpus([folder / "B", folder], cache_dir=cache, suffixes=(".txt",))
    assert contents(corpus) == [CONTENT["B"], CONTENT["a.txt"], CONTENT["b.txt"]]


@pytest.mark.parametrize("given", ["a/z.bin", "."])
def test_what_happens_to_the_files_later_does_not_change_a_corpus(folder, cache, given):
    """A file that is mapped in place and shortened would end the process here with SIGBUS."""
    corpus = build_corpus([folder / given], cache_dir=cache)
    expected = contents(corpus)
    assert bytes(range(256)) in expected
    assert not corpus.data.flags.writeable
    for name in CONTENT:
        os.truncate(folder / name, 0)
    assert contents(corpus) == expected
    assert corpus.fingerprint == from_documents(expected).fingerprint


def test_empty_files_are_documents(folder, cache):
    corpus = build_corpus([folder / "a/empty"], cache_dir=cache)
    assert (corpus.num_documents, corpus.num_bytes) == (1, 0)
    (folder / "more").touch()
    corpus = build_corpus([folder / "a/empty", folder / "more"], cache_dir=cache)
    assert (corpus.num_documents, corpus.num_bytes) == (2, 0)


def test_a_file_given_twice_is_read_once_and_reported(folder, cache):
    skipped = []
    corpus = build_corpus(
        [folder / "B", folder], cache_dir=cache, on_skip=lambda *skip: skipped.append(skip)
    )
    assert sorted(contents(corpus)) == sorted(CONTENT.values())
    assert skipped == [(f"{folder}/B", "named twice; read once")]


def test_symbolic_links_and_special_files_in_folders_are_reported(folder, cache):
    (folder / "broken").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    skipped = {}
    corpus = build_corpus([folder], cache_dir=cache, on_skip=skipped.__setitem__)
    assert contents(corpus) == [CONTENT[name] for name in IN_ORDER]
    link = "symbolic link; name it on its own to read it"
    assert skipped == {
        f"{folder}/broken": link,
        f"{folder}/loop": link,
        f"{folder}/pipe": "not a regular file",
    }


def test_what_is_skipped_is_logged_by_default(folder, cache, caplog):
    (folder / "broken").symlink_to(folder / "nowhere")
    build_corpus([folder], cache_dir=cache)
    assert "broken: symbolic link" in caplog.text


def test_a_link_that_is_named_is_followed(folder, cache):
    (folder / "link").symlink_to(folder / "b.txt")
    assert contents(build_corpus([folder / "link"], cache_dir=cache)) == [b"bee"]


def test_unreadable_files_in_folders_are_reported(folder, cache, monkeypatch):
    refuse_to_open(monkeypatch, folder / "a.txt")
    skipped = {}
    corpus = build_corpus([folder], cache_dir=cache, on_skip=skipped.__setitem__)
    assert contents(corpus) == [CONTENT[name] for name in IN_ORDER if name != "a.txt"]
    assert skipped == {f"{folder}/a.txt": "Permission denied"}


def test_an_unreadable_file_that_is_named_is_an_error(folder, cache, monkeypatch):
    refuse_to_open(monkeypatch, folder / "a.txt")
    with pytest.raises(DataError, match=r"cannot read .*a\.txt: Permission denied; give a file"):
        build_corpus([folder / "a.txt"], cache_dir=cache)


def test_a_folder_with_nothing_readable_is_an_error(tmp_path, cache, monkeypatch):
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a").touch()
    refuse_to_open(monkeypatch, tmp_path / "only/a")
    with pytest.raises(DataError, match="none of the 1 files"):
        build_corpus([tmp_path / "only"], cache_dir=cache)


def refuse_to_open(monkeypatch, refused: Path) -> None:
    """Chmod does not stop root, who often runs tests."""
    real_open = Path.open

    def guarded(self, *args, **kwargs):
        if self == refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)


def test_a_missing_path_is_an_error(tmp_path, cache):
    with pytest.raises(DataError, match=r"cannot read .*nowhere: No such file.*; give a file"):
        build_corpus([tmp_path / "nowhere"], cache_dir=cache)


def test_a_broken_link_that_is_named_is_an_error(tmp_path, cache):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="No such file"):
        build_corpus([tmp_path / "link"], cache_dir=cache)


def test_an_empty_folder_is_an_error(tmp_path, cache):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file in the folder .*empty \(0 files seen\)"):
        build_corpus([tmp_path / "empty"], cache_dir=cache)


def test_a_folder_without_the_suffix_is_an_error(folder, cache):
    with pytest.raises(DataError, match=r"no file whose name ends in \.md .* \(6 files seen\)"):
        build_corpus([folder], cache_dir=cache, suffixes=(".md",))


def test_arguments_are_checked(folder, cache):
    with pytest.raises(ValueError, match="at least one path"):
        build_corpus([], cache_dir=cache)
    with pytest.raises(ValueError, match="begin with a dot"):
        build_corpus([folder], cache_dir=cache, suffixes=("py",))


def test_names_that_are_not_unicode_can_be_printed(folder, cache):
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9")).write_bytes(b"x")
    corpus = build_corpus([folder], cache_dir=cache)
    assert corpus.names[-1].encode().endswith(rb"caf\xe9")


def test_standard_input_and_files_together(folder, cache, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xffpiped\x00")))
    corpus = build_corpus(["-", folder / "b.txt"], cache_dir=cache)
    assert contents(corpus) == [b"\xffpiped\x00", b"bee"]
    assert corpus.names == ("-", str(folder / "b.txt"))
    assert not list(cache.glob("*spool*"))


def test_standard_input_cannot_be_read_twice(cache, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    with pytest.raises(DataError, match="given twice"):
        build_corpus(["-", "-"], cache_dir=cache)
    assert not list(cache.iterdir())


def test_a_named_pipe_is_read_to_its_end(tmp_path, cache):
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"printf piped > {tmp_path / 'pipe'}"])
    assert contents(build_corpus([tmp_path / "pipe"], cache_dir=cache)) == [b"piped"]
    assert writer.wait() == 0


@pytest.mark.parametrize("given", ["b.txt", "."])
@pytest.mark.parametrize("new", [b"", b"be", b"beeeee", b"BEE"])
def test_a_file_that_changes_while_it_is_read_is_an_error(folder, cache, monkeypatch, new, given):
    change_while_read(monkeypatch, folder / "b.txt", new)
    with pytest.raises(DataError, match=r"b\.txt changed while it was read: 3 bytes at first"):
        build_corpus([folder / given], cache_dir=cache)
    assert not list(cache.glob("*"))


def change_while_read(monkeypatch, path: Path, new: bytes) -> None:
    """Change a file after it was found, before its first block."""
    real_blocks = documents._blocks

    def blocks(source):
        if source.path == path:
            path.write_bytes(new)
            os.utime(path, ns=(1, 1))
        return real_blocks(source)

    monkeypatch.setattr(documents, "_blocks", blocks)


def test_a_file_that_changes_between_hash_and_copy_is_an_error(folder, cache, monkeypatch):
    path, real_copied = folder / "b.txt", documents._copied

    def copied(sources, target):
        before = path.stat()
        path.write_bytes(b"BEE")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return real_copied(sources, target)

    monkeypatch.setattr(documents, "_copied", copied)
    with pytest.raises(DataError, match="changed while it was read; start the same command again"):
        build_corpus([path], cache_dir=cache)
    assert not list(cache.glob("*"))


def cache_file(cache: Path) -> Path:
    (path,) = cache.glob("corpus-*.bin")
    return path


def test_the_second_build_uses_the_cache(folder, cache):
    first = build_corpus([folder], cache_dir=cache)
    inode = cache_file(cache).stat().st_ino
    second = build_corpus([folder], cache_dir=cache)
    assert contents(second) == contents(first)
    assert cache_file(cache).stat().st_ino == inode
    assert first.fingerprint == second.fingerprint == cache_file(cache).stem[len("corpus-") :]
    manifest = json.loads(cache_file(cache).with_suffix(".json").read_text())
    assert manifest["num_bytes"] == first.num_bytes
    assert manifest["num_documents"] == 6


def test_the_same_content_elsewhere_shares_the_cache_but_not_the_names(folder, cache, tmp_path):
    build_corpus([folder], cache_dir=cache)
    folder.rename(tmp_path / "moved")
    corpus = build_corpus([tmp_path / "moved"], cache_dir=cache)
    assert len(list(cache.glob("corpus-*.bin"))) == 1
    assert corpus.names[0] == f"{tmp_path}/moved/B"


def test_changed_content_of_the_same_size_and_time_is_never_stale(folder, cache):
    path = folder / "b.txt"
    build_corpus([folder], cache_dir=cache)
    before = path.stat()
    path.write_bytes(b"BEE")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents(build_corpus([folder], cache_dir=cache))[-1] == b"BEE"


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "version", "no manifest"])
def test_a_damaged_cache_is_built_again(folder, cache, caplog, damage):
    expected = contents(build_corpus([folder], cache_dir=cache))
    path = cache_file(cache)
    manifest = path.with_suffix(".json")
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "version":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 0'))
    else:
        manifest.unlink()
    assert contents(build_corpus([folder], cache_dir=cache)) == expected
    assert ("damaged" in caplog.text) == (damage != "no manifest")
    assert contents(build_corpus([folder], cache_dir=cache)) == expected


def test_a_full_disk_leaves_nothing_behind(folder, cache, monkeypatch):
    def full(sources, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(documents, "_copied", full)
    with pytest.raises(DataError, match=r"cannot write .*: No space left on device; free some"):
        build_corpus([folder], cache_dir=cache)
    assert not list(cache.iterdir())


def test_a_cache_folder_that_cannot_be_made_is_an_error(folder):
    with pytest.raises(DataError, match="BYTELM_CACHE"):
        build_corpus([folder], cache_dir=folder / "B" / "below a file")


def test_a_cache_inside_the_folder_is_not_read_as_data(folder):
    first = build_corpus([folder], cache_dir=folder / "cache")
    second = build_corpus([folder], cache_dir=folder / "cache")
    assert contents(first) == contents(second)


BUILD = """
import sys
from pathlib import Path
from bytelm.data import build_corpus
corpus = build_corpus([sys.argv[1]], cache_dir=Path(sys.argv[2]))
print(corpus.fingerprint, sum(map(len, corpus)))
"""


def test_processes_that_build_at_once_all_succeed(folder, cache):
    rng = np.random.default_rng(0)
    for index in range(4):
        (folder / f"big-{index}").write_bytes(rng.bytes(1 << 20))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, str(folder), str(cache)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    corpus = build_corpus([folder], cache_dir=cache)
    assert answers == {f"{corpus.fingerprint} {corpus.num_bytes}\n"}
    assert {path.suffix for path in cache.iterdir()} == {".bin", ".json"}


MEMORY = """
import sys
from pathlib import Path
from bytelm.data import Batches, build_corpus

def private_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

before = private_mib()
for path in sys.argv[1:3]:
    corpus = build_corpus([path], cache_dir=Path(sys.argv[3]))
    corpus.fingerprint
    batches = Batches(corpus, context_bytes=512, rows=8, seed=0)
    for step in range(50):
        batches.batch(step)
    print(corpus.num_bytes / 2**20, private_mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path, cache):
    """Oracle: the kernel's count of the process's private memory."""
    big = tmp_path / "big"
    big.mkdir()
    for name in ("0", "1"):
        with (big / name).open("wb") as stream:
            stream.truncate(64 << 20)
    command = [sys.executable, "-c", MEMORY, str(big / "0"), str(big), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (one, grown_by_one), (two, grown_by_two) = (
        map(float, line.split()) for line in done.stdout.splitlines()
    )
    assert (one, two) == (64, 128)
    assert max(grown_by_one, grown_by_two) < 24
