"""No command of the docs can rot: each parses, each composes, those that are cheap run; and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from pydoc import locate

import pytest

import mlscale
from mlscale.cli import main
from mlscale.commands import COMMANDS
from mlscale.commands.command import STAGES
from mlscale.commands.options import read_options
from mlscale.config.composition.argv import parse_command_line
from scripts.docs_commands import ROOT, Command, commands, files, overlooked, pages
from scripts.docs_navigation import navigation
from scripts.docs_outputs import list_outputs
from scripts.docs_site import REFERENCE
from tests.contract.test_docs_pages import RUN

OF_THE_READER = (
    "--help",
    "predict models/digits",
    "evaluate models/digits",
    "my_pkg",
    "my_module",
    "my_project",
    "backbone_image_classifier",
    "lit_digits",
    "mnist_datamodule",
    "s3://bucket/ckpts/1s2de0abcdef",
    "…",
)  # asks for help, or names what only they have
HELP = [
    Command(f"{name} --help", typed)
    for name, command in COMMANDS.items()
    for examples in (command.examples, *(action.examples for action in command.actions.values()))
    for typed, _ in examples
    if typed.startswith("mlscale ")
]
ALL = [command for page in pages() for command in commands(page) if command.words] + HELP
ALL = [command for command in ALL if command.page != "extending.md"]  # of a package, which scripts.third_party installs
# What stands for something of the reader's own: a page can't know a run's id.
STANDS_FOR = {"1s2de0": "last", "recipe=mine": "recipe=resnet", "recipe=my_net": "recipe=resnet", "/my_pkg": "/x"}
# Files of a page whose package the tests do not have.
STANDS_FOR |= {"model=hf_vit": "model=vit", "model=hf_bert": "model=text_cnn", "model=hf_gpt2": "model=gpt"}


def verb_and_rest(command: Command) -> tuple[str, list[str]]:
    words = command.words
    return (words[0], words[1:]) if words and words[0] in COMMANDS else ("train", words)


def test_the_pages_have_commands() -> None:
    assert len(ALL) > 150
    assert {command.page for command in ALL} >= set(RUN) - {"debugging.md"}
    assert {"train", "evaluate", "runs", "versions", "export"} <= {verb_and_rest(command)[0] for command in ALL}


def test_commands_have_a_package_a_stage_and_a_page_that_opens_with_an_example() -> None:
    packages = {path.parent.name for path in (ROOT / "mlscale/commands").glob("*/entry.py")}
    assert {name.replace("-", "_") for name in COMMANDS} == packages
    assert [name for stage in STAGES for name, each in COMMANDS.items() if each.stage == stage] == list(COMMANDS)
    contents: dict[str, str] = {}
    for section in navigation({page.name for page in pages()}):
        contents |= {title: str(entries) for title, entries in section.items()}
    for name, command in COMMANDS.items():
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert f"mlscale {name}" in text.partition("\n## ")[0], f"docs/{name}.md opens without an example"
        assert f"'{name}.md'" in contents[command.stage.capitalize()], name


def test_the_page_of_a_command_shows_what_it_prints() -> None:
    for name in COMMANDS:
        page = ROOT / "docs" / f"{name}.md"
        text = page.read_text(encoding="utf-8")
        shown = [command for command, output in list_outputs(page) if output.strip()]
        fences = re.findall(r"^```(\w*)\n.*?^```$", text, flags=re.MULTILINE | re.DOTALL)
        assert shown or {"", "text"} & set(fences), f"docs/{name}.md shows no output"
    for page in pages():
        assert [command for command, output in list_outputs(page) if not output.startswith("$ ")] == [], page


def test_scripts_are_typed_as_modules_that_exist() -> None:
    # By its path a script does not find the packages `scripts` and `tests`, which some of them import.
    texts = [*pages(), *(ROOT / "scripts").glob("*.py")]
    typed = [name for page in texts for name in re.findall(r"python -m scripts\.(\w+)", page.read_text())]
    assert len(typed) > 60
    there = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    there |= {path.parent.name for path in (ROOT / "scripts").glob("*/__main__.py")}
    assert sorted(set(typed) - there) == []
    assert [page.name for page in texts if re.search(r"python scripts/\w+\.py", page.read_text())] == []


def test_the_places_of_the_architecture_page_are_there() -> None:
    """In each row a file is followed by what is in it."""
    text = (ROOT / "docs/architecture.md").read_text().partition("## Where is what decided")[2].partition("\n## ")[0]
    names, source, missing = re.findall(r"`([\w/.]+)`", text.partition("|---|---|")[2]), "", []
    for name in names:
        if name.endswith(".py"):
            source = (ROOT / "mlscale" / name).read_text()
        elif not re.search(rf"(def|class) {name}\b", source):
            missing.append(name)
    assert len(names) > 30
    assert missing == []


@pytest.mark.parametrize("target", [target for targets in REFERENCE.values() for target in targets])
def test_what_the_reference_documents_is_there(target: str) -> None:
    """The site's build says it too, but is slow."""
    assert locate(target) is not None


