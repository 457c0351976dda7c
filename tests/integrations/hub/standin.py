"""A Hugging Face Hub of one process: the few calls of its HTTP API that pushing and loading a model make.

After huggingface_hub 0.36 (hf_api.py, _commit_api.py, lfs.py, file_download.py). Safetensors travel by LFS, the rest
within the commit, as on the real one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_write"


class StandIn(ThreadingHTTPServer):
    """``repos``: {repo_id: {path: bytes}}; ``url``: its address."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def commit_of(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.repos[repo].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn  # pyright: ignore[reportIncompatibleVariableOverride]  (whose handler this is)
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, content: object = None, status: int = 200, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _refuse(self, status: int, code: str) -> None:
        self._answer({"error": code}, status, X_Error_Code=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        body, path = self._body(), self.path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "InvalidToken")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if repo in self.server.repos:
                return self._answer({"url": f"{self.server.url}/{repo}"}, 409)
            self.server.repos[repo] = {}
            return self._answer({"url": f"{self.server.url}/{repo}"})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            repo = path.removeprefix("/api/models/").split("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.repos[repo][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.repos[repo][value["path"]] = self.server.objects[value["oid"]]
            commit = self.server.commit_of(repo)
            return self._answer({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})
        return self._refuse(404, "EntryNotFound")

    def do_PUT(self) -> None:
        self.server.objects[self.path.rsplit("/", 1)[-1]] = self._body()
        self._answer({})

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            if repo not in self.server.repos:
                return self._refuse(404, "RepoNotFound")
            if revision not in ("", "main", self.server.commit_of(repo)):
                return self._refuse(404, "RevisionNotFound")
            files = [{"rfilename": name} for name in self.server.repos[repo]]
            return self._answer({"id": repo, "sha": self.server.commit_of(repo), "siblings": files})
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        name = rest.partition("/")[2]
        if name not in self.server.repos.get(repo, {}):
            return self._refuse(404, "EntryNotFound")
        content = self.server.repos[repo][name]
        if self.command == "GET":
            self.server.fetched.append(name)
        etag = hashlib.sha256(content).hexdigest()
        return self._answer(content, ETag=f'"{etag}"', X_Repo_Commit=self.server.commit_of(repo))

    do_HEAD = do_GET  # noqa: N815  (http.server's own names)
