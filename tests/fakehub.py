"""A Hugging Face hub on the loopback interface, as much of it as `huggingface_hub.snapshot_download` asks for.

    with FakeHub() as hub:
        hub.add("owner/name", folder)                 # revision "main"
        hub.add("owner/name", other, revision="v2")
        hub.gate("owner/secret")
        ... HF_ENDPOINT=hub.url ...

`hub.downloads` lists the files whose contents were asked for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class FakeHub:
    def __init__(self) -> None:
        self._snapshots: dict[tuple[str, str], Path] = {}
        self._gated: set[str] = set()
        self.downloads: list[str] = []
        self.breaks_off_after: int | None = None
        """Bytes after which a file's transfer is cut, the connection with it."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, repo: str, folder: Path, revision: str = "main") -> None:
        self._snapshots[repo, revision] = folder
        self._snapshots[repo, self.commit(repo, revision)] = folder

    def gate(self, repo: str) -> None:
        self._gated.add(repo)

    @staticmethod
    def commit(repo: str, revision: str) -> str:
        return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a GET."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if is_api else parts[:2])
        if repo in self._gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"gated"
        if not any(known == repo for known, _ in self._snapshots):
            return 401 if is_api else 404, {"X-Error-Code": "RepoNotFound"}, b"no such repository"
        action, revision = (parts[4:6] if is_api else parts[2:4]) or ("revision", "main")
        folder = self._snapshots.get((repo, revision))
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"no such revision"
        commit = revision if len(revision) == 40 else self.commit(repo, revision)
        if not is_api:
            return self._file(folder, "/".join(parts[4:]), commit)
        if action == "tree":
            files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
            listing = [
                {"type": "file", "path": str(p.relative_to(folder)), "size": p.stat().st_size, "oid": _oid(p)}
                for p in files
            ]
            return 200, {}, json.dumps(listing).encode()
        return 200, {}, json.dumps({"id": repo, "modelId": repo, "sha": commit, "siblings": []}).encode()

    @staticmethod
    def _file(folder: Path, name: str, commit: str) -> tuple[int, dict[str, str], bytes]:
        file = folder / name
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b"no such file"
        return 200, {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": commit}, file.read_bytes()


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._send(with_body=False)

        def do_GET(self) -> None:
            self._send(with_body=True)

        def _send(self, with_body: bool) -> None:
            status, headers, body = hub.answer(self.path)
            is_file = status == 200 and "ETag" in headers
            if is_file and with_body:
                hub.downloads.append(self.path.rsplit("/", 1)[-1])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/octet-stream" if is_file else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not with_body:
                return
            if is_file and hub.breaks_off_after is not None and len(body) > hub.breaks_off_after:
                self.wfile.write(body[: hub.breaks_off_after])
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler
