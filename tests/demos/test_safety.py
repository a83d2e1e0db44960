"""Safe by default: where it listens, what it opens, how many wait, whose things are whose."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AuthenticationError

import demos
from demos import limits, recipes
from demos.shelf import Shelf
from guided import cli

QUICK = {"model": "tiny", "classes": ["cat"], "pictures": 1, "steps": 2}


def client(served) -> Client:
    return Client(served.url, verbose=False, httpx_kwargs={"timeout": 120})  # the machine may be busy


def test_it_listens_on_this_machine_only(served):
    port = int(served.url.rstrip("/").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(OSError):  # on all addresses it would answer here too
        socket.create_connection(("127.0.0.2", port), timeout=5).close()


def test_statistics_and_the_hub_are_off():
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == os.environ["GRADIO_RUN_HISTORY"] == "False"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", demos.__file__, "/proc/self/environ", "{model}/config.json", "..%2F..%2Fetc%2Fpasswd"]
)
def test_files_of_the_machine_are_not_served(served, tiny_folder, path):
    path = path.format(model=tiny_folder)
    answer = httpx.get(f"{served.url}gradio_api/file={path}")
    assert answer.status_code in (403, 404), answer.text[:200]


def test_a_file_of_the_machine_cannot_be_named_as_an_upload(served):
    """By the plain protocol, as `gradio_client` would upload it first."""
    api = f"{served.url}gradio_api"
    upload = next(
        p
        for p in client(served).view_api(return_format="dict", print_info=False)["named_endpoints"]["/upscale"][
            "parameters"
        ]
        if p["component"] == "Image"
    )
    assert upload["parameter_name"] == "picture"
    for path in ("/etc/passwd", "http://127.0.0.1:1/picture.png"):
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        sent = httpx.post(f"{api}/call/upscale", json={"data": data})
        said = (
            httpx.get(f"{api}/call/upscale/{sent.json()['event_id']}", timeout=60).text
            if sent.is_success
            else sent.text
        )
        assert "complete" not in said and "root:" not in said


def test_uploads_are_bounded_and_broken_ones_refused_in_a_sentence(served, tmp_path):
    large, broken = tmp_path / "large.png", tmp_path / "broken.png"
    large.write_bytes(bytes(limits.MAX_BYTES + 10_000))
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page = client(served)
    with pytest.raises(Exception, match=r"(?i)exceeds|413|too large"):
        page.predict(picture=handle_file(str(large)), api_name="/upscale")
    with pytest.raises(ValueError, match="cannot be read as a picture") as error:
        page.predict(picture=handle_file(str(broken)), api_name="/upscale")
    assert "Traceback" not in str(error.value)
    assert page.predict(**QUICK, api_name="/generate")[0]


def test_the_queue_is_bounded_and_cannot_be_skipped(served, monkeypatch):
    assert served.page._queue.max_size == 32
    for way in ("run/generate", "api/generate"):
        answer = httpx.post(f"{served.url}gradio_api/{way}", json={"data": []})
        assert answer.status_code >= 400, way
    monkeypatch.setattr(served.page._queue, "max_size", 2)
    gate, real = threading.Event(), recipes.states

    def held(*arguments):
        gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(recipes, "states", held)
    jobs = [client(served).submit(**QUICK, seed=seed, api_name="/generate") for seed in range(6)]
    results = []
    refused = 0
    for job in jobs[3:]:  # these came when one ran and two waited
        try:
            while not job.done() and not gate.is_set():
                if sum(other.done() for other in jobs) >= 3:
                    gate.set()
            results.append(job.result(timeout=120))
        except Exception as error:
            assert "Queue is full" in str(error)
            refused += 1
    gate.set()
    for job in jobs[:3]:
        try:
            results.append(job.result(timeout=120))
        except Exception as error:
            assert "Queue is full" in str(error)
            refused += 1
    assert refused + len(results) == 6 and refused >= 1 and len(results) >= 3


def test_who_waits_sees_the_place(served, monkeypatch):
    gate, real = threading.Event(), recipes.states
    monkeypatch.setattr(recipes, "states", lambda *arguments: gate.wait(60) and real(*arguments))
    jobs = [client(served).submit(**QUICK, api_name="/generate") for _ in range(3)]
    seen = set()
    while not {0, 1} <= seen:
        seen |= {job.status().rank for job in jobs}
    gate.set()
    assert all(job.result(timeout=120)[0] for job in jobs)


def test_what_nobody_foresaw_is_a_sentence_on_the_page_and_a_traceback_in_the_log(served, monkeypatch, caplog):
    def broken(*arguments):
        raise KeyError("secret detail")

    monkeypatch.setattr(recipes, "states", broken)
    with pytest.raises(ValueError, match="Something went wrong on the server") as error:
        client(served).predict(**QUICK, api_name="/generate")
    assert "secret" not in str(error.value) and "secret detail" in caplog.text


def test_results_lie_in_one_folder_under_names_nobody_guesses(served):
    ((row,), *_) = client(served).predict(**QUICK, seed=11, api_name="/generate")
    folder = Path(served.files.folder.name)
    kept = [path for path in folder.rglob("*.png") if path.read_bytes() == Path(row["image"]).read_bytes()]
    assert kept and all(len(path.parent.name) == 64 for path in kept)
    assert not list(Path(folder.parent).glob("tmp*/cat-11.png"))  # what they were copied from is gone


def test_it_refuses_what_makes_no_sense(capsys, served):
    taken = int(served.url.rstrip("/").rpartition(":")[2])
    for words, said in (
        (["--auth", "ann"], "--auth must be USER:PASS"),
        (["--queue", "0"], "--queue must be at least 1"),
        (["--port", "70000"], "--port must lie in 1..65535"),
        (["--model", "/etc"], "no checkpoint folder"),
        (["--device", "tpu9"], "device"),
        (["--host", "no such host"], "--host no such host: there is no such address"),
        (["--host", "192.0.2.1"], "this machine cannot listen there"),
        (["--port", str(taken)], f"--port {taken} is taken: choose another, or leave it out"),
        (["--clip", __file__], "is a file: say whose weights it holds"),
    ):
        assert cli.main(["demo", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="at least 1"):
        from demos.app import build

        build(Shelf(), queue=0)


LISTENING = """
import os, socket
real = socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    print(host, file=open(os.environ["LOOKED_UP"], "a"))
    return real(host, *more, **named)
