"""A stand-in of the hub's API for uploads, on this machine: it takes repositories, files and commits."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "hf_of_the_stand_in"
LARGE = (".safetensors", ".gguf", ".onnx")


@dataclass
class Hub:
    """What the stand-in holds."""

    address: str = ""
    repositories: dict[str, dict] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository, then by path, as of the last commit."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refuses: str | None = None
    """The end of a path at which it answers 403."""


@contextmanager
def stand_in_hub():
    """Within the context the hub answers under its ``address``."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _say(self, content, status=200):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _known(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self._say({"error": "Invalid username or password."}, 401)
            return False

        def do_GET(self):
            if self.path == "/api/whoami-v2" and self._known():
                self._say({"type": "user", "name": "someone", "orgs": []})
            elif self.path != "/api/whoami-v2":
                self._say({"error": "not found"}, 404)

        def do_PUT(self):
            body = self._body()
            oid = self.path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            hub.blobs[oid] = body
            self._say({})

        def do_POST(self):
            body = self._body()
            path = self.path.partition("?")[0]
            if not self._known():
                return
            if hub.refuses and path.endswith(hub.refuses):
                self._say({"error": "you may not"}, 403)
            elif path == "/api/validate-yaml":
                self._say({"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                said = json.loads(body)
                name = f"{said.get('organization') or 'someone'}/{said['name']}"
                hub.repositories[name] = said
                self._say({"url": f"{hub.address}/{name}", "name": name, "id": name})
            elif "/preupload/" in path:
                self._say({"files": [self._mode(each) for each in json.loads(body)["files"]]})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = json.loads(body)["objects"]
                href = f"{hub.address}/upload/"
                self._say(
                    {
                        "transfer": "basic",
                        "objects": [
                            {**each, "actions": {"upload": {"href": href + each["oid"], "header": {}}}}
                            for each in objects
                        ],
                    }
                )
            elif "/commit/" in path:
                self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)
            else:
                self._say({"error": f"the stand-in does not know {path}"}, 404)

        def _mode(self, each):
            large = each["path"].endswith(LARGE)
            return {"path": each["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

        def _commit(self, repo, body):
            files = hub.files.setdefault(repo, {})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.messages.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
            oid = hashlib.sha1(body).hexdigest()
            self._say({"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{repo}/commit/{oid}"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
