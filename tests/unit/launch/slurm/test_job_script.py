"""The job script: its directives and shell lines; values can't add a directive, an option or a command."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.launch.slurm.job_script import JobPaths, render_job_script
from mlscale.launch.slurm.settings import SlurmSettings

SETTINGS = SlurmSettings(devices=4, uses_gpus=True, nodes=2, partition="main", python="python")
NASTY = "a b\"c'd $(touch x) `touch x` \\ # ; touch x"


def make_paths(run: Path = Path("/runs/resnet-1")) -> JobPaths:
    return JobPaths(run.name, run, run / "logs/job.log", Path("/home/ann"))


def read_directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


def find_training(script: str) -> list[str]:
    (line,) = (line.strip() for line in script.splitlines() if line.strip().startswith("srun "))
    return shlex.split(line.removesuffix(" &"))


def test_directives() -> None:
    free = {"exclusive": True, "mail-type": ["FAIL", "END"], "nice": 0, "x": None, "y": False}
    more = replace(SETTINGS, time="04:00:00", qos="high", mem=0, directives=free)
    assert read_directives(render_job_script(more, make_paths())) == [
        "--job-name=resnet-1",
        "--chdir=/home/ann",
        "--output=/runs/resnet-1/logs/job.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@120",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gres=gpu:4",
        "--partition=main",
        "--qos=high",
        "--time=04:00:00",
        "--mem=0",  # all memory of the node
        "--exclusive",
        "--mail-type=FAIL,END",
        "--nice=0",
    ]


def test_an_array_reads_its_run_from_a_list() -> None:
    array = JobPaths("s", None, Path("/s/logs/array-1-%a.log"), Path("/"), list_file=Path("/s/jobs-1.txt"), tasks=9)
    script = render_job_script(replace(SETTINGS, array=2), array)
    assert "--array=0-8%2" in read_directives(script)
    assert 'run=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" /s/jobs-1.txt)' in script
    assert 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' in script


def test_values_add_no_directive_and_no_command(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, account=NASTY, directives={"comment": NASTY}, modules=[NASTY], python=NASTY, srun=[f"--x={NASTY}"]
    )
    script = render_job_script(settings, make_paths(Path(f"/runs/{NASTY}")))
    assert len(read_directives(script)) == len(read_directives(render_job_script(SETTINGS, make_paths()))) + 2
    assert find_training(script)[4:9] == [f"--x={NASTY}", NASTY, "-m", "mlscale", "train"]
    # Run by a real shell, in which no program of the cluster exists: nothing but those words is carried out.
    fakes = "module() { :; }; srun() { :; }; scontrol() { :; }\n"
    subprocess.run(["bash", "-c", fakes + script], cwd=tmp_path, check=False, capture_output=True)
    assert not list(tmp_path.iterdir())


def test_percent_signs_of_a_folder_are_no_patterns() -> None:
    script = render_job_script(SETTINGS, make_paths(Path("/runs/100%j")))
    assert "--output=/runs/100%%j/logs/job.log" in read_directives(script)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (
            "pyxis",
            "--container-image=nvcr.io#pytorch:1 --container-mounts=/home/ann:/home/ann,/runs:/runs,/data:/d "
            "--container-workdir=/home/ann python",
        ),
        (
            "apptainer",
            "apptainer exec --nv --bind /home/ann:/home/ann --bind /runs:/runs --bind /data:/d --pwd /home/ann "
            "nvcr.io#pytorch:1 python",
        ),
    ],
)
def test_containers(runtime: str, words: str) -> None:
    settings = replace(
        SETTINGS, python=None, container="nvcr.io#pytorch:1", container_runtime=runtime, container_mounts=["/data:/d"]
    )
    training = find_training(render_job_script(settings, make_paths()))
    assert training[4:-4] == words.split()


def test_the_shipped_code_is_imported_before_the_working_folder() -> None:
    script = render_job_script(SETTINGS, replace(make_paths(), code=Path("/runs/resnet-1/code")))
    assert "PYTHONSAFEPATH=1 PYTHONPATH=/runs/resnet-1/code${PYTHONPATH:+:$PYTHONPATH}" in script


def test_a_secret_is_refused() -> None:
    token = "hf_" + "a1B2" * 9
    with pytest.raises(MLScaleError, match="the job script would hold a secret") as caught:
        render_job_script(replace(SETTINGS, setup=[f"export HF_TOKEN={token}"]), make_paths())
    assert token not in str(caught.value)


def run_script(folder: Path, guard: str, step: str, signals: str = "") -> tuple[int, list[str]]:
    """The exit code of the script, and what was called, with shell functions in place of srun, the guard and SLURM."""
    settings = replace(SETTINGS, python="guard")
    # Functions can't be called by `exec`.
    script = render_job_script(settings, make_paths(folder)).replace('exec "$@"', '"$@"')
    fakes = f"""
