"""Demo of LexMotion as a gradio Space: search motions by words and see why.

Run as a script, it opens the files next to it (`model`, `motions.index`, `motions.safetensors`, written by `lexmotion
demo --export`), or those given by environment variables: LEXMOTION_MODEL and LEXMOTION_INDEX (folders or Hub names),
LEXMOTION_DATASET and LEXMOTION_SPLIT (a prepared corpus and its splits), and LEXMOTION_TITLE.
"""

import asyncio
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from lexmotion.evaluation.viewer.demo import UPLOAD_BYTES, Demo, MalformedError, Question, open_demo  # noqa: E402

JSON_BYTES = 64_000
GRADIO = "/gradio_api/"
CLOSED = ("/gradio_api/upload", "/gradio_api/process_recording")  # gradio would save any file to disk
FETCHING = ("file=", "file/", "proxy=", "stream/", "component_server")  # gradio would read or fetch what they name
UPLOADS_AT_ONCE = 2  # their contents are in memory
UPLOAD_WAIT, UPLOAD_TIME = 60.0, 120.0  # seconds until an upload can begin, and for its content


def gradio_server() -> Any:
    """
    Return the class `gradio.Server`.

    Raises:
        ImportError: if gradio is not installed.
    """
    try:
        from gradio import Server
    except ImportError as error:
        raise ImportError("the demo needs gradio; run `pip install lexmotion[demo]`") from error
    return Server