socket.getaddrinfo = getaddrinfo
"""


def test_the_command_serves_asks_for_the_password_looks_nothing_up_and_cleans_up(tiny_folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LISTENING)
    looked_up = tmp_path / "looked_up"
    command = [
        sys.executable,
        "-m",
        "guided",
        "demo",
        "--model",
        str(tiny_folder),
        "--auth",
        "ann:secret",
        "--queue",
        "3",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO_", "HF_"))}
    environment |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path), "LOOKED_UP": str(looked_up)}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("guided demo on "), server.stderr.read() if server.poll() is not None else line
        url = line.split()[4]
        assert httpx.get(f"{url}config").status_code == 401
        with pytest.raises(AuthenticationError):
            Client(url, verbose=False)
        page = Client(url, verbose=False, auth=("ann", "secret"))
        assert page.predict(classes=["dog"], pictures=1, steps=2, api_name="/generate")[2]["recipe"]["labels"] == [
            "dog"
        ]
        assert list(tmp_path.glob("guided-demo-*"))
    finally:
        server.send_signal(signal.SIGINT)
        _, error = server.communicate(timeout=60)
    assert server.returncode == 130 and error.strip().endswith("interrupted")
    assert not list(tmp_path.glob("guided-demo-*"))
    assert set(looked_up.read_text().split()) <= {"127.0.0.1", "localhost", "None"}


def test_the_state_of_a_closed_page_is_bounded(served):
    assert served.page.delete_cache == (900, 3600)
    states = [block for block in served.page.blocks.values() if isinstance(block, gr.State)]
    assert states and all(state.time_to_live < float("inf") for state in states)
