"""A missing or old library is named when the adapter is imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from alc_kernels import integrations


@pytest.mark.parametrize("found", ["5.9.9", "6.0.0", "6.0.dev1", "6.10.1", "10.0", None])
def test_versions(found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if found is None:
            raise PackageNotFoundError(package)
        return found

    monkeypatch.setattr(integrations, "version", version)
    if found not in ("5.9.9", None):
        integrations.require("some-library", "6.0")
        return
    words = rf"needs some-library >= 6.0, found {found or 'none'}: pip install .*\[some-library\]"
    with pytest.raises(ImportError, match=words):
        integrations.require("some-library", "6.0")
