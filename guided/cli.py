"""The command line: guided sample | train | info | import | replay | models."""

from __future__ import annotations

import argparse
import sys

from guided.commands import train

COMMANDS = (train,)


def main(argv: list[str] | None = None) -> int:
    """Run a command; bad input is one clear line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="guided", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(subparsers)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"guided {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
