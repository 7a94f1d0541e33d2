"""Few-shot tasks: the definitions, episodes without leaks, and data sets from folders that the test makes."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.fewshot import Digits, FewShotTasks, MiniImageNet, Omniglot, Sinusoid
from metarl.fewshot.digits import digits
from metarl.fewshot.images import images_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_sine_wave_is_the_papers() -> None:
    tasks, generator = Sinusoid(shots=5, queries=200), torch.Generator().manual_seed(0)
    task = tasks.sample(2000, generator)
    amplitude, phase = task.T
    assert 0.1 <= amplitude.min() < 0.12
    assert 4.98 < amplitude.max() <= 5
    assert 0 <= phase.min() < 0.01
    assert math.pi - 0.01 < phase.max() <= math.pi
    assert amplitude.mean() == pytest.approx(2.55, abs=0.1)
    episodes = tasks.draw(task[:50], generator)
    assert episodes.support.x.shape == (50, 5, 1)
    assert episodes.query.y.shape == (50, 200, 1)
    assert episodes.query.x.abs().max() <= 5
    assert episodes.query.x.min() < -4.9
    torch.testing.assert_close(
        episodes.query.y[3, :, 0], amplitude[3] * torch.sin(episodes.query.x[3, :, 0] - phase[3])
    )


def test_digits_to_test_on_are_never_trained_on() -> None:
    from sklearn.datasets import load_digits

    images, data = digits(0), load_digits()
    assert (images.num_train, len(images.size)) == (40, 45)
    groups = [images.pixels[first : first + size] for first, size in zip(images.first, images.size, strict=True)]
    for digit in range(5):
        upright = torch.tensor(data.images[data.target == digit], dtype=torch.uint8).unsqueeze(1)
        for quarter in range(4):
            turned = upright.rot90(quarter, (2, 3))
            assert torch.equal(groups[5 * quarter + digit], turned)
            assert torch.equal(groups[20 + 5 * quarter + digit], turned.flip(3))
    for digit in range(5, 10):
        assert torch.equal(groups[35 + digit][:, 0], torch.tensor(data.images[data.target == digit], dtype=torch.uint8))
    tasks, generator = Digits(ways=4), torch.Generator().manual_seed(0)
    assert tasks.sample(500, generator).max() == 39
    assert set(tasks.held_out(500, generator).flatten().tolist()) == {40, 41, 42, 43, 44}


def test_digits_kept_back_are_to_validate_by_alone() -> None:
    plain, images = digits(0), digits(2)
    assert (images.num_train, images.num_validation, len(images.size)) == (24, 16, 45)
    sums = [sorted(found.pixels.flatten(1).sum(1).tolist()) for found in (plain, images)]
    assert sums[0] == sums[1]
    tasks, generator = Digits(held_back=2), torch.Generator().manual_seed(0)
    assert tasks.spec.num_classes == 24
    drawn = (tasks.sample(500, generator), tasks.validation_tasks(500), tasks.held_out(500, generator))
    assert [(int(some.min()), int(some.max())) for some in drawn] == [(0, 23), (24, 39), (40, 44)]
    assert torch.equal(tasks.validation_tasks(7), tasks.validation_tasks(7))
    kept = images.pixels[images.first[24] : images.first[25]]
    assert torch.equal(kept, plain.pixels[plain.first[3] : plain.first[4]]), "digit 3, upright"
    with pytest.raises(BadField, match="keeps 0 classes for validation, keep 2 digits back with --held-back 2"):
        Digits().validation_tasks(3)


def numbered(num_classes: int, per_class: int) -> torch.Tensor:
    """Images of one pixel that is their number."""
    return torch.arange(num_classes * per_class, dtype=torch.uint8).view(num_classes, per_class, 1, 1, 1)


def test_no_query_image_is_in_the_support_set(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [*numbered(6, 9), numbered(6, 9)[0][:7] + 54]  # the last one has fewer images
    monkeypatch.setattr("metarl.fewshot.digits.digits", lambda held_back: images_of(classes, [], []))
    tasks, generator = Digits(ways=3, shots=2, queries=4), torch.Generator().manual_seed(0)
    task = tasks.sample(300, generator)
    assert all(len(set(row)) == 3 for row in task.tolist())
    episodes = tasks.draw(task, generator)
    number = torch.cat([episodes.support.x, episodes.query.x], dim=1).flatten(1) * 16
    label = torch.cat([episodes.support.y, episodes.query.y], dim=1).argmax(-1)
    assert all(len(set(row)) == 18 for row in number.round().tolist()), "an image was drawn twice"
    owner = (number.round().long() // 9).clamp(max=6)
    assert torch.equal(owner, episodes.classes.gather(1, label))
    assert (episodes.support.y.sum(1) == 2).all()
    assert (episodes.query.y.sum(1) == 4).all()
    assert number.round().unique().numel() == 61, "some images are never drawn"


def write_character(folder: Path, place: int, count: int) -> None:
    """Images of 105 x 105 pixels, black ink on white: a bar at the left, as wide as ``place`` says."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.full((105, 105), 255, dtype=np.uint8)
        pixels[:, : 15 * (place + 1)] = 0
        Image.fromarray(pixels).convert("1").save(folder / f"{place:04}_{number:02}.png")