note() {{ echo "$@" >>{folder}/calls; }}
guard() {{ local code=${{7:-}}; code=${{code#code=}}; note "$5" "$code"; {guard}; }}
srun() {{ note srun; {step}; }}
scontrol() {{ note "$@"; }}
squeue() {{ echo RUNNING; }}
SLURM_JOB_ID=7
{signals}
"""
    done = subprocess.run(["bash", "-c", fakes + script], check=False, timeout=20)
    return done.returncode, (folder / "calls").read_text().split("\n")[:-1]


@pytest.mark.parametrize(
    ("guard", "step", "code", "calls"),
    [
        ("return ${code:-0}", "true", 0, ["start ", "srun", "end 0"]),
        ("return ${code:-0}", "(exit 75)", 75, ["start ", "srun", "end 75", "requeue 7"]),
        ("return ${code:-0}", "(exit 3)", 3, ["start ", "srun", "end 3"]),
        ("return 5", "true", 5, ["start "]),
        # A rank was killed, and srun has ended the others: not a stop from outside.
        ('[ "$5" = start ] || return 75', "(exit 143)", 75, ["start ", "srun", "end 137", "requeue 7"]),
    ],
)
def test_the_guard_decides_about_a_requeue(tmp_path: Path, guard: str, step: str, code: int, calls: list[str]) -> None:
    assert run_script(tmp_path, guard, step) == (code, calls)


@pytest.mark.parametrize(
    ("reason", "printed"),
    [
        ("Job is pending execution for job 7", ""),
        ("Job/step already completing for job 7", "not requeued: Job/step already completing for job 7; mlscale runs"),
    ],
)
def test_a_requeue_that_slurm_refuses_is_reported_unless_it_was_made_already(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], reason: str, printed: str
) -> None:
    refusing = f"scontrol() {{ echo '{reason}' >&2; return 1; }}"
    assert run_script(tmp_path, "return ${code:-0}", "(exit 75)", refusing)[0] == 75
    shown = capfd.readouterr().out
    assert shown.startswith(printed) if printed else shown == ""


@pytest.mark.parametrize(
    ("signal", "calls"), [("TERM", ["start ", "end 143"]), ("USR1", ["start ", "end 75", "requeue 7"])]
)
def test_what_slurm_ends_is_requeued_only_past_its_time_limit(tmp_path: Path, signal: str, calls: list[str]) -> None:
    """Cancelled, it would come back; preempted, SLURM requeues it."""
    guard = f'[ "$5" = end ] && return 75; kill -s {signal} $$'
    assert run_script(tmp_path, guard, "true", "squeue() { echo COMPLETING; }")[1] == calls


@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_signal_reaches_the_step_whose_exit_code_is_kept(tmp_path: Path, signal: str) -> None:
    waiting = f"trap 'note {signal}; exit 75' {signal}; for i in $(seq 100); do sleep 0.1; done"
    sender = f"(sleep 0.5; kill -s {signal} $$) &"
    assert run_script(tmp_path, "return ${code:-0}", waiting, sender)[1] == [
        "start ",
        "srun",
        signal,
        "end 75",
        "requeue 7",
    ]


@pytest.mark.parametrize(("signal", "code"), [("USR1", 75), ("TERM", 143)])
def test_a_signal_before_the_step_starts_none(tmp_path: Path, signal: str, code: int) -> None:
    guard = f'[ "$5" = end ] || kill -s {signal} $$; return ${{code:-0}}'
    assert run_script(tmp_path, guard, "true")[1][:2] == ["start ", f"end {code}"]


@pytest.mark.parametrize("code", [143, 137])
def test_a_step_that_a_stop_has_ended_is_no_failure(tmp_path: Path, code: int) -> None:
    waiting = f"trap 'exit {code}' TERM; for i in $(seq 100); do sleep 0.1; done"
    calls = run_script(tmp_path, "return ${code:-0}", waiting, "(sleep 0.5; kill -s TERM $$) &")
    assert calls == (143, ["start ", "srun", "end 143"])


SENDER = """#!/bin/bash
# As SLURM, to all processes of a job: the shell, which handles it, and this one.
echo "$4 $5" >>{folder}/calls
case "$(grep -c . {folder}/calls)" in {numbers}) kill -s {signal} $$ $PPID; sleep 0.1 ;; esac
exec sleep 0.1
"""


@pytest.mark.parametrize("signal", ["TERM", "USR1"])
@pytest.mark.parametrize("numbers", ["1", "3", "1|3"])
def test_no_report_of_the_job_is_ended_by_a_signal(tmp_path: Path, signal: str, numbers: str) -> None:
    """Processes, not functions: a signal to all of the job's comes in the report of its start, or of its end."""
    (tmp_path / "guard").write_text(SENDER.format(folder=tmp_path, signal=signal, numbers=numbers))
    (tmp_path / "guard").chmod(0o755)
    settings = replace(SETTINGS, python=str(tmp_path / "guard"))
    script = render_job_script(settings, make_paths(tmp_path))
    fakes = f"srun() {{ echo srun >>{tmp_path}/calls; }}\nSLURM_JOB_ID=7\n"
    done = subprocess.run(["bash", "-c", fakes + script], check=False, timeout=20)
    assert done.returncode == 0  # what the report of the end has returned
    calls = (tmp_path / "calls").read_text().split("\n")[:-1]
    started = numbers.startswith("1")
    assert [call.split()[0] for call in calls] == (["job", "job"] if started else ["job", "srun", "job"])


def test_signals_are_handled_before_the_sites_own_lines_run(tmp_path: Path) -> None:
    settings = replace(SETTINGS, setup=["kill -s TERM $$"], python="true")
    script = render_job_script(settings, make_paths(tmp_path))
    done = subprocess.run(["bash", "-c", f"SLURM_JOB_ID=7\n{script}"], check=False, timeout=20)
    assert done.returncode == 0
