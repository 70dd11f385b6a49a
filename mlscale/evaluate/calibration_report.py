"""Report the calibration of a classifier, and the temperature that would improve it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate.report_wording import Judged, named
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Bars, Heading, Line, Series
from mlscale.stats.bootstrap import bootstrap
from mlscale.stats.calibration_error import calibration_error
from mlscale.stats.intervals import Interval
from mlscale.stats.reliability import nll, reliability, temperature

Floats = NDArray[np.float64]
_LEAST = 100  # kept logits below which no temperature is fitted: each half would have fewer than 50


def judge(gathered: Gathered, seed: int = 0) -> Judged:
    """Return calibration error (ECE), Brier score and loss with intervals, the reliability diagram and the temperature.

    The temperature is fitted on one half of the samples whose logits were kept and measured on the other, both ways.
    """
    columns = gathered.columns
    confidence, right = columns["confidence"], columns["truth"] == columns["predicted"]
    found = reliability(confidence, right)
    error = calibration_error(confidence, right, seed=seed)
    brier, loss = _means(columns["brier"], columns["loss"], seed)
    metrics = {
        **named("ece", error.debiased),
        "ece_binned": error.binned,
        "ece_binned_if_calibrated": error.if_calibrated,
        **named("brier", brier),
        **named("loss", loss),
    }
    # Both errors are measured on the samples with kept logits only: they are not comparable with `ece` above.
    mended = _mended(gathered, seed)
    remarks, note = [], ""
    if mended:
        power, before, after = mended
        metrics |= {"temperature": power, "ece_at_temperature": after}
        side = "too sure" if power > 1 else "not sure enough"
        # Advise only where the miscalibration is significant and the gain is more than noise.
        if error.debiased.low > 0 and after < before * 0.9 and abs(power - 1) > 0.05:
            remarks = [
                f"the model is {side}: dividing logits by {power:.2f} brings the ECE from {before:.3f} to {after:.3f}"
            ]
            note = f" Logits divided by {power:.2f} would mend it: ECE {after:.3f}, on samples it was not fitted on."
        else:
            note = " No temperature would mend it noticeably."
    counts = np.histogram(confidence, np.linspace(0, 1, 11))[0]
    # The diagonal of perfect calibration starts at the lowest confidence or accuracy, whichever is lower.
    ends = [float(found.confidence.min(initial=0)), 1.0]
    ends[0] = min(ends[0], float(found.accuracy.min()))
    debiased = error.debiased
    text = (
        f"Expected calibration error {debiased.value:.3f} [{debiased.low:.3f}, {debiased.high:.3f}]: how far "
        f"confidence and accuracy lie apart on average, the noise of {len(confidence):,} samples taken off. Over "
        f"{len(found.samples)} bins of equally many samples it is {error.binned:.3f} with that noise, where a "
        f"perfectly calibrated model is expected to have {error.if_calibrated:.3f}." + note
    )
    return Judged(
        metrics=metrics,
        headline="",
        remarks=remarks,
        figures=[
            Heading("Calibration", text),
            Line(
                "Reliability",
                [
                    Series("accuracy of a bin", found.accuracy.tolist(), found.confidence.tolist()),
                    Series("as sure as right", ends, ends),
                ],
                "confidence",
                "accuracy",
            ),
            Bars(
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
                for c, a, s in zip(found.confidence, found.accuracy, found.samples, strict=True)
            ]
        },
    )


def _means(brier: Floats, loss: Floats, seed: int) -> tuple[Interval, Interval]:
    """Return Brier score and loss with bootstrap intervals."""
    # The bootstrap takes functions of sums: a mean is the sum of the values divided by the sum of ones.
    rows = np.stack([brier, loss, np.ones(len(brier))], 1)
    found = bootstrap(rows, lambda sums: sums[:, :2] / sums[:, 2:], seed=seed)
    return found[0], found[1]


def _mended(gathered: Gathered, seed: int) -> tuple[float, float, float] | None:
    """Return the temperature, and the ECE before and after on held-out samples; None if there are too few samples."""
    logits, rows = gathered.logits, gathered.logit_rows
    if logits is None or len(logits) < _LEAST:
        return None
    truth = gathered.columns["truth"][rows].astype(np.int64)
    half = np.random.default_rng(seed).permutation(len(truth)) % 2 == 0
    scaled = np.asarray(logits, np.float64).copy()
    # Cross-fitting in two halves: a temperature measured on the samples that it was fitted on would look too good.
    for part in (half, ~half):
        scaled[part] /= temperature(logits[~part], truth[~part])
    errors = []
    for each in (np.asarray(logits, np.float64), scaled):
        predicted = each.argmax(-1)
        errors.append(reliability(np.exp(-nll(each, predicted)), predicted == truth).ece)
    # The temperature to use is fitted on all of them; the two of the halves only serve to measure its gain.
    return temperature(logits, truth), errors[0], errors[1]
