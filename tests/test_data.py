"""Reading folders and zips, the rule for small classes, and batches as a pure function of their index."""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import guided.data
from guided.data import Batches, Images
from guided.folders import splits, suited

EMOJI = Path(__file__).parent / "data" / "emoji"
RULE = {"label": "subgroup", "other": "category", "min_per_class": 4}


def write_picture(path: Path, colour: tuple[int, ...] = (0, 0, 0), size: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if len(colour) == 3 else "RGBA", (size, size), colour).save(path)


def write_table(root: Path, *records: dict) -> None:
    for record in records:
        write_picture(root / record["file"])
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)


def zipped(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def numbered(root: Path, count: int, size: int = 4) -> Images:
    """Pictures whose red is their number."""
    for i in range(count):
        write_picture(root / f"{i:03d}.png", (i, 0, 0), size)
    return Images(root, size)


def numbers(batch: dict) -> list[int]:
    return ((batch["image"][:, 0].amax((1, 2)) + 1) * 127.5).round().int().tolist()


# --- layouts ----------------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    write_picture(tmp_path / "dog" / "a.png", (1, 2, 3))
    write_picture(tmp_path / "cat" / "deep" / "b.PNG", (4, 5, 6))
    write_picture(tmp_path / "cat" / "a.png", (7, 8, 9))
    (tmp_path / "notes.txt").write_text("not a picture")
    write_picture(tmp_path / ".hidden" / "c.png")
    images = Images(tmp_path, 4)
    assert images.names == ["cat/a.png", "cat/deep/b.PNG", "dog/a.png"]
    assert images.class_names == ["cat", "dog"] and images.labels.tolist() == [0, 0, 1]
    assert images.labels.dtype == torch.int64 and images.captions is None and len(images) == 3
    assert images.image(0).dtype == torch.uint8 and images.image(0).shape == (3, 4, 4)
    assert images.image(1)[:, 0, 0].tolist() == [4, 5, 6]


def test_splits_of_folders(tmp_path):
    for name in ("train/cat/a", "train/dog/b", "test/cat/c"):
        write_picture(tmp_path / f"{name}.png")
    assert splits(tmp_path) == ["test", "train"]
    assert Images(tmp_path, 4).names == ["test/cat/c.png", "train/cat/a.png", "train/dog/b.png"]
    test = Images(tmp_path, 4, split="test")
    assert test.names == ["test/cat/c.png"]
    assert test.class_names == ["cat", "dog"]  # the classes do not depend on the split


def test_no_classes(tmp_path):
    write_picture(tmp_path / "a.png")
    images = Images(tmp_path, 4)
    assert images.labels is None and images.class_names == [] and splits(tmp_path) == []
    assert set(Batches(images, 1).batch(0)) == {"image"}
    write_picture(tmp_path / "split" / "train" / "b.png")
    images = Images(tmp_path / "split", 4, split="train")
    assert images.labels is None and images.names == ["train/b.png"]


@pytest.mark.parametrize("prefix", ["", "pack/"])
def test_a_zip_is_the_folder(tmp_path, prefix):
    folder = Images(EMOJI, 32, **RULE)
    archive = Images(zipped(EMOJI, tmp_path / "e.zip", prefix), 32, **RULE)
    assert [prefix + name for name in folder.names] == archive.names
    assert folder.class_names == archive.class_names and folder.captions == archive.captions
    assert torch.equal(folder.labels, archive.labels)
    for i in range(len(folder)):
        assert torch.equal(folder.image(i), archive.image(i))


def test_a_zip_of_one_folder_of_class_folders(tmp_path):
    for name in ("cat", "dog"):
        write_picture(tmp_path / "in" / name / "a.png")
    path = zipped(tmp_path / "in", tmp_path / "a.zip", "pets/")
    assert Images(path, 4).class_names == ["cat", "dog"]
    one = zipped(tmp_path / "in" / "cat", tmp_path / "b.zip", "cat/")
    assert Images(one, 4).class_names == ["cat"]


def test_table_columns(tmp_path):
    write_table(
        tmp_path,
        {"file": "b.png", "kind": "x", "text": "a bee", "split": "train", "class": "k"},
        {"file": "a.png", "kind": "y", "text": "an ant", "split": "val", "class": "k"},
    )
    images = Images(tmp_path, 4, label="kind", caption="text")
    assert images.names == ["b.png", "a.png"] and images.captions == ["a bee", "an ant"]
    assert images.class_names == ["x", "y"] and images.labels.tolist() == [0, 1]
    assert Images(tmp_path, 4).class_names == ["k"]  # the column named class
    val = Images(tmp_path, 4, label="kind", split="val")
    assert val.names == ["a.png"] and val.labels.tolist() == [1]


def test_table_without_labels_takes_the_folders(tmp_path):
    write_table(tmp_path, {"file": "test/cat/b.png", "caption": "c"}, {"file": "train/dog/a.png", "caption": "d"})
    images = Images(tmp_path, 4, split="train")
    assert images.class_names == ["cat", "dog"] and images.captions == ["d"]
    write_table(tmp_path / "one", {"file": "in/b.png"}, {"file": "in/a.png"})
    assert Images(tmp_path / "one", 4).labels is None


# --- small classes ----------------------------------------------------------------------------------------


def test_small_classes_of_the_emoji_extract():
    # training pictures: cat-face, face-smiling and heart 5 each; food-fruit 3, animal-bird 1, none given 1
    names = ["animals-other", "cat-face", "face-smiling", "food-other", "heart"]
    train, test = (Images(EMOJI, 16, split=split, **RULE) for split in ("train", "test"))
    assert train.class_names == test.class_names == names
    assert Counter(train.labels.tolist()) == {0: 2, 1: 5, 2: 5, 3: 3, 4: 5}
    labels = dict(zip(test.captions, (names[i] for i in test.labels), strict=True))
    assert labels["peacock"] == "animals-other" and labels["winking face"] == "face-smiling"
    phoenix = train.captions.index("phoenix")
    assert names[train.labels[phoenix]] == "animals-other"  # its subgroup is empty


def test_only_training_pictures_count(tmp_path):
    rows = [("a", "train"), ("a", "train"), ("b", "train"), ("b", "test"), ("b", "test"), ("", "train")]
    records = [{"file": f"{i}.png", "label": a, "split": s, "group": "g"} for i, (a, s) in enumerate(rows)]
    write_table(tmp_path, *records)
    assert Images(tmp_path, 4, min_per_class=2, other="group").class_names == ["a", "g-other"]
    assert Images(tmp_path, 4, min_per_class=1, other="group").class_names == ["a", "b", "g-other"]
    assert Images(tmp_path, 4, min_per_class=2).class_names == ["a", "other"]
    for record in records:
        del record["split"]
    write_table(tmp_path, *records)
    assert Images(tmp_path, 4, min_per_class=3, other="group").class_names == ["b", "g-other"]


def test_class_names_fix_the_order():
    names = ["heart", "unseen", "food-other", "face-smiling", "cat-face", "animals-other"]
    images = Images(EMOJI, 16, class_names=names, **RULE)
    assert images.class_names == names
    assert names[images.labels[images.captions.index("grinning face")]] == "face-smiling"
    with pytest.raises(ValueError, match="2 labels are not in class_names: cat-face, heart"):
        Images(EMOJI, 16, class_names=["animals-other", "face-smiling", "food-other"], **RULE)


# --- pixels -----------------------------------------------------------------------------------------------


def test_backgrounds(tmp_path):
    write_picture(tmp_path / "a.png", (200, 0, 10, 128))
    # (200 * 128 + 255 * 127) / 255 = 227.4, (0 + 32385) / 255 = 127, (1280 + 32385) / 255 = 132.02
    assert Images(tmp_path, 4).image(0)[:, 1, 1].tolist() == [227, 127, 132]
    # (25600 + 0) / 255 = 100.4; (0 + 10 * 127) / 255 = 4.98; (1280 + 20 * 127) / 255 = 14.98
    assert Images(tmp_path, 4, background=(0, 10, 20)).image(0)[:, 1, 1].tolist() == [100, 5, 15]
    assert Images(tmp_path, 4, background="black").image(0)[:, 1, 1].tolist() == [100, 0, 5]


def test_random_background(tmp_path):
    write_picture(tmp_path / "clear.png", (9, 9, 9, 0))
    write_picture(tmp_path / "full.png", (1, 2, 3))
    images = Images(tmp_path, 4, background="random")
    assert images.image(0).unique().tolist() == [255]
    x = Batches(images, 200, seed=3).batch(0)["image"]
    full = torch.isclose(x[:, 0, 0, 0], torch.tensor(1 / 127.5 - 1)) & (x[:, 2, 0, 0] < -0.9)
    assert full.sum() == 100
    clear = x[~full]
    assert (clear == clear[..., :1, :1]).all()  # one colour a picture
    assert abs(clear.mean()) < 0.15 and clear[:, 0, 0, 0].unique().numel() > 60  # and not the same for all
    spread = clear[:, :, 0, 0].T.corrcoef()
    assert spread.fill_diagonal_(0).abs().max() < 0.4
    assert torch.equal(Batches(images, 200, seed=3).batch(0)["image"], x)


def test_grey_channel(tmp_path):
    write_picture(tmp_path / "a.png", (255, 0, 0))
    image = Images(tmp_path, 4, channels=1).image(0)
    assert image.shape == (1, 4, 4) and image.unique().tolist() == [76]  # 0.299 * 255
    assert Images(tmp_path, 4, channels=1, background="random").image(0).unique().tolist() == [76]
    Image.new("L", (4, 4), 80).save(tmp_path / "b.png")
    assert Images(tmp_path, 4).image(1).unique().tolist() == [80] and Images(tmp_path, 4).image(1).shape[0] == 3


def test_sizes(tmp_path):
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, 2:10:2] = 200  # the middle eight columns: 200, 0, 200, 0 ...
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = Images(tmp_path, 4).image(0)
    assert image.shape == (3, 4, 4) and image.unique().tolist() == [100]
    assert Images(tmp_path, (4, 6)).image(0)[0, 0].tolist() == [0, 100, 100, 100, 100, 0]


