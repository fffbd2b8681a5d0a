"""A ComfyUI server of our own and a client for it: prompts in, events, history and pictures out."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import aiohttp
import s4s_host


@dataclass
class Run:
    """What became of one prompt."""

    events: list = field(default_factory=list)      # the websocket's JSON messages about this prompt
    previews: int = 0                               # binary picture messages
    texts: list = field(default_factory=list)       # (node, text) that nodes showed while they ran
    error: dict | None = None                       # the refusal, or the last event where it was not a success
    history: dict | None = None                     # the server's record, with the outputs

    def outputs(self, node: str) -> dict:
        """What an output node returned for the screen."""
        return self.history["outputs"][node]

    def count(self, kind: str) -> int:
        """How many events there were of a type."""
        return sum(event["type"] == kind for event in self.events)


class Server:
    """A host process on a free port, with a base directory of its own; stop() ends it."""

    def __init__(self, base: Path, *arguments: str):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.base, self.url, self._log = base, f"http://127.0.0.1:{self.port}", base / f"server-{self.port}.log"
        command = [sys.executable, str(s4s_host.folder() / "main.py"), "--cpu", "--port", str(self.port),
                   "--base-directory", str(base), "--disable-api-nodes", "--preview-method", "latent2rgb",
                   "--database-url", f"sqlite:///{base / 'user' / 'test.db'}", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=base)

    def log(self) -> str:
        """All the server said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 180) -> "Server":
        """Return when it answers. Raises RuntimeError with its log when it ends or takes too long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urlopen(f"{self.url}/system_stats", timeout=5).read()
                return self
            except OSError:
                time.sleep(0.3)
        self.stop()
        raise RuntimeError(f"the server did not come up:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        """End this process."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def get(self, path: str):
        """JSON where the answer is JSON, else bytes."""
        with urlopen(self.url + path, timeout=60) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers.get("Content-Type", "") else body

    def post(self, path: str, content: dict) -> None:
        """Send JSON and wait for no more than the answer."""
        urlopen(Request(self.url + path, json.dumps(content).encode(), {"Content-Type": "application/json"}),
                timeout=60).read()

    def ask(self, path: str, content: dict):
        """What it answers to JSON, also where it refuses."""
        try:
            with urlopen(Request(self.url + path, json.dumps(content).encode()), timeout=60) as answer:
                return json.loads(answer.read())
        except HTTPError as refused:
            return json.loads(refused.read())

    def run(self, prompt: dict, on_event=None, timeout: float = 300, workflow: dict | None = None) -> Run:
        """Queue a prompt and follow it to its end; on_event(post, event) may post, e.g. await post("/interrupt")."""
        return asyncio.run(asyncio.wait_for(self._follow(prompt, on_event, workflow), timeout))

    async def _follow(self, prompt: dict, on_event, workflow: dict | None) -> Run:
        run, client = Run(), uuid.uuid4().hex
        async with aiohttp.ClientSession() as session:
            async def post(path: str, content: dict | None = None):
                async with session.post(self.url + path, json=content or {}) as answer:
                    return answer.status, await answer.text()

            async with session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as socket_:
                extra = {"extra_data": {"extra_pnginfo": {"workflow": workflow}}} if workflow else {}
                status, body = await post("/prompt", {"prompt": prompt, "client_id": client, **extra})
                if status != 200:
                    run.error = json.loads(body)
                    return run
                key = json.loads(body)["prompt_id"]
                await self._events(socket_, key, run, on_event, post)
        for _ in range(50):
            if history := self.get(f"/history/{key}"):
                run.history = history[key]
                return run
            await asyncio.sleep(0.1)
        return run

    async def _events(self, socket_, key: str, run: Run, on_event, post) -> None:
        async for message in socket_:
            if message.type == aiohttp.WSMsgType.BINARY:
                _binary(message.data, run)
                continue
            event = json.loads(message.data)
            if event.get("data", {}).get("prompt_id", key) != key or event["type"] == "status":
                continue
            run.events.append(event)
            if on_event is not None:
                await on_event(post, event)
            if event["type"] in ("execution_error", "execution_interrupted"):
                run.error = {"event": event["type"], **event["data"]}
            if event["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                return


def _binary(data: bytes, run: Run) -> None:
    kind, rest = int.from_bytes(data[:4], "big"), data[4:]
    if kind == 3:                                       # text shown on a node: length and name of the node first
        length = int.from_bytes(rest[:4], "big")
        run.texts.append((rest[4:4 + length].decode(), rest[4 + length:].decode()))
    else:
        run.previews += 1
