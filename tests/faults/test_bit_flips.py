"""One flipped bit in any file: never silently wrong, never silently empty, never a crash."""
from __future__ import annotations

import shutil
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.faults import damage
from tests.faults.checker import Found
from tests.faults.sizes import Size
from tests.faults.trial import Broken, Trial, make
from tests.faults.worker import Plan


def test_flips(tmp_path: Path, size: Size, chance: Random) -> None:
    for killed in (False, True):
        trial = make(tmp_path, chance.randrange(2**32))
        trial.use(Plan(trial.seed, "a", 150))
        if killed:
            trial.use(Plan(trial.seed, "b", 50, kill_at=("append.after", 20)))
        c = Counter()
        for file in damage.files(trial.place.directory):
            for n in range(60 if 'mdb' in file or 'sqlite' in file else 10):
                d = tmp_path / "copy"
                shutil.copytree(trial.place.directory, d)
                flip = damage.random_flip(d, file, chance)
                flip.apply(d)
                t = Trial(replace(trial.place, directory=d), 0, deepcopy(trial.history))
                try:
                    f = t.look()
                    if isinstance(f, Found):
                        t.check(f)
                        r = 'right'
                    else:
                        r = f'{f.what} {f.error[:60]}'
                except Broken as e:
                    r = 'BROKEN ' + str(e).split('\n')[1][:100] if '\n' in str(e) else str(e)
                    if c[file,killed,r]<2: print(flip, killed, str(e)[:500])
                c[file,killed,r]+=1
                shutil.rmtree(d)
        for k,v in sorted(c.items()): print(v,k)
