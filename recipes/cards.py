"""Writes the measured figures into the model cards.

    python recipes/cards.py [--check] [CARD.md ...]

A card is a README.md beside a model's weights: prose, and blocks between comments, which this program fills.

    <!-- facts -->                          size, storage and version, from config.json and the weights beside the card
    <!-- table benchmarks/results/X.md -->  the tables of a program's result, and the command that made them
    <!-- end -->                            where either ends

So a figure stands in a card only as its program wrote it. With --check nothing is written, and the exit code is 1 where
a card would change. By default all cards of the embedded models are done.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (?P<what>facts|table (?P<file>\S+)) -->\n.*?<!-- end -->", re.DOTALL)
MADE = re.compile(r"Made by (`[^`]+`)")
BITS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def cards() -> list[Path]:
    """The cards of the embedded models."""
    return sorted(ROOT.glob("guided/weights/*/README.md")) + sorted(ROOT.glob("classifiers/**/weights/*/README.md"))


def filled(card: Path) -> str:
    """The card's text with its blocks as the weights and the results say.

    Raises:
        ValueError: a block names a result that is not there or has no table.
    """

    def block(match: re.Match) -> str:
        body = facts(card.parent) if match["what"] == "facts" else tables(ROOT / match["file"], card)
        return f"<!-- {match['what']} -->\n{body}\n<!-- end -->"

    return BLOCK.sub(block, card.read_text(encoding="utf-8"))


def facts(folder: Path) -> str:
    """Rows of a table about the weights in a folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    count, kinds = 0, set()
    with safe_open(folder / "model.safetensors", "pt") as weights:
        for name in weights.keys():
            piece = weights.get_slice(name)
            size = 1
            for side in piece.get_shape():
                size *= side
            count, kinds = count + size, kinds | {piece.get_dtype()}
    size = (folder / "model.safetensors").stat().st_size / 1e6
    told = config["provenance"]
    stored = " and ".join(sorted(BITS.get(kind, kind) for kind in kinds))
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| parameters | {count / 1e6:.2f} M, stored in {stored}, {size:.1f} MB |",
            f"| made | {told['made'][:10]}, {told['images_seen']:,} pictures seen, torch {told['torch']} |",
        ]
    )


def tables(result: Path, card: Path) -> str:
    """The tables of a result, and the command that makes it."""
    if not result.is_file():
        raise ValueError(f"{card}: there is no {result}")
    text = result.read_text(encoding="utf-8")
    found = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    made = MADE.search(" ".join(text.split()))
    if not found or not made:
        raise ValueError(f"{card}: {result} has no table, or does not say by which command it was made")
    return "\n".join(["", "\n\n".join(table.rstrip() for table in found), "", f"Made by {made[1]}.", ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    stale = 0
    for card in args.cards or cards():
        try:
            text = filled(card)
        except (ValueError, OSError, KeyError) as error:
            print(f"cards: {error}", file=sys.stderr)
            return 2
        if text == card.read_text(encoding="utf-8"):
            continue
        stale += 1
        print(f"{card}: {'out of date' if args.check else 'written'}")
        if not args.check:
            card.write_text(text, encoding="utf-8")
    return int(args.check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
