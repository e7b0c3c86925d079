"""The Ascend table, compiled by MindSpore's front end: every call lowers to operators that Ascend has, within their kernels' limits.

The lowering runs once, in a process of its own (this file as a script), because MindSpore caches what it parsed.
"""

import pickle
import sys

import numpy as np


def main(path: str) -> None:
    """Lower every case in each dtype; pickle {(case, dtype): nodes or the error's message}."""
    import mindspore as ms

    import mindone_diffusers  # noqa: F401
    from mindone_diffusers.backend.lowering import lower
    from mindone_diffusers.backend.table import use_table
    from tests.functional_cases import CASES, prepare

    results = {}
    with use_table("ascend"):
        for case in CASES:
            for dtype in DTYPES:
                arrays, call = prepare(case)
                inputs = [ms.Tensor(array, getattr(ms, dtype)) if array.dtype == np.float32 else ms.Tensor(array) for array in arrays]
                try:
                    results[str(case), dtype] = lower(call, *inputs)
                except Exception as error:
                    results[str(case), dtype] = f"{type(error).__name__}: {error}"
    with open(path, "wb") as file:
        pickle.dump(results, file)


DTYPES = ("float32", "float16")

if __name__ == "__main__":
    main(sys.argv[1])