def test_the_derived_values_are_all_listed() -> None:
    table = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").partition("| about | `${derived.…}` |")[2]
    listed = re.findall(r"`(\w+)`", table.partition("\n\n")[0])
    shipped = (ROOT / "conf/base/run.yaml").read_text(encoding="utf-8").partition("\nderived:\n")[2]
    assert sorted(listed) == sorted(re.findall(r"^  (\w+):", shipped, re.MULTILINE))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_command_is_overlooked(page: Path) -> None:
    assert overlooked(page) == []


@pytest.mark.parametrize("page", sorted({command.page for command in ALL}))
def test_every_command_parses(page: str, folder: Path) -> None:
    for command in ALL:
        verb, rest = verb_and_rest(command)
        if command.page != page:
            continue
        if COMMANDS[verb].has_config:
            parse_command_line(verb, rest)
        else:
            read_options(verb, COMMANDS[verb].actions, rest)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a version and what the cookbook writes: commands speak of them."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("MLSCALE_CACHE", str(folder / "cache"))
        mlscale.run("train", ["+recipe=resnet", "model=mlp", "debug=fast"])
        assert main(["versions", "add", "last", "alias=champion", "name=resnet"]) == 0
        for name, text in files(ROOT / "docs/cookbook.md").items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_composes(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_folder)
    monkeypatch.syspath_prepend(run_folder)
    monkeypatch.setenv("SERVE_KEY", "what serve.md exports")
    wrong = []
    known: set[tuple[str, ...]] = set()  # typed on several pages, or in another order
    for command in dict.fromkeys(ALL):
        verb, rest = verb_and_rest(command)
        if not COMMANDS[verb].has_config or any(part in command.text for part in OF_THE_READER):
            continue
        words = [_standing(word) for word in rest if word != "-m"]
        words = [re.sub(r"=([^\[{']*?),.*$", r"=\1", word) for word in words] if "-m" in rest else words
        if (typed := (verb, *sorted(words))) in known:
            continue
        known.add(typed)
        try:
            mlscale.compose(words, command=verb)
        except mlscale.MLScaleError as error:
            wrong.append(f"{command.page}: {command.text}\n{error}")
    assert not wrong, "\n\n".join(wrong)


def _standing(word: str) -> str:
    for name, instead in STANDS_FOR.items():
        word = word.replace(name, instead)
    return word


@pytest.mark.slow
def test_the_site_is_published_by_the_script_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"

    def git(*words: str, where: Path = remote) -> str:
        return subprocess.run(["git", *words], cwd=where, capture_output=True, text=True, check=True).stdout

    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    before = git("status", "--porcelain", where=ROOT)
    author = {f"GIT_{who}_{what}": "docs@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **author, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = ["bash", "scripts/publish_docs.sh", str(remote)]
    for expected in ("is now the site of", "is now the site of|is this site already"):
        done = subprocess.run(script, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.search(expected, done.stdout)
    assert git("status", "--porcelain", where=ROOT) == before
    published = git("ls-tree", "-r", "--name-only", "gh-pages").splitlines()
    pages_of = {"index.html", "tutorial.html", "train.html", "commands.html", "reference/mlscale.html"}
    assert pages_of | {".nojekyll"} <= set(published)
    page = git("show", "gh-pages:index.html")
    assert not re.search(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(?:https?:)?//""", page)
    assert "mlscale.api.load" not in git("show", "gh-pages:index.html")
    assert "compose" in git("show", "gh-pages:reference/mlscale.html")
