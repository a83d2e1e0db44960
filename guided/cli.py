"""The command line: draw and edit pictures, train models, look at checkpoints."""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from guided.commands import (
    demo,
    edit,
    ema,
    evaluate,
    import_,
    info,
    likelihood,
    models,
    replay,
    sample,
    segment,
    train,
    tune,
    tune_guidance,
)
from guided.commands import train_autoencoder as autoencoder

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")
DIVERGED = "steps in a row had no finite loss"  # of `guided.train`
COMMANDS = (
    sample,
    edit,
    segment,
    train,
    ema,
    autoencoder,
    evaluate,
    likelihood,
    tune,
    tune_guidance,
    import_,
    info,
    replay,
    models,
    demo,
)
EPILOG = """\
`guided COMMAND --help` explains a command. Bad input is one line on stderr and exit code 2, Ctrl-C is 130;
with GUIDED_TRACEBACK=1 in the environment errors come with their traceback."""


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after "guided"; None takes this process's own.

    Returns:
        The exit code: 0; 1 where a command found what it was asked to check not to be so; 2 for bad input, which is one
        clear line on stderr; 130 after Ctrl-C.

    Raises:
        SystemExit: with --help, --version, and words the command does not take (code 2).
    """
    args = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: complain(args.command, f"warning: {message}")
            return args.run(args) or 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError) as error:
        complain(args.command, str(error))
        code = 2
    except RuntimeError as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            error = "out of memory: use a smaller --batch-size, --size or --dtype bf16"
        elif DIVERGED not in str(error):
            raise
        complain(args.command, str(error))
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; importing and making it costs no more than `import guided` does."""
    from guided import __version__

    top = OneLineErrors(
        prog="guided", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"guided {__version__}")
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add(subparsers)
    return top


class OneLineErrors(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def complain(command: str, message: str) -> None:
    """One line on stderr; before it the traceback of the exception being handled, where that is asked for."""
    if os.environ.get("GUIDED_TRACEBACK") and sys.exc_info()[0]:
        import traceback

        traceback.print_exc()
    print(f"guided {command}: {' '.join(message.split())}", file=sys.stderr)
