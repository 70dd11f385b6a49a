"""`mlscale monitor` on events of a real servable: quiet while all is well, and one alert when it is not."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mlscale import commands
from mlscale.cli import main
from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.export.servable import load
from mlscale.versions.from_servable import publish_servable
from mlscale.versions.local_registry import LocalRegistry
from tests.e2e.test_export import images
from tests.event_writing import add_answers
from tests.forked import Command
from tests.receiver import Receiver
from tests.smtp_sink import Sink

TRAINED = ("+recipe=resnet", "trainer.max_epochs=3", "snapshot=false", "logger=none")


@dataclass(frozen=True)
class House:
    """A registry with a champion, the images that it was validated on, and a folder for events.

    Attributes:
        pixels: uint8 (360, 1, 8, 8).
        labels: what they show, (360,).
    """

    registry: LocalRegistry
    pixels: NDArray[np.uint8]
    labels: NDArray[np.str_]
    events: Path

    def words(self, *more: str) -> list[str]:
        return [
            "ref=resnet@champion",
            f"registry.root={self.registry.root}",
            f"events={self.events}",
            "alert.keep=1",
            "alert.cooldown=0",
            *more,
        ]

    def ask(self, pixels: NDArray[np.uint8], seed: int, n: int = 400, labelled: int = 0) -> None:
        """n events of the champion: what it says of images drawn from `pixels`, the first of them labelled."""
        chosen = np.random.default_rng(seed).integers(0, len(pixels), n)
        version = self.registry.resolve_version("resnet@champion")
        ids, store = [f"{seed}-{index}" for index in range(n)], EventStore(self.events)
        writer = store.open_writer("resnet")
        latency = np.full(n, 2.0, np.float32)
        add_answers(writer, load(version.payload), ids, list(pixels[chosen]), version=version.ref, latency_ms=latency)
        writer.close()
        store.add_labels("resnet", ids[:labelled], self.labels[chosen][:labelled].tolist())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> tuple[Path, Path]:
    """The registry's folder, and the run's."""
    place = tmp_path_factory.mktemp("monitor")
    run = commands.run_command("train", [*TRAINED, f"runs_dir={place}/runs", f"data.root={bundled}"]).artifacts["run"]
    made = commands.run_command("export", [str(run), f"runs_dir={place}/runs"]).artifacts["servable"]
    publish_servable(LocalRegistry(place / "registry"), Path(made), name="resnet", aliases=("champion",))
    return place / "registry", Path(run)


@pytest.fixture
def house(published: tuple[Path, Path], bundled: Path, tmp_path: Path) -> House:
    pixels, labels = images(bundled)
    return House(LocalRegistry(published[0]), pixels, labels, tmp_path / "events")


def brighter(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(pixels.astype(np.int64) + 60, 0, 255).astype(np.uint8)


def turned(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([np.array(Image.fromarray(each[0]).rotate(45, Image.Resampling.BILINEAR))[None] for each in pixels])


def test_clean_traffic_is_quiet(house: House) -> None:
    house.ask(house.pixels, seed=1, labelled=200)
    with Receiver() as receiver:
        for _ in range(3):
            result = commands.run_command("monitor", house.words(f"alert.webhook={receiver.url}", "latency.p99_ms=50"))
    assert result.ok
    assert (receiver.asked, result.metrics["drift"], result.metrics["degradation"]) == (0, 0, 0)
    assert result.sentence.startswith("resnet:v1: no drift of single columns in 400 events, accuracy 9")


def test_drift_that_is_no_degradation_is_reported_as_such_once_and_then_over(house: House) -> None:
    house.ask(brighter(house.pixels), seed=2)
    with Receiver() as receiver, Receiver() as service:
        url = service.url.replace("http://", "json://")
        words = house.words(f"alert.webhook={receiver.url}", f"alert.apprise=['{url}']")
        first = commands.run_command("monitor", words)
        assert not first.ok
        assert "inputs drifted (brightness " in first.sentence
        assert "labels would show whether accuracy degraded" in first.sentence
        for _ in range(3):
            assert not commands.run_command("monitor", words).ok
        assert [alert["status"] for alert in receiver.alerts] == ["firing"]
        house.ask(house.pixels, seed=3)
        last = commands.run_command("monitor", [*words, "window.max_events=400"])  # the latest ones
    assert last.ok
    assert [(alert["rule"], alert["status"]) for alert in receiver.alerts] == [
        ("drift", "firing"),
        ("drift", "resolved"),
    ]
    assert [message["type"] for message in service.alerts] == ["failure", "success"]


def test_a_mail_server_and_a_command_get_alerts_too(house: House) -> None:
    house.ask(brighter(house.pixels), seed=12)
    house.events.mkdir(exist_ok=True)
    copy = house.events.parent / "copy.py"
    copy.write_text("import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))")
    reported = house.events.parent / "alerts of a command"
    with Sink() as sink:
        words = house.words(
            f"alert.command=\"{sys.executable} {copy} '{reported}'\"",
            "alert.mail.host=127.0.0.1",
            f"alert.mail.port={sink.port}",
            "alert.mail.security=none",
            "alert.mail.to=[me@example.org]",
            "alert.mail.sender=monitor@example.org",
        )
        results = [commands.run_command("monitor", words) for _ in range(2)]
    assert [result.metrics["sent_alerts"] for result in results] == [2, 0]
    assert [json.loads(line)["rule"] for line in reported.read_text().splitlines()] == ["drift"]
    assert len(sink.mails) == 1


def test_what_is_found_is_exported_and_in_the_history(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house.ask(turned(house.pixels), seed=13, labelled=200)
    files = {name: tmp_path / "out" / name for name in ("m.prom", "rules.yml", "dashboard.json")}
    words = house.words(
        f"prometheus.textfile={files['m.prom']}",
        f"prometheus.rules={files['rules.yml']}",
        f"prometheus.dashboard={files['dashboard.json']}",
    )
    result = commands.run_command("monitor", words)
    text = files["m.prom"].read_text()
    labels = 'version="resnet:v1",watched="resnet@champion"'
    assert f'mlscale_monitor_rule_firing{{model="resnet",rule="degradation",{labels}}} 1' in text
    assert f'mlscale_monitor_score{{metric="accuracy",model="resnet",{labels}}} {result.metrics["accuracy"]}' in text
    assert 'watched="resnet@champion",rule="degradation"} >= 1' in files["rules.yml"].read_text()
    assert json.loads(files["dashboard.json"].read_text())["title"] == "mlscale monitor"
    assert result.artifacts["alerting_rules"] == str(files["rules.yml"])
    root = f"registry.root={house.registry.root}"
    assert main(["versions", "history", "resnet", root, f"events={house.events}", f"page={tmp_path}/h.html"]) == 0
    out = capsys.readouterr().out
    assert "2 alerts, 1 check of resnet@champion" in out
    assert "degradation firing: resnet:v1: accuracy" in out
    assert "Accuracy" in (tmp_path / "h.html").read_text()


MAPPING = """
time: timestamp
prediction: predicted_class
confidence: score
label: ground_truth
id: request_id
latency: {field: took_ms, unit: ms}
"""
"""Of what `write_log` writes."""


def write_log(house: House, path: Path, pixels: NDArray[np.uint8], *, age: timedelta = timedelta()) -> Path:
    """What another server would log of 400 images, as CSV."""
    chosen = np.random.default_rng(21).integers(0, len(pixels), 400)
    printed_text = load(house.registry.resolve_version("resnet@champion").payload).predict(pixels[chosen])
    begin = datetime.now(UTC) - age - timedelta(hours=1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["request_id", "timestamp", "predicted_class", "score", "ground_truth", "took_ms"])
        for n, (row, label, shares) in enumerate(
            zip(chosen, printed_text.labels, printed_text.probabilities, strict=True)
        ):
            time_ = (begin + timedelta(seconds=n)).isoformat()
            writer.writerow([f"r{n}", time_, label, f"{shares.max():.6f}", house.labels[row] if n < 200 else "", 3.5])
        writer.writerow(["r400", "later", "0", "1", "", 1])
    return path


def test_events_that_another_server_wrote_are_monitored(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = house.words(f"events={write_log(house, tmp_path / 'log.csv', house.pixels)}")
    with pytest.raises(MLScaleError, match=r"log\.csv is not a folder of events") as caught:
        commands.run_command("monitor", words)
    assert caught.value.fix.startswith("mapping=<a YAML file>")
    Path("mapping.yaml").write_text(MAPPING)
    result = commands.run_command("monitor", [*words, "mapping=mapping.yaml"])
    assert result.ok
    assert "no drift of single columns in 400 events, accuracy 9" in result.sentence
    assert "1 row can't be read by the time (line 402 of log.csv: 'later' is not a time)" in result.sentence
    assert (result.metrics["log_rows"], result.metrics["unreadable_rows"]) == (401, 1)
    assert result.metrics["labelled_events"] == 200
    # Without inputs in the log, predictions and confidence are compared.
    assert result.metrics["columns"] == 2
    assert (tmp_path / "resnet/monitor/resnet_champion.json").exists() or list(tmp_path.glob("resnet/monitor/*.json"))
    with pytest.raises(MLScaleError, match="no events at") as caught:
        commands.run_command("monitor", [*house.words(f"events={tmp_path}/logs.csv"), "mapping=mapping.yaml"])
    assert caught.value.fix == f"events={tmp_path}/log.csv"


def test_a_log_is_shown_as_it_is_read(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(house, tmp_path / "log.csv", house.pixels)
    Path("mapping.yaml").write_text(MAPPING)
    words = house.words()[:2]
    assert main(["events", "check", "log.csv", *words, "rows=2"]) == 4
    shown = capsys.readouterr().out
    assert "401 rows are 400 events of resnet:v1 and 200 labels; 1 row can't be read by the time" in shown
    for line in (r"entry +row 1 +row 2$", r"id +r398 +r399$", r"outcome +ok +ok$", r"latency_ms +3.5 +3.5$"):
        assert re.search(f"^{line}", shown, re.MULTILINE), shown
    assert main(["events", "check", "log.csv", *words, "rows=0"]) == 4
    assert "row 1" not in capsys.readouterr().out
    lines = Path("log.csv").read_text().splitlines()[:-1]
    id_, time_, predicted, *rest = lines[1].split(",")
    other = ",".join([id_, time_, str((int(predicted) + 1) % 10), *rest])
    for more, code, said in (
        ([], 0, "400 events of resnet:v1 and 200 labels"),
        (["R1,,,,7,"], 4, "1 of 1 row with a label alone have an id that no event read has ('R1')"),
        ([other], 4, "1 row repeated by id and counted once, 1 with another prediction or input"),
    ):
        Path("more.csv").write_text("\n".join([*lines, *more, ""]))
        assert main(["events", "check", "more.csv", *words]) == code
        assert said in capsys.readouterr().out
    assert main(["events", "check", "logs.csv", *words]) == 2
    assert f"fix:   events={tmp_path}/log.csv" in capsys.readouterr().err


def test_a_log_of_a_model_that_got_worse_and_one_that_is_old(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    worse = write_log(house, tmp_path / "worse.csv", turned(house.pixels))
    old = write_log(house, tmp_path / "old.csv", house.pixels, age=timedelta(days=3))
    Path("mapping.yaml").write_text(MAPPING)
    reported = commands.run_command("monitor", [*house.words(f"events={worse}"), "mapping=mapping.yaml"])
    assert ": degradation" in reported.sentence
    assert reported.sentence.endswith("degradation")
    reported = commands.run_command("monitor", [*house.words(f"events={old}"), "mapping=mapping.yaml"])
    assert "no data (0 events in the window" in reported.sentence
    assert "window.hours=null takes all" in reported.sentence
    words = [*house.words(f"events={old}"), "mapping=mapping.yaml", "window.hours=null", "alert.state=state.json"]
    assert "no drift of single columns in 400 events" in commands.run_command("monitor", words).sentence


def test_degradation_needs_labels(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.ask(turned(house.pixels), seed=4, labelled=200)
    with Receiver() as receiver:
        words = house.words(f"alert.webhook={receiver.url}", "output=json", f"page={house.events}/out/page.html")
        assert main(["monitor", *words]) == 4
    printed_text = json.loads(capsys.readouterr().out)
    assert {alert["rule"] for alert in receiver.alerts} == {"drift", "degradation"}
    assert ": degradation; alerting: drift, degradation" in printed_text["sentence"]
    assert printed_text["metrics"]["accuracy_high"] < printed_text["metrics"]["reference_accuracy"] - 0.05
    assert receiver.url not in json.dumps(printed_text)
    page = (house.events / "out/page.html").read_text()
    assert page.count("<figure") == 5  # four columns, and the table of all
    assert "reference" in page


def test_a_service_without_events_is_an_alert(house: House) -> None:
    house.events.mkdir()
    result = commands.run_command("monitor", house.words())
    assert not result.ok
    assert result.sentence == "resnet:v1: no data (0 events in the window, 100 are needed); alerting: no_data"
    assert np.isnan(result.metrics["drift"])
    quiet = commands.run_command("monitor", house.words("alert.rules=[drift]"))
    assert "alerting" not in quiet.sentence
    assert not quiet.ok


def test_a_wrong_folder_is_an_error(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", *house.words()]) == 2
    printed = capsys.readouterr().err
    assert "error: no folder events" in printed
    assert "fix:   events=<the folder that mlscale serve events=… writes to>" in printed
    house.ask(house.pixels, seed=6)
    assert main(["monitor", *house.words(f"events={house.events}/resnet")]) == 2
    assert "error: resnet holds no events" in capsys.readouterr().err


def test_events_of_other_versions_do_not_count(house: House, published: tuple[Path, Path], tmp_path: Path) -> None:
    house.ask(brighter(house.pixels), seed=5)
    by_folder = house.words(f"ref={published[1] / 'servable'}")
    shown = commands.run_command("monitor", by_folder).sentence
    assert "no data" in shown
    assert "400 are of resnet:v1" in shown
    assert len(list((house.events / "resnet" / "monitor").glob("*.json"))) == 1


def test_an_end_of_patience(house: House) -> None:
    reported = []
    for seed, n in enumerate((400, 0, 400, 800)):
        if n:
            house.ask(brighter(house.pixels), seed=100 + seed, n=n)
        reported.append(commands.run_command("monitor", house.words("alert.looks=3")))
    assert [result.ok for result in reported] == [
        True,
        True,
        True,
        False,
    ]  # the second look sees what the first one saw
    assert "pending: drift" in reported[0].sentence


def test_neither_the_model_nor_torch_is_loaded(house: House) -> None:
    house.ask(house.pixels, seed=9)
    code = (
        "import sys; from mlscale.cli import main; main(sys.argv[1:]); print({*sys.modules} & {'torch', 'onnxruntime'})"
    )
    command = [sys.executable, "-c", code, "monitor", *house.words()]
    printed_text = subprocess.run(command, cwd=house.events, capture_output=True, text=True, check=True).stdout
    assert printed_text.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("drift.fdrr=0.1", "unknown key 'drift.fdrr'"),
        ("drift.fdr=1", "'drift.fdr' must be float between 0 and 1"),
        ("window.hours=abc", "window.hours"),
        ("window.min_events=0", "'window.min_events' must be int ≥ 1"),
        ("alert.webhook=nowhere", "not the address of a web server"),
        ("alert.apprise=[nowhere]", "not an address of an apprise service"),
        ("alert.rules=[drfit]", "unknown rule 'drfit'"),
        ("alert.command='a \"b'", "can't be split into words"),
        ("alert.command=[]", "not a list of words"),
        ("alert.mail.host=localhost", "a mail needs alert.mail.to and alert.mail.sender"),
        ("alert.answer_s=0", "'alert.answer_s' must be float between 0 and 600"),
        ("prometheus.textfile=metrics.txt", "metrics.txt does not end in .prom"),
        ("prometheus.port=9102", "metrics are served by a monitor that keeps running"),
        ("ref=resnt", "no run or model 'resnt'"),
        ("model=mlp", "model"),
    ],
)
def test_what_is_wrong_is_reported(house: House, word: str, what: str) -> None:
    with pytest.raises(MLScaleError, match=what):
        commands.run_command("monitor", house.words(word))


def test_watching_until_reported_to_end(house: House) -> None:
    """A process that watches, real events that turn bad, one alert, SIGTERM, exit code 0."""
    house.ask(house.pixels, seed=7)
    with Receiver() as receiver:
        exported = ("prometheus.port=0",)
        words = house.words(f"alert.webhook={receiver.url}", "watch=true", "every_s=0.2", "output=json", *exported)
        process = Command("monitor", *words, cwd=house.events)
        assert process.stderr is not None
        assert "resnet@champion: the version resnet:v1, a servable" in process.stderr.readline()
        begun = process.stderr.readline()
        assert "watching resnet@champion, every 0.2 s, metrics at http://127.0.0.1:" in begun
        with urllib.request.urlopen(begun.split()[-1], timeout=10) as response:
            assert b"mlscale_monitor_window_events" in response.read()
        assert "no drift of single columns in 400 events" in process.stderr.readline()
        house.ask(brighter(house.pixels), seed=8, n=1200)
        end = time.monotonic() + 60
        while not receiver.alerts and time.monotonic() < end:
            time.sleep(0.05)
        looked = [process.stderr.readline() for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    printed_text: dict[str, Any] = json.loads(out)
    assert printed_text["ok"]
    assert printed_text["metrics"]["looks"] >= 4
    assert (
        " looks, 1 alert; at last resnet:v1: data quality (brightness is out of the reference's range"
        in printed_text["sentence"]
    )
    assert [alert["status"] for alert in receiver.alerts] == ["firing"]
    assert "Traceback" not in "".join(looked) + err
