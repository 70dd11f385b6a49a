"""Golden messages for values of the wrong type, and interpolations that cannot be resolved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.messages.golden import check_message

CASES = [
    (
        "scheduler=one_cycle optimizer=nested",
        """
'scheduler.max_lr' can't be resolved: ${optimizer.lr}
  where: conf/scheduler/one_cycle.yaml: scheduler.max_lr
  why:   unknown key 'optimizer.lr'
  fix:   optimizer.lr=<value>
""",
    ),
    (
        "optimizer.lr=fast",
        """
'optimizer.lr' must be float, not the text 'fast'
  where: command line: optimizer.lr=fast
""",
    ),
    (
        "data.batch_size=12.5",
        """
'data.batch_size' must be int, not 12.5
  where: command line: data.batch_size=12.5
  why:   global, over all devices and accumulation
""",
    ),
    (
        "data.workers=atuo",
        """
'data.workers' must be int or auto, not the text 'atuo'
  where: command line: data.workers=atuo
  why:   threads that decode, per process
  fix:   data.workers=auto
""",
    ),
    (
        "notes=5",
        """
'notes' must be str, not 5
  where: command line: notes=5
  why:   free text, kept in run.json and given to trackers
  fix:   "notes='5'"
""",
    ),
    (
        "tags=[Temp°C,plain]",
        """
'tags' must be list[str], not '[Temp°C,plain]'
  where: command line: tags='[Temp°C,plain]'
  why:   free words, kept in run.json and given to trackers
  fix:   "tags=['Temp°C',plain]"
""",
    ),
    (
        "tags=[true,5]",
        """
'tags' must be list[str], not [true,5]
  where: command line: tags=[true,5]
  why:   free words, kept in run.json and given to trackers
  fix:   "tags=['true','5']"
""",
    ),
    (
        "tags=cat",
        """
'tags' must be list[str], not the text 'cat'
  where: command line: tags=cat
  why:   free words, kept in run.json and given to trackers
  fix:   tags=[cat]
""",
    ),
    (
        "trainer.max_epochs=ten",
        """
'trainer.max_epochs' must be int or null, not the text 'ten'
  where: command line: trainer.max_epochs=ten
""",
    ),
    (
        "optimizer.betas=[a,b] optimizer=adamw",
        """
'optimizer.betas' must be list[float], not [a,b]
  where: command line: optimizer.betas=[a,b]
""",
    ),
    (
        "data=webdataset",
        """
'data.train' is not set
  where: conf/data/webdataset.yaml: data.train
  why:   shards by path, brace pattern, glob, folder, or address (https://, s3://); a dict names sources to mix
  fix:   data.train=<str or list or dict>

'data.val' is not set
  where: conf/data/webdataset.yaml: data.val
  why:   shards by path, brace pattern, glob, folder, or address
  fix:   data.val=<str or list>
""",
    ),
    (
        "notes=${oc.env:NO_SUCH_VARIABLE}",
        """
'notes' needs the environment variable NO_SUCH_VARIABLE, which is not set
  where: command line: notes=${oc.env:NO_SUCH_VARIABLE}
  fix:   export NO_SUCH_VARIABLE=<value>
""",
    ),
    (
        "trainer.max_epochs=${oc.env:TEXT}",
        """
'trainer.max_epochs' must be int or null, ${oc.env:TEXT} is the text 'ten'
  where: command line: trainer.max_epochs=${oc.env:TEXT}
""",
    ),
    (
        "trainer.max_epochs=${oc.env:NUMBER}",
        """
'trainer.max_epochs' must be int or null, ${oc.env:NUMBER} is '5'
  where: command line: trainer.max_epochs=${oc.env:NUMBER}
  why:   an environment variable is text until oc.decode reads it
  fix:   'trainer.max_epochs=${oc.decode:${oc.env:NUMBER}}'
""",
    ),
    (
        "tags=${oc.env:LONG}",
        """
'tags' must be list[str], ${oc.env:LONG} is a text of 15 characters
  where: command line: tags=${oc.env:LONG}
  why:   free words, kept in run.json and given to trackers
  fix:   'tags=[${oc.env:LONG}]'
""",
    ),
    (
        "data.batch_size=${name}",
        """
'data.batch_size' must be int, ${name} is the text 'run'
  where: command line: data.batch_size=${name}
  why:   global, over all devices and accumulation
""",
    ),
    (
        "scheduler=one_cycle optimizer.lr=fast trainer.max_epochs=${oc.decode:${oc.env:NUMBER}}",
        """
'optimizer.lr' must be float, not the text 'fast'
  where: command line: optimizer.lr=fast
""",
    ),
    (
        "optimizer=none scheduler=one_cycle",
        """
'scheduler.max_lr' can't be resolved: ${optimizer.lr}
  where: conf/scheduler/one_cycle.yaml: scheduler.max_lr
  why:   optimizer=none has no 'lr'
  fix:   scheduler=none, or an option of optimizer
""",
    ),
    (
        "name=${optimizr.lr}",
        """
'name' can't be resolved: ${optimizr.lr}
  where: command line: name=${optimizr.lr}
  why:   unknown key 'optimizr.lr'
  fix:   'name=${optimizer.lr}'
""",
    ),
    (
        "data=table data.train=t.csv data.target=a${b}",
        """
'data.target' can't be resolved: a${b}
  where: command line: data.target=a${b}
  why:   unknown key 'b'
  fix:   data.target=<value>
""",
    ),
    (
        "name=${oc.evn:HOME}",
        """
'name' can't be resolved: ${oc.evn:HOME}
  where: command line: name=${oc.evn:HOME}
  why:   unknown resolver 'oc.evn'
  fix:   'name=${oc.env:HOME}'
""",
    ),
]


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[typed for typed, _ in CASES])
def test_message(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    check_message(folder, monkeypatch, typed, message)


def test_number_of_cases() -> None:
    assert len(CASES) >= 18
