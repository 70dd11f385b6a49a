"""`mlscale versions history`: what is stored in four places comes in one order, as a table, JSON and a page."""

import json
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlscale.commands.versions.entry import main
from mlscale.commands.versions.history import collect_history
from mlscale.commands.versions.show_history import build_history_plots
from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import CheckLog, CheckRecord, Score
from mlscale.report import LinePlot, TableBlock
from mlscale.report.svg import draw_plot
from mlscale.retrain.journal import RetrainingJournal
from mlscale.versions import LocalRegistry

NOW = datetime.now(UTC)
Versions = Callable[..., int]


def check(minute: int, version: str = "m:v1", watched: str = "m@champion", **more: object) -> CheckRecord:
    score = Score("accuracy", 0.95 - 0.001 * minute, 0.9, 0.98, 0.97, 300)
    plain = CheckRecord(
        (NOW + timedelta(minutes=minute)).isoformat(), watched, "m", version, 500, {"drift": 0.2 * minute}, score=score
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def alert(status: str, version: str = "m:v1") -> dict[str, str]:
    return {
        "rule": "drift",
        "status": status,
        "version": version,
        "since": "t",
        "sentence": f"{version}: {status} it is",
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two versions, of which the second one was retrained and promoted, and 20 checks."""
    monkeypatch.chdir(tmp_path)
    # The checks follow what is published here, also where this module was imported long ago.
    # Stored times are whole milliseconds: nothing is published before the first check, nor two things at once.
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC).replace(microsecond=0))
    registry = LocalRegistry(tmp_path / "registry")
    for number in (1, 2):
        (tmp_path / "model.ckpt").write_text(f"weights {number}")
        time.sleep(0.002)
        registry.publish(
            "m",
            {"model.ckpt": tmp_path / "model.ckpt"},
            kind="checkpoint",
            metrics={"val/accuracy": 0.9 + number / 100},
            run={"id": f"r{number}", "metric": "val/accuracy", "mode": "max"},
            parent="m:v1" if number == 2 else None,
            aliases=["champion"] if number == 1 else ["challenger"],
        )
    time.sleep(0.002)
    journal = RetrainingJournal(registry.root, "m")
    cycle = journal.begin_cycle("m:v1")
    ended = (NOW + timedelta(minutes=10)).isoformat()
    journal.record_cycle(
        replace(cycle, ended=ended, decision="promoted", reason="all gates passed", challenger="m:v2"), keep=False
    )
    registry.promote("m:v2")
    log = CheckLog(tmp_path / "events/m/monitor/m_champion-checks.jsonl")
    log.path.parent.mkdir(parents=True)
    for minute in range(20):
        alerts = {5: (alert("firing"),), 11: (alert("resolved"),)}.get(minute, ())
        firing = ("drift",) if 5 <= minute < 11 else ()
        log.append_record(check(minute, "m:v2" if minute > 10 else "m:v1", firing=firing, alerts=alerts))
    other = CheckLog(tmp_path / "events/m/monitor/m_v2-checks.jsonl")
    other.append_record(check(0, "m:v2", "m:v2"))
    return tmp_path


def test_what_happened_is_in_one_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "m", "output=json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["champion"], document["watched"]) == ("m", "m:v2", "m@champion")
    assert document["others"] == ["m:v2"]
    reported = [(entry["kind"], entry["version"], entry["text"].partition(":")[0]) for entry in document["entries"]]
    assert reported[:3] == [
        ("version", "m:v1", "published, val/accuracy 0.91"),
        ("alias", "m:v1", "publish"),
        ("version", "m:v2", "published, val/accuracy 0.92, trained from m"),
    ]
    assert reported[-3:] == [
        ("alert", "m:v1", "drift firing"), ("retraining", "m:v2", "promoted"), ("alert", "m:v1", "drift resolved"),
    ]  # fmt: skip
    assert len(document["checks"]) == 20
    assert document["cycles"][0]["decision"] == "promoted"


def test_the_table_is_for_people(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "m", "last=2"]) == 0
    out = capsys.readouterr().out
    first = (
        "m: 2 versions, champion m:v2, 1 retraining cycle, 1 promoted, 1 alert, 20 checks of m@champion, others: m:v2"
    )
    assert out.splitlines()[0] == first
    assert "val/accuracy 0.92" in out
    assert "accuracy 0.931 (0.9 to 0.98)" in out
    assert "retraining  m:v2  promoted: all gates passed" in out
    assert "earlier ones are left out: last=0 shows all" in out
    assert main(["history", "m", "last=0"]) == 0
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["", "100"])
def test_long_reasons_are_complete_and_wrapped_on_a_terminal(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    reason = "; ".join(f"class {number} may be worse by {number}.25% on the original data" for number in range(9))
    journal = RetrainingJournal(place / "registry", "m")
    cycle = replace(journal.begin_cycle("m:v2"), ended=NOW.isoformat(), decision="rejected", reason=reason)
    journal.record_cycle(cycle, keep=False)
    assert main(["history", "m"]) == 0
    _, _, table = capsys.readouterr().out.split("\n\n", 2)
    lines = table.splitlines()
    assert (max(map(len, lines)) <= 100) is bool(columns)
    text = " ".join(" ".join(lines).split())
    assert all(part in text for part in reason.split("; "))


def test_the_page_has_lines_with_versions_and_alerts_and_tables(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "m", "page=out/history.html"]) == 0
    assert str(place / "out/history.html") in capsys.readouterr().out
    page = (place / "out/history.html").read_text()
    assert page.count("<figure") == 6
    for text in ("Accuracy", "Drift", "Events in the window", "Retraining", "all gates passed", "drift resolved"):
        assert text in page
    assert "src=" not in page
    plots = build_history_plots(collect_history(LocalRegistry(place / "registry"), "m", place / "events"))
    score = plots[0]
    assert isinstance(score, LinePlot)
    assert [(event.name, event.is_alert) for event in score.events if event.is_alert] == [("drift", True)]
    assert [event.name for event in score.events if not event.is_alert] == ["v1", "v2"]
    svg = ET.fromstring(str(draw_plot(score)))
    marks = [line for line in svg.iter("{http://www.w3.org/2000/svg}line") if line.get("class") == "mark"]
    assert len(marks) == 1
    curves = list(svg.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(curves) == 8  # four lines, each with a gap where the version changed
    assert NOW.strftime("%Y-%m-%d") in score.get_alt_text()
    assert isinstance(plots[-1], TableBlock)
    assert plots[-1].marked


def test_without_checks_and_cycles_there_are_versions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "m", "events=elsewhere", "page=h.html"]) == 0
    assert "no checks yet" in capsys.readouterr().out
    assert (place / "h.html").read_text().count("<figure") == 3


def test_another_reference_and_a_state_elsewhere(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "m", "watched=m:v2", "output=json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["checks"]) == 1
    CheckLog(place / "mine-checks.jsonl").append_record(check(3))
    assert main(["history", "m", "events=elsewhere", "state=mine.json", "output=json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["checks"]) == 1


def test_checks_of_several_logs_are_not_mixed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "logs/m/monitor"
    folder.mkdir(parents=True)
    for count, name in ((1, "a.csv-0a1b2c3d"), (2, "b.csv-4e5f6a7b")):
        for minute in range(count):
            CheckLog(folder / f"m_champion-{name}-checks.jsonl").append_record(check(minute))
    assert main(["history", "m", "events=logs", "output=json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["watched"], len(document["checks"])) == ("m@champion/b.csv-4e5f6a7b", 2)
    assert document["others"] == ["m@champion/a.csv-0a1b2c3d"]
    assert main(["history", "m", "events=logs", "watched=m@champion/a.csv-0a1b2c3d", "output=json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["checks"]) == 1


def test_looks_of_a_retraining_watch_are_there_by_default(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looks = CheckLog(place / "registry/retrain/m.watch-checks.jsonl")
    looks.append_record(check(3, watched="m", alerts=(alert("firing"),), firing=("degradation",)))
    assert main(["history", "m", "events=elsewhere", "output=json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (len(document["checks"]), document["watched"]) == (1, "retrain-watch")
    assert "alert" in {entry["kind"] for entry in document["entries"]}
    # Next to a monitor's they are others, and not mixed with its checks.
    assert main(["history", "m", "output=json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (len(document["checks"]), document["watched"]) == (20, "m@champion")
    assert document["others"] == ["m:v2", "retrain-watch"]


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (("nothing",), "no model 'nothing'", ""),
        (("m", "watched=m@champio"), "no checks of 'm@champio'", "watched=m@champion"),
        (("m", "watched=m@champion", "events=no"), "no checks of 'm@champion'", "mlscale monitor m@champion"),
        (("m", "state=gibtsnicht.json"), "no checks of m next to gibtsnicht.json", "leave state out"),
        (("m", "state=events/m/monitor/m_champio.json"), "no checks of m next to m_champio.json", "leave state out"),
        (("m", "pgae=x.html"), "unknown key 'pgae'", "page=x.html"),
    ],
)
def test_what_is_wrong_is_an_error_with_a_fix(place: Path, words: tuple[str, ...], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        main(["history", *words])
    assert what in caught.value.what
    assert fix in caught.value.fix
