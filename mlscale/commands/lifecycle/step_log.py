"""The progress report of a tour: numbered steps, each with its key metric, and a log of its commands' output."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Figure, ReportStep, Result, format_duration
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import MaskedStream, Masker


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of a step.

    Attributes:
        value: the key metric, with its unit.
        sentence: the rest.
        ok: True if it passes its gate.
        metrics: name_unit to value, for the result.
        plot: a plot.
        page: the page with details, next to the tour's own.
    """

    value: str
    sentence: str
    ok: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)
    plot: Figure | None = None
    page: str = ""


class Tour:
    """A series of steps, taken in order up to the first that does not pass its gate.

    Args:
        folder: where results and logs are kept.
        titles: of all steps.
        masker: removes secrets from the output.
    """

    def __init__(self, folder: RunFolder, titles: Sequence[str], masker: Masker) -> None:
        self.folder, self.titles, self.masker = folder, tuple(titles), masker
        self.steps: list[ReportStep] = []
        self.metrics: dict[str, float] = {}

    @property
    def ok(self) -> bool:
        """True if every step was taken and has passed its gate."""
        return len(self.steps) == len(self.titles) and all(step.ok for step in self.steps)

    def take_step(self, act: Callable[[], StepOutcome]) -> bool:
        """Take the next step; return whether the tour continues.

        Raises:
            Whatever the step raises; the page shows it.
        """
        title, start = self.titles[len(self.steps)], time.perf_counter()
        self._print_current_step(title)
        try:
            with self._redirect_output(title):
                outcome = act()
        # BaseException: the page must show a step that Ctrl-C has ended, too.
        except BaseException as error:
            why = error.what if isinstance(error, MLScaleError) else str(error) or type(error).__name__
            self._record_step(title, StepOutcome("", why, ok=False), time.perf_counter() - start)
            raise
        self._record_step(title, outcome, time.perf_counter() - start)
        return outcome.ok

    def list_steps(self) -> tuple[ReportStep, ...]:
        """Return all steps for the page, including those that were not reached."""
        return (*self.steps, *(ReportStep(title, ok=None) for title in self.titles[len(self.steps) :]))

    def write_step_result(self, result: Result, name: str) -> None:
        """Keep the result of a step's command next to the tour's own, as `<name>.json` and `<name>.html`."""
        self.folder.write_result(name, result.as_dict(), result.figures, result.steps)

    def _format_step_number(self, index: int) -> str:
        return f"[{index + 1:>2}/{len(self.titles)}]"

    def _print_current_step(self, title: str) -> None:
        """Print the current step, on a terminal: some steps take a minute."""
        if sys.stderr.isatty():
            print(f"{self._format_step_number(len(self.steps))} {title} …", end="\r", file=sys.stderr, flush=True)

    def _record_step(self, title: str, outcome: StepOutcome, seconds: float) -> None:
        wide = max(map(len, self.titles))
        mark = "" if outcome.ok else "STOP  "
        text = ", ".join(filter(None, (outcome.value, outcome.sentence)))
        # Erases the line that `_print_current_step` has left on a terminal.
        clear = "\033[K" if sys.stderr.isatty() else ""
        number = self._format_step_number(len(self.steps))
        line = f"{clear}{number} {title:<{wide}}  {mark}{text}  ({format_duration(seconds)})"
        # Before it is printed: where nothing reads the output any more printing fails, and the page must have the step.
        self.steps.append(
            ReportStep(title, outcome.sentence, outcome.ok, outcome.value, seconds, outcome.plot, outcome.page)
        )
        self.metrics |= {**outcome.metrics, f"{title.replace(' ', '_')}_time_s": seconds}
        print_masked_lines([line], self.masker)

    @contextlib.contextmanager
    def _redirect_output(self, title: str) -> Iterator[None]:
        """Redirect the output of the step's commands to a file of the step."""
        path = self.folder.path / "logs" / f"{len(self.steps) + 1:02}-{title.replace(' ', '-')}.log"
        with path.open("w", encoding="utf-8", buffering=1) as file:
            stream = MaskedStream(file, self.masker)
            try:
                with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                    yield
            finally:
                # Text is held back until a secret that it may begin can be excluded: the rest is written here.
                stream.write_waiting()
