"""The page at / and the document at /openapi.json in a real browser: each kind of sample, and what is shown of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from mlscale.export.servable import load
from tests.made_servables import make_servables
from tests.serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REASON = "no chromium: apt-get install chromium"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=REASON)]
# Without a sandbox, since root may not have one; and without requests of the browser's own.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
TEXT = "Größe 🐧 </script> is good"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium with a new profile, and a home folder of its own: it writes settings there."""
    home = str(tmp_path_factory.mktemp("home"))
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env={**os.environ, "HOME": home})
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Three stripes of colours, twice as wide as high."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    for number in range(3):
        pixels[:, number * 80 // 3 :, :] = np.eye(3, dtype=np.uint8)[number] * 240
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


class Visit:
    """A page that is open, and all that it has asked for and complained about."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page(viewport={"width": 1000, "height": 800})
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        response = self.page.goto(url)
        assert "default-src 'none'" in response.headers["content-security-policy"]

    def read_answer(self) -> str:
        """Wait for the answer; its text."""
        self.page.wait_for_selector("#answer details, #answer .error")
        return str(self.page.inner_text("#answer"))

    def close(self, url: str) -> None:
        """Close the page; it has loaded nothing from elsewhere, and nothing was blocked."""
        assert self.messages == []
        assert [request for request in self.requests if not request.startswith((url, "data:", "blob:"))] == []
        self.page.close()


def predict(folder: Path, sample: Any) -> dict[str, Any]:
    servable = load(folder)
    columns = servable.predict_samples([sample]).columns
    (answer,) = servable.task_type.build_answers(columns, servable.names)
    return answer


def test_a_row_in_a_form(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    with serving(tmp_path, folders["penguins"]) as server:
        visit = Visit(browser, server.url)
        page = visit.page
        assert "36.7 to 50 mm in training" in page.inner_text("form")
        # Without separators: a whole number may be a year.
        assert "3450 to 5700 g in training" in page.inner_text("form")
        page.select_option("select[name=island]", "Dream")
        page.select_option("select[name=sex]", "")
        page.fill("input[name=bill_length_mm]", "39.5")
        page.fill("input[name=body_mass_g]", "")
        page.click("#send")
        row = {"island": "Dream", "bill_length_mm": 39.5, "body_mass_g": None, "sex": None}
        expected = predict(folders["penguins"], row)
        text = visit.read_answer()
        assert text.startswith(expected["label"])
        for name, share in zip(("Adelie", "Chinstrap", "Gentoo"), expected["probabilities"], strict=True):
            assert f"{name}\n{100 * share:.1f} %" in text
        command = page.text_content("#command")
        assert '"bill_length_mm":39.5' in command
        # The document is read in the browser; its example is a request.
        status = page.evaluate(
            """async () => {
                const document = await (await fetch("openapi.json")).json();
                const body = document.paths["/predict"].post.requestBody.content["application/json"].example;
                const headers = { "Content-Type": "application/json" };
                return (await fetch("predict", { method: "POST", headers, body: JSON.stringify(body) })).status;
            }"""
        )
        assert status == 200
        visit.close(server.url)


def test_a_server_with_a_key_is_opened_by_it(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    key = "a-key-that-is-long-enough"
    with serving(tmp_path, folders["mass"], f"api_key={key}") as server:
        for password, status in ((key[1:], 401), (key, 200)):
            # As a person types it where the browser asks.
            page = browser.new_page(http_credentials={"username": "", "password": password})
            response = page.goto(server.url)
            assert response.status == status
            if status == 401:
                # One of a line: Chromium asks for none where Bearer comes first in it.
                assert response.header_values("www-authenticate") == ["Bearer", 'Basic realm="the key as password"']
                continue
            page.fill("input[name=bill_length_mm]", "39.5")
            page.click("#send")
            page.wait_for_selector("#answer details")
            assert " g" in page.inner_text("#answer")


def test_a_number_with_its_unit(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    with serving(tmp_path, folders["mass"]) as server:
        visit = Visit(browser, server.url)
        visit.page.fill("input[name=bill_length_mm]", "39.5")
        visit.page.click("#send")
        row = {"island": "Biscoe", "bill_length_mm": 39.5, "sex": "female"}
        value = predict(folders["mass"], row)["value"]
        assert visit.read_answer().split("\n")[0] == f"{float(f'{value:.5g}'):g} g"
        visit.close(server.url)


@pytest.mark.parametrize(("name", "shown"), [("reviews", "label"), ("tales", "nats_per_token")])
def test_a_text(browser: Any, folders: dict[str, Path], tmp_path: Path, name: str, shown: str) -> None:
    with serving(tmp_path, folders[name]) as server:
        visit = Visit(browser, server.url)
        visit.page.fill("textarea", TEXT)
        visit.page.click("#send")
        value = predict(folders[name], TEXT)[shown]
        assert visit.read_answer().startswith(value if isinstance(value, str) else f"{value:.3f} nats per token")
        visit.page.fill("textarea", "")
        visit.page.click("#send")
        visit.page.wait_for_selector("#answer .error")
        assert visit.page.inner_text("#answer") == "the text can't be used: it is empty"
        # The browser itself reports the status 400.
        assert [message for message in visit.messages if "400" not in message] == []
        visit.messages.clear()
        visit.close(server.url)


@pytest.mark.parametrize("name", ["photos", "tags", "masks"])
def test_an_image(browser: Any, folders: dict[str, Path], photo: Path, tmp_path: Path, name: str) -> None:
    with serving(tmp_path, folders[name]) as server:
        visit = Visit(browser, server.url)
        visit.page.set_input_files("#file", str(photo))
        text, expected = visit.read_answer(), predict(folders[name], photo.read_bytes())
        if name == "photos":
            assert text.startswith(expected["label"])
        elif name == "tags":
            assert text.startswith(", ".join(expected["labels"]) or "none")
        else:
            for label, share in expected["shares"].items():
                assert f"{label}\n{100 * share:.1f} %" in text
            colours = visit.page.evaluate(
                """() => {
                    const canvas = document.getElementById("mask"), context = canvas.getContext("2d");
                    const { data } = context.getImageData(0, 160, 320, 1);
                    return [20, 160, 300].map((x) => [...data.slice(4 * x, 4 * x + 4)]);
                }"""
            )
            # Over red, green and blue, each class in a colour of its own.
            assert [int(np.argmax(colour[:3])) for colour in colours] == [0, 1, 2]
        visit.close(server.url)


def test_an_image_that_is_dropped(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    with serving(tmp_path, folders["photos"]) as server:
        visit = Visit(browser, server.url)
        visit.page.evaluate(
            """() => {
                const transfer = new DataTransfer();
                transfer.items.add(new File(["no image"], "x.png", { type: "image/png" }));
                byId("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
            }"""
        )
        assert visit.read_answer().startswith("this image can't be decoded")
        visit.messages.clear()  # the browser's own, of the status
        visit.close(server.url)


def test_tensors_as_json(browser: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    with serving(tmp_path, folders["sums"]) as server:
        visit = Visit(browser, server.url)
        visit.page.click("#send")
        assert '"sum"' in visit.read_answer()
        visit.close(server.url)


def test_names_do_not_become_elements(browser: Any, tmp_path: Path) -> None:
    from tests.made_servables import make_table_servable

    rows = {"</script><b id=evil>": np.array([1.0, 2.0]), "inputs": ["<b id=evil>", "$model"], "id": ["a", "b"]}
    with serving(tmp_path, make_table_servable(tmp_path / "odd", rows)) as server:
        visit = Visit(browser, server.url)
        visit.page.click("#send")
        assert "Adelie" in visit.read_answer()
        assert visit.page.query_selector("#evil") is None
        visit.close(server.url)
