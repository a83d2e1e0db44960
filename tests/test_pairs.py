"""Pictures with masks: layouts, classes, files that do not fit, and picture and mask moved together."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from guided import PairBatches, Pairs, Segments, read_pictures

VOID = Segments.VOID


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def pair(root: Path, name: str, mask: np.ndarray, image: np.ndarray | None = None, folder: str = "masks") -> None:
    """A picture whose red shows the mask, so that what moves them apart is seen."""
    red = np.zeros((*mask.shape, 3), np.uint8)
    red[..., 0] = mask
    write(root / "images" / f"{name}.png", red if image is None else image)
    write(root / folder / f"{name}.png", mask)


def blobs(count: int, side: int = 16, values: tuple[int, ...] = (0, 255), seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [np.asarray(values, np.uint8)[draw.integers(len(values), size=(side, side))] for _ in range(count)]


def folder(root: Path, count: int = 3, **options) -> Path:
    for i, mask in enumerate(blobs(count, **options)):
        pair(root, f"{i:03d}", mask)
    return root


# --- layouts ----------------------------------------------------------------------------------------------


def test_two_folders(tmp_path):
    pairs = Pairs(folder(tmp_path), 16)
    assert len(pairs) == 3 and pairs.class_names == ["background", "foreground"]
    assert pairs.names == [f"images/{i:03d}.png" for i in range(3)]
    assert pairs.image(1).shape == (3, 16, 16) and pairs.labels(1).dtype == torch.int64
    assert torch.equal((pairs.image(1)[0] > 0).long(), pairs.labels(1))


def test_a_zip_with_splits_and_labels(tmp_path):
    for split in ("train", "test"):
        for i, mask in enumerate(blobs(2)):
            pair(tmp_path / "set" / split, f"{split}{i}", mask, folder="labels")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path).as_posix())
    pairs = Pairs(tmp_path / "set.zip", 16, split="test")
    assert pairs.names == ["set/test/images/test0.png", "set/test/images/test1.png"]


def test_a_part_of_train_is_held_out_by_name(tmp_path):
    folder(tmp_path / "here", 60)
    train, val = (Pairs(tmp_path / "here", 16, split=split) for split in ("train", "val"))
    assert not set(train.names) & set(val.names) and len(train) + len(val) == 60 and 2 <= len(val) <= 12
    (tmp_path / "here").rename(tmp_path / "there")
    assert Pairs(tmp_path / "there", 16, split="val").names == val.names
    assert len(Pairs(tmp_path / "there", 16, split="train", hold_out=0)) == 60


def test_val_is_val_where_there_is_one(tmp_path):
    for split, count in (("train", 4), ("valid", 2)):
        folder(tmp_path / split, count)
    assert len(Pairs(tmp_path, 16, split="val")) == 2 and len(Pairs(tmp_path, 16, split="train")) == 4


# --- classes ----------------------------------------------------------------------------------------------


def test_zero_and_one_are_two_classes_as_well(tmp_path):
    pairs = Pairs(folder(tmp_path, values=(0, 1)), 16)
    assert pairs.class_names == ["background", "foreground"] and set(pairs.labels(0).unique().tolist()) == {0, 1}


def test_more_classes_are_numbered(tmp_path):
    assert Pairs(folder(tmp_path, values=(0, 1, 2, 5)), 16).class_names == list("012345")


def test_a_palette_holds_indices(tmp_path):
    mask = blobs(1, values=(0, 1, 2))[0]
    pair(tmp_path, "a", mask)
    picture = Image.fromarray(mask, mode="P")
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.save(tmp_path / "masks" / "a.png")
    assert torch.equal(Pairs(tmp_path, 16).labels(0), torch.from_numpy(mask.astype(np.int64)))


def test_a_table_names_the_classes_and_what_is_void(tmp_path):
    folder(tmp_path, values=(0, 1, 2, 3))
    (tmp_path / "classes.csv").write_text("index,name,red\n0,sky,1\n1,road,2\n2,tree,3\n3,void,0\n")
    pairs = Pairs(tmp_path, 16)
    assert pairs.class_names == ["sky", "road", "tree"] and pairs.void == 3
    assert set(pairs.labels(0).unique().tolist()) == {0, 1, 2, VOID}


def test_given_names_and_void(tmp_path):
    pairs = Pairs(folder(tmp_path, values=(0, 1, 255)), 16, classes=["no", "yes"], void=255)
    assert pairs.class_names == ["no", "yes"] and set(pairs.labels(0).unique().tolist()) == {0, 1, VOID}


# --- pictures of all kinds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour(channels, tmp_path):
    image = np.full((16, 16, 3), (255, 0, 0), np.uint8)
    pair(tmp_path, "a", blobs(1)[0], image)
    value = Pairs(tmp_path, 16, channels=channels).image(0)
    assert value.shape == (channels, 16, 16)
    assert_close(value[:, 0, 0], torch.tensor([76 / 127.5 - 1] if channels == 1 else [1.0, -1.0, -1.0]))  # Rec. 601


@pytest.mark.parametrize("kind", ["float", "uint8", "uint16"])
def test_arrays_of_any_number_of_channels(kind, tmp_path):
    draw = np.random.default_rng(0)
    wanted = draw.uniform(-1, 1, (16, 16, 4)).astype(np.float32)
    array = wanted
    if kind != "float":
        top = np.iinfo(kind).max
        array = ((wanted + 1) / 2 * top).round().astype(kind)
    write(tmp_path / "images" / "a.npy", array)
    write(tmp_path / "masks" / "a.png", blobs(1)[0])
    got = Pairs(tmp_path, 16, channels=4).image(0)
    assert_close(got, torch.from_numpy(wanted).permute(2, 0, 1), atol=0.01 if kind == "uint8" else 1e-4, rtol=0)
    assert torch.equal(read_pictures([tmp_path / "images" / "a.npy"], 4, 16)[0], got)


def test_the_pages_of_a_tiff_are_channels(tmp_path):
    pages = [Image.fromarray(np.full((16, 16), v, np.uint8)) for v in (0, 100, 255, 30, 60)]
    (tmp_path / "images").mkdir()
    pages[0].save(tmp_path / "images" / "a.tif", save_all=True, append_images=pages[1:])
    write(tmp_path / "masks" / "a.png", blobs(1)[0])
    got = Pairs(tmp_path, 16, channels=5).image(0)
    assert_close((got[:, 0, 0] + 1) * 127.5, torch.tensor([0.0, 100, 255, 30, 60]), atol=1e-4, rtol=0)


def test_picture_and_mask_are_resized_to_the_same_place(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[8:28, 20:36] = 255
    pair(tmp_path, "a", mask)
    pairs = Pairs(tmp_path, 20)
    seen = pairs.image(0)[0] > 0
    assert pairs.labels(0).shape == (20, 20) and set(pairs.labels(0).unique().tolist()) == {0, 1}
    assert torch.equal(seen, pairs.labels(0) == 1) and int(seen.sum()) == 10 * 8


# --- what does not fit --------------------------------------------------------------------------------------


def test_a_mask_without_an_image_is_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "images" / "001.png").unlink()
    with pytest.raises(ValueError, match=r"masks/001\.png .* has no image of its name"):
        Pairs(tmp_path, 16)


def test_an_image_without_a_mask_is_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "masks" / "001.png").unlink()
    (tmp_path / "masks" / "002.png").unlink()
    with pytest.raises(ValueError, match=r"images/001\.png .* has no mask of its name \(and 1 more\)"):
        Pairs(tmp_path, 16)


def test_a_mask_of_another_size_is_named(tmp_path):
    folder(tmp_path)
    write(tmp_path / "masks" / "001.png", blobs(1, 8)[0])
    with pytest.raises(ValueError, match=r"masks/001\.png .* is 8x8, its image 16x16"):
        Pairs(tmp_path, 16)


def test_corrupt_files_are_skipped_by_name_or_stop(tmp_path):
    folder(tmp_path)
    (tmp_path / "masks" / "001.png").write_bytes(b"\x89PNG torn")
    with pytest.warns(UserWarning, match=r"skipped 1 corrupt files: masks/001\.png"):
        pairs = Pairs(tmp_path, 16)
    assert len(pairs) == 2 and pairs.skipped == ["masks/001.png"]
    with pytest.raises(ValueError, match=r"masks/001\.png cannot be read"):
        Pairs(tmp_path, 16, on_corrupt="error")


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ((0, 1, 2), {"classes": ["a", "b"]}, r"000\.png .* holds the value 2, but there are 2 classes"),
        ((0, 7, 255), {}, "hold 255 beside"),
        ((0, 7, 255), {"classes": ["a", "b"]}, r"000\.png .* other values than 0 and 255"),
        ((0, 255), {"split": "test"}, "no split 'test'; it has train"),
        ((0, 255), {"channels": 4}, r"images/000\.png holds an array of \(16, 16, 3\), wanted \(height, width, 4\)"),
    ],
)
def test_clear_errors(values, options, said, tmp_path):
    folder(tmp_path, values=values)
    with pytest.raises(ValueError, match=said):
        Pairs(tmp_path, 16, hold_out=0, **options)


def test_a_colour_picture_is_no_mask(tmp_path):
    folder(tmp_path, 1)
    write(tmp_path / "masks" / "000.png", np.random.default_rng(0).integers(0, 9, (16, 16, 3)).astype(np.uint8))
    with pytest.raises(ValueError, match=r"masks/000\.png is not a mask"):
        Pairs(tmp_path, 16)


def test_arrays_that_are_not_finite_are_named(tmp_path):
    array = np.zeros((16, 16, 2), np.float32)
    array[3, 3, 1] = np.nan
    write(tmp_path / "images" / "a.npy", array)
    write(tmp_path / "masks" / "a.png", blobs(1)[0])
    with pytest.raises(ValueError, match=r"images/a\.npy must hold finite numbers"):
        Pairs(tmp_path, 16, channels=2)


def test_a_folder_of_pictures_alone_has_no_pairs(tmp_path):
    write(tmp_path / "cat" / "a.png", blobs(1)[0])
    with pytest.raises(ValueError, match="no pictures with masks found"):
        Pairs(tmp_path, 16)


def test_a_file_that_lies_inside_a_zip_may_be_torn(tmp_path):
    folder(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*.png"):
            data = path.read_bytes()
            archive.writestr(path.relative_to(tmp_path / "set").as_posix(), data[:50] if path.stem == "002" else data)
    with pytest.warns(UserWarning, match="skipped 1 corrupt"):
        assert len(Pairs(tmp_path / "set.zip", 16)) == 2


# --- batches ------------------------------------------------------------------------------------------------

TWO = Segments(("background", "foreground"))


@pytest.fixture
def set_of_pairs(tmp_path) -> Pairs:
    return Pairs(folder(tmp_path, 5, side=32), 32)


@pytest.mark.parametrize("options", [{}, {"turn": "all"}, {"turn": "all", "crop": 0.5}])
def test_a_mask_moves_with_its_picture(options, set_of_pairs):
    batch = PairBatches(set_of_pairs, TWO, 20, **options).batch(0)
    assert batch["image"].shape == (20, 3, 32, 32) and batch["x0"].shape == (20, 1, 32, 32)
    assert set(batch["x0"].unique().tolist()) == {-1.0, 1.0} and "known" not in batch
    seen = (batch["image"][:, :1] > 0).float() * 2 - 1
    # enlarged pictures are interpolated and masks are not: they differ by at most half a pixel, at outlines
    assert (seen == batch["x0"]).float().mean() > (0.75 if "crop" in options else 0.9999)


def test_all_eight_turns_come(tmp_path):
    pair(tmp_path, "a", np.triu(np.full((8, 8), 255, np.uint8)) * (np.arange(8) > 2).astype(np.uint8))
    batches = PairBatches(Pairs(tmp_path, 8, hold_out=0), TWO, 100, turn="all")
    assert len({tuple(x.flatten().tolist()) for x in batches.batch(0)["x0"]}) == 8


def test_mirrored_pictures_stay_upright(tmp_path):
    pair(tmp_path, "a", np.triu(np.full((8, 8), 255, np.uint8)) * (np.arange(8) > 2).astype(np.uint8))
    pairs = Pairs(tmp_path, 8, hold_out=0)
    seen = {tuple(x.flatten().tolist()) for x in PairBatches(pairs, TWO, 40, turn="mirror").batch(0)["x0"]}
    plain = PairBatches(pairs, TWO, 1).batch(0)["x0"]
    assert seen == {tuple(x.flatten().tolist()) for x in (plain, plain.flip(-1))}


def test_pictures_that_are_not_square_keep_their_form(tmp_path):
    pair(tmp_path, "a", blobs(1, 16)[0][:8])
    assert PairBatches(Pairs(tmp_path, (8, 16), hold_out=0), TWO, 40, turn="all", crop=0.5).batch(0)["x0"].shape == (
        40, 1, 8, 16,
    )  # fmt: skip


def test_jitter_changes_the_picture_and_not_the_mask(set_of_pairs):
    plain, jittered = (PairBatches(set_of_pairs, TWO, 8, jitter=j).batch(0) for j in (0.0, 0.4))
    assert torch.equal(plain["x0"], jittered["x0"])
    assert (plain["image"] - jittered["image"]).abs().amax((1, 2, 3)).gt(0.01).sum() >= 6
    assert jittered["image"].abs().max() <= 1


def test_batches_are_a_pure_function_of_their_number(set_of_pairs):
    a, b = (PairBatches(set_of_pairs, TWO, 3, seed=4, turn="all", crop=0.6, jitter=0.3) for _ in range(2))
    a.batch(0)
    assert torch.equal(a.batch(7)["image"], b.batch(7)["image"])
    whole = PairBatches(set_of_pairs, TWO, 6, seed=4).batch(2)
    parts = [PairBatches(set_of_pairs, TWO, 3, seed=4).batch(2, rank, 2) for rank in range(2)]
    assert torch.equal(whole["x0"], torch.cat([part["x0"] for part in parts]))


def test_an_epoch_has_every_pair_once(set_of_pairs):
    masks = PairBatches(set_of_pairs, TWO, 5, seed=1).batch(3)["x0"]
    assert len({tuple(x.flatten().tolist()) for x in masks}) == 5


def test_what_has_no_class_is_not_known(tmp_path):
    pairs = Pairs(folder(tmp_path, values=(0, 1, 2, 9)), 16, classes=["a", "b", "c"], void=9)
    batch = PairBatches(pairs, Segments(("a", "b", "c"), "one-hot"), 4).batch(0)
    assert batch["known"].dtype == torch.bool and batch["known"].shape == (4, 1, 16, 16)
    assert torch.equal(batch["known"], (batch["x0"] != 0).all(1, keepdim=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"crop": 0.0}, "crop must be in"),
        ({"jitter": 1.0}, "jitter"),
        ({"turn": "left"}, 'turn must be None, "mirror" or "all"'),
        ({"segments": Segments(("a", "b", "c"))}, "the masks have classes .*, the model"),
    ],
)
def test_batches_check_their_arguments(options, said, set_of_pairs):
    with pytest.raises(ValueError, match=said):
        PairBatches(set_of_pairs, **{"segments": TWO, "batch_size": 2, **options})


def test_a_path_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        read_pictures(["/nowhere/a.png"])


def test_files_of_several_sizes_need_a_size(tmp_path):
    for side in (8, 16):
        write(tmp_path / f"{side}.png", blobs(1, side)[0])
    paths = sorted(tmp_path.glob("*.png"))
    with pytest.raises(ValueError, match="several sizes"):
        read_pictures(paths, 1)
    assert read_pictures(paths, 1, 8).shape == (2, 1, 8, 8)
