"""``alc_kernels.xmc`` is ``alc_kernels.trainer`` for one release, with a warning."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import alc_kernels.xmc
    import alc_kernels.xmc.training.sampler
    from alc_kernels.xmc.config import TrainConfig as old
    from alc_kernels.xmc.data.tables import open_table
from alc_kernels.trainer.config import TrainConfig as new
import alc_kernels.trainer.config as config
assert [w.category for w in told] == [DeprecationWarning], told
assert "alc_kernels.trainer" in str(told[0].message)
assert old is new and new.__module__ == config.__spec__.name == "alc_kernels.trainer.config"
try:
    import alc_kernels.xmc.nothing
except ModuleNotFoundError as error:
    assert "alc_kernels.trainer.nothing" in str(error)
else:
    raise AssertionError
"""


def test_old_name_gives_the_same_modules() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
