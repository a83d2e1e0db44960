"""Whether what a command will make can be written where it is to go: known before the work, not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_folder(folder: Path, name: str) -> None:
    """PermissionError unless files can be made in a folder, which need not exist yet; leaves nothing behind.

    It is tried, since permission bits do not show a read-only or full disk, and mean nothing to root.

    Args:
        name: what the message calls the folder.
    """
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        if above == folder.absolute():
            tempfile.TemporaryFile(dir=above).close()
        else:
            tempfile.TemporaryDirectory(dir=above).cleanup()
    except OSError as error:
        raise PermissionError(f"{name} {folder} cannot be written: {above}: {error.strerror}") from None
