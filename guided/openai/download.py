"""Fetching official files: resumable, checked, and quick to say so when there is no network."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from guided.openai.presets import preset_row

CONNECT_SECONDS = 3.0
READ_SECONDS = 60.0
FOLDER = Path("~/.cache/guided/openai")
"""Where files go unless said otherwise."""


def download(preset: str, folder: str | Path | None = None, progress: bool = True) -> Path:
    """The official file of a preset, fetched if it is not there yet.

    A cut download leaves FILE.part and goes on from there the next time; only a whole file takes its name.

    Args:
        preset: a key of `PRESETS`.
        folder: where to put it; None is `FOLDER`, under the home folder.
        progress: show a bar.

    Returns:
        The file's path.

    Raises:
        ValueError: there is no such preset.
        ConnectionError: the host cannot be reached (known within seconds) or the transfer broke off; the
            message names the URL and where a file fetched by hand goes.
    """
    row = preset_row(preset)
    path = Path(folder or FOLDER).expanduser() / row.file
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"fetch {row.url} by hand and put it at {path}"
    if not reachable(row.url):
        raise ConnectionError(f"no connection to {urllib.parse.urlsplit(row.url).hostname}: {by_hand}")
    part = path.with_name(path.name + ".part")
    try:
        _fetch(row.url, part, progress)
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"the server answered {error.code} {error.reason}: {by_hand}") from None
    except (OSError, http.client.HTTPException) as error:
        done = part.stat().st_size if part.exists() else 0
        raise ConnectionError(
            f"the download broke off at {done} bytes ({error}); run it again to go on, or {by_hand}"
        ) from None
    os.replace(part, path)
    return path


def reachable(url: str, seconds: float = CONNECT_SECONDS) -> bool:
    """Whether the URL's host, or the proxy that leads to it, takes a connection within `seconds`.

    It is tried in a thread of its own, since looking a name up has no time limit.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, port), timeout=seconds).close()
        except OSError:
            return
        connected.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return connected.is_set()


def _fetch(url: str, part: Path, progress: bool) -> None:
    """Append what `part` lacks of the URL's content; OSError unless it ends at the size the server named."""
    from tqdm import tqdm

    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=READ_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        # nothing lies beyond what is here: it is whole, or it is no part of this file
        if error.headers.get("Content-Range", "") == f"bytes */{done}":
            return
        part.unlink()
        return _fetch(url, part, progress)
    with response:
        if response.status != 206:  # the server does not resume: from the start
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=part.stem, disable=not progress)
        with bar, open(part, "ab" if done else "wb") as out:
            while chunk := response.read(1 << 20):
                out.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"got {size} of {total} bytes")
