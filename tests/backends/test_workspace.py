"""The one setting of the Triton passes' memory."""

from __future__ import annotations

import pytest

from alc_kernels.backends.triton import launch as workspace


def test_the_setting_is_in_mebibytes(monkeypatch):
    monkeypatch.delenv(workspace.VARIABLE, raising=False)
    assert workspace.read_workspace_bytes() == 256 << 20
    monkeypatch.setenv(workspace.VARIABLE, "48")
    assert workspace.read_workspace_bytes() == 48 << 20


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "48 MiB"])
def test_what_is_no_size_raises(monkeypatch, text):
    monkeypatch.setenv(workspace.VARIABLE, text)
    with pytest.raises(ValueError, match="expected a whole number of MiB"):
        workspace.read_workspace_bytes()
