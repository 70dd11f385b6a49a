"""/openapi.json and the page: a valid document, whose schemas describe what is taken and answered; nothing from
elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import openapi_spec_validator
import pytest
from jsonschema import Draft202012Validator

from mlscale.serve.protocol import home_page, openapi
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.protocol.openapi import build_example
from mlscale.serve.served_model import ServedModel, load_model
from mlscale.task_types.regression_type import RegressionType
from mlscale.task_types.task_type import AnswerNames, TargetColumn
from tests.made_servables import PENGUIN, make_servables
from tests.serving import STORED, Server, pixels

SAMPLES: dict[str, Any] = {
    "penguins": {**PENGUIN, "bill_length_mm": None},
    "mass": PENGUIN,
    "reviews": "a text",
    "photos": [[[0] * 8] * 8] * 3,
    "tags": [[[9] * 8] * 8] * 3,
    "masks": [[[255] * 8] * 8] * 3,
    "tales": "a document of some windows",
    "sums": {"left": [1, 2], "right": [3, 4.5]},
    "digits": pixels(1)[0].tolist(),
}
TAKEN_ALONE = ("penguins", "mass", "reviews", "tales")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServedModel]:
    folders = {**make_servables(tmp_path_factory.mktemp("made")), "digits": STORED}
    return {
        name: load_model(folder, name=name, version=f"{name}:v1", threads=1, max_batch=4)
        for name, folder in folders.items()
    }


def create_validator(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """Return a validator of a schema, with the document's components."""
    whole = {**schema, "components": document["components"]}
    Draft202012Validator.check_schema(whole)
    return Draft202012Validator(whole)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_described_is_taken_and_answered(models: dict[str, ServedModel], name: str) -> None:
    model, sample = models[name], SAMPLES[name]
    document = json.loads(json.dumps(openapi.build_openapi_document(model, needs_key=False, takes_labels=True)))
    post = document["paths"]["/predict"]["post"]
    body = create_validator(document, post["requestBody"]["content"]["application/json"]["schema"])
    response = create_validator(document, post["responses"]["200"]["content"]["application/json"]["schema"])
    bodies = [{"inputs": [sample]}, {"inputs": [sample, sample], "id": ["a", "b"]}]
    for given in [*bodies, sample] if name in TAKEN_ALONE else bodies:
        body.validate(given)
        request = predict.parse_predict_request(model, {}, json.dumps(given).encode())
        outputs = model.compute(request.samples)
        answer = predict.encode_predict_response(model, request, ["x"] * request.samples.size, outputs)[0]
        response.validate(json.loads(answer))
    assert not body.is_valid({"inputs": [sample], "more": 1})
    example = post["requestBody"]["content"]["application/json"].get("example")
    if example is not None:
        body.validate(example)
        assert predict.parse_predict_request(model, {}, json.dumps(example).encode()).samples.size == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_valid_openapi(models: dict[str, ServedModel], name: str) -> None:
    for needs_key in (False, True):
        document = openapi.build_openapi_document(models[name], needs_key=needs_key, takes_labels=True)
        openapi_spec_validator.validate(json.loads(json.dumps(document)))


def test_the_answer_names_classes_targets_and_units(models: dict[str, ServedModel]) -> None:
    def describe(name: str) -> dict[str, Any]:
        document = openapi.build_openapi_document(models[name], needs_key=False, takes_labels=True)
        properties: dict[str, Any] = document["components"]["schemas"]["Prediction"]["properties"]
        return properties

    assert describe("penguins")["label"]["enum"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert describe("penguins")["class"]["maximum"] == 2
    assert describe("penguins")["probabilities"]["minItems"] == 3
    assert describe("digits")["label"]["enum"] == list("0123456789")
    assert describe("tags")["labels"]["items"]["enum"] == ["sea", "sky", "sand"]
    assert describe("masks")["shares"]["propertyNames"]["enum"] == ["ground", "cat", "dog"]
    value, unit = describe("mass")["value"], describe("mass")["unit"]
    assert (value["title"], value["x-unit"], unit) == ("body_mass_g", "g", {"const": "g"})


def test_several_targets_are_named_each() -> None:
    targets = (TargetColumn("rent", "EUR"), TargetColumn("rooms"))
    schema = RegressionType().describe_answer(AnswerNames(targets=targets))
    (answer,) = RegressionType().build_answers({"value": np.array([[1.0, 2.0]])}, AnswerNames(targets=targets))
    Draft202012Validator(schema).validate(answer)
    assert list(schema["properties"]["value"]["properties"]) == ["rent", "rooms"]
    assert schema["properties"]["unit"]["properties"] == {"rent": {"const": "EUR"}}
    for row in ([1.0], [1.0, 2.0]):
        (answer,) = RegressionType().build_answers({"value": np.array([row])}, AnswerNames())
        Draft202012Validator(RegressionType().describe_answer(AnswerNames())).validate(answer)


def test_the_key_is_named(models: dict[str, ServedModel]) -> None:
    document = openapi.build_openapi_document(models["penguins"], needs_key=True, takes_labels=True)
    assert document["security"] == [{"bearer": []}, {"key": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}


def test_the_server_answers_it(server: Server) -> None:
    document = server.ask("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == server.version
    assert set(document["paths"]["/predict"]["post"]["requestBody"]["content"]) >= {
        "application/json",
        "application/octet-stream",
        "image/png",
        "image/webp",
    }


def test_the_example_has_no_rounding_error_of_a_median() -> None:
    column = {"name": "mass", "type": "number", "median": (99.9 + 99.99999999999999) / 2}
    assert build_example({"type": "table", "columns": [column]})["example"] == {"mass": 99.95}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_has_what_its_script_reads(models: dict[str, ServedModel], name: str) -> None:
    page = home_page.render_home_page(models[name]).decode()
    found = re.search(r'<script type="application/json" id="model">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert data["raw"] == models[name].servable.encoder.describe_raw_input()
    assert data["form"] == {"sums": "json", "penguins": "table", "mass": "table", "reviews": "text"}.get(
        name, "text" if name == "tales" else "image"
    )


def test_the_page_runs_its_own_script_alone(server: Server) -> None:
    reply = server.ask("/")
    page, policy = reply.body.decode(), reply.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert re.findall(r"(?:src|href)=\"?(?:https?:)?//", page) == []
    assert not re.search(r"\son\w+=|style=|innerHTML|eval\(", page)
    assert Path(home_page.__file__).with_name("try_page.html").is_file()
