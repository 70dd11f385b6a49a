"""The doors: one file a verb. `call` opens one from Python; the command line opens them for people."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from mlscale.launch.background_command import Background
    from mlscale.report import Result


@dataclass(frozen=True)
class Verb:
    """What the command line knows of a verb without importing it.

    Attributes:
        summary: one line of help.
        working: composes a config and takes `key=value`; otherwise it takes sub-commands and options.
        examples: commands with what they do.
    """

    summary: str
    working: bool
    examples: tuple[tuple[str, str], ...]


VERBS = {
    "train": Verb(
        "train what a recipe describes (the default)",
        True,
        (
            ("mlscale +recipe=resnet", "train the small ResNet on digits"),
            ("mlscale +recipe=resnet trainer.devices=8", "on eight devices, the same global batches"),
            ("mlscale +recipe=resnet data=fashion_mnist precision=bf16", "on other data, in bfloat16"),
            ("mlscale -m +recipe=resnet optimizer.lr=0.1,0.01 seed=1,2", "a sweep: four runs and a table"),
            ("mlscale +recipe=resnet debug=fast", "one step of everything"),
            ("mlscale like=last init_from=last optimizer.lr=0.01", "the last run's config and best weights, a new run"),
            ("mlscale task._target_=my_pkg.MyModule data._target_=my_pkg.MyData", "your own classes, from this folder"),
        ),
    ),
    "evaluate": Verb(
        "measure a model: figures with intervals, classes, slices, worst errors; two models beside each other",
        True,
        (
            ("mlscale evaluate run=last", "the best checkpoint of the last run"),
            ("mlscale evaluate run=last checkpoint=last split=test", "the last one, on test data"),
            ("mlscale evaluate version=resnet@champion", "a version, checkpoint or servable"),
            ("mlscale evaluate run=last against=resnet@champion", "which of the two is better, with a test"),
            ("mlscale evaluate run=last 'slices=[brightness,slices.csv]'", "parts of the data, worst first"),
            ("mlscale evaluate run=last data=webdataset data.train=… data.val=…", "on other data"),
        ),
    ),
    "predict": Verb(
        "score many inputs with a model: one row each, resumable, over several devices",
        True,
        (
            ("mlscale predict run=last input=photos to=preds", "every image below a folder, with the last run's best"),
            (
                "mlscale predict version=resnet@champion input='shards/{000..099}.tar' to=preds",
                "shards, with a servable",
            ),
            (
                "mlscale predict servable=models/digits input=day.parquet key=id to=preds",
                "a table, rows named by a column",
            ),
            ("mlscale predict run=last input=photos to=preds trainer.devices=4", "four processes; killed, it goes on"),
            ("mlscale predict version=resnet@champion input=photos to=preds events=events", "with events for monitor"),
        ),
    ),
    "compress": Verb(
        "make a run's checkpoint smaller and faster, and keep that only when it is measured to be",
        True,
        (
            ("mlscale compress run=last compress=int8", "the best checkpoint of the last run; export takes it if kept"),
            ("mlscale compress run=last compress=int8 compress.int8.max_accuracy_drop=0.002", "a stricter bound"),
            ("mlscale compress run=last compress=int8 compress.int8.required=true", "exit code 4 if it is not kept"),
        ),
    ),
    "export": Verb(
        "turn a run's checkpoint into a servable: ONNX, proof of parity, reference profile",
        True,
        (
            ("mlscale export run=last", "the best checkpoint of the last run, into its folder"),
            ("mlscale export run=last to=models/digits", "into a folder of its own"),
        ),
    ),
    "prepare": Verb(
        "write a bundled data set into the cache as WebDataset shards, or record digests of your own",
        True,
        (
            ("mlscale prepare data=fashion_mnist", "60,000 images, once"),
            ("mlscale prepare data=webdataset data.train=shards data.val=val", "a digest of every member of these"),
        ),
    ),
    "estimate": Verb(
        "tell memory, time and cost of a training run before it starts",
        True,
        (
            ("mlscale estimate +recipe=resnet", "peak memory of a step, time of the run on this machine"),
            ("mlscale estimate +recipe=resnet data.batch_size=256 precision=bf16", "of another batch and precision"),
            ("mlscale estimate +recipe=resnet estimate.instance=aws/g5.xlarge", "what it costs, and whether it fits"),
            ("mlscale estimate +recipe=resnet estimate.max_hours=2", "exit code 4 where it would take longer"),
        ),
    ),
    "serve": Verb(
        "answer requests with a servable: HTTP, V2 inference protocol, hot swap, events",
        True,
        (
            ("mlscale serve servable=resnet@champion", "and whatever becomes champion, without a pause"),
            ("mlscale serve servable=models/digits port=0", "a folder, on a free port"),
            ("mlscale serve servable=resnet:v7 events=null follow=false", "one version, and nothing is kept"),
            ("mlscale serve servable=resnet@champion sample_share=0.1", "every tenth prediction keeps its input"),
        ),
    ),
    "loadtest": Verb(
        "ask a server with Locust, and hold latency, failures and throughput against an objective",
        True,
        (
            (
                "mlscale loadtest url=http://127.0.0.1:8000 slo.p99_ms=50",
                "eight clients for ten seconds; exit code 4 when missed",
            ),
            (
                "mlscale loadtest url=http://127.0.0.1:8000 rate=200 users=32",
                "200 requests a second, whether or not answers come",
            ),
            (
                "mlscale loadtest url=http://127.0.0.1:8000 samples=digits.npz",
                "real samples; their labels give the accuracy",
            ),
        ),
    ),
    "retrain": Verb(
        "learn from labelled events, compare with the champion, promote what is better",
        True,
        (
            (
                "mlscale retrain servable=resnet events=events",
                "the champion learns on, its data and the window mixed",
            ),
            (
                "mlscale retrain servable=resnet window.hours=24 passes=5 optimizer.lr=0.01",
                "what else is typed trains it",
            ),
            ("mlscale retrain servable=resnet force=true", "in the pause after a rejection, too"),
        ),
    ),
    "profile": Verb(
        "tell what bounds a training run, and prove the remedy",
        True,
        (
            ("mlscale profile +recipe=resnet", "data or computing, by how much, and what to type"),
            ("mlscale profile run=last", "of a run that was made; the page goes into its folder"),
            ("mlscale profile +recipe=mine profile.seconds=60", "longer rounds, on a machine that is not quiet"),
        ),
    ),
    "lifecycle": Verb(
        "the whole way on one machine: train, serve, shift, alert, retrain, swap",
        True,
        (
            ("mlscale lifecycle +recipe=resnet", "twelve steps, each with its figure, and a page that tells them"),
            ("mlscale lifecycle +recipe=resnet lifecycle.shift=turn", "production turns its camera"),
            ("mlscale lifecycle +recipe=resnet lifecycle.slo.p99_ms=20", "exit code 4 where the load test finds more"),
        ),
    ),
    "verify-resume": Verb(
        "kill your own run several times, and say whether it goes on to the bit",
        True,
        (
            ("mlscale verify-resume +recipe=resnet trainer.max_epochs=3", "three kills of a run of three epochs"),
            ("mlscale verify-resume +recipe=mine kills=10 kill_seed=7", "ten kills, at other places"),
            ("mlscale verify-resume +recipe=mine trainer.devices=2", "two processes, killed together"),
            ("mlscale verify-resume +recipe=mine trainer.limit_train_batches=20 keep=true", "keep the runs and traces"),
        ),
    ),
    "monitor": Verb(
        "compare production with the reference profile: drift, damage, latency; one alert for each incident",
        True,
        (
            ("mlscale monitor servable=resnet@champion", "one look at the last day; exit code 4 while alerting"),
            ("mlscale monitor servable=resnet@champion alert.webhook=http://127.0.0.1:9000/", "and tell a webhook"),
            ("mlscale monitor servable=resnet@champion watch=true every_s=60", "look each minute, until SIGTERM"),
            ("mlscale monitor servable=resnet@champion page=monitor.html", "with figures, as a page"),
        ),
    ),
    "config": Verb(
        "print, explain and check a composed config",
        False,
        (
            ("mlscale config show +recipe=resnet --origin", "which file or override set each key"),
            (
                "mlscale config check +recipe=resnet optimizer.lr=0.1",
                "all problems at once; exit code 2 if there are any",
            ),
            ("mlscale config schema", "a JSON schema for editors"),
        ),
    ),
    "recipes": Verb(
        "list, read and copy recipes",
        False,
        (
            ("mlscale recipes ls", "every recipe and what it is for"),
            ("mlscale recipes cp resnet mine", "write recipes/recipe/mine.yaml to start from"),
        ),
    ),
    "runs": Verb(
        "list, show, compare and remove runs",
        False,
        (
            ("mlscale runs ls", "the runs of this folder, newest first"),
            ("mlscale runs diff last 2xk3f", "what two runs have set differently, and what came of it"),
        ),
    ),
    "versions": Verb(
        "publish, list, promote and roll back versions of models",
        False,
        (
            ("mlscale versions add last --alias challenger", "the last run's best checkpoint as a version"),
            ("mlscale versions show resnet@champion", "where it comes from, and whether it is whole"),
            ("mlscale versions promote resnet:v7", "make it the champion"),
            ("mlscale versions rollback resnet", "the champion before it again"),
        ),
    ),
    "init": Verb(
        "write a small working project: model, data, recipe, tests, CI",
        False,
        (
            ("mlscale init digits", "a folder of that name; then: cd digits && mlscale recipe=digits"),
            ("mlscale init my-net --to work", "into another folder"),
        ),
    ),
    "env": Verb(
        "what this machine has, and what will and won't work on it",
        False,
        (("mlscale env", "devices, cores, memory, disk, versions"),),
    ),
}


def call(verb: str, overrides: Sequence[str] = ()) -> Result:
    """Run a working verb as the command line would, and return its result.

    Raises:
        MLScaleError: everything that the command line would print.
    """
    from mlscale.assembly.ready import ready

    return run(verb, ready(verb, overrides))


def background(verb: str, overrides: Sequence[str], folder: Path) -> AbstractContextManager[Background]:
    """Run a verb that stays (a server, load, a watch) as a command of its own, which ends with the `with` block.

    Args:
        folder: where what it prints is kept, `<verb>.out` and `<verb>.log`.
    """
    from mlscale.launch.background_command import background as started

    return started([verb, *overrides], folder)


def run(verb: str, cfg: DictConfig) -> Result:
    """Run a working verb on a config that was checked; what it prints shows no secrets."""
    from mlscale.launch.socket_paths import shorten_socket_paths
    from mlscale.secrets.mask import Masker, masked_output

    shorten_socket_paths()  # before anything starts a process
    with masked_output(Masker.of(cfg)):
        result: Result = import_module(f"mlscale.commands.{verb.replace('-', '_')}").run(cfg)
    return result
