"""A server on this machine that speaks the Hugging Face hub's protocol, as far as pushing and loading a model needs it.

Repositories and the large files (LFS) are kept in memory. What the client asks is as in huggingface_hub's hf_api.py, lfs.py and
file_download.py: create, preupload, LFS batch and PUT, the commit as lines of JSON, revisions, and files by HEAD and GET with ranges.
"""

import base64
import dataclasses
import hashlib
import http.server
import json
import urllib.parse

TOKEN, READER = "hf_writes", "hf_reads"  # a token that may write, and one that may not
_REGULAR = (".json", ".md", ".py", ".csv")  # kept in git itself; all else is LFS


@dataclasses.dataclass
class Repo:
    """Branches, each a list of commits: the id, and the files by name."""

    private: bool
    branches: dict[str, list[tuple[str, dict[str, bytes]]]]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((commit for commits in self.branches.values() for commit in commits if commit[0] == revision), None)


class Hub(http.server.ThreadingHTTPServer):
    """`repos` by name, `large` files by their SHA-256, and the `requests` that came; those whose path holds `breaks` are cut off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.breaks = ""
        self.url = f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, files: dict[str, bytes], *, branch: str = "main", private: bool = False) -> None:
        """Adds a commit, as somebody else might have done."""
        repo = self.repos.setdefault(name, Repo(private, {"main": [(_oid(name, 0), {})]}))
        commits = repo.branches.setdefault(branch, list(repo.branches["main"][-1:]))
        commits.append((_oid(f"{name} {branch}", len(commits)), files))

    def commits(self, name: str, branch: str = "main") -> int:
        return len(self.repos[name].branches[branch]) - 1

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        return self.repos[name].branches[branch][-1][1]


def _oid(text: str, number: int) -> str:
    return hashlib.sha1(f"{text} {number}".encode()).hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answered("GET")

    def do_HEAD(self) -> None:
        self._answered("HEAD")

    def do_POST(self) -> None:
        self._answered("POST")

    def do_PUT(self) -> None:
        self._answered("PUT")

    def _answered(self, method: str) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.requests.append(f"{method} {path}")
        if self.server.breaks and self.server.breaks in path:
            self.close_connection = True
            self.connection.close()
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", TOKEN, READER):
            self._send(401, {"error": "Invalid credentials"})
        elif method in ("POST", "PUT") and token == READER:
            self._send(403, {"error": "You don't have the right to write here"})
        elif path.startswith("/api/"):
            self._api(method, path.removeprefix("/api/"), token)
        elif "/resolve/" in path:
            name, _, rest = path[1:].removeprefix("datasets/").partition("/resolve/")
            self._resolve(method, name, rest, token)
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch()
        elif path.startswith("/lfs/"):
            oid = path.removeprefix("/lfs/")
            assert hashlib.sha256(self.body).hexdigest() == oid
            self.server.large[oid] = self.body
            self._send(200, {})
        else:
            self._send(404, {"error": "unknown path"})

    def _api(self, method: str, path: str, token: str) -> None:
        if path == "whoami-v2":
            self._send(200 if token else 401, {"name": "user", "type": "user"})
        elif path == "validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path == "repos/create":
            asked = json.loads(self.body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            known = name in self.server.repos
            if not known:
                self.server.put(name, {}, private=bool(asked.get("private")) or asked.get("visibility") == "private")
                self.server.repos[name].branches["main"].pop()
            self._send(409 if known else 200, {"url": f"{self.server.url}/{name}"})
        elif path.startswith(("models/", "datasets/")):
            self._model(method, path.partition("/")[2].split("/"), token)
        else:
            self._send(404, {"error": "unknown path"})

    def _model(self, method: str, parts: list[str], token: str) -> None:
        name, action, revision = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", "/".join(parts[3:]) or "main"
        if action in ("tree", "paths-info"):
            revision = parts[3]
        repo = self._visible(name, token)
        if repo is None:
            return
        if action == "branch":
            if revision in repo.branches:
                self._send(409, {"error": "exists"})
                return
            repo.branches[revision] = list(repo.branches["main"][-1:])
            self._send(201, {})
            return
        if action == "commit":
            self._commit(name, repo, revision)
            return
        found = repo.at(revision)
        if found is None:
            self._send(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return
        oid, files = found
        if action in ("tree", "paths-info"):
            self._listed(action, files, "/".join(parts[4:]))
            return
        if action == "preupload":
            asked = json.loads(self.body)["files"]
            modes = [("regular" if one["path"].endswith(_REGULAR) else "lfs", one["path"]) for one in asked]
            answer = [
                {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": self._remote(files.get(path))} for mode, path in modes
            ]
            self._send(200, {"files": answer})
        else:
            siblings = [{"rfilename": path} for path in files]
            self._send(200, {"id": name, "modelId": name, "sha": oid, "private": repo.private, "siblings": siblings, "tags": []})

    def _listed(self, action: str, files: dict[str, bytes], folder: str) -> None:
        """What is in a folder, directly or in all, or what is known of the paths that are asked for."""
        known = [{"type": "file", "path": path, "size": len(data), "oid": git_oid(data)} for path, data in files.items()]
        parents = {path.rsplit("/", depth)[0] for path in files for depth in range(1, path.count("/") + 1)}
        known += [{"type": "directory", "path": parent, "size": 0, "oid": git_oid(parent.encode())} for parent in sorted(parents)]
        if action == "paths-info":
            asked = urllib.parse.parse_qs(self.body.decode())["paths"] if b"=" in self.body else json.loads(self.body)["paths"]
            self._send(200, [one for one in known if one["path"] in asked])
            return
        below = [one for one in known if not folder or one["path"].startswith(f"{folder}/")]
        whole = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        self._send(200, [one for one in below if whole or "/" not in one["path"][len(folder) + 1 if folder else 0 :]])

    def _remote(self, content: bytes | None) -> str | None:
        return None if content is None else git_oid(content)

    def _commit(self, name: str, repo: Repo, branch: str) -> None:
        files = dict(repo.branches[branch][-1][1])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        self.server.put(name, files, branch=branch)
        oid = repo.branches[branch][-1][0]
        self._send(200, {"commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}", "hookOutput": "", "success": True})

    def _batch(self) -> None:
        objects = []
        for one in json.loads(self.body)["objects"]:
            there = one["oid"] in self.server.large
            actions = {} if there else {"actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}", "header": {}}}}
            objects.append({"oid": one["oid"], "size": one["size"], **actions})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _resolve(self, method: str, name: str, rest: str, token: str) -> None:
        repo = self._visible(name, token)
        if repo is None:
            return
        revision, _, path = rest.partition("/")
        found = repo.at(revision)
        if found is None:
            self._send(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        content = found[1].get(path)
        if content is None:
            self._send(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[0]})
            return
        etag = git_oid(content) if path.endswith(_REGULAR) else hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found[0], "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self._send_bytes(206 if start else 200, content[start:], headers, body=method == "GET")

    def _visible(self, name: str, token: str) -> Repo | None:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not token):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repo

    def _send(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}, body=True)

    def _send_bytes(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)