class Limits:
    """
    ASGI middleware: 404 for gradio's own uploads and files, 413 for bodies over `JSON_BYTES` except motion files, and
    400 for a question to gradio that contains an object, as gradio would fetch the URL of a file description.

    Args:
        app: wrapped ASGI application.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from fastapi import HTTPException
        from fastapi.responses import JSONResponse

        path = scope.get("path", "").rstrip("/")
        if scope["type"] != "http" or path.endswith("/api/upload"):
            return await self.app(scope, receive, send)
        of_gradio = path.rpartition(GRADIO)[2] if GRADIO in path else ""
        if path.endswith(CLOSED) or of_gradio.startswith(FETCHING):
            return await JSONResponse({"error": "not found"}, 404)(scope, receive, send)
        too_long = {"error": f"request too long; send at most {JSON_BYTES // 1000} kB"}
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > JSON_BYTES:
            return await JSONResponse(too_long, 413)(scope, receive, send)
        taken = 0

        async def counted() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > JSON_BYTES:  # sent in chunks, without a length
                raise HTTPException(413, too_long["error"])
            return message

        if not of_gradio or scope["method"] != "POST":
            return await self.app(scope, counted, send)
        body, more = b"", True
        try:
            while more:
                message = await counted()
                body, more = body + message.get("body", b""), message.get("more_body", False)
        except HTTPException as error:
            return await JSONResponse({"error": error.detail}, error.status_code)(scope, receive, send)
        if not is_plain(body):
            plain = {"error": "expected texts and numbers; upload a motion file with api/upload"}
            return await JSONResponse(plain, 400)(scope, receive, send)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Any:
            return messages.pop() if messages else await receive()

        await self.app(scope, replayed, send)


def is_plain(body: bytes) -> bool:
    """Return whether a body is empty, or a JSON object of values and lists without objects in them."""
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return False
    values = list(content.values()) if isinstance(content, dict) else [content]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            return False
        values += value if isinstance(value, list) else []
    return True


def server(demo: Demo) -> Any:
    """
    Build the web application: a page at `/`, its JSON API under `/api/`, and `search` for gradio clients.

    User errors are returned as {"error": one line} with status 200; malformed requests get status 400, too long ones
    413.

    Args:
        demo: demo to serve.

    Returns:
        `gradio.Server`; `launch()` starts it.

    Raises:
        ImportError: if gradio is not installed.
    """
    server_class = gradio_server()
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import HTMLResponse, JSONResponse

    app = server_class(title=demo.title)
    app.add_middleware(Limits)
    page = demo.page()

    async def answered(function: Any, *arguments: Any) -> JSONResponse:
        try:
            return JSONResponse(await run_in_threadpool(function, *arguments))
        except ValueError as error:
            status = 400 if isinstance(error, MalformedError) else 200
            return JSONResponse({"error": " ".join(str(error).split())}, status)

    def content_of(body: bytes) -> dict[str, Any]:
        try:
            content = json.loads(body or b"{}")
            json.dumps(content, ensure_ascii=False).encode()  # lone surrogates could not be sent back
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"expected a JSON object: {error}") from error
        if not isinstance(content, dict):
            raise MalformedError(f"expected a JSON object, got {type(content).__name__}")
        return content

    @app.get("/", response_class=HTMLResponse)
    async def show_page() -> str:
        return page

    def one_word(body: bytes) -> dict[str, Any]:
        return demo.word(str(content_of(body).get("word", "")))

    def hits(body: bytes) -> dict[str, Any]:
        return demo.search(Question.from_dict(content_of(body)))

    def motion(body: bytes) -> dict[str, Any]:
        content = content_of(body)
        asked = content.get("question")
        question = None if asked is None else Question.from_dict(asked)
        return demo.view(content.get("kind", "item"), content.get("id"), question)

    @app.post("/api/word")
    async def word(request: Request) -> JSONResponse:
        return await answered(one_word, await request.body())

    @app.post("/api/search")
    async def search(request: Request) -> JSONResponse:
        return await answered(hits, await request.body())

    @app.post("/api/view")
    async def view(request: Request) -> JSONResponse:
        return await answered(motion, await request.body())

    places = threading.Semaphore(UPLOADS_AT_ONCE)

    @app.post("/api/upload")
    async def upload(request: Request, name: str, fps: float | None = None) -> JSONResponse:
        latest = time.monotonic() + UPLOAD_WAIT
        while not places.acquire(blocking=False):
            if time.monotonic() > latest:
                return JSONResponse({"error": "too many uploads at once; try again in a minute"}, 503)
            await asyncio.sleep(0.05)
        try:
            taken = bytearray()
            async with asyncio.timeout(UPLOAD_TIME):
                async for part in request.stream():
                    taken += part
                    if len(taken) > UPLOAD_BYTES:
                        break
            return await answered(demo.upload, name, taken, fps)
        except TimeoutError:
            return JSONResponse({"error": f"the upload took more than {UPLOAD_TIME:g} s; send a shorter motion"}, 408)
        finally:
            places.release()

    @app.api(name="search")
    def search_by_words(text: str, must: str = "", must_not: str = "", k: int = 10) -> list:
        """Search by text; `must`, `must_not`: comma-separated words. Returns hits with id, score and matched words."""
        lists = {name: [word.strip() for word in words.split(",") if word.strip()]
                 for name, words in (("must", must), ("must_not", must_not))}  # fmt: skip
        hits = demo.search(Question.from_dict({"text": text, **lists}), k)["hits"]
        return [{name: value for name, value in hit.items() if name != "preview"} for hit in hits]

    return app


def serve(demo: Demo, host: str, port: int, share: bool = False) -> None:
    """
    Serve a demo until it is stopped.

    Args:
        port: 0 takes a free one. share: open a public address through gradio.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    try:
        server(demo).launch(server_name=host, server_port=port or None, share=share)
    except OSError as error:
        raise OSError(
            f"cannot serve at {host}:{port}: the port is taken, or the address is not this machine's; choose another "
            "with --port or --host"
        ) from error


def demo_of_environment() -> Demo:
    """Open the demo given by the environment variables, else by the files next to this one."""
    variables = {name: os.environ.get(f"LEXMOTION_{name}") or None for name in ("MODEL", "INDEX", "DATASET")}
    splits = os.environ.get("LEXMOTION_SPLIT")
    source = variables["MODEL"]
    if source is None and variables["INDEX"] is None:
        source = str(Path(__file__).resolve().parent)
    demo = open_demo(source, variables["INDEX"], variables["DATASET"], splits.split(",") if splits else None)
    demo.title = os.environ.get("LEXMOTION_TITLE") or demo.title
    return demo


if __name__ == "__main__":
    server(demo_of_environment()).launch()
