"""Monitoring and retraining where users send several requests, and few of these are labelled; and the same as a log."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from mlscale import commands
from mlscale.export.servable import load
from tests.e2e.test_retrain import Place, begun, digits, place, turned  # noqa: F401 - fixtures, too
from tests.event_writing import add_answers


@pytest.mark.slow
def test_users_of_whose_requests_one_in_twenty_is_labelled(
    place: Place,  # noqa: F811 - the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop as production has it, and the same requests as the log of another server."""
    monkeypatch.chdir(place.folder)
    raw, truth = digits(1797)
    chosen = np.random.default_rng(11).permutation(5 * len(raw)) % len(raw)
    noise = np.random.default_rng(12).integers(0, 9, (len(chosen), 1, 8, 8))
    asked = turned((raw[chosen] // 2 + noise).astype(np.uint8))
    ids, users = [f"r{n}" for n in range(len(asked))], [f"user-{n % 120}" for n in range(len(asked))]
    labelled = np.random.default_rng(13).permutation(len(asked))[: len(asked) // 20]
    labels = {ids[n]: truth[chosen[n]] for n in labelled}
    servable = load(place.registry.resolve_version("digits@champion").payload)
    writer = place.store.open_writer("digits", sample_share=1.0)
    for part in range(0, len(asked), 1000):
        rows = slice(part, part + 1000)
        add_answers(writer, servable, ids[rows], list(asked[rows]), version="digits:v1", groups=users[rows])
    writer.close()
    place.store.add_labels("digits", list(labels), list(labels.values()))

    answers = servable.predict(asked)
    log = Path("requests.jsonl")
    now = time.time()
    with log.open("w") as file:
        for n, (label, shares) in enumerate(zip(answers.labels, answers.probabilities, strict=True)):
            row = {"id": ids[n], "ts": int(1000 * (now - 60 + n / 200)), "user": users[n], "said": str(label)}
            file.write(json.dumps({**row, "score": float(shares.max())}) + "\n")
        for id_, label in labels.items():  # which came later
            file.write(json.dumps({"id": id_, "truth": label}) + "\n")
    Path("mapping.yaml").write_text(
        "time: ts\nprediction: said\nconfidence: score\nlabel: truth\nid: id\ngroup: user\n"
    )
    words = [place.words[0], *place.words[2:4]]
    own = commands.run_command("monitor", [*place.words[:4], "alert.state=own.json"])
    foreign = commands.run_command(
        "monitor", [*words, f"events={log}", "mapping=mapping.yaml", "alert.state=foreign.json"]
    )
    for result in (own, foreign):
        assert result.metrics["labelled_events"] == len(labels) == 449
        assert ": degradation" in result.sentence
        assert "without a group" not in result.sentence
    assert foreign.metrics["accuracy"] == own.metrics["accuracy"] < 0.5

    result = place.turn()
    assert result.ok, result.sentence
    (line,) = place.journal
    assert (line["decision"], line["window"]["samples"]) == ("promoted", 449)
    assert result.metrics["challenger_window_accuracy"] > 0.7
    assert 0.1 < line["window"]["held_out"] / 449 < 0.5
