"""Records what mlscale does, and compares another version of it with that, on the same machine and packages.

    git worktree add ../before f3a11b01     # with an environment of its own, ../before/.venv, and the same packages
    python -m scripts.behaviour record build/before --python ../before/.venv/bin/python
    python -m scripts.behaviour compare build/before            # the small size: minutes
    python -m scripts.behaviour compare build/before --all
    python -m scripts.behaviour compare build/before --parts 'run/gpt-*' wrong

A part is recorded in a file of its own; what is there is not made again, so that both can be interrupted. What two
versions may differ in is left out: times, paths, names of runs, wording. `compare` prints what differs, and ends with 1
if anything does.

Parts:

- `run/<recipe>-<layout>`: the weights after 20 steps, killed at 7 and resumed, on one and two processes, with DDP, FSDP
  and sharded checkpoints.
- `model/<recipe>`: what evaluate, export, estimate and compress report of that run, and what its servable answers to
  stored raw samples.
- `folder/<recipe>-<layout>`: a run folder that the recorded version left killed at step 7 is resumed by this one, to
  the same weights.
- `served/<recipe>`: what this version answers with a servable that the recorded one exported; and so its registry.
- `wrong`: exit code and keys of wrong configurations. `streams`: verdicts of the monitor on stored logs. `windows`:
  those of the gate on drawn windows.
- `help`, `config`: of each command.
"""
