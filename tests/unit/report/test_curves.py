"""A run's logged metrics as plots."""

from pathlib import Path

from mlscale.report.curves import build_metric_plots, read_metric_points

LOGGED = """step,train/loss,train/lr,epoch,val/loss,val/accuracy,train/loss_epoch
9,2.2,0.05,0,,,
19,1.2,0.10,0,,,
21,,,0,1.1,0.67,
21,,,0,,,1.6
29,nan,x,1,,,
"""


def test_loss_and_metric_over_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(LOGGED)
    loss, accuracy = build_metric_plots(path, "val/accuracy")
    assert [(series.name, series.get_points()) for series in loss.series] == [
        ("train/loss", [(9, 2.2), (19, 1.2)]),
        ("val/loss", [(21, 1.1)]),
    ]
    assert [(series.name, series.get_points()) for series in accuracy.series] == [("val/accuracy", [(21, 0.67)])]
    assert [plot.title for plot in build_metric_plots(path, "val/loss")] == ["Loss"]


def test_no_file_and_no_csv(tmp_path: Path) -> None:
    assert build_metric_plots(tmp_path / "metrics.csv", "val/accuracy") == ()
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"\xff\xfe\x00step,\n1,2,3,4\n")
    assert build_metric_plots(path, "val/accuracy") == ()
    path.write_text("a,b\n1,2\n")
    assert read_metric_points(path) == {}
