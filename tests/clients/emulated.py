"""Starts the emulated central server for the tests of the public clients.

The binary is named by SITE_AGENT_BIN. The tests run under pytest or as plain scripts: `python test_waldur.py`.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
import urllib.error
import urllib.request

READY = "listening on "

# The clients ask the environment for a proxy; the server is on loopback.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


class Server:
    """A running server: its address, its state file, and its doors for tests."""

    def __init__(self, url, state_path):
        self.url = url
        self.state_path = state_path

    def call(self, method, path, body=None, headers=None):
        """One request without any client library: status, headers, text."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read().decode()

    def emulator(self, method, door, body=None):
        """A door under /_emulator/; anything but success is a mistake of the test."""
        status, _, text = self.call(method, "/_emulator/" + door, body)
        assert status in (200, 204), (status, text)
        return json.loads(text) if text else None

    def state(self):
        return self.emulator("GET", "state")


@contextlib.contextmanager
def serve(seed):
    """A server over a seed, ended when the block ends."""
    binary = os.environ["SITE_AGENT_BIN"]
    with tempfile.TemporaryDirectory() as directory:
        state_path = pathlib.Path(directory) / "central.json"
        state_path.write_text(json.dumps(seed))
        command = [binary, "emulate", "server", "--listen", "127.0.0.1:0", "--state", str(state_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline().strip()
            assert line.startswith(READY), f"the server said {line!r} and not where it listens"
            yield Server(line[len(READY):], state_path)
        finally:
            process.terminate()
            process.wait(timeout=30)
            process.stdout.close()


def run(names):
    """Runs the tests of a script without pytest and exits with 1 when one fails."""
    failed = 0
    tests = [(name, test) for name, test in names.items() if name.startswith("test_") and callable(test)]
    for name, test in tests:
        try:
            test()
            print(f"ok   {name}")
        except Exception:
            failed += 1
            print(f"FAIL {name}")
            traceback.print_exc()
    print(f"{len(tests) - failed} of {len(tests)} passed")
    sys.exit(1 if failed or not tests else 0)
