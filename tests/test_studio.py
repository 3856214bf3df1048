"""The studio: its page in a browser, its REST endpoint, and what neither gives away."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2i.errors import RequestError
from tests.conftest import Run, drawing

pytest.importorskip("gradio")


def outline(index: int = 3, size: int = 32) -> Image.Image:
    return Image.fromarray(drawing(index, size)[:, :size])


@pytest.fixture(scope="module")
def studio(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio over a folder with a run, in a thread."""
    import uvicorn

    from i2i.cli.studio.server import HOST, listen, make_app
    from i2i.cli.studio.workspace import Workspace
    folder = tmp_path_factory.mktemp("studio")
    shutil.copytree(trained, folder / "faces")
    listener = listen(HOST, 0)
    server = uvicorn.Server(uvicorn.Config(make_app(Workspace(str(folder))), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://{HOST}:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def page(studio: str, browser: Any) -> Iterator[Any]:
    """The page, and in `page.asked` where its requests went."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.set_default_timeout(90_000)
    page.goto(studio)
    yield page
    page.close()



def post(address: str, file: bytes, name: str = "face.png", **fields: object) -> tuple[int, bytes]:
    """Status and body of POST /translate."""
    import httpx
    answer = httpx.post(f"{address}/translate", files={"image": (name, file)}, data={key: str(value) for key, value in fields.items()}, timeout=60)
    return answer.status_code, answer.content


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run(studio: str) -> str:
    """The name of the run's model in the studio."""
    with urllib.request.urlopen(f"{studio}/models") as answer:
        return next(each["name"] for each in json.load(answer) if each["name"].endswith("faces"))


# ------------------------------------------------------------------------------------------------------- REST

def test_the_endpoint_answers_with_the_bytes_that_the_command_writes(studio: str, run: str, i2i: Run, tmp_path: Path) -> None:
    outline().save(tmp_path / "face.png")
    for fields, words in (({}, ()), ({"seed": 3, "format": "webp"}, ("--seed", 3, "--format", "webp")), ({"tile": 8}, ("--tile", 8))):
        out = tmp_path / f"out-{len(words)}-{words[:1]}"
        assert i2i("translate", run, "face.png", "--out", out, *words).code == 0
        assert post(studio, (tmp_path / "face.png").read_bytes(), model=run, **fields) == (200, next(out.iterdir()).read_bytes())


def test_the_client_of_the_page_works_and_the_endpoint_is_typed(studio: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outline().save("face.png")
    page = (Path(__file__).parents[1] / "docs" / "studio.md").read_text()
    code = page.split("```py\n")[1].split("```")[0]
    exec(code.replace("http://127.0.0.1:7860", studio), {})
    assert Image.open("translated.png").size == (32, 32)
    with urllib.request.urlopen(f"{studio}/openapi.json") as answer:
        api = json.load(answer)
    fields = api["components"]["schemas"]["Body_translate_translate_post"]["properties"]
    assert fields["direction"]["enum"] == ["ab", "ba"]
    assert set(api["paths"]) == {"/models", "/translate"}
    assert "image/*" in api["paths"]["/translate"]["post"]["responses"]["200"]["content"]


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "..\\..\\boot.ini", "/etc/passwd", "-rf.png", ".png", "a" * 300 + ".png", "x\ty.png", "evil.mp4", "é.png"])
def test_a_hostile_name_is_only_a_name(studio: str, run: str, name: str) -> None:
    assert post(studio, png(outline()), name=name, model=run)[0] == 200


def bomb() -> bytes:
    """A PNG of a few bytes whose header says 60,000 x 60,000."""
    data = bytearray(png(outline()))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(("name", "file"), [
    ("bomb.png", bomb()), ("cut.png", png(outline())[:90]), ("empty.png", b""), ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"),
    ("noise.png", bytes(range(256)) * 9), ("pages.zip", b"PK\3\4" + bytes(99))], ids=["bomb", "cut", "empty", "svg", "noise", "zip"])
def test_a_file_that_cannot_be_translated_is_refused_in_one_line_without_paths(studio: str, run: str, name: str, file: bytes) -> None:
    status, body = post(studio, file, name=name, model=run)
    detail = json.loads(body)["detail"]
    assert status == 422
    assert "/tmp" not in detail
    assert "i2i-" not in detail
    assert len(detail.splitlines()) == 1


def test_models_and_paths_that_are_not_offered_are_refused(studio: str, run: str, trained: Path) -> None:
    for model in (str(trained), "/etc/passwd", "../faces", "hf:someone/model", f"{run},/etc/passwd", ""):
        status, body = post(studio, png(outline()), model=model)
        assert status in (400, 422)
        assert "etc/passwd" not in json.dumps(json.loads(body)).replace("model /etc/passwd is not", "")
    assert post(studio, png(outline()), model=run, tile="many")[0] == 400
    assert post(studio, png(outline()), model="personas-color", direction="ba")[0] == 400
    for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd", "/gradio_api/file=" + str(trained / "config.json"), "/assets/../../../etc/passwd", "/report?run=/etc"):
        connection = http.client.HTTPConnection(studio.rpartition("/")[2])
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status in (403, 404), path
        assert b"root:" not in answer.read()


def test_other_sites_and_other_names_of_the_machine_get_no_answer(studio: str) -> None:
    for headers, status in (({"Origin": "http://evil.example"}, 403), ({"Host": "evil.example"}, 400)):
        request = urllib.request.Request(f"{studio}/models", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == status
    with urllib.request.urlopen(studio) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_body_that_is_too_large_is_cut_off(studio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.cli.studio import server
    monkeypatch.setattr(server, "MAX_BYTES", 1000)
    assert post(studio, bytes(50_000), model="personas-color")[0] == 413


def test_zips_are_checked_before_they_are_unpacked(tmp_path: Path) -> None:
    from i2i.cli.studio.workspace import collect
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(120_000_000))
    assert (tmp_path / "bomb.zip").stat().st_size < 200_000
    with pytest.raises(RequestError, match="holds 1 files of 120 MB"):
        collect([tmp_path / "bomb.zip"], tmp_path / "in")
    with pytest.raises(RequestError, match="at most 1,000"):
        collect([tmp_path / "a.png"] * 1001, tmp_path / "many")
    (tmp_path / "no.zip").write_bytes(b"PK")
    with pytest.raises(RequestError, match="cannot be read as a zip"):
        collect([tmp_path / "no.zip"], tmp_path / "no")


def test_requests_at_once_get_what_they_would_alone(studio: str, run: str) -> None:
    files = [png(outline(index)) for index in range(4)]
    jobs = [(file, {"model": run, "seed": seed}) for seed in (1, 2) for file in files]
    alone = [post(studio, file, **fields)[1] for file, fields in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: post(studio, job[0], **job[1])[1], jobs)) == alone
    assert len(set(alone)) > 4


def test_others_on_the_network_get_the_page_that_people_judge_by_its_token_and_nothing_else(tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from i2i.cli.studio.server import make_lan_app
    from i2i.cli.studio.workspace import Workspace
    workspace = Workspace(str(tmp_path))
    client = TestClient(make_lan_app(workspace, "secret"))
    assert client.get("/secret").status_code == 404
    workspace.judged = tmp_path / "hype.html"
    workspace.judged.write_text("<p>Real or fake?")
    assert client.get("/secret").text == "<p>Real or fake?"
    assert [client.get(path).status_code for path in ("/", "/guess", "/é", "/models", "/openapi.json", "/secret/../hype.html", "/report?run=x")] == [404] * 7


# ------------------------------------------------------------------------------------------------- in a browser

def test_a_dropped_picture_becomes_what_the_command_makes_and_so_do_the_lines(page: Any, run: str, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outline(5).save(tmp_path / "face.png")
    page.get_by_role("tab", name="Translate").click()
    page.locator("#model input").first.click()
    page.get_by_role("option", name=run).click()
    page.locator("#image input[type=file]").set_input_files(tmp_path / "face.png")
    page.locator("#image img").wait_for()
    page.get_by_text("Samples and memory").click()
    page.locator("#seed textarea, #seed input").first.fill("4")
    page.get_by_role("button", name="Translate", exact=True).click()
    with page.expect_download() as download:
        page.locator("#result a").first.click()
    made = np.asarray(Image.open(download.value.path()))
    command, python = lines_of(page)
    assert i2i(*command.split()[1:]).code == 0
    np.testing.assert_array_equal(made, np.asarray(Image.open(tmp_path / "translated" / "face.png")))
    shutil.rmtree(tmp_path / "translated")
    exec(python, {})
    np.testing.assert_array_equal(made, np.asarray(Image.open(tmp_path / "translated" / "face.png")))
    assert "1 translated" in page.locator("#said").inner_text()


def test_what_is_wrong_is_said_on_the_page(page: Any) -> None:
    page.locator("#seed textarea, #seed input").first.fill("four")
    page.get_by_role("button", name="Translate", exact=True).click()
    page.get_by_text("seed four is no number").wait_for()
    page.locator("#seed textarea, #seed input").first.fill("")


def lines_of(page: Any) -> list[str]:
    """The command line and the Python lines on the page."""
    return [page.get_by_role("region", name=name).locator("visible=true").inner_text() for name in ("Command line", "Python")]


def test_a_generated_set_is_that_of_the_lines_and_sliders_move_by_keys(page: Any, i2i: Run, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Generate").focus()
    page.keyboard.press("Enter")
    slider = page.locator("#n input[type=range]")
    slider.focus()
    slider.press("Home")
    slider.press("ArrowRight")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("2 generated").wait_for()
    command, python = lines_of(page)
    assert command == "i2i generate peeps --out made --n 2"
    with page.expect_download() as download:
        page.locator("a[download='made.zip']").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        made = {name: archive.read(name) for name in archive.namelist()}
    assert len([name for name in made if name.endswith(".png")]) == 2
    assert '"seed": 0' in made["generated.jsonl"].decode()
    for run in (lambda: i2i(*command.split()[1:]), lambda: exec(python, {})):
        run()
        assert {name: (tmp_path / "made" / name).read_bytes() for name in made} == made
        shutil.rmtree(tmp_path / "made")


def test_a_run_is_seen_to_grow(page: Any, run: str) -> None:
    page.get_by_role("tab", name="Runs").click()
    report = page.frame_locator("iframe").first
    report.get_by_text("24 of 24 images").wait_for()
    with open(Path(run, "log.jsonl"), "a") as log:
        log.write(json.dumps({"images": 31, "d": 1.0}) + "\n")
    page.locator("#table").get_by_text("31 of 24").wait_for()
    report.get_by_text("31 of 31 images").wait_for()


def test_stopping_is_ctrl_c_for_the_process_that_trains(page: Any, run: str, tmp_path: Path) -> None:
    from i2i.training.interruption import interrupt
    page.get_by_role("button", name="Save and stop").click()
    page.get_by_text("no process of this machine trains in").wait_for()
    (tmp_path / ".lock").touch()
    holder = subprocess.Popen([sys.executable, "-c", "import sys, time; f = open(sys.argv[1]); print(1, flush=True); time.sleep(60)", tmp_path / ".lock"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert holder.stdout
    holder.stdout.readline()
    assert interrupt(tmp_path) == holder.pid
    assert holder.wait(30) != 0
    with pytest.raises(RequestError, match="no process"):
        interrupt(tmp_path)


def test_a_data_card_is_written_by_a_process_whose_lines_are_shown(page: Any, run: str) -> None:
    page.get_by_role("tab", name="Judge").click()
    page.get_by_role("tab", name="Data card").click()
    page.get_by_role("button", name="Write the card").click()
    page.get_by_role("heading", name="What was tested").wait_for()
    command, python = lines_of(page)
    assert command == f"i2i report {run} --data-card --out report.html"
    assert "app.run([" in python


def test_every_control_has_a_name(page: Any) -> None:
    for tab in ("Runs", "Translate", "Generate", "Judge"):
        page.get_by_role("tab", name=tab).click()
        nameless = page.eval_on_selector_all("input:not([type=file]), textarea, iframe", """found => found.filter(
            each => each.offsetParent && !each.labels?.length && !each.ariaLabel && !each.title && !each.getAttribute("aria-labelledby")
        ).map(each => each.outerHTML)""")
        assert nameless == [], tab


def test_nothing_but_this_machine_is_asked(page: Any, studio: str) -> None:
    assert len(page.asked) > 20
    assert {url.split("/")[2] for url in page.asked if not url.startswith(("data:", "blob:"))} == {studio.rpartition("/")[2]}
