"""Oracles: what was saved; and for damage, the message and the files that must still be there."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bytelm.errors import CheckpointError
from bytelm.training import checkpoints

DEFINITION = {"kind": "toy", "dim": 3}


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    module.register_buffer("counts", torch.arange(4))
    return module


def save(run_dir: Path, step: int = 10, seed: int = 0) -> Path:
    folder = checkpoints.save(
        run_dir,
        step=step,
        definition=DEFINITION,
        model=model(seed).state_dict(),
        optimizer={"momentum.weight": torch.ones(2, 3), "step": torch.tensor(7.0)},
        state={"step": step},
    )
    checkpoints.point(run_dir, "last", folder.name)
    return folder


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path)
    read = checkpoints.read(checkpoints.find(tmp_path))
    assert (read.definition, read.state) == (DEFINITION, {"step": 10})
    loaded = model(seed=1)
    read.load_model_(loaded)
    for name, tensor in model().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    optimizer = read.optimizer_state()
    assert torch.equal(optimizer["momentum.weight"], torch.ones(2, 3))
    assert optimizer["step"].shape == ()


def test_files_have_the_mode_that_the_umask_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = save(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


def test_views_of_one_tensor_are_saved_apart(tmp_path: Path) -> None:
    stacked = torch.arange(12.0).view(2, 2, 3)
    views = {"a": stacked[0], "b": stacked[1].T}
    folder = checkpoints.save(tmp_path, step=1, definition={}, model=views, optimizer={}, state={})
    read = checkpoints.read(folder)
    assert read.optimizer_state() == {}
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [*checkpoints.FILES, checkpoints.MANIFEST]
    )


def test_the_best_checkpoint_is_found_before_the_last(tmp_path: Path) -> None:
    best = save(tmp_path, 10)
    last = save(tmp_path, 20)
    assert checkpoints.find(tmp_path) == last
    checkpoints.point(tmp_path, "best", best.name)
    assert checkpoints.find(tmp_path) == best
    assert checkpoints.find(last) == last
    assert checkpoints.pointed(tmp_path, "last") == last


def test_prune_keeps_what_is_named_and_removes_leftovers(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / ".tmp-step-40").mkdir()
    checkpoints.prune(tmp_path, keep={"step-10", "step-30"})
    assert names(tmp_path) == ["step-10", "step-30"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, seed=0)
    folder = save(tmp_path, seed=1)
    loaded = model()
    checkpoints.read(folder).load_model_(loaded)
    assert torch.equal(loaded.weight, model(seed=1).weight)
    assert names(tmp_path) == ["step-10"]


@pytest.mark.parametrize("name", checkpoints.FILES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, expected"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "sha256"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_damage_is_refused_with_the_name_of_the_file(
    tmp_path: Path, name: str, damage, message: str
) -> None:
    folder = save(tmp_path)
    damage(folder / name)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.read(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("[]", "expected a JSON object"),
        ("{}", "not a bytelm checkpoint"),
        ('{"format": "bytelm-checkpoint", "version": 99}', "version 99, expected 1"),
        ('{"format": "bytelm-checkpoint", "version": 1}', "manifest.json has no table 'files'"),
        (
            '{"format": "bytelm-checkpoint", "version": 1, "files": ["definition.json"]}',
            "manifest.json has no table 'files'; use another checkpoint",
        ),
        (
            '{"format": "bytelm-checkpoint", "version": 1, "files": {"definition.json": 3}}',
            "manifest.json has no bytes and sha256 of definition.json; use another checkpoint",
        ),
        ("[" * 100_000, r"manifest\.json cannot be read \(nested too deeply\); use another"),
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, content: str, message: str) -> None:
    folder = save(tmp_path)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.read(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"../../elsewhere\n", b"step-1\x00"])
def test_a_pointer_that_names_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    save(tmp_path)
    (tmp_path / "best").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best .*expected the name of a folder.*write one"):
        checkpoints.find(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.find(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoints.find(tmp_path / "nowhere")
    (tmp_path / "last").write_text("step-99\n")
    with pytest.raises(CheckpointError, match=r"step-99.*cannot be read"):
        checkpoints.read(checkpoints.find(tmp_path))


def test_weights_of_another_model_are_refused_before_any_is_copied(tmp_path: Path) -> None:
    folder = save(tmp_path)
    other = nn.Linear(3, 2)
    before = other.weight.detach().clone()
    with pytest.raises(CheckpointError, match="'counts', is unknown to the model"):
        checkpoints.read(folder).load_model_(other)
    wider = nn.Linear(4, 2)
    wider.register_buffer("counts", torch.arange(4))
    with pytest.raises(CheckpointError, match=r"'weight' has shape \(2, 3\).*\(2, 4\)"):
        checkpoints.read(folder).load_model_(wider)
    assert torch.equal(other.weight, before)


def test_a_buffer_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path)
    other = model()
    other.counts = torch.arange(5)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        checkpoints.read(folder).load_model_(other)


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path)
    with pytest.raises(CheckpointError, match="'weight' is F32, the model expects F64"):
        checkpoints.read(folder).load_model_(model().double())


def test_a_full_disk_leaves_what_was_saved(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, 10)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        save(tmp_path, 20)
    with pytest.raises(CheckpointError, match="disk is full"):
        checkpoints.point(tmp_path, "best", "step-10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "last"]
    assert names(tmp_path) == ["step-10"]
    checkpoints.read(checkpoints.find(tmp_path))


TOO_LARGE = """
import resource, sys, torch
from pathlib import Path
from bytelm.errors import CheckpointError
from bytelm.training import checkpoints
limit = 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    checkpoints.save(Path(sys.argv[1]), step=20, definition={}, model={"w": torch.ones(limit)},
                     optimizer={}, state={})
except CheckpointError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_write_that_the_system_refuses_leaves_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path, 10)
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith("refused: "), done.stderr
    assert done.returncode == 1
    assert names(tmp_path) == ["step-10"]
    checkpoints.read(checkpoints.find(tmp_path))


def test_pickle_is_never_read(tmp_path: Path) -> None:
    folder = save(tmp_path)
    torch.save(model().state_dict(), folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = checkpoints._fingerprint(folder / "model.safetensors")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.read(folder).load_model_(model())


def test_metadata_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path)
    path = folder / "model.safetensors"
    save_file({"weight": torch.ones(2, 3)}, path)
    path.write_bytes(path.read_bytes().replace(b"[2,3]", b"[9,9]"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints._read_tensors(path)
