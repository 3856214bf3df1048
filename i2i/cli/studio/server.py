"""The studio's server on 127.0.0.1: the page, a REST endpoint, and the headers that keep browsers to it."""

import errno
import html
import mimetypes
import os
import secrets
import socket
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, File, Form, HTTPException, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware

from i2i.cli.studio.translation import Translation
from i2i.cli.studio.workspace import MAX_BYTES, Workspace, safe_name
from i2i.config import VERSION
from i2i.errors import I2IError, RequestError

HOST, PORT = "127.0.0.1", 7860
# The page is its own and loads nothing from elsewhere; Svelte's templates and Vega need eval.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
          "media-src 'self' data: blob:; "
          "connect-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; "
          "form-action 'self'; frame-ancestors 'self'")


class ModelInfo(BaseModel):
    """A model that is offered."""

    name: str
    directions: list[str]       # Empty: it makes images from noise.
    classes: list[str]
    size: tuple[int, int]       # Height and width of the images it was trained on.


class Problem(BaseModel):
    """Why a request failed, in one line."""

    detail: str


class Guard:
    """Refuses requests of other sites' pages and bodies that are too large, and keeps the page to itself."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, size = Headers(scope=scope), 0
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != headers.get("host"):
            return await PlainTextResponse("this page is of another site", 403)(scope, receive, send)

        async def counted() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BYTES + 10_000 and scope["path"] == "/translate":     # Gradio counts its own.
                raise HTTPException(413, f"larger than {MAX_BYTES // 1_000_000} MB")
            return message

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added["content-security-policy"], added["referrer-policy"] = POLICY, "no-referrer"
                added["x-content-type-options"] = "nosniff"
            await send(message)

        await self.app(scope, counted, guarded)


def make_app(workspace: Workspace) -> FastAPI:
    """The whole application."""
    os.environ |= {"GRADIO_TEMP_DIR": str(workspace.private / "gradio"), "GRADIO_ANALYTICS_ENABLED": "False",
                   "HF_HUB_DISABLE_TELEMETRY": "1"}
    import gradio

    from i2i.cli.studio.page import CSS, HEAD, make_page, make_theme
    app = FastAPI(title="i2i studio", version=VERSION, docs_url=None, redoc_url=None)
    app.add_middleware(Guard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    add_endpoints(app, workspace)
    add_reports(app, workspace)
    return gradio.mount_gradio_app(
        app, make_page(workspace), "/", server_name=HOST, footer_links=[], run_history=False, ssr_mode=False,
        show_error=True, max_file_size=MAX_BYTES, theme=make_theme(), css=CSS, head=HEAD, pwa=False,
        mcp_server=False, enable_monitoring=False)


def add_endpoints(app: FastAPI, workspace: Workspace) -> None:
    """The REST endpoints, typed in /openapi.json."""
    @app.get("/models")
    def models() -> list[ModelInfo]:
        """The models that /translate takes, and those from noise."""
        return [ModelInfo(name=name, directions=list(each.directions), classes=list(each.classes),
                          size=each.size)
                for name, each in workspace.models().items()]

    @app.post("/translate", response_class=Response, responses={
        200: {"content": {"image/*": {}}, "description": "The translated image"},
        **{code: {"model": Problem, "description": text} for code, text in (
            (400, "The request is wrong"), (413, "Too large"), (422, "The image cannot be translated"))}})
    def translate(
        image: Annotated[UploadFile, File(description="An image file, of which the result has the size")],
        model: Annotated[str, Form(description="A name of /models, or several: each translates further")],
        direction: Annotated[Literal["ab", "ba"], Form()] = "ab",
        seed: Annotated[int | None, Form(
            ge=0, description="Draw a sample, by the seed and the file's name")] = None,
        tile: Annotated[str, Form(description="Rows computed at once, or auto")] = "",
        format: Annotated[Literal["", "png", "jpg", "webp", "bmp", "tif", "npy"], Form()] = "",
    ) -> Response:
        """Translate one image as `i2i translate` does, to the same bytes."""
        folder = workspace.new_folder()
        source = folder / "in" / safe_name(image.filename or "")
        source.parent.mkdir()
        with source.open("wb") as file:
            while data := image.file.read(1 << 20):
                file.write(data)
        first, *chain = model.split(",")
        try:
            job = Translation(first.strip(), direction, [each.strip() for each in chain], tile, seed,
                              format=format)
            result = job.run(workspace, source, folder)[1][0]
        except I2IError as error:
            detail = workspace.without_paths(str(error))
            raise HTTPException(400 if isinstance(error, RequestError) else 422, detail) from None
        kind = mimetypes.guess_type(result)[0] or "application/octet-stream"
        return Response(result.read_bytes(), media_type=kind)


def add_reports(app: FastAPI, workspace: Workspace) -> None:
    """The reports of runs, which the page shows in frames, and their versions, which it watches."""
    from i2i.report.page import render
    from i2i.report.run_contents import read_run
    from i2i.report.run_status import version_of

    def find(run: str) -> Path:
        if run not in (runs := workspace.runs()):
            raise HTTPException(404, "there is no such run")
        return runs[run]

    @app.get("/report", include_in_schema=False)
    def report(run: str) -> HTMLResponse:
        try:
            return HTMLResponse(render(read_run(find(run))))
        except RequestError as error:       # Such as of a run that has just started.
            return HTMLResponse("<meta name=color-scheme content='light dark'>"
                                f"<p>{html.escape(str(error))}</p>")

    @app.get("/report/version", include_in_schema=False)
    def version(run: str) -> str:
        return version_of(find(run))


def make_lan_app(workspace: Workspace, token: str) -> FastAPI:
    """What others on the network may see: the page that people judge, by a token."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/{given}")
    def judge(given: str) -> HTMLResponse:
        if not secrets.compare_digest(given.encode(), token.encode()) or not workspace.judged.is_file():
            raise HTTPException(404)
        return HTMLResponse(workspace.judged.read_text(), headers={"Referrer-Policy": "no-referrer"})
    return app


def share_on_lan(workspace: Workspace) -> None:
    """Serve the page that people judge to the network, on a port of its own, until the process ends."""
    token, listener = secrets.token_urlsafe(16), listen("0.0.0.0", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))     # Sends nothing; says which address others see.
            address = probe.getsockname()[0]
        except OSError:
            address = HOST
    workspace.link = f"http://{address}:{listener.getsockname()[1]}/{token}"
    server = uvicorn.Server(uvicorn.Config(make_lan_app(workspace, token), log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()


def serve(workspace: Workspace, port: int, share_lan: bool = False) -> None:
    """Serve the studio until Ctrl-C.  RequestError if the port is taken."""
    listener = listen(HOST, port or PORT, free=not port)
    server = uvicorn.Server(uvicorn.Config(make_app(workspace), log_level="warning",
                                           timeout_graceful_shutdown=1))
    print(f"http://{HOST}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    if share_lan:
        share_on_lan(workspace)
        print(f"{workspace.link}  (for others: the page of Judge, People, once it is made)", flush=True)
    server.run(sockets=[listener])


def listen(host: str, port: int, *, free: bool = False) -> socket.socket:
    """A socket on a port, or with `free` on another if that is taken."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if not free or error.errno != errno.EADDRINUSE:
            raise RequestError(f"--port {port} cannot be used: {error.strerror}") from None
        return socket.create_server((host, 0))
