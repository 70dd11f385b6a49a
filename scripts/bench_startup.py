"""How long one waits: for help, for a config, for an error, and for the first training step of 1 and 8 ranks.

    python -m scripts.bench_startup
    python -m scripts.bench_startup --only steps --rounds 3
    python -m scripts.bench_startup --only cpu

Each figure is the wall time of a whole process, beside a peer that does the plain thing: a minimal Hydra application
(one config, two groups) for help, config and error; a script with Lightning's Trainer, the same model and data, for the
first step, which Lightning starts for 8 ranks by running the script again 7 times. Rounds are interleaved; printed are
the medians, their spread, and the median of the ratios of each round.

`--only cpu` prints what a rank computes until its first step, stage by stage, in CPU time, which other jobs on the
machine hardly change.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HYDRA_APP = """
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print(cfg.optimizer.lr)

main()
"""

FIRST_STEP = """
import time
from pytorch_lightning import Callback

class FirstStep(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        if trainer.is_global_zero and trainer.global_step == 1:
            open(self.path, "w").write(repr(time.time()))
"""

RANK_STAGES = """
import json
import os
import time
from pytorch_lightning import Callback

class Stages(Callback):
    def __init__(self, folder):
        self.folder, self.seconds = folder, {}

    def note(self, stage, trainer):
        self.seconds.setdefault(stage, time.process_time())
        if stage == "first step":
            with open(os.path.join(self.folder, f"stages-{trainer.global_rank}.json"), "w") as file:
                json.dump(self.seconds, file)

    def setup(self, trainer, module, stage):
        self.note("built", trainer)

    def on_fit_start(self, trainer, module):
        self.note("data, DDP", trainer)

    def on_sanity_check_start(self, trainer, module):
        self.note("optimizer, loaders", trainer)

    def on_train_start(self, trainer, module):
        self.note("validation before training", trainer)

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 1:
            self.note("first step", trainer)
"""

LIGHTNING_APP = """
import sys
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
from mlscale.tasks import ResNet
from first_step import FirstStep

class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = ResNet(1, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.model(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

if __name__ == "__main__":
    devices, path = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    data = TensorDataset(x, torch.tensor(digits.target))
    trainer = pl.Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=3,
                         logger=False, enable_checkpointing=False, enable_model_summary=False,
                         callbacks=[FirstStep(path)])
    trainer.fit(Classifier(), DataLoader(data, 64 // devices, shuffle=True))
"""

CONFIG = "defaults: [{optimizer: sgd}, {model: mlp}]\nseed: 0\n"
MLSCALE = [sys.executable, "-m", "mlscale"]
RECIPE = ["+recipe=resnet", "trainer.max_steps=3", "trainer.limit_val_batches=1", "logger=none", "callbacks=none"]


def prepare(folder: Path) -> None:
    """Write the peers into `folder`, and the data into the cache."""
    scripts = {"hydra_app": HYDRA_APP, "lightning_app": LIGHTNING_APP, "first_step": FIRST_STEP, "stages": RANK_STAGES}
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)
    for group, option, text in (("optimizer", "sgd", "lr: 0.1\n"), ("model", "mlp", "hidden: 128\n")):
        (folder / "peer" / "conf" / group).mkdir(parents=True)
        (folder / "peer" / "conf" / group / f"{option}.yaml").write_text(text)
    (folder / "peer" / "conf" / "config.yaml").write_text(CONFIG)
    (folder / "hydra_app.py").rename(folder / "peer" / "hydra_app.py")
    subprocess.run([*MLSCALE, "prepare", "data=digits"], cwd=folder, check=True, capture_output=True)


def process_seconds(command: list[str], cwd: Path, expected: int) -> float:
    """Wall time of a whole process, which must end with the `expected` code."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != expected:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def first_step_seconds(command: list[str], cwd: Path, mark: Path) -> float:
    """From the start of a process to the end of its first optimizer step."""
    mark.unlink(missing_ok=True)
    start = time.time()
    process_seconds(command, cwd, 0)
    return float(mark.read_text()) - start


def config_contenders(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """For help, config and error: what ours and the peer's take."""
    app = [sys.executable, "hydra_app.py"]
    cases = {
        "help": (([*MLSCALE, "train", "--help"], 0), ([*app, "--help"], 0)),
        "config": (([*MLSCALE, "config", "show", "+recipe=resnet"], 0), ([*app, "--cfg", "job"], 0)),
        "error": (([*MLSCALE, "+recipe=resnet", "optimizer.lrr=1"], 2), ([*app, "optimizer.lrr=1"], 1)),
    }
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in cases}
    for name, ((ours, code), (peer, peer_code)) in cases.items():
        times[name][0].append(process_seconds(ours, folder, code))
        times[name][1].append(process_seconds(peer, folder / "peer", peer_code))
    return times


def step_contenders(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """For the first step of 1 and 8 ranks: what ours and the peer's take."""
    mark = folder / "mark"
    callback = f"callbacks.first={{_target_: first_step.FirstStep, path: {mark}}}"
    times = {}
    for ranks in (1, 8):
        ours = [*MLSCALE, *RECIPE, f"trainer.devices={ranks}", f"++{callback}"]
        peer = [sys.executable, "lightning_app.py", str(ranks), str(mark)]
        times[f"first step, {ranks} rank{'s' if ranks > 1 else ''}"] = (
            [first_step_seconds(ours, folder, mark)],
            [first_step_seconds(peer, folder, mark)],
        )
    return times


def measure_rank_stages(folder: Path, ranks: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each rank between its start, by a fork, and the end of each stage."""
    for path in folder.glob("stages-*.json"):
        path.unlink()
    callback = f"++callbacks.stages={{_target_: stages.Stages, folder: {folder}}}"
    process_seconds([*MLSCALE, *RECIPE, f"trainer.devices={ranks}", callback], folder, 0)
    stages: dict[str, list[float]] = {}
    for path in folder.glob("stages-*.json"):
        for name, seconds in json.loads(path.read_text()).items():
            stages.setdefault(name, []).append(seconds)
    return stages


def print_rank_stages(folder: Path, rounds: int) -> None:
    """Print the CPU time of the ranks of 2 and 8, stage by stage."""
    for ranks in (2, 8):
        total: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, seconds in measure_rank_stages(folder, ranks).items():
                total.setdefault(name, []).extend(seconds)
        print(f"\n{ranks} ranks, CPU seconds of each until the end of a stage: median [least, most]")
        for name, seconds in total.items():
            print(f"{name:<30} {_spread(seconds)}")


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["config", "steps", "cpu"])
    args = parser.parse_args()
    times: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("MLSCALE_CACHE", str(folder / "cache"))
        prepare(folder)
        if args.only == "cpu":
            print_rank_stages(folder, args.rounds)
            return
        for _ in range(args.rounds):
            rows = {} if args.only == "steps" else config_contenders(folder)
            rows |= {} if args.only == "config" else step_contenders(folder)
            for row, (ours, peer) in rows.items():
                known = times.setdefault(row, ([], []))
                known[0].extend(ours)
                known[1].extend(peer)
    print(f"{'':<22} {'mlscale s':>18} {'peer s':>18} {'ratio':>18}")
    for row, (ours, peer) in times.items():
        print(f"{row:<22} {_spread(ours):>18} {_spread(peer):>18} {_spread(_ratios(ours, peer)):>18}")
    if "first step, 8 ranks" in times:
        for index, who in enumerate(("mlscale", "peer")):
            one, eight = times["first step, 1 rank"][index], times["first step, 8 ranks"][index]
            print(f"{'8 ranks / 1 rank, ' + who:<60} {_spread(_ratios(eight, one)):>18}")


def _ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
