"""A model hub on 127.0.0.1: the routes of huggingface.co that `snapshot_download` and `verify_repo_checksums` use.

A repository is a folder `root/owner/name`, served as it is at every revision. Large files come by a redirect to
another address, as on the real hub. What was asked is kept in `requests`.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = {".safetensors", ".data", ".onnx", ".model", ".bin"}
SIGNATURE = "Signature=only-for-you"


class Hub:
    """Serve the repositories below `root` while the `with` block lasts.

    Attributes:
        url: what `HF_ENDPOINT` must be.
        requests: `(method, path)` of everything that was asked, in order; clear it at will.
        gated: repositories whose files are refused with 403 until their licence is accepted.
        spoiled: `owner/name/path` -> bytes sent instead of the file, under the file's own hash.
        broken: when set, this HTTP status answers every request.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[tuple[str, str]] = []
        self.gated: set[str] = set()
        self.spoiled: dict[str, bytes] = {}
        self.broken: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        port = self._server.server_address[1]
        self.url, self.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fetched(self, repo: str) -> set[str]:
        """The paths in `repo` whose contents were asked for."""
        found = (re.fullmatch(rf"/{re.escape(repo)}/resolve/[^/]+/(.+)", path) for _, path in self.requests)
        return {match[1] for match in found if match}

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path))
                if hub.broken:
                    self.answer(hub.broken)
                elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
                    self.info(*match.groups())
                elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
                    self.tree(*match.groups())
                elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                    self.resolve(*match.groups())
                elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
                    self.content(match[1], match[2], {})
                else:
                    self.answer(404)

            do_HEAD = do_GET

            def known(self, repo: str, revision: str) -> bool:
                if not (hub.root / repo).is_dir():
                    self.answer(404, {"X-Error-Code": "RepoNotFound"})
                elif revision != "main" and not re.fullmatch("[0-9a-f]{40}", revision):
                    self.answer(404, {"X-Error-Code": "RevisionNotFound"})
                else:
                    return True
                return False

            def info(self, repo: str, revision: str) -> None:
                if self.known(repo, revision):
                    self.json({"id": repo, "sha": commit(repo, revision), "siblings": []})

            def tree(self, repo: str, revision: str) -> None:
                if self.known(repo, revision):
                    folder = hub.root / repo
                    paths = sorted(path for path in folder.rglob("*") if path.is_file())
                    self.json([entry(path, path.relative_to(folder).as_posix()) for path in paths])

            def resolve(self, repo: str, revision: str, name: str) -> None:
                if not self.known(repo, revision):
                    return
                path = hub.root / repo / name
                headers = {"X-Repo-Commit": commit(repo, revision)}
                if repo in hub.gated:
                    self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {repo} is gated."})
                elif not path.is_file():
                    self.answer(404, headers | {"X-Error-Code": "EntryNotFound"})
                elif path.suffix in LARGE:
                    headers |= {"X-Linked-Etag": f'"{sha256(path)}"', "X-Linked-Size": str(path.stat().st_size)}
                    self.answer(302, headers | {"Location": f"{hub.elsewhere}/cdn/{repo}/{name}?{SIGNATURE}"})
                else:
                    self.content(repo, name, headers | {"ETag": f'"{git_hash(path)}"'})

            def content(self, repo: str, name: str, headers: dict[str, str]) -> None:
                content = hub.spoiled.get(f"{repo}/{name}", (hub.root / repo / name).read_bytes())
                if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                    start, size = int(match[1]), len(content)
                    headers |= {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
                    self.answer(206, headers, content[start:])
                else:
                    self.answer(200, headers, content)

            def json(self, value: object) -> None:
                self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

            def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def commit(repo: str, revision: str) -> str:
    """The commit that `revision` means: itself, or one made up for `main`."""
    return hashlib.sha1(repo.encode()).hexdigest() if revision == "main" else revision


def entry(path: Path, name: str) -> dict[str, object]:
    """One file as the hub's tree lists it."""
    size = path.stat().st_size
    large = {"lfs": {"oid": sha256(path), "size": size, "pointerSize": 130}} if path.suffix in LARGE else {}
    return {"type": "file", "path": name, "size": size, "oid": git_hash(path), **large}


def sha256(path: Path) -> str:
    """The hash that the hub gives for a large file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git_hash(path: Path) -> str:
    """The hash that the hub gives for a small file: git's."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
