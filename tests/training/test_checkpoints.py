import json

import pytest
import torch
from safetensors import SafetensorError

from lexmotion.common.files import DiskFullError
from lexmotion.training import checkpoints
from lexmotion.training.checkpoints import (
    CheckpointFolder,
    load_unique_state,
    read_optimizer,
    read_state,
    read_tensors,
    save_optimizer,
    unique_state,
)


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.output = torch.nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


EMPTY = {"state": {}, "param_groups": []}


def save(folder, step):
    return folder.save(step, {"step": step}, {"weight": torch.full((2,), float(step))}, EMPTY)


def test_oldest_checkpoints_are_dropped(tmp_path):
    folder = CheckpointFolder(tmp_path, limit=2)
    for step in (5, 10, 100):
        save(folder, step)
    assert folder.steps() == [10, 100]
    assert read_state(folder.latest())["step"] == 100
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_named_and_the_earlier_checkpoint_stays(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    save(folder, 1)

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="checkpoint-2: .*free"):
        patch.setattr(checkpoints, "save_optimizer", full)
        save(folder, 2)
    assert read_state(folder.latest())["step"] == 1 and [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert read_state(save(folder, 2))["step"] == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest", "empty"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    folder = CheckpointFolder(tmp_path)
    save(folder, 1)
    newest = save(folder, 2)
    weights = newest / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif damage == "flip":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        for file in newest.iterdir():
            file.unlink()
    assert folder.fault(2) is not None
    assert folder.latest() == folder.path(1)
    assert read_tensors(folder.latest(), "model.safetensors")["weight"].tolist() == [1.0, 1.0]


def test_nothing_sound_means_none(tmp_path):
    folder = CheckpointFolder(tmp_path / "absent")
    assert folder.latest() is None
    assert folder.steps() == []


def test_an_interrupted_write_is_cleaned_and_never_taken(tmp_path):
    folder = CheckpointFolder(tmp_path)
    save(folder, 3)
    (tmp_path / ".checkpoint-4.99.tmp").mkdir()
    (tmp_path / ".run.json.99.tmp").write_text("{")
    assert folder.latest() == folder.path(3)
    folder.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3"]


def test_a_step_can_be_written_again_and_later_ones_discarded(tmp_path):
    folder = CheckpointFolder(tmp_path)
    save(folder, 3)
    save(folder, 4)
    folder.discard_after(3)
    save(folder, 3)
    assert folder.steps() == [3]
    assert folder.fault(3) is None


def test_tied_weights_are_saved_once_and_stay_tied():
    model, other = Tied(), Tied()
    state = unique_state(model)
    assert list(state) == ["embedding.weight"]
    load_unique_state(other, state)
    assert torch.equal(other.output.weight, model.embedding.weight)
    assert other.output.weight is other.embedding.weight
    with pytest.raises(ValueError, match=r"\['bias', 'embedding\.weight', 'weight'\].*output_dir"):
        load_unique_state(torch.nn.Linear(2, 2), state)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_goes_on_to_the_bit(tmp_path, kind):
    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.03}]
        options = {"betas": (0.9, 0.95)} if kind is torch.optim.AdamW else {"momentum": 0.9}
        return model, kind(groups, **options)

    def steps(model, optimizer, count):
        for step in range(count):
            optimizer.zero_grad()
            model(torch.full((1, 3), 0.1 + step)).square().sum().backward()
            optimizer.step()

    model, optimizer = fresh()
    steps(model, optimizer, 3)
    save_optimizer(optimizer.state_dict(), tmp_path)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other, resumed = fresh()
    other.load_state_dict(weights)
    resumed.load_state_dict(read_optimizer(tmp_path))
    steps(model, optimizer, 2)
    steps(other, resumed, 2)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), other.parameters(), strict=True))


def test_a_pickled_optimizer_is_not_read(tmp_path):
    folder = CheckpointFolder(tmp_path)
    path = save(folder, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"optimizer.pt": "0"}))
    assert "pickle" in folder.fault(1) and folder.latest() is None
