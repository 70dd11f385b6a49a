"""Bitwise identical resume: adds to checkpoints what Lightning's own lack, and corrects its restart.

Lightning restores weights, optimizers, schedulers and counters. It forgets the random generators, what an epoch's
averages have added up, the metrics that callbacks monitor, and the position of a loader; its restart guesses from
counters in which hook a checkpoint was saved, and then skips or repeats the rest of it. Checkpoints are saved at
boundaries here (see `step_boundary.py`), where nothing is outstanding, so a resumed run simply takes the next step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning_fabric.utilities.data import _set_sampler_epoch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.fit_loop import RestartStage

from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.train.checkpoint import arithmetic, rank_buffers
from mlscale.train.checkpoint import random_states as generators
from mlscale.train.checkpoint import step_boundary as boundary
from mlscale.train.checkpoint import tensor_digests as digests
from mlscale.train.lightning import partial_results as lightning_results
from mlscale.train.lightning.trainer_parts import get_callbacks, get_data_module

KEY = "mlscale_resume"
_FORMAT = 1
_BEST = ("best_model_score", "best_k_models", "kth_value", "current_score")
_OTHER_BATCHES = (
    "batches   loaded again, they are not those before the interruption: a sampler or data set has a state of its own, "
    "such as a generator; return it in state_dict() of the loader, or draw from torch's global generator"
)
_STRIDE = 16  # of the batches that are digested: each costs as much as a tenth of the smallest step
_CONSTRUCTION, _ORDER, _BATCHES = 1, 2, 3  # purposes of seeds: each has random numbers of its own


class ExactResume(Callback):
    """A callback that adds to every checkpoint what a bitwise identical resume needs, and restores it.

    Data: a loader that knows its position (built-in, or with a `state_dict`) saves it. Any other is replayed up to the
    next batch, its shuffling and workers seeded from (seed, epoch), so the samples and their augmentation are those of
    the uninterrupted run; that takes the time of loading them. Digests of every 16th batch, before which the main
    process is seeded again, show whether they are. At the end of an epoch its first batch is loaded twice instead: a
    loader with a state of its own, which no checkpoint holds, gives another one, now or the second time.

    State that belongs to one rank is saved for each. On another number of ranks it has no meaning and is left out.

    Args:
        seed: the run's seed.

    Attributes:
        resumed_step: the optimizer step that this fit was resumed from; None for one that was not.
        same_layout: whether it ran on as many ranks as now.
        inexact: reasons why the rest of the run may differ in its last bits from an uninterrupted one; empty where all
            recorded facts about the computation are as before.
        replayed: batches that were loaded again, of a loader that does not save its position.
        other_batches: whether batches that were loaded again are not those before the interruption.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.resumed_step: int | None = None
        self.same_layout = True
        self.inexact: list[str] = []
        self.replayed = 0
        self.other_batches = False
        self._batches: tuple[int, str, str] | None = None  # of the epoch: their number, digests of the first and of all
        self._own: dict[str, Any] | None = None
        self._placed = False

    # Saving.

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        boundary.mark_epoch_ended(trainer, checkpoint)
        own = self._collect_rank_state(trainer, pl_module)
        ranks = [own]
        if trainer.world_size > 1:
            own["buffers"] = rank_buffers.collect_own_buffers(pl_module)
            own["best"] = {
                c.state_key: {name: getattr(c, name) for name in _BEST} for c in _find_monitoring_callbacks(trainer)
            }
            # Lightning calls this hook on every rank, though the first alone writes: ranks can exchange their states.
            ranks = [None] * trainer.world_size  # type: ignore[list-item]  # filled by the next line
            dist.all_gather_object(ranks, own)
        logs = {str(number): log.state_dict() for number, log in enumerate(_find_stateful_loggers(trainer))}
        checkpoint[KEY] = {"format": _FORMAT, "ranks": ranks, "loggers": logs}

    def _collect_rank_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        loader = trainer.fit_loop._combined_loader
        return {
            "arithmetic": arithmetic.collect_arithmetic_facts(trainer.strategy.root_device),
            "generators": generators.collect_generator_states(trainer.strategy.root_device),
            "results": lightning_results.collect_partial_results(trainer, module),
            "callbacks": {c.state_key: c.rank_state() for c in get_callbacks(trainer) if hasattr(c, "rank_state")},
            "loaders": loader._state_dicts() if loader is not None else [],
            "batches": list(self._batches or ()),
        }

    # Resuming.

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.resumed_step = checkpoint["global_step"]
        trainer.num_sanity_val_steps = 0  # it would forget the metrics and change what the module has counted
        saved = checkpoint.get(KEY)
        if saved is None:  # a checkpoint of another program
            self.same_layout = False
            self.inexact = ["the checkpoint is not of mlscale: it holds no random generators"]
            return
        ranks = saved["ranks"]
        self.same_layout = len(ranks) == trainer.world_size
        for keeper in _find_monitoring_callbacks(trainer):
            of_ranks = [rank.get("best", {}).get(keeper.state_key) for rank in ranks]
            state = checkpoint["callbacks"].get(keeper.state_key)
            _rewrite_paths(keeper, state, of_ranks)
            _forget_lost_files(state, of_ranks, shows=trainer.is_global_zero)
        self.inexact = self._compare_arithmetic(ranks, trainer)
        for number, log in enumerate(_find_stateful_loggers(trainer)):
            if saved["loggers"].get(str(number)) is not None:
                log.load_state_dict(saved["loggers"][str(number)])
        for callback in get_callbacks(trainer):
            if isinstance(callback, ModelCheckpoint):  # which saves its current score, and never loads it
                callback.current_score = checkpoint["callbacks"].get(callback.state_key, {}).get("current_score")
            if hasattr(callback, "load_rank_states"):
                callback.load_rank_states([rank["callbacks"].get(callback.state_key) for rank in ranks], trainer)
        if self.same_layout:
            self._own = ranks[trainer.global_rank]

    def _compare_arithmetic(self, ranks: list[Any], trainer: Trainer) -> list[str]:
        """Return the facts about the computation that have changed on any rank, as phrases."""
        if not self.same_layout:
            return [f"processes {len(ranks)} before, {trainer.world_size} now"]
        now = arithmetic.collect_arithmetic_facts(trainer.strategy.root_device)
        changes = arithmetic.describe_changed_facts(ranks[trainer.global_rank].get("arithmetic"), now)
        if trainer.world_size > 1:
            of_all: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(of_all, changes)
            changes = list(dict.fromkeys(phrase for of_rank in of_all for phrase in of_rank))
        return changes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._seed_loaders(trainer)
            self._begin_epochs(trainer)
            self._record_batches(trainer)
            self._end_the_last_epoch(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the averages: a run without a step left reports them, too."""
        if self._own is not None:
            lightning_results.restore_partial_results(self._own["results"], trainer, pl_module)
        if self.inexact and self.same_layout and trainer.is_global_zero:  # of another layout the launcher reports
            print(f"machine   {'; '.join(self.inexact)}: not the same bits", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the loops take the next step, in place of what Lightning concludes from its counters."""
        if self.resumed_step is None:
            return
        fit_loop = trainer.fit_loop
        epoch_loop = fit_loop.epoch_loop
        if boundary.is_in_epoch(trainer):
            # Skips the hooks of an epoch's start, which were called before.
            fit_loop._restart_stage = RestartStage.RESTARTED_MID_EPOCH
            # Lightning's `reset` corrects counters for a save inside a hook; at a boundary they are right.
            _replace_once(epoch_loop, "reset", lambda: setattr(epoch_loop, "_restarting", False))
        else:
            fit_loop._restart_stage = RestartStage.NONE
            epoch_loop.restarting = False
        fit_loop._restarting = epoch_loop.val_loop.restarting = False
        if self._own is not None:
            rank_buffers.restore_buffers(self._own.get("buffers", {}), pl_module)
            # A checkpoint holds the first rank's callbacks; a metric that ranks do not share differs on the others.
            for callback in _find_monitoring_callbacks(trainer) if not trainer.is_global_zero else []:
                for name, value in self._own.get("best", {}).get(callback.state_key, {}).items():
                    setattr(callback, name, value)
            generators.restore_generator_states(self._own["generators"], trainer.strategy.root_device)

    def _seed_loaders(self, trainer: Trainer) -> None:
        """Make the order of a loader that does not save its position a function of (seed, epoch)."""
        fit_loop = trainer.fit_loop
        source = fit_loop._data_source
        # From the class: a second fit must not wrap the function of the first.
        ask = type(source).dataloader

        def build_seeded_dataloader() -> Any:
            promises = getattr(get_data_module(trainer), "promises", None)
            self._placed = promises is not None and promises.resume
            if self._own is not None:  # Lightning saves the first rank's alone
                fit_loop._combined_loader_states_to_load = self._own["loaders"]
            if self._placed:
                return ask(source)
            generators.seed_global_generators(self.seed, _CONSTRUCTION)
            loader = ask(source)
            generators.seed_global_generators(self.seed, trainer.current_epoch, _ORDER)
            return loader

        source.dataloader = build_seeded_dataloader  # type: ignore[method-assign]  # for this trainer alone
        load = fit_loop._load_combined_loader_states

        def load_loader_states() -> None:
            # Lightning does so within an epoch alone: a loader with a state of its own would begin the next one anew.
            if self._own is not None and not self._placed and fit_loop._combined_loader is not None:
                fit_loop._combined_loader._load_state_dicts(self._own["loaders"])
            else:
                load()

        fit_loop._load_combined_loader_states = load_loader_states  # type: ignore[method-assign]  # as above

    def _begin_epochs(self, trainer: Trainer) -> None:
        """Put the generators where they were, or would have been, before an epoch's first batch is loaded, or the next
        one after a resume."""
        epoch_loop = trainer.fit_loop.epoch_loop
        start = type(epoch_loop).on_run_start

        def on_run_start(fetcher: _DataFetcher) -> None:
            done, epoch = epoch_loop.batch_progress.current.ready, trainer.current_epoch
            is_replayed = not self._placed and not _is_stateful(fetcher)
            has_ended = fetcher.length is not None and done >= fetcher.length
            saved = self._own.get("batches") if self._own is not None and (done or epoch) else None
            if is_replayed and saved is not None and (has_ended or not done):
                ended = epoch if done else epoch - 1
                again = [self._load_first_batch(fetcher, ended) for _ in range(2)]
                self._compare_batches(trainer, saved[1:2] * 2, again)
            if not self._placed:
                renews = epoch > 0 and not trainer.fit_loop.is_resuming and not epoch_loop.restarting  # by Lightning
                if is_replayed and not renews and (epoch > 0 or has_ended):
                    self._begin_order(fetcher, epoch)  # samplers of several ranks did not have the epoch before
                elif renews:
                    generators.seed_global_generators(self.seed, epoch, _ORDER)
            start(epoch_loop, fetcher)
            generators.seed_global_generators(self.seed, epoch, _BATCHES)
            if is_replayed:
                self._seed_fetches(fetcher, epoch)
                if done and not has_ended:
                    self._replay_batches(fetcher, done)
                    if saved is not None:
                        self._compare_batches(trainer, saved, list(self._batches or ()))
                elif saved:
                    self._batches = tuple(saved)
            # Last: making iterators and replaying batches draw random numbers, too.
            if done and self._own is not None:
                generators.restore_generator_states(self._own["generators"], trainer.strategy.root_device)
            self._own = None

        epoch_loop.on_run_start = on_run_start  # type: ignore[method-assign,assignment]  # for this trainer alone

    def _end_the_last_epoch(self, trainer: Trainer) -> None:
        """Run the epoch's end for a run that was saved inside an epoch after its last step of `max_steps`; Lightning
        would do nothing at all."""
        fit_loop = trainer.fit_loop
        run = type(fit_loop).run

        def run_or_end() -> None:
            if self.resumed_step is None or not boundary.is_in_epoch(trainer) or not fit_loop.done:
                run(fit_loop)
                return
            fit_loop.setup_data()
            # The parts of `FitLoop.run` for one epoch, without its check that the fit is done.
            for part in (fit_loop.reset, fit_loop.on_run_start, fit_loop.on_advance_start, fit_loop.advance):
                part()
            for part in (fit_loop.on_advance_end, fit_loop.on_iteration_done, fit_loop.on_run_end):
                part()

        fit_loop.run = run_or_end  # type: ignore[method-assign]  # for this trainer alone

    def _replay_batches(self, fetcher: _DataFetcher, batches: int) -> None:
        """Load again the batches that this epoch was trained on."""
        # A sized loader's batches are counted already; one without a size is read a batch ahead by the fetcher.
        load = _DataFetcher.__next__ if fetcher.length is not None else type(fetcher).__next__
        counted, fetcher.fetched = fetcher.fetched, fetcher.fetched - batches
        for index in range(batches):
            self._add_batch(load(fetcher)[0], index)
        fetcher.fetched = counted
        self.replayed = batches

    def _load_first_batch(self, fetcher: _DataFetcher, epoch: int) -> str:
        """Return the digest of the first batch of an epoch."""
        self._begin_order(fetcher, epoch)
        generators.seed_global_generators(self.seed, epoch, _BATCHES)
        return digests.chain_batch("", next(fetcher)[0])

    def _begin_order(self, fetcher: _DataFetcher, epoch: int) -> None:
        """Make the iterators of an epoch as an uninterrupted run makes them."""
        for loader in fetcher.combined_loader.flattened:
            _set_sampler_epoch(loader, epoch)
        generators.seed_global_generators(self.seed, epoch, _ORDER)
        iter(fetcher)

    def _seed_fetches(self, fetcher: _DataFetcher, epoch: int) -> None:
        """Make what the main process draws for a batch that is digested independent of what steps have drawn before."""
        if all(getattr(loader, "num_workers", 0) > 0 for loader in fetcher.combined_loader.flattened):
            return
        start = fetcher._start_profiler

        def start_fetch() -> None:
            start()
            if fetcher.fetched and fetcher.fetched % _STRIDE == 0:
                generators.seed_host_generators(self.seed, epoch, _BATCHES, fetcher.fetched)

        fetcher._start_profiler = start_fetch

    def _record_batches(self, trainer: Trainer) -> None:
        """Add each training batch to the digest of its epoch, as it comes from the loader."""
        plugin = trainer.precision_plugin
        convert = type(plugin).convert_input

        def convert_input(batch: Any) -> Any:
            if trainer.training and not self._placed:
                self._add_batch(batch, trainer.fit_loop.epoch_loop.batch_progress.current.ready)
            return convert(plugin, batch)

        plugin.convert_input = convert_input  # type: ignore[method-assign,assignment]  # for this trainer alone

    def _add_batch(self, batch: object, index: int) -> None:
        _, first, chain = self._batches if index and self._batches else (0, "", "")
        if index % _STRIDE == 0:
            chain = digests.chain_batch(chain, batch)
        self._batches = (index + 1, first or chain, chain)

    def _compare_batches(self, trainer: Trainer, before: list[Any], again: list[Any]) -> None:
        if not before:
            self.inexact.append("the checkpoint does not record its batches")
        elif trainer.strategy.reduce_boolean_decision(before != again, all=False):
            self.other_batches = True
            if trainer.is_global_zero:
                print(_OTHER_BATCHES, file=sys.stderr, flush=True)


def _is_stateful(fetcher: _DataFetcher) -> bool:
    return all(hasattr(loader, "load_state_dict") for loader in fetcher.combined_loader.flattened)


def _find_monitoring_callbacks(trainer: Trainer) -> list[ModelCheckpoint]:
    """Return the callbacks that monitor a metric: ranks must agree even where it differs between them."""
    return [callback for callback in get_callbacks(trainer) if isinstance(callback, ModelCheckpoint)]


def _rewrite_paths(
    callback: ModelCheckpoint, saved: dict[str, Any] | None, of_ranks: list[dict[str, Any] | None]
) -> None:
    """Rewrite the paths in a callback's state after the run was moved, copied or reached by another path.

    Lightning compares the folder's name alone, forgets the best checkpoint where that differs, and so overwrites it
    with a worse one. Where the files were not moved along, forgetting is right, and nothing is rewritten.
    """
    before = (saved or {}).get("dirpath")
    if not saved or not before or callback.dirpath is None or str(before) == str(callback.dirpath):
        return
    now = Path(callback.dirpath)

    def move_path(path: str) -> str:
        inside = bool(path) and Path(path).is_relative_to(before)
        return str(now / Path(path).relative_to(before)) if inside else path

    if not all(is_checkpoint(Path(move_path(path))) for path in saved.get("best_k_models", {})):
        return
    saved["dirpath"] = callback.dirpath
    for state in (saved, *of_ranks):
        for name, value in (state or {}).items():
            if name in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[name] = move_path(value)  # type: ignore[index]  # an empty one has no items
            elif name == "best_k_models":
                state[name] = {move_path(path): score for path, score in value.items()}  # type: ignore[index]


def _forget_lost_files(state: dict[str, Any] | None, of_ranks: list[dict[str, Any] | None], *, shows: bool) -> None:
    """Take checkpoints that are gone or altered out of a callback's state: the best of the rest of the run is kept."""
    best: dict[str, Any] = (state or {}).get("best_k_models", {})
    lost = [path for path in best if not is_checkpoint(Path(path)) or verify_checkpoint(Path(path)).is_corrupt]
    for path in lost:
        if shows:
            print(f"resume    {path} is gone or corrupt: the best of the rest of the run is kept", file=sys.stderr)
        for own in filter(None, (state, *of_ranks)):
            own["best_k_models"] = {other: score for other, score in own["best_k_models"].items() if other != path}
            if state is not None and path == state.get("best_model_path"):
                own["best_model_score"] = None
    if state is not None and state.get("best_model_path") in lost:
        state["best_model_path"] = ""


def _find_stateful_loggers(trainer: Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if hasattr(logger, "load_state_dict")]


def _replace_once(owner: object, name: str, instead: Callable[[], object]) -> None:
    def call_replacement(*_: object) -> None:
        # The instance's attribute hides the class's method: without it the method is back.
        delattr(owner, name)
        instead()

    setattr(owner, name, call_replacement)
