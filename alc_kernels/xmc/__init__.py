"""The former name of :mod:`alc_kernels.trainer`, for one release, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

warnings.warn(
    "alc_kernels.xmc is called alc_kernels.trainer now; the old name goes with the next release "
    "(modules inside it that moved: docs/moved.md)",
    DeprecationWarning,
    stacklevel=2,
)


class _SameModules(MetaPathFinder, Loader):
    """``alc_kernels.xmc.NAME`` is the module ``alc_kernels.trainer.NAME``, not a second one."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"alc_kernels.trainer{spec.name[len(__name__) :]}")
        self.kept = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.kept  # the import put the old name's there


sys.meta_path.insert(0, _SameModules())
