"""What an error's message says where ``torchrun`` started the command several times."""

from __future__ import annotations

import os


def _count() -> int:
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def this_rank() -> str:
    """ "rank 1 of 4: ", or nothing for one process alone."""
    return f"rank {os.environ.get('RANK', '?')} of {_count()}: " if _count() > 1 else ""


def is_told_elsewhere(error: BaseException) -> bool:
    """Whether another process reports the same error.

    Once processes have met they agree about it (``told``). Before that they all read the same
    command line, and the first one of each machine speaks.
    """
    if _count() == 1:
        return False
    return bool(getattr(error, "told", os.environ.get("LOCAL_RANK", "0") != "0"))


def tell_torchrun(message: str) -> None:
    """Let torchrun's own report of the failed rank say what the error was."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    try:
        raise RuntimeError(message)  # the report shows a traceback: the shortest there is
    except RuntimeError as brief:
        get_error_handler().record_exception(brief)
