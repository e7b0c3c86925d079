"""Run cuRAND's Philox functions in PyTorch's kernel loop, on the CPU, and write `tests/reference/curand.safetensors`.

    python tools/record_curand.py

NVIDIA's headers (two wheels from PyPI, 57 MB) have a host path for every function, of which only sine and cosine are not the GPU's; what a
CUDA compiler would bring is stubbed. The loop is that of PyTorch's `ATen/native/cuda/DistributionTemplates.h`: block by block, thread by
thread. Needs g++ and an x86 processor with FMA, for GPUs fuse multiply-adds too.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.core.curand_cases import CASES, KINDS, LARGE  # noqa: E402

WHEELS = ("nvidia-curand-cu12==10.3.2.106", "nvidia-cuda-runtime-cu12==12.1.105")

STUBS = {
    "cuda_runtime.h": """
#include <driver_types.h>
#include <vector_functions.h>
#include <library_types.h>
""",
    "crt/host_defines.h": """
#define __host__
#define __device__
#define __constant__
#define __forceinline__ inline
#define __device_builtin__
#define __cudart_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __align__(n) __attribute__((aligned(n)))
#define __cuda_builtin_vector_align8(tag, members) struct tag { members }
#define CUDARTAPI
""",
    "nv/target": """
#define NV_IF_ELSE_TARGET(target, ...) CHOOSE_##target(__VA_ARGS__)
#define NV_IF_TARGET(target, ...) ONLY_##target(__VA_ARGS__)
#define CHOOSE_NV_IS_DEVICE(device, ...) __VA_ARGS__
#define CHOOSE_NV_IS_HOST(host, ...) host
#define ONLY_NV_IS_DEVICE(...)
#define ONLY_NV_IS_HOST(...) __VA_ARGS__
#define ONLY_NV_PROVIDES_SM_61(...)
""",
}
PROGRAM = """
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <string>
#include <vector>
#include <cuda_runtime.h>
#define CURAND_POISSON_H_
#define CURAND_DISCRETE_H_
static double __cr_lgamma_table[1];
static void __syncthreads() {}
#include <curand_kernel.h>

typedef curandStatePhilox4_32_10_t State;

// Numbers of type `number`, of which `several` from each call of `draw`.
template <typename number, typename several, typename function>
void kernel(int64_t numel, uint64_t seed, uint64_t &offset, uint32_t sms, uint32_t threads_per_sm, function draw) {
  const int unroll = sizeof(several) / sizeof(number);
  const int64_t grid = std::min<int64_t>(sms * (threads_per_sm / 256), (numel + 255) / 256), stride = 256 * grid;
  const int64_t rounded = ((numel - 1) / (stride * unroll) + 1) * stride * unroll;
  std::vector<number> out(numel);
  for (int64_t thread = 0; thread < stride; thread++) {
    State state;
    curand_init(seed, thread, offset, &state);
    for (int64_t first = thread; first < rounded; first += stride * unroll) {
      several drawn = draw(&state);
      for (int i = 0; i < unroll; i++)
        if (first + stride * i < numel) out[first + stride * i] = (&drawn.x)[i];
    }
  }
  offset += ((numel - 1) / (stride * unroll) + 1) * 4;
  fwrite(out.data(), sizeof(number), numel, stdout);
}

int main(int, char **argv) {
  std::string kind = argv[1];
  uint64_t seed = strtoull(argv[2], 0, 10), offset = strtoull(argv[3], 0, 10);
  uint32_t sms = atoi(argv[4]), threads = atoi(argv[5]);
  for (char **size = argv + 6; *size; size++) {
    int64_t n = atoll(*size);
    if (kind == "normal32") kernel<float, float4>(n, seed, offset, sms, threads, [](State *s) { return curand_normal4(s); });
    if (kind == "uniform32") kernel<float, float4>(n, seed, offset, sms, threads, [](State *s) { return curand_uniform4(s); });
    if (kind == "normal64") kernel<double, double2>(n, seed, offset, sms, threads, [](State *s) { return curand_normal2_double(s); });
    if (kind == "uniform64") kernel<double, double2>(n, seed, offset, sms, threads, [](State *s) { return curand_uniform2_double(s); });
    if (kind == "words") kernel<uint32_t, uint4>(n, seed, offset, sms, threads, [](State *s) { return curand4(s); });
    if (kind == "wide") kernel<uint64_t, ulonglong2>(n, seed, offset, sms, threads, [](State *s) {
      uint4 v = curand4(s);
      return ulonglong2{(uint64_t)v.x << 32 | v.y, (uint64_t)v.z << 32 | v.w};
    });
  }
  fprintf(stderr, "%llu", (unsigned long long)offset);
}
"""


def main() -> None:
    from safetensors.numpy import save_file

    recorded = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", name, *WHEELS], check=True)
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
        for path, text in (STUBS | {"kernel.cpp": PROGRAM}).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        includes = [f"-I{folder / path}" for path in (".", "nvidia/cuda_runtime/include", "nvidia/curand/include")]
        compiler = ["g++", "-O2", "-std=c++17", "-w", "-mfma", "-ffp-contract=fast"]
        subprocess.run([*compiler, *includes, str(folder / "kernel.cpp"), "-o", str(folder / "kernel")], check=True)

        def draw(kind: str, case: tuple, sizes: tuple[int, ...]) -> tuple[np.ndarray, int]:
            seed, offset, gpu = case
            command = [folder / "kernel", kind, seed, offset, *gpu, *sizes]
            done = subprocess.run([str(part) for part in command], check=True, capture_output=True)
            return np.frombuffer(done.stdout, KINDS[kind]), int(done.stderr)

        for number, (*case, sizes) in enumerate(CASES):
            for kind in KINDS:
                values, offset = draw(kind, case, sizes)
                recorded[f"{number}/{kind}"], recorded[f"{number}/{kind}/offset"] = values, np.array(offset)
        *case, sizes = LARGE
        large = draw("uniform32", case, sizes)[0]
    metadata = {"source": "; ".join(WHEELS), "large": hashlib.sha256(large.tobytes()).hexdigest()}
    save_file(recorded, ROOT / "tests" / "reference" / "curand.safetensors", metadata)


if __name__ == "__main__":
    main()