def test_omniglot_is_read_from_its_published_layout(tmp_path: Path) -> None:
    for place in range(3):
        write_character(tmp_path / "images_background" / f"Alphabet_{place % 2}" / f"character0{place}", place, 4)
    for place in range(2):
        write_character(tmp_path / "images_evaluation" / "Other" / f"character0{place}", place + 4, 4)
    tasks = Omniglot(folder=str(tmp_path), ways=2, shots=1, queries=3)
    tasks.require_ready()
    images = tasks.images()
    assert images.pixels.shape == (4 * 5 * 4, 1, 28, 28)
    assert (images.num_train, tasks.spec.num_classes, images.size.tolist()) == (12, 12, [4] * 20)
    first = images.pixels[0, 0].float()
    assert (first[:, :3] > 200).all(), "ink is not bright"
    assert (first[:, 8:] < 30).all()
    turned = images.pixels[images.first[3], 0]  # the same character a quarter further
    assert torch.equal(turned, images.pixels[0, 0].rot90())
    generator = torch.Generator().manual_seed(0)
    assert tasks.held_out(50, generator).min() == 12
    episodes = tasks.draw(tasks.held_out(2, generator), generator)
    assert episodes.support.x.shape == (2, 2, 1, 28, 28)
    assert episodes.support.x.max() <= 1
    held_back = Omniglot(folder=str(tmp_path), ways=2, queries=3, held_back=1)
    assert (held_back.images().num_train, held_back.images().num_validation) == (8, 4)
    assert set(held_back.validation_tasks(50).flatten().tolist()) == {8, 9, 10, 11}
    assert held_back.held_out(50, generator).min() == 12
    with pytest.raises(BadField, match=r"held_back is 3: .* has 3 characters to train on, use fewer"):
        Omniglot(folder=str(tmp_path), held_back=3).images()
    with pytest.raises(BadField, match="shots \\+ queries is 5: a class of omniglot has 4 images, use fewer"):
        Omniglot(folder=str(tmp_path), ways=2, shots=2, queries=3).require_ready()
    with pytest.raises(BadField, match="ways is 9: omniglot has 8 classes held out, use fewer ways"):
        Omniglot(folder=str(tmp_path), ways=9, queries=3).require_ready()


@pytest.mark.parametrize("layout", ["tables", "folders"])
def test_mini_imagenet_is_read_from_tables_and_from_folders(layout: str, tmp_path: Path) -> None:
    colors = {
        "train": {"n02": (200, 10, 30), "n01": (10, 200, 30)},
        "val": {"n06": (10, 10, 10), "n05": (250, 250, 250)},
        "test": {"n04": (30, 40, 250), "n03": (90, 90, 90)},
    }
    for split, classes in colors.items():
        rows = []
        for label, color in classes.items():
            folder = tmp_path / "images" if layout == "tables" else tmp_path / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(3):
                path = folder / f"{label}{number}.jpg"
                Image.new("RGB", (60 + number, 50), color).save(path, quality=95)
                rows.append({"filename": path.name, "label": label})
        if layout == "tables":
            with open(tmp_path / f"{split}.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, ["filename", "label"])
                writer.writeheader()
                writer.writerows(rows)
    tasks = MiniImageNet(folder=str(tmp_path), ways=2, shots=1, queries=2)
    tasks.require_ready()
    images = tasks.images()
    assert images.pixels.shape == (18, 3, 84, 84)
    assert (images.num_train, images.num_validation) == (2, 2)
    expected = [colors[split][name] for split in colors for name in sorted(colors[split])]
    assert set(tasks.validation_tasks(30).flatten().tolist()) == {2, 3}
    for first, color in zip(images.first, expected, strict=True):
        found = images.pixels[first].float().mean((1, 2))
        torch.testing.assert_close(found, torch.tensor(color).float(), rtol=0, atol=4.0)


@pytest.mark.parametrize(("name", "missing"), [("omniglot", "images_background/"), ("mini_imagenet", "train.csv")])
def test_a_missing_folder_is_said_in_a_sentence(name: str, missing: str, tmp_path: Path) -> None:
    tasks = find_preset(name, folder=str(tmp_path / "nowhere"))
    assert isinstance(tasks, FewShotTasks)
    with pytest.raises(BadField, match=rf"^folder is '.*nowhere': it has (no|neither) {missing}.* with --folder$"):
        tasks.require_ready()
    assert tasks.spec.num_classes == 0  # metarl list shows it all the same


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    for split in ("images_background", "images_evaluation"):
        (tmp_path / split / "A" / "c").mkdir(parents=True)
        (tmp_path / split / "A" / "c" / "x.png").write_text("no image")
    with pytest.raises(BadField, match=r"x\.png cannot be read as an image"):
        Omniglot(folder=str(tmp_path)).images()


def test_examples_are_no_worlds() -> None:
    with pytest.raises(BadField, match="task is 'sinusoid': it has examples and no worlds"):
        Sinusoid().make(2, 2, seed=0)
