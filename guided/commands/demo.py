"""guided demo: a page in the browser with a face for every feature."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import time

EXAMPLES = """\
examples:
  guided demo                                             # the embedded models, on http://127.0.0.1:7860
  guided demo --model runs/pets --classifier runs/pets-classifier --device cuda
  guided demo --clip ViT-B-32=clip.safetensors            # a CLIP of open_clip and its weights
  guided demo --host 0.0.0.0 --auth ann:secret            # for other machines of the network, with a password
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "demo",
        help="a page in the browser for all of this",
        description="Serve a page on which pictures are generated, guided, edited and segmented, with the embedded "
        "models and those given here; no others can be loaded through it. It needs no network, and listens on this "
        "machine only unless told otherwise.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models = p.add_argument_group("models (all repeatable)")
    models.add_argument("--model", action="append", default=[], metavar="FOLDER", help="a generator or a segmenter")
    models.add_argument("--classifier", action="append", default=[], metavar="FOLDER", help="a noise-aware classifier")
    models.add_argument("--clip", action="append", default=[], metavar="FOLDER|MODEL=FILE", help="a CLIP")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    server = p.add_argument_group("server")
    server.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860 on")
    server.add_argument("--queue", type=int, default=32, metavar="N", help="how many may wait; default: 32")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    server.add_argument("--auth", metavar="USER:PASS", help="ask for these")
    server.add_argument("--share", action="store_true", help="a public address too, by gradio's servers")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check everything, serve until Ctrl-C."""
    auth = check(args)
    check_address(args.host, args.port)
    from demos.shelf import Shelf
    from guided.commands.draw import best_device
    from guided.devices import check_device

    device = args.device or best_device()
    check_device(device)
    shelf = Shelf(args.model, args.classifier, args.clip, device=device)
    from demos.app import serve

    host = f"[{args.host}]" if ":" in args.host else args.host  # of version 6, as an address of the web has it
    with serve(shelf, host=host, port=args.port, queue=args.queue, share=args.share, auth=auth) as served:
        print(f"guided demo on {device}: {served.url}  (Ctrl-C ends it)", flush=True)
        if args.share:
            print(f"public: {served.share_url or 'none, the servers of gradio cannot be reached'}", flush=True)
        if args.host not in ("127.0.0.1", "localhost", "::1") and auth is None:
            print("other machines can use it, without a password: --auth USER:PASS asks for one", file=sys.stderr)
        while True:
            time.sleep(3600)


def check_address(host: str, port: int | None) -> None:
    """Raises ValueError, naming the argument, unless this machine can listen there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            if os.name == "posix":  # what was closed a moment ago is free
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except socket.gaierror:
        raise ValueError(f"--host {host}: there is no such address") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"--port {port} is taken: choose another, or leave it out") from None
        where = f"--host {host}" if port is None else f"--host {host} --port {port}"
        raise ValueError(f"{where}: this machine cannot listen there ({error.strerror})") from None


def check(args: argparse.Namespace) -> tuple[str, str] | None:
    """What can be said before anything is loaded; returns the user and password.

    Raises:
        ValueError: naming the argument.
    """
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ValueError(f"--port must lie in 1..65535, got {args.port}")
    if args.queue < 1:
        raise ValueError(f"--queue must be at least 1, got {args.queue}")
    if args.auth is None:
        return None
    user, colon, password = args.auth.partition(":")
    if not (colon and user and password):
        raise ValueError("--auth must be USER:PASS")
    return user, password
