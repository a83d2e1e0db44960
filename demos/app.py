"""The page, and a server for it that shows nothing but what it was given."""

from __future__ import annotations

import inspect
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from demos import limits, words
from demos.shelf import Shelf
from demos.tabs import compare, edit, explore, generate, segment, text
from demos.words import say

TABS = (generate, text, edit, segment, explore, compare)
"""In the order of the page; each has NAME, WORDS and build(shelf)."""
FONT = gr.themes.utils.fonts.LocalFont("IBM Plex Sans", weights=(400, 700))  # it lies in gradio's own files
THEME = gr.themes.Default(font=[FONT, "system-ui", "sans-serif"]).set(  # hints dark enough to be read
    block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400"
)
CSS, JS = Path(__file__).parent / "page.css", Path(__file__).parent / "page.js"
QUEUE = 32  # who may wait at once, where nothing else is said
KEEP = 3600  # seconds that files and the state of a closed page are kept


class Page(gr.Blocks):
    """A page whose sessions do not grow from request to request.

    A handler's gr.skip() lets gradio make a new component, and a value after it lets gradio keep that beside the old
    one, with the value (a picture), as long as the session lives. Here what the page does not have is dropped at once.
    """

    async def postprocess_data(self, block_fn, predictions, state, *more):
        output = await super().postprocess_data(block_fn, predictions, state, *more)
        if state is not None:
            for kept in (state.blocks_config.blocks, getattr(state, "config_values", {})):
                for key in kept.keys() - self.blocks.keys():
                    del kept[key]
        return output


def build(shelf: Shelf, *, queue: int = QUEUE) -> gr.Blocks:
    """The page of a shelf's models, not served yet.

    Args:
        queue: how many may wait; who comes then is refused, clearly.

    Raises:
        ValueError: queue is not positive, or there is no model.
    """
    if queue < 1:
        raise ValueError(f"the queue must hold at least 1, got {queue}")
    with Page(title="guided", analytics_enabled=False, delete_cache=(KEEP // 4, KEEP)) as page:
        gr.Markdown("# guided")
        gr.Markdown(say("page.about"))
        with gr.Tabs():
            for tab in TABS:
                with gr.Tab(say(tab.NAME), id=tab.NAME.removesuffix(".tab")):
                    tab.build(shelf)
    limits.bound(page, words.translations(tab.WORDS for tab in TABS).translations["en"])
    page.queue(max_size=queue, default_concurrency_limit=4, api_open=False)
    return page


class _Files:
    """The folder of uploads and results: nowhere else, and gone with the last page that is served.

    One for all pages of a process, since gradio reads its place from the environment at every request.
    """

    def __init__(self) -> None:
        self.pages, self.folder = 0, None

    def enter(self) -> _Files:
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="guided-demo-", ignore_cleanup_errors=True)
            os.environ["GRADIO_TEMP_DIR"] = self.folder.name
        self.pages += 1
        return self

    def leave(self) -> None:
        self.pages -= 1
        if self.pages == 0:
            self.folder.cleanup()
            self.folder = None


_FILES = _Files()


@dataclass
class Served:
    """A page that is being served. `close()` ends it and removes its files; as a context manager it does so itself."""

    page: gr.Blocks
    url: str
    share_url: str | None
    files: _Files

    def close(self) -> None:
        if self.page.is_running:
            self.page.close(verbose=False)
            self.files.leave()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def serve(
    shelf: Shelf,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    queue: int = QUEUE,
    share: bool = False,
    auth: tuple[str, str] | None = None,
) -> Served:
    """Build the page and serve it from a thread.

    Args:
        shelf: the models that may be used.
        host: the address to listen on; "0.0.0.0" lets other machines in.
        port: None takes the first free one from 7860 on.
        queue: as `build`.
        share: ask gradio for a public address too; this alone goes outside.
        auth: (user, password) that the page asks for; None asks nothing.

    Raises:
        OSError: the port is taken.
    """
    files = _FILES.enter()
    try:
        page = build(shelf, queue=queue)
        _, url, share_url = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            auth=auth,
            i18n=words.translations(tab.WORDS for tab in TABS),
            theme=THEME,
            css_paths=[CSS],
            js=JS.read_text(),
            max_file_size=limits.MAX_BYTES,
            app_kwargs={"middleware": [Middleware(limits.Bounded)]},
            state_session_capacity=256,
            allowed_paths=[],
            show_error=False,  # of exceptions nobody foresaw: they are in the log
            ssr_mode=False,
            pwa=False,
            footer_links=["api", "settings"],
            quiet=True,
            prevent_thread_lock=True,
            **({"mcp_server": False} if "mcp_server" in inspect.signature(page.launch).parameters else {}),
        )
    except BaseException:
        files.leave()
        raise
    shelf.warm()
    return Served(page, url, share_url, files)
