"""What `tools/record_curand.py` draws: seed, offset, GPU (multiprocessors, threads each), sizes of consecutive draws."""

SIZES = (1, 5, 257, 3, 1300)
CASES = [
    (0, 0, (108, 2048), (1, 300)),
    (42, 8, (1, 512), SIZES),
    (2**64 - 1, 2**34 + 4, (1, 300), SIZES),
]
LARGE = (7, 0, (108, 2048), (221184 * 4 + 1000, 300000))

KINDS = {"words": "<u4", "wide": "<u8", "uniform32": "<f4", "uniform64": "<f8", "normal32": "<f4", "normal64": "<f8"}
