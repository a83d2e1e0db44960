"""The demo: a page in the browser with a face for every feature. This file is the table of contents.

app.py     the page, and a server for it
shelf.py   the models that may be used: those given at the start, each loaded once
runs.py    a stream of states as a live view, with time left, cancelled within one step
limits.py  what is refused of an upload, before it is decoded
words.py   labels in English and Korean
tabs/      a small file each, which calls what the libraries make public and has no mathematics of its own

demos.app.serve(demos.shelf.Shelf(models=["runs/pets"]), port=7860)
"""

import os

# Nothing leaves this machine: no statistics, no look-ups of models. Both are read when gradio and the hub are imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# gradio sums up its last 10,000 events after every one of them, for a page of its own that nobody opens here.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
