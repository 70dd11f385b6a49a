"""Report the calibration of a classifier, and the temperature that would improve it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.report import BarPlot, Heading, LinePlot, Series
from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.intervals import Interval
from mlscale.stats.reliability import compute_nll, compute_reliability, estimate_calibration_error, fit_temperature
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import EvaluationReport, expand_interval

Floats = NDArray[np.float64]
_MIN_LOGITS = 100  # kept logits below which no temperature is fitted: each half would have fewer than 50


def build_calibration_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return calibration error (ECE), Brier score and loss with intervals, the reliability diagram and the temperature.

    The temperature is fitted on one half of the samples whose logits were kept and measured on the other, both ways.
    """
    columns = gathered.columns
    confidence, correct = columns["confidence"], columns["truth"] == columns["predicted"]
    diagram = compute_reliability(confidence, correct)
    error = estimate_calibration_error(confidence, correct, seed=seed)
    brier, loss = _compute_means(columns["brier"], columns["loss"], seed)
    metrics = {
        **expand_interval("ece", error.debiased),
        "ece_binned": error.binned,
        "ece_binned_if_calibrated": error.if_calibrated,
        **expand_interval("brier", brier),
        **expand_interval("loss", loss),
    }
    # Both errors are measured on the samples with kept logits only: they are not comparable with `ece` above.
    correction = _measure_temperature_gain(gathered, seed)
    remarks, note = [], ""
    if correction:
        power, before, after = correction
        metrics |= {"temperature": power, "ece_at_temperature": after}
        side = "too sure" if power > 1 else "not sure enough"
        # Advise only where the miscalibration is significant and the gain is more than noise.
        if error.debiased.low > 0 and after < before * 0.9 and abs(power - 1) > 0.05:
            remarks = [
                f"the model is {side}: dividing logits by {power:.2f} brings the ECE from {before:.3f} to {after:.3f}"
            ]
            note = f" Logits divided by {power:.2f} would correct it: ECE {after:.3f}, on samples it was not fitted on."
        else:
            note = " No temperature would improve it noticeably."
    counts = np.histogram(confidence, np.linspace(0, 1, 11))[0]
    # The diagonal of perfect calibration starts at the lowest confidence or accuracy, whichever is lower.
    ends = [float(diagram.confidence.min(initial=0)), 1.0]
    ends[0] = min(ends[0], float(diagram.accuracy.min()))
    debiased = error.debiased
    text = (
        f"Expected calibration error {debiased.value:.3f} [{debiased.low:.3f}, {debiased.high:.3f}]: how far "
        f"confidence and accuracy lie apart on average, the noise of {len(confidence):,} samples taken off. Over "
        f"{len(diagram.samples)} bins of equally many samples it is {error.binned:.3f} with that noise, where a "
        f"perfectly calibrated model is expected to have {error.if_calibrated:.3f}." + note
    )
    return EvaluationReport(
        metrics=metrics,
        headline="",
        remarks=remarks,
        blocks=[
            Heading("Calibration", text),
            LinePlot(
                "Reliability",
                [
                    Series("accuracy of a bin", diagram.accuracy.tolist(), diagram.confidence.tolist()),
                    Series("perfectly calibrated", ends, ends),
                ],
                "confidence",
                "accuracy",
            ),
            BarPlot(
                "Confidence of the predictions",
                [f"{edge / 10:.1f}" for edge in range(10)],
                [Series("samples", [float(count) for count in counts])],
                "confidence from",
                "samples",
            ),
        ],
        details={
            "reliability": [
                {"confidence": float(c), "accuracy": float(a), "samples": int(s)}
                for c, a, s in zip(diagram.confidence, diagram.accuracy, diagram.samples, strict=True)
            ]
        },
    )


def _compute_means(brier: Floats, loss: Floats, seed: int) -> tuple[Interval, Interval]:
    """Return Brier score and loss with bootstrap intervals."""
    # The bootstrap takes functions of sums: a mean is the sum of the values divided by the sum of ones.
    rows = np.stack([brier, loss, np.ones(len(brier))], 1)
    estimates = bootstrap_intervals(rows, lambda sums: sums[:, :2] / sums[:, 2:], seed=seed)
    return estimates[0], estimates[1]


def _measure_temperature_gain(gathered: CollectedSamples, seed: int) -> tuple[float, float, float] | None:
    """Return the temperature, and the ECE before and after on held-out samples; None if there are too few samples."""
    logits, rows = gathered.logits, gathered.logit_rows
    if logits is None or len(logits) < _MIN_LOGITS:
        return None
    truth = gathered.columns["truth"][rows].astype(np.int64)
    half = np.random.default_rng(seed).permutation(len(truth)) % 2 == 0
    scaled = np.asarray(logits, np.float64).copy()
    # Cross-fitting in two halves: a temperature measured on the samples that it was fitted on would look too good.
    for part in (half, ~half):
        scaled[part] /= fit_temperature(logits[~part], truth[~part])
    errors = []
    for candidate in (np.asarray(logits, np.float64), scaled):
        predicted = candidate.argmax(-1)
        errors.append(compute_reliability(np.exp(-compute_nll(candidate, predicted)), predicted == truth).ece)
    # The temperature to use is fitted on all of them; the two of the halves only serve to measure its gain.
    return fit_temperature(logits, truth), errors[0], errors[1]
