"""What matters most of a GPU, in nine minutes: ``benchmarks/on_gpu.sh OUTPUT fifteen``."""
