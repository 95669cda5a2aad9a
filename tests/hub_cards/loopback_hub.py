"""A Hub on the loopback interface, for the real `huggingface_hub` client: repositories, commits, LFS, tags, branches.

It keeps everything in memory, knows one user and one token, records what it was asked, and can break connections.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN, USER = "hf_loopback", "user"
LFS_SUFFIXES = (".safetensors", ".parquet", ".png")
API = re.compile(r"/api/(?P<type>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)(?:/(?P<verb>[^/]+)(?:/(?P<rest>.*))?)?$")
RESOLVE = re.compile(r"/(?:(?P<type>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)$")


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> path -> content
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)  # of the commits, oldest first

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{branch}{message}{sorted(files)}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.messages.append(message)
        return name

    def find(self, revision: str) -> str | None:
        known = {**self.tags, **self.branches, **{name: name for name in self.commits}}
        return known.get(unquote(revision).removeprefix("refs/heads/"))


class LoopbackHub(ThreadingHTTPServer):
    """`with LoopbackHub() as hub:` serves at `hub.url`; `hub.drop` is how many uploads or commits break off next."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.drop = {"upload": 0, "commit": 0}
        self.refuse: list[tuple[str, int, dict[str, str]]] = []  # part of a path, status and headers, once each

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # clients that go away are what some tests are about

    def asked_for(self, method: str, part: str) -> int:
        return sum(done == method and part in path for done, path in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def handle_request(self):
        parts = urlsplit(self.path)
        self.query, path = parse_qs(parts.query), unquote(parts.path)
        self.server.asked.append((self.command, path))
        for refusal in self.server.refuse:
            if refusal[0] in path:
                self.server.refuse.remove(refusal)
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return self.fail(refusal[1], "not now", headers=refusal[2])
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = USER if given == TOKEN else None
        if path.startswith("/lfs/"):
            return self.receive_object(path.rsplit("/", 1)[1])
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if given and self.user is None:
            return self.fail(401, "Invalid username or password.")
        if path == "/api/whoami-v2":
            return self.answer({"type": "user", "name": USER, "auth": {}}) if self.user else self.fail(401, "no token")
        if path == "/api/validate-yaml":
            return self.validate_card(json.loads(self.content))
        if path == "/api/repos/create":
            return self.create(json.loads(self.content))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.lfs_batch(json.loads(self.content))
        if match := RESOLVE.match(path):
            return self.with_repository(match, lambda repo: self.resolve(repo, match["rev"], match["path"]))
        if match := API.match(path):
            return self.with_repository(match, lambda repo: self.repository(repo, match))
        return self.fail(404, f"no such endpoint: {self.command} {path}", "EntryNotFound")

    # ------------------------------------------------------------------------------------------------- the repository

    def with_repository(self, match, act):
        kind = (match["type"] or "models").removesuffix("s")
        repo = self.server.repositories.get((kind, match["id"]))
        if repo is None or (repo.private and self.user is None):
            return self.fail(404 if self.user else 401, "Repository not found", "RepoNotFound")
        return act(repo)

    def create(self, wanted):
        if self.user is None:
            return self.fail(401, "Log in to create a repository")
        kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or USER}/{wanted['name']}"
        url = f"{self.server.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.server.repositories:
            return self.answer({"url": url, "error": "You already created this repo"}, 409)
        repo = Repository(bool(wanted.get("private") or wanted.get("visibility") == "private"))
        self.server.repositories[kind, name] = repo
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return self.answer({"url": url, "name": name})

    def repository(self, repo, match):
        verb, rest = match["verb"], match["rest"]
        if self.command in ("POST", "DELETE") and self.user is None and verb != "paths-info":
            return self.fail(401, "Log in to write")
        if verb in (None, "revision"):
            return self.info(repo, match["id"], rest or "main")
        if verb == "refs":
            branches, tags = (
                [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in refs.items()]
                for kind, refs in (("heads", repo.branches), ("tags", repo.tags))
            )
            return self.answer({"branches": branches, "tags": tags, "converts": []})
        if verb in ("branch", "tag"):
            return self.reference(repo, verb, rest)
        if verb not in ("tree", "paths-info", "preupload", "commit"):
            return self.fail(404, f"no such endpoint: {verb}", "EntryNotFound")
        revision, _, path = rest.partition("/")
        commit = repo.find(revision)
        if commit is None:
            return self.fail(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = repo.commits[commit]
        if verb == "tree":
            return self.tree(files, path)
        if verb == "paths-info":
            paths = json.loads(self.content)["paths"] if self.content.startswith(b"{") else []
            paths = paths or parse_qs(self.content.decode()).get("paths", [])
            found = [self.entry(name, files[name]) for name in paths if name in files]
            folders = [name for name in paths if any(file.startswith(f"{name}/") for file in files)]
            return self.answer(found + [{"type": "directory", "path": name, "oid": commit} for name in folders])
        if verb == "preupload":
            return self.preupload(files, json.loads(self.content)["files"])
        return self.commit(repo, revision, files, match)

    def info(self, repo, name, revision):
        commit = repo.find(revision)
        if commit is None:
            return self.fail(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        siblings = [{"rfilename": path} for path in sorted(repo.commits[commit])]
        facts = {"id": name, "modelId": name, "sha": commit, "private": repo.private, "siblings": siblings}
        return self.answer(
            {**facts, "tags": [], "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z"}
        )

    def reference(self, repo, verb, rest):
        wanted = json.loads(self.content or b"{}")
        if verb == "tag":
            repo.tags[wanted["tag"]] = repo.find(rest or "main")
        elif rest in repo.branches:
            return self.fail(409, "Reference already exists")
        else:
            repo.branches[rest] = repo.find(wanted.get("startingPoint") or "main")
        return self.answer({})

    def entry(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
        if path.endswith(LFS_SUFFIXES):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def tree(self, files, folder):
        inside = {path: content for path, content in files.items() if not folder or path.startswith(f"{folder}/")}
        if not inside:
            return self.fail(404, f"{folder} does not exist", "EntryNotFound")
        start = len(folder) + 1 if folder else 0
        deep = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries = {}
        for path, content in sorted(inside.items()):
            below = path[start:].split("/")
            for depth in range(1, len(below)) if deep else range(1, min(2, len(below))):
                name = path[:start] + "/".join(below[:depth])
                entries[name] = {"type": "directory", "path": name, "oid": git_oid(name.encode()), "size": 0}
            if deep or len(below) == 1:
                entries[path] = self.entry(path, content)
        return self.answer(list(entries.values()))

    # -------------------------------------------------------------------------------------------- uploads and commits

    def preupload(self, files, wanted):
        def remote(path):
            content = files.get(path)
            if content is None:
                return None
            return hashlib.sha256(content).hexdigest() if path.endswith(LFS_SUFFIXES) else git_oid(content)

        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": remote(file["path"]),
            }
            for file in wanted
        ]
        return self.answer({"files": modes})

    def lfs_batch(self, wanted):
        if self.user is None:
            return self.fail(401, "Log in to write")
        objects = [
            {"oid": file["oid"], "size": file["size"]}
            | (
                {}
                if file["oid"] in self.server.objects
                else {"actions": {"upload": {"href": f"{self.server.url}/lfs/{file['oid']}"}}}
            )
            for file in wanted["objects"]
        ]
        return self.answer({"transfer": "basic", "objects": objects})

    def receive_object(self, oid):
        length = int(self.headers["Content-Length"])
        if self.server.drop["upload"]:
            self.server.drop["upload"] -= 1
            self.rfile.read(length // 2)
            return self.hang_up()
        content = self.rfile.read(length)
        if hashlib.sha256(content).hexdigest() != oid:
            return self.fail(400, "the content does not match its hash")
        self.server.objects[oid] = content
        return self.answer({})

    def commit(self, repo, branch, files, match):
        lines = [json.loads(line) for line in self.content.splitlines() if line.strip()]
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        summary = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        oid = repo.commit(unquote(branch), files, summary)
        if self.server.drop["commit"]:  # done, but the answer is lost
            self.server.drop["commit"] -= 1
            return self.hang_up()
        return self.answer({"commitUrl": f"{self.server.url}/{match['id']}/commit/{oid}", "commitOid": oid})

    def validate_card(self, wanted):
        """The rules of the Hub's metadata that can be told without its lists."""
        head = re.match(r"---\n(.*?)\n---", wanted["content"], re.DOTALL)
        data = yaml.safe_load(head.group(1)) if head else {}
        errors = [f'"{name}" must be a string' for name in ("license", "library_name", "pipeline_tag")
                  if not isinstance(data.get(name, ""), str)]  # fmt: skip
        if data.get("license") == "other" and not data.get("license_name"):
            errors.append('"license_name" is required where "license" is "other"')
        for model in data.get("model-index", ()):
            for result in model["results"]:
                if not {"task", "dataset", "metrics"} <= set(result) or "type" not in result["task"]:
                    errors.append('"model-index" needs task.type, dataset and metrics')
                elif any({"type", "value"} - set(metric) for metric in result["metrics"]):
                    errors.append('a metric of "model-index" needs type and value')
        answer = {"errors": [{"message": message} for message in errors], "warnings": []}
        return self.answer(answer, 400 if errors else 200)

    # -------------------------------------------------------------------------------------------------------- answers

    def resolve(self, repo, revision, path):
        commit = repo.find(revision)
        if commit is None:
            return self.fail(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        content = repo.commits[commit].get(path)
        if content is None:
            return self.fail(404, f"{path} does not exist", "EntryNotFound", {"X-Repo-Commit": commit})
        entry = self.entry(path, content)
        etag = entry.get("lfs", entry)["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if wanted := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            return self.send(content[first : last + 1], 206, "application/octet-stream", headers)
        return self.send(content, 200, "application/octet-stream", headers)

    def answer(self, content, status=200):
        self.send(json.dumps(content).encode(), status, "application/json")

    def fail(self, status, message, code=None, headers=None):
        named = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.send(json.dumps({"error": message}).encode(), status, "application/json", named)

    def send(self, content, status, kind, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
