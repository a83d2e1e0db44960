"""Which pictures a folder or a zip holds, and their splits, labels and captions."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = ("train", "val", "valid", "validation", "test")
LAYOUTS = (
    f"a folder or zip with pictures in <class>/ or <split>/<class>/ (splits: {', '.join(SPLITS)}), or with a "
    "metadata.csv (columns: file; label, caption, split if any), or with pictures alone (no classes)"
)
TABLE = "metadata.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a listing.

    Attributes:
        file: name relative to the folder or zip, with forward slashes.
        label: class name; "" if it was left empty; None if the whole set has no classes.
        split: "" if there is none.
        other: what the picture belongs to when its class is too small.
        caption: None if the whole set has no captions.
    """

    file: str
    label: str | None
    split: str = ""
    other: str = ""
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies inside a folder or zip.

    Attributes:
        path: the folder or zip file.
        files: names of all files relative to it, sorted, with forward slashes; hidden ones left out.
        folders: names of all folders, likewise.
        read: gives the bytes of a file by its name; may be called from several threads.
    """

    path: Path
    files: list[str]
    folders: list[str]
    read: Callable[[str], bytes]


def open_tree(path: str | Path) -> Tree:
    """Lists a folder or a zip file.

    Raises:
        FileNotFoundError: path does not exist.
        ValueError: path is neither a folder nor a zip file.
    """
    path = Path(path)
    if path.is_dir():
        found = [(p, p.relative_to(path).as_posix()) for p in path.rglob("*")]
        files = [name for p, name in found if p.is_file()]
        folders = [name for p, name in found if p.is_dir()]
        return Tree(path, _shown(files), _shown(folders), lambda name: (path / name).read_bytes())
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or zip file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a zip file")
    archive = zipfile.ZipFile(path)
    files = [entry for entry in archive.namelist() if not entry.endswith("/")]
    folders = {entry.rstrip("/") for entry in archive.namelist() if entry.endswith("/")}
    for folder in {file.rpartition("/")[0] for file in files} - {""}:  # a zip need not list its folders
        folders |= {folder, *(parent.as_posix() for parent in PurePosixPath(folder).parents)} - {"."}
    return Tree(path, _shown(files), _shown(folders), archive.read)


def list_pictures(
    tree: Tree, *, label: str | None = None, other: str | None = None, caption: str | None = None
) -> list[Row]:
    """The pictures of a folder or zip in any of LAYOUTS.

    Args:
        tree: see `open_tree`.
        label: label column of metadata.csv; None for `label` or `class` if there is one, else the folder.
        other: column of metadata.csv that `gather_small` names its classes after.
        caption: caption column of metadata.csv; None for `caption` if there is one.

    Raises:
        ValueError: no pictures, an unknown column, a class folder without pictures, pictures beside class
            folders, or files of metadata.csv that are not there.
    """
    table = _table(tree)
    if table:
        rows = _rows_of_table(tree, table, label, other, caption)
    else:
        for column in (label, other, caption):
            if column is not None:
                raise ValueError(f"{tree.path} has no {TABLE}, so there is no column {column!r}")
        rows = _rows_of_folders(tree)
    if not rows:
        raise ValueError(f"no pictures found in {tree.path}; understood: {LAYOUTS}")
    return rows


def gather_small(rows: list[Row], min_per_class: int) -> list[Row]:
    """Puts small classes together: labels that are empty or rare become "<other>-other", or "other".

    Rare is: fewer than min_per_class pictures in the split "train" (in all, if there is no such split).
    min_per_class 1 keeps every class that has a name.
    """
    training = [row for row in rows if row.split == "train"] or rows
    count = Counter(row.label for row in training)

    def label(row: Row) -> str | None:
        if row.label is None or (row.label and (min_per_class <= 1 or count[row.label] >= min_per_class)):
            return row.label
        return f"{row.other}-other" if row.other else "other"

    return [row if label(row) == row.label else replace(row, label=label(row)) for row in rows]


def splits(path: str | Path) -> list[str]:
    """Names of the splits of a folder or zip, sorted; empty if it has none."""
    return sorted({row.split for row in list_pictures(open_tree(path)) if row.split})


def suited(path: str | Path, reading: dict[str, Any]) -> dict[str, Any]:
    """A preset's way of reading labels, without its columns and class rule where the data has no such columns.

    Args:
        reading: arguments of `Images`: label, other, min_per_class and any more.
    """
    tree = open_tree(path)
    columns = {reading[name] for name in ("label", "other") if reading.get(name)}
    table = _table(tree)
    if not columns or (table and columns <= set(_records(tree, table)[1])):
        return dict(reading)
    return {name: value for name, value in reading.items() if name not in ("label", "other", "min_per_class")}


def _table(tree: Tree) -> str | None:
    """The metadata.csv that lies highest, if there is one."""
    tables = [name for name in tree.files if PurePosixPath(name).name == TABLE]
    return min(tables, key=lambda name: name.count("/"), default=None)


def _records(tree: Tree, table: str) -> tuple[list[dict[str, str]], list[str]]:
    """The rows and the column names of a metadata.csv."""
    reader = csv.DictReader(io.StringIO(tree.read(table).decode("utf-8-sig"), newline=""))
    return list(reader), list(reader.fieldnames or ())


def _shown(names: Iterable[str]) -> list[str]:
    """Sorted, without hidden files and what some archivers add."""
    return sorted(name for name in names if "/." not in f"/{name}" and "/__MACOSX" not in f"/{name}")


def _rows_of_table(tree: Tree, table: str, label: str | None, other: str | None, caption: str | None) -> list[Row]:
    records, columns = _records(tree, table)
    file = _first(("file", "file_name"), columns)
    for column in (file or "file", label, other, caption):
        if column is not None and column not in columns:
            raise ValueError(f"{TABLE} of {tree.path} has no column {column!r}; it has {', '.join(columns)}")
    label = label or _first(("label", "class"), columns)
    caption = caption or _first(("caption",), columns)

    base, known = PurePosixPath(table).parent, set(tree.files)
    files = [(base / _cell(record, file)).as_posix() for record in records]
    missing = [name for name in files if name not in known]
    if missing:
        more = " ..." if len(missing) > 1 else ""
        raise ValueError(f"{TABLE} of {tree.path} names {len(missing)} files not there: {missing[0]}{more}")
    places = _places(files)
    one_folder = len({place_label for place_label, _ in places}) < 2  # says nothing about classes
    return [
        Row(
            file=name,
            label=_cell(record, label) if label else (None if one_folder else place_label or ""),
            split=_cell(record, "split") if "split" in columns else place_split,
            other=_cell(record, other) if other else "",
            caption=_cell(record, caption) if caption else None,
        )
        for name, record, (place_label, place_split) in zip(files, records, places, strict=True)
    ]


def _rows_of_folders(tree: Tree) -> list[Row]:
    files = [name for name in tree.files if name.lower().endswith(ENDINGS)]
    rows = [Row(name, label, split) for name, (label, split) in zip(files, _places(files), strict=True)]
    loose = [row.file for row in rows if row.label is None]
    if loose and len(loose) < len(rows):
        raise ValueError(f"{tree.path}: {loose[0]} lies beside class folders; move it into one")
    if rows and not loose:
        top, depth = _top(files), _top(files) + bool(rows[0].split)
        parts = [name.split("/") for name in tree.folders]
        there = {p[depth] for p in parts if len(p) == depth + 1 and p[:top] == files[0].split("/")[:top]}
        empty = sorted(there - {row.label for row in rows})
        if empty:
            raise ValueError(f"{tree.path}: class folder {empty[0]!r} holds no pictures; fill or remove it")
    return rows


def _places(files: Sequence[str]) -> list[tuple[str | None, str]]:
    """(class folder or None, split or "") of each file, from its folders."""
    parts, top = [name.split("/") for name in files], _top(files)
    has_splits = all(len(p) > top + 1 and p[top] in SPLITS for p in parts)
    depth = top + has_splits
    return [(p[depth] if len(p) > depth + 1 else None, p[top] if has_splits else "") for p in parts]


def _top(files: Sequence[str]) -> int:
    """How many folders hold everything, as a zip of one folder does; they say nothing."""
    parts, top = [name.split("/") for name in files], 0
    while parts and all(len(p) > top + 2 and p[top] == parts[0][top] and p[top] not in SPLITS for p in parts):
        top += 1
    return top


def _first(candidates: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((name for name in candidates if name in columns), None)


def _cell(record: dict, column: str) -> str:
    return (record[column] or "").strip()
