"""``python -m alc_kernels`` is ``alc``."""

from alc_kernels.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