# --- corrupt files ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path) -> Path:
    """Five good files in two classes, and two that are not."""
    for i in range(5):
        write_picture(tmp_path / "abba"[i % 2 : i % 2 + 1] / f"{i}.png", (i, 0, 0))
    good = (EMOJI / "smileys" / "emoji_u1f600.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "b" / "text.jpg").write_text("not a picture at all")
    return tmp_path


def test_corrupt_files_are_named_and_skipped(broken):
    with pytest.warns(UserWarning, match="skipped 2 corrupt of 7 files: a/cut.png, b/text.jpg") as caught:
        images = Images(broken, 4)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert images.skipped == ["a/cut.png", "b/text.jpg"]
    assert images.names == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png"]
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert [images.image(i)[0, 0, 0].item() for i in range(5)] == [0, 2, 4, 1, 3]


def test_corrupt_files_can_be_fatal(broken):
    with pytest.raises(ValueError, match=r"a/cut.png in .* cannot be read as a picture: .*\(2 corrupt of 7"):
        Images(broken, 4, on_corrupt="error")
    for path in broken.rglob("[0-9].png"):
        path.write_text("")
    with pytest.raises(ValueError, match=r"\(7 corrupt of 7 files\)"):
        Images(broken, 4)


def test_what_does_not_fit_in_memory(broken, monkeypatch):
    with warnings.catch_warnings(action="ignore"):
        kept = Images(EMOJI, 16, background="random", **RULE)
        monkeypatch.setattr(guided.data, "MEMORY_LIMIT", 1)
        fresh = Images(EMOJI, 16, background="random", **RULE)
        lazy = Images(broken, 4)
    want, got = (Batches(images, 10, flip=True, seed=2).batch(4) for images in (kept, fresh))
    assert torch.equal(want["image"], got["image"]) and torch.equal(want["label"], got["label"])
    assert want["caption"] == got["caption"]

    # 0, 2, 4, cut, 1, 3, text: a corrupt file gives its place to the next one, the last to the first
    with pytest.warns(UserWarning, match=r"(a/cut.png|b/text.jpg) .* cannot be read"):
        batch = Batches(lazy, 7).batch(0)
    assert sorted(numbers(batch)) == [0, 0, 1, 1, 2, 3, 4]
    assert batch["label"].tolist() == [n % 2 for n in numbers(batch)]
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        Batches(Images(broken, 4, on_corrupt="error"), 7).batch(0)


# --- batches ----------------------------------------------------------------------------------------------


def test_every_picture_once_an_epoch(tmp_path):
    batches = Batches(numbered(tmp_path, 10), 4)
    seen = [n for i in range(15) for n in numbers(batches.batch(i))]  # six epochs of ten in fifteen batches
    epochs = [seen[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert sorted(numbers(Batches(batches.images, 25).batch(0))[:20]) == sorted([*range(10)] * 2)


def test_repeated_classes(tmp_path):
    for i in range(10):
        write_picture(tmp_path / ("tool=s" if i < 3 else "rest") / f"{i}.png", (i, 0, 0))
    batches = Batches(Images(tmp_path, 4), 8, seed=2, repeat={"tool=s": 4, "rest": 2})
    once = [*range(3)] * 4 + [*range(3, 10)] * 2  # 26 pictures an epoch, and no gap between epochs
    rows = [batches.batch(i) for i in range(13)]
    seen = [n for row in rows for n in numbers(row)]
    epochs = [seen[i : i + 26] for i in range(0, 104, 26)]
    assert all(sorted(epoch) == sorted(once) for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) == 4
    assert [batches.images.class_names[k] == "tool=s" for row in rows for k in row["label"]] == [n < 3 for n in seen]
    parts = [Batches(batches.images, 4, seed=2, repeat=batches.repeat).batch(5, rank, 2) for rank in range(2)]
    assert [n for part in parts for n in numbers(part)] == numbers(rows[5])
    plain = Batches(batches.images, 8, seed=2)
    assert numbers(Batches(batches.images, 8, seed=2, repeat={"rest": 1}).batch(0)) == numbers(plain.batch(0))


def test_a_batch_depends_on_its_index_alone():
    images = Images(EMOJI, 16, **RULE)
    options = {"seed": 5, "flip": True, "augment": "crop"}
    batches = Batches(images, 7, **options)
    forward = [batches.batch(i) for i in range(8)]
    other = Batches(images, 7, **options)
    for i in (6, 0, 3, 7, 3):
        again = other.batch(i)
        assert torch.equal(again["image"], forward[i]["image"])
        assert torch.equal(again["label"], forward[i]["label"]) and again["caption"] == forward[i]["caption"]
    assert Batches(images, 7, seed=6).batch(0)["caption"] != forward[0]["caption"]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_out_the_global_batch(world):
    images = Images(EMOJI, 16, background="random", **RULE)
    options = {"seed": 1, "flip": True, "augment": "crop"}
    for index in (0, 5):
        whole = Batches(images, 4 * world, **options).batch(index)
        parts = [Batches(images, 4, **options).batch(index, rank, world) for rank in range(world)]
        assert_close(torch.cat([part["image"] for part in parts]), whole["image"], atol=1e-6, rtol=0)
        assert torch.equal(torch.cat([part["label"] for part in parts]), whole["label"])
        assert [caption for part in parts for caption in part["caption"]] == whole["caption"]


def test_a_batch_holds_its_pictures():
    images = Images(EMOJI, 64, **RULE)
    batch = Batches(images, 24).batch(0)
    assert batch["image"].dtype == torch.float32 and batch["image"].shape == (24, 3, 64, 64)
    position = {caption: i for i, caption in enumerate(images.captions)}
    chosen = [position[caption] for caption in batch["caption"]]
    assert_close(batch["image"], torch.stack([images.image(i) for i in chosen]).float() / 127.5 - 1)
    assert torch.equal(batch["label"], images.labels[chosen])


def test_flip_mirrors_half(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = Images(tmp_path, 8)
    plain = Batches(images, 400).batch(0)["image"]
    flipped = Batches(images, 400, flip=True).batch(0)["image"]
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    assert ((flipped == plain).flatten(1).all(1) ^ mirrored).all()
    assert 160 < mirrored.sum() < 240  # four standard deviations
    assert 160 < (mirrored[1:] ^ mirrored[:-1]).sum() < 240  # and neighbours do not go together


def test_crop_enlarges_a_part(tmp_path):
    """A part of a ramp with side s at place p, enlarged, is a ramp with s times the slope, shifted by p."""
    ramp = np.arange(32, dtype=np.uint8) * 8
    pixels = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], 0), axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = Batches(Images(tmp_path, 32), 200, augment="crop").batch(0)["image"]
    pixel = (x + 1) * 127.5 / 8  # position in the source, in pixels
    across, down = pixel[:, 0, 16], pixel[:, 1, :, 16]
    inner = slice(8, 24)  # away from the edges, where the reflection bends the ramp
    side = (across[:, 23] - across[:, 8]) / 15
    assert_close((down[:, 23] - down[:, 8]) / 15, side, atol=0.02, rtol=0)
    assert 0.795 < side.min() < 0.81 and 0.99 < side.max() < 1.005
    for line in (across, down):
        middle = line[:, inner].mean(1) - 15.5  # of the part, from the middle of the source
        room = 16 * (1 - side)
        assert (middle.abs() <= room + 0.1).all()
        assert (middle / room)[room > 1].min() < -0.9 and (middle / room)[room > 1].max() > 0.9


# --- messages ---------------------------------------------------------------------------------------------


def test_paths_that_hold_no_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder or zip file"):
        Images(tmp_path / "nowhere", 4)
    with pytest.raises(ValueError, match=r"no pictures found in .*; understood: a folder or zip with pictures"):
        Images(tmp_path, 4)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"a.txt is neither a folder nor a zip file"):
        Images(tmp_path / "a.txt", 4)


def test_folders_that_are_not_in_order(tmp_path):
    write_picture(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match="class folder 'dog' holds no pictures"):
        Images(tmp_path, 4)
    with pytest.raises(ValueError, match="class folder 'dog' holds no pictures"):
        Images(zipped(tmp_path, tmp_path / "a.zip"), 4)
    (tmp_path / "dog").rmdir()
    write_picture(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png lies beside class folders"):
        Images(tmp_path, 4)


def test_unknown_splits_and_columns(tmp_path):
    with pytest.raises(ValueError, match="no split 'val'; it has test, train"):
        Images(EMOJI, 16, split="val")
    with pytest.raises(ValueError, match="no column 'kind'; it has file, caption, category, subgroup, split"):
        Images(EMOJI, 16, label="kind")
    write_picture(tmp_path / "cat" / "a.png")
    with pytest.raises(ValueError, match="no split 'train'; it has no splits"):
        Images(tmp_path, 4, split="train")
    with pytest.raises(ValueError, match=r"has no metadata.csv, so there is no column 'kind'"):
        Images(tmp_path, 4, label="kind")
    write_table(tmp_path, {"file": "cat/a.png"}, {"file": "cat/b.png"})
    (tmp_path / "cat" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"metadata.csv of .* names 1 files not there: cat/b.png"):
        Images(tmp_path, 4)
    (tmp_path / "metadata.csv").write_text("id,split\n1,train\n")
    with pytest.raises(ValueError, match="no column 'file'; it has id, split"):
        Images(tmp_path, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a positive whole number"),
        ({"background": "blueish"}, "background must be a colour name or three whole numbers"),
        ({"background": (1, 2)}, "background must be"),
        ({"background": (1, 2, 256)}, "background must be"),
        ({"on_corrupt": "stop"}, 'on_corrupt must be "skip" or "error"'),
        ({"channels": 4}, "channels must be 3"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        Images(EMOJI, **{"size": 16, **options})


def test_batches_that_are_none(tmp_path):
    images = numbered(tmp_path, 2)
    for options, message in (
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"augment": "zoom"}, 'augment must be None, "crop", "move" or "told"'),
        ({"repeat": {"dog": 2}}, "repeat names the class 'dog'; the pictures have no classes"),
    ):
        with pytest.raises(ValueError, match=message):
            Batches(images, **{"batch_size": 2, **options})
    for times in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"a positive whole number of times, got {times} for 'heart'"):
            Batches(Images(EMOJI, 8, **RULE), 2, repeat={"heart": times})
    with pytest.raises(ValueError, match="rank < world, got index=0, rank=2, world=2"):
        Batches(images, 2).batch(0, 2, 2)


def test_a_presets_columns_are_used_only_where_the_data_has_them(tmp_path):
    reading = {"label": "subgroup", "other": "category", "min_per_class": 4, "background": "white"}
    assert suited(EMOJI, reading) == reading
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "a.png")
    assert suited(tmp_path, reading) == {"background": "white"}
