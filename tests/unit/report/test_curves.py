"""A run's logged metrics as plots."""

from pathlib import Path

from mlscale.report.curves import build_compared_plots, build_run_plots, read_metric_points

LOGGED = """step,train/loss,train/lr,epoch,val/loss,val/accuracy,train/loss_epoch
9,2.2,0.05,0,,,
19,1.2,0.10,0,,,
21,,,0,1.1,0.67,
21,,,0,,,1.6
29,nan,x,1,,,
"""


def test_loss_and_metric_come_first_and_settings_last(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(LOGGED)
    loss, accuracy, rate = build_run_plots(read_metric_points(path), "val/accuracy", resumed=[10])
    assert [(series.name, series.get_points()) for series in loss.series] == [
        ("train/loss", [(9, 2.2), (19, 1.2)]),
        ("val/loss", [(21, 1.1)]),
    ]
    assert [(event.name, event.x) for event in loss.events] == [("resumed", 10)]
    assert [(series.name, series.get_points()) for series in accuracy.series] == [("val/accuracy", [(21, 0.67)])]
    assert (accuracy.y, rate.title, rate.y) == ("val/accuracy", "Learning rate", "learning rate")


def test_names_of_lightning_modules_are_grouped_too() -> None:
    names = ("train_loss_step", "train_loss_epoch", "val_loss", "val_acc")
    plots = build_run_plots({name: [(0, 20.0), (1, 1.0)] for name in names}, "val_acc")
    assert [[series.name for series in plot.series] for plot in plots] == [list(names[:3]), ["val_acc"]]
    assert [plot.title for plot in build_run_plots({"val/miou": [(0, 1.0)], "val/map": [(0, 1.0)]}, "")] == [
        "mAP",
        "mIoU",
    ]


def test_two_runs_share_a_plot() -> None:
    logged = {"one": {"train/loss": [(0.0, 2.0)], "val/a": [(0.0, 1.0)]}, "two": {"train/loss": [(0.0, 3.0)]}}
    loss, metric = build_compared_plots(logged, "val/a")
    assert [(item.name, item.y) for item in loss.series] == [("one: train/loss", [2.0]), ("two: train/loss", [3.0])]
    assert [series.name for series in metric.series] == ["one: val/a"]


def test_no_file_and_no_csv(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_metric_points(path) == {}
    path.write_bytes(b"\xff\xfe\x00step,\n1,2,3,4\n")
    assert build_run_plots(read_metric_points(path), "val/accuracy") == []
    path.write_text("a,b\n1,2\n")
    assert read_metric_points(path) == {}
