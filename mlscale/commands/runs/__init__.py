"""`mlscale runs`: its help. The entry point is in `entry`."""

from pathlib import Path

from mlscale.commands.command import OUTPUT, RUNS_DIR, Action, Command, Key, Word

_REGISTRY = Key(
    "registry.root", "the folder of a registry, besides those that the runs themselves name", "registry", type=Path
)
_RUN = Word("ref", "a run: its id, the first letters of its id or of its folder's name, its path, or 'last'", "last")

COMMAND = Command(
    "list, show, resume, compare and remove runs",
    "inspect",
    (
        ("mlscale runs ls", "the runs of this folder, newest first"),
        ("mlscale runs show last", "how the last one was set, and its result"),
        ("mlscale runs resume last", "continue a run that was stopped, bitwise identical"),
        ("mlscale runs logs last follow=true", "what the job of a run prints (launch=slurm)"),
        ("mlscale runs checkpoints last", "what a run has saved, and whether each file is intact"),
        ("mlscale runs send last", "send what a tracker or an object store did not take while it ran"),
        ("mlscale runs diff last 2xk3f", "what two runs have set differently, and their metrics"),
        ("mlscale runs rm 1s2de0 yes=true", "remove one for good"),
        ("mlscale runs du", "how much space the runs take"),
        ("mlscale runs gc keep=[last,best]", "remove the checkpoints that nothing needs any more"),
    ),
    {
        "ls": Action(
            "list runs, newest first, those of a sweep together",
            (),
            (Key("limit", "at most this many; all by default", example="20", type=int), RUNS_DIR, OUTPUT),
            (("mlscale runs ls limit=20 output=json", "the newest twenty, for programs"),),
        ),
        "show": Action(
            "print one run: its start, result, config and checkpoints",
            (_RUN,),
            (
                Key("verify", "read every file again and compare it with the seal's digests", default=False, type=bool),
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale runs show last verify=true", "and whether its files are as they were sealed"),),
        ),
        "resume": Action(
            "continue a run that was stopped, from its last valid checkpoint; takes what may change, as key=value",
            (_RUN,),
            (),
            (("mlscale runs resume last trainer.devices=2", "on two devices"),),
            overrides=True,
        ),
        "logs": Action(
            "print the log of a run that a scheduler trains (launch=slurm)",
            (_RUN,),
            (Key("follow", "continue until the job ends", default=False, example="true", type=bool), RUNS_DIR, OUTPUT),
            (("mlscale runs logs last follow=true", "what the job prints, while it runs"),),
        ),
        "cancel": Action(
            "cancel the jobs of runs (launch=slurm); a run that trains saves first",
            (Word("ref", _RUN.help, "last", many=True),),
            (RUNS_DIR, OUTPUT),
            (("mlscale runs cancel last", "mlscale runs resume last submits it again"),),
        ),
        "job": Action(
            "record a start or an end of a run's job; the job's script calls this, no person needs it",
            (Word("step", "start or end", "start"), _RUN),
            (Key("code", "the exit code of the training, for an end", default=0, example="75", type=int), RUNS_DIR),
            (),
        ),
        "sweep": Action(
            "print the table of a sweep while it fills, and why runs of it failed",
            (Word("ref", "a sweep: its id, the first letters of it, its folder, or 'last'", "last"),),
            (
                Key("resubmit", "submit the jobs that were lost again", default=False, example="true", type=bool),
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale runs sweep last resubmit=true", "and submit those again that failed or were lost"),),
        ),
        "checkpoints": Action(
            "list a run's checkpoints and read each again; exit code 2 if one is torn or altered",
            (_RUN,),
            (RUNS_DIR, OUTPUT),
            (("mlscale runs checkpoints last output=json", "for programs"),),
        ),
        "consolidate": Action(
            "replace a run's sharded checkpoints (strategy.sharded_checkpoint=true) by files with the same state",
            (_RUN,),
            (RUNS_DIR, OUTPUT),
            (("mlscale runs consolidate last", "for `versions add`, and programs that read one file"),),
        ),
        "send": Action(
            "send what a tracker (logger=mlflow) or an object store did not take during the run; nothing is sent twice",
            (_RUN,),
            (RUNS_DIR, OUTPUT),
            (("mlscale runs send last", "once the server is reached again"),),
        ),
        "diff": Action(
            "print what differs between two runs, and write a page with the curves of both",
            (
                Word("first", _RUN.help, "last"),
                Word("second", _RUN.help, "<run>"),
            ),
            (
                Key(
                    "page",
                    "the HTML page; by default among the results of the second run",
                    example="diff.html",
                    type=Path,
                ),
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale runs diff 1s2de0 last", "settings, code, packages, metrics, and curves on a page"),),
        ),
        "rm": Action(
            "remove runs for good",
            (Word("ref", _RUN.help, "last", many=True),),
            (
                Key(
                    "yes",
                    "don't ask; needed without a terminal to ask on",
                    default=False,
                    example="true",
                    type=bool,
                ),
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale runs rm 1s2de0 1s2dcq yes=true", "two of them"),),
        ),
        "du": Action(
            "print how much space runs take, the largest first, and what gc would free",
            (Word("ref", f"{_RUN.help}; all by default", "last", required=False, many=True),),
            (
                Key("limit", "at most this many lines; all by default", example="20", type=int),
                _REGISTRY,
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale runs du limit=20", "the twenty largest"),),
        ),
        "gc": Action(
            "remove checkpoints of ended runs that neither keep=, a version nor an unfinished run needs",
            (Word("ref", f"{_RUN.help}; all by default", "last", required=False, many=True),),
            (
                Key("keep", "what each run keeps: last, best, or the names of others", "[last,best]", many=True),
                Key("dry_run", "show what would be removed, and remove nothing", False, "true", type=bool),
                Key("yes", "don't ask; needed without a terminal to ask on", default=False, example="true", type=bool),
                _REGISTRY,
                RUNS_DIR,
                OUTPUT,
            ),
            (
                ("mlscale runs gc dry_run=true", "what would be removed"),
                ("mlscale runs gc keep=[best] yes=true", "done runs keep their best one alone"),
            ),
        ),
    },
)
