"""A model hub on 127.0.0.1, with the routes of huggingface.co that fetching a model uses, and a proxy for it.

A repository is a folder `root/owner/name`; every revision has the same files. As on the real hub, large files are
redirected to another address. The hub records requests and replies.
"""

import functools
import hashlib
import http.client
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = {".safetensors", ".data", ".onnx", ".model", ".bin"}
SIGNATURE = "Signature=only-for-you"


class Server:
    """Answer on a free port of 127.0.0.1 while the `with` block lasts."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.handle_error = lambda *_: None  # a killed client is no error
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.closing = threading.Event()

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        raise NotImplementedError


class Hub(Server):
    """Serve the repositories below `root`.

    Attributes:
        url: what `HF_ENDPOINT` must be.
        requests: `(method, path)` of every request, in order; tests may clear it.
        sent: `(name, first, end)` of every reply with the content of a file, and the range of bytes sent.
        gated: repositories whose files are refused with 403 until their licence is accepted.
        spoiled: `owner/name/path` -> bytes sent instead of the file, under the file's own hash.
        broken: the HTTP status that answers every request, if set.
        gone: `owner/name/path` of files that are listed, and answered with 404.
        claimed: `owner/name/path` -> the size that the hub gives instead of the file's.
        cut: `owner/name/path` -> the connection breaks after this many bytes, once.
        stalls: `owner/name/path` -> after this many bytes no more are sent.
        mute: if set, requests about repositories stay open without a reply.
        xet: whether large files are offered over Xet too; requests for that are not answered.
        slow: `owner/name/path` -> seconds between one eighth of the file and the next.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[tuple[str, str]] = []
        self.sent: list[tuple[str, int, int]] = []
        self.gated: set[str] = set()
        self.spoiled: dict[str, bytes] = {}
        self.broken: int | None = None
        self.gone: set[str] = set()
        self.claimed: dict[str, int] = {}
        self.cut: dict[str, int] = {}
        self.stalls: dict[str, int] = {}
        self.mute = False
        self.xet = False
        self.slow: dict[str, float] = {}
        super().__init__()
        self.elsewhere = f"http://localhost:{self.port}"

    def fetched(self, repo: str) -> set[str]:
        """The paths in `repo` whose contents were requested."""
        matches = (re.fullmatch(rf"/{re.escape(repo)}/resolve/[^/]+/(.+)", path) for _, path in self.requests)
        return {match[1] for match in matches if match}

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path))
                if hub.broken:
                    self.answer(hub.broken)
                elif hub.mute and path.startswith("/api/"):
                    hub.closing.wait()
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
                    entries = [entry(path, path.relative_to(folder).as_posix()) for path in paths]
                    self.json(
                        [each | {"size": hub.claimed.get(f"{repo}/{each['path']}", each["size"])} for each in entries]
                    )

            def resolve(self, repo: str, revision: str, name: str) -> None:
                if not self.known(repo, revision):
                    return
                path = hub.root / repo / name
                headers = {"X-Repo-Commit": commit(repo, revision)}
                if repo in hub.gated:
                    self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {repo} is gated."})
                elif not path.is_file() or f"{repo}/{name}" in hub.gone:
                    self.answer(404, headers | {"X-Error-Code": "EntryNotFound"})
                elif path.suffix in LARGE:
                    size = hub.claimed.get(f"{repo}/{name}", path.stat().st_size)
                    headers |= {"X-Linked-Etag": f'"{sha256(path)}"', "X-Linked-Size": str(size)}
                    if hub.xet:
                        headers |= {"X-Xet-Hash": sha256(path), "X-Xet-Refresh-Route": f"{hub.url}/xet-token"}
                    self.answer(302, headers | {"Location": f"{hub.elsewhere}/cdn/{repo}/{name}?{SIGNATURE}"})
                else:
                    self.content(repo, name, headers | {"ETag": f'"{git_hash(path)}"'})

            def content(self, repo: str, name: str, headers: dict[str, str]) -> None:
                name = f"{repo}/{name}"
                content = hub.spoiled.get(name, (hub.root / name).read_bytes())
                start, size = 0, len(content)
                if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                    start = int(match[1])
                    headers |= {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
                self.head(206 if match else 200, headers, size - start)
                if self.command == "HEAD":
                    return
                cut, stall = hub.cut.pop(name, None), hub.stalls.get(name)
                end = next((offset for offset in (cut, stall) if offset is not None), size)
                hub.sent.append((name, start, end))
                for first in range(start, end, step := size // 8 + 1):
                    self.wfile.write(content[first : min(first + step, end)])
                    hub.closing.wait(hub.slow.get(name, 0))
                if stall is not None:
                    hub.closing.wait()
                self.close_connection = end < size

            def json(self, value: object) -> None:
                self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

            def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
                self.head(status, headers or {}, len(body))
                if self.command != "HEAD":
                    self.wfile.write(body)

            def head(self, status: int, headers: dict[str, str], length: int) -> None:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(length)}).items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Proxy(Server):
    """An HTTP proxy that forwards requests for one host, `hub.invalid`, to `hub`.

    Attributes:
        url: what `HTTP_PROXY` must be.
        hosts: the hosts of all requests.
        refuses: the HTTP status that answers every request, if set, CONNECT (as for https) included.
    """

    HOST = "hub.invalid"

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.hosts: set[str] = set()
        self.refuses: int | None = None
        super().__init__()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path if "://" in self.path else f"//{self.path}")
                proxy.hosts.add(address.hostname or "")
                if proxy.refuses or address.hostname not in (proxy.HOST, "localhost"):
                    self.send_response(proxy.refuses or 502)
                    self.end_headers()
                    return
                connection = http.client.HTTPConnection("127.0.0.1", proxy.hub.port)
                path = f"{address.path}?{address.query}" if address.query else address.path
                connection.request(self.command, path, headers=dict(self.headers))
                reply = connection.getresponse()
                self.send_response_only(reply.status)
                for name, value in reply.getheaders():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.read())

            do_HEAD = do_CONNECT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def commit(repo: str, revision: str) -> str:
    """The commit of `revision`: itself, or a fixed one for `main`."""
    return hashlib.sha1(repo.encode()).hexdigest() if revision == "main" else revision


def entry(path: Path, name: str) -> dict[str, object]:
    """One file as the hub's tree lists it."""
    size = path.stat().st_size
    large = {"lfs": {"oid": sha256(path), "size": size, "pointerSize": 130}} if path.suffix in LARGE else {}
    return {"type": "file", "path": name, "size": size, "oid": git_hash(path), **large}


def sha256(path: Path) -> str:
    """The hash that the hub gives for a large file."""
    return _hashes(path, path.stat().st_mtime_ns)[0]


def git_hash(path: Path) -> str:
    """The hash that the hub gives for a small file: git's."""
    return _hashes(path, path.stat().st_mtime_ns)[1]


@functools.cache
def _hashes(path: Path, changed: int) -> tuple[str, str]:
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
