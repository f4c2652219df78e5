"""Serves one model file over the OpenAI chat API on a free loopback port, until told to stop.

Started by serve.sh, which has checked the file and made the environment. The key, if any, is in
OPENFANG_MODEL_KEY, so that no process list shows it.
"""

import argparse
import os
import pathlib
import signal
import threading
import time
import urllib.error
import urllib.request

import xllamacpp

CONTEXT_TOKENS = 4096
"""Shared by the slots: room for a short talk, little enough for a small machine."""
SLOTS = 2
"""Requests answered at once; more than cores would only slow each other down."""
START_SECONDS_MAX = 60
"""Loading takes half a second; a machine that needs longer than this is stuck."""
ALIAS = "smollm2-135m-instruct"


def parameters(model: str, key: str) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {ALIAS}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.use_jinja = True
    params.ui = False
    params.offline = True
    params.verbosity = 1
    if key:
        params.api_keys = [key]
    return params


def wait_until_it_answers(base: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"model: no answer at {base} after {START_SECONDS_MAX} s")
        time.sleep(0.05)


def write_whole(path: pathlib.Path, text: str) -> None:
    """Whoever waits for the file must never read half of it."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.replace(path)


def watch_parent(stop: threading.Event) -> None:
    parent = os.getppid()
    while not stop.wait(0.25):
        if os.getppid() != parent:
            stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port-file", required=True, type=pathlib.Path)
    parser.add_argument("--with-parent", action="store_true")
    args = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if args.with_parent:
        threading.Thread(target=watch_parent, args=(stop,), daemon=True).start()

    args.port_file.unlink(missing_ok=True)
    server = xllamacpp.Server(parameters(args.model, os.environ.pop("OPENFANG_MODEL_KEY", "")))
    base = server.listening_address
    wait_until_it_answers(base)
    write_whole(args.port_file, base.removeprefix("http://") + "\n")
    print(f"model: {ALIAS} at {base}/v1", flush=True)
    stop.wait()
    args.port_file.unlink(missing_ok=True)
    # The destructor ends the server's threads; leaving it to the interpreter's end would race.
    del server


if __name__ == "__main__":
    main()
