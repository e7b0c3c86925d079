// CPU kernels in float32 for `mindspore.ops.Custom` (func_type="aot"). See operators.py for what each computes.
//
// Every kernel has MindSpore's signature: `params`, `ranks` and `shapes` list the inputs and then the output; Python numbers arrive as
// tensors of rank 0. Tensors are contiguous. A kernel returns 0, or 1 when it could not get its memory.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include <sched.h>

#define KERNEL(name)                                                                                              \
  extern "C" int name([[maybe_unused]] int count, void** params, [[maybe_unused]] int* ranks, int64_t** shapes, \
                      const char**, void*, void*)

namespace {

// Threads
//
// Not OpenMP: its threads spin for milliseconds after a loop, on the cores that MindSpore's own threads want for the next operator.

class Pool {
 public:
  static Pool& get() {
    static Pool* const pool = new Pool;  // never destroyed: its threads may sleep until the process ends
    return *pool;
  }

  int threads() const { return threads_; }

  // Calls task(i, thread) for each i < count. Whoever wakes up too late is not waited for: the caller does the work itself.
  void run(int64_t count, const std::function<void(int64_t, int)>& task) {
    const std::lock_guard<std::mutex> turn(turn_);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      count_ = count;
      next_ = 0;
      loop_++;
    }
    wake_.notify_all();
    work(task, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    task_ = nullptr;
    idle_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  // As many threads as OMP_NUM_THREADS says, or as the process may use cores.
  Pool() {
    const char* limit = std::getenv("OMP_NUM_THREADS");
    cpu_set_t cores;
    int wanted = limit ? std::atoi(limit) : 0;
    if (wanted < 1) wanted = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
    try {
      for (; threads_ < wanted; threads_++) std::thread(&Pool::serve, this, threads_).detach();
    } catch (const std::system_error&) {  // fewer, then
    }
  }

  void serve(int thread) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (uint64_t served = 0;;) {
      wake_.wait(lock, [&] { return task_ && loop_ != served; });
      served = loop_;
      busy_++;
      const auto& task = *task_;
      lock.unlock();
      work(task, thread);
      lock.lock();
      if (--busy_ == 0) idle_.notify_one();
    }
  }

  void work(const std::function<void(int64_t, int)>& task, int thread) {
    for (int64_t i; (i = next_++) < count_;) task(i, thread);
  }

  int threads_ = 1, busy_ = 0;
  uint64_t loop_ = 0;
  const std::function<void(int64_t, int)>* task_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  std::mutex turn_, mutex_;
  std::condition_variable wake_, idle_;
};

// function(i) for each i < count, on several threads if it pays; `cost` is the number of elements behind one i.
template <class Function>
void parallel(int64_t count, int64_t cost, Function function) {
  const int64_t grain = 1 << 12, step = std::max<int64_t>(1, grain / std::max<int64_t>(cost, 1));
  if (count * cost <= 4 * grain || Pool::get().threads() == 1) {
    for (int64_t i = 0; i < count; i++) function(i);
    return;
  }
  Pool::get().run((count + step - 1) / step, [&](int64_t block, int) {
    for (int64_t i = block * step; i < std::min(count, (block + 1) * step); i++) function(i);
  });
}

// Vectors

// kRows x 3 accumulators must fit the vector registers: 16 of them, or 32.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 8;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 4;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kRows = 8;
#else
constexpr int kLanes = 4, kRows = 4;
#endif

typedef float Full __attribute__((vector_size(4 * kLanes)));
typedef float Half __attribute__((vector_size(2 * kLanes)));

template <class V>
constexpr int lanes = sizeof(V) / sizeof(float);

template <class V>
inline V load(const float* from) {
  V vector;
  std::memcpy(&vector, from, sizeof(V));
  return vector;
}

template <class V>
inline void store(float* to, V vector) {
  std::memcpy(to, &vector, sizeof(V));
}

inline Full load_part(const float* from, int64_t count, float filler = 0) {
  float buffer[kLanes];
  for (int i = 0; i < kLanes; i++) buffer[i] = i < count ? from[i] : filler;
  return load<Full>(buffer);
}

inline void store_part(float* to, Full vector, int64_t count) { std::memcpy(to, &vector, count * sizeof(float)); }

inline float sum(Full vector) {
  float total = 0;
  for (int i = 0; i < kLanes; i++) total += vector[i];
  return total;
}

inline float max(Full vector) {
  float largest = vector[0];
  for (int i = 1; i < kLanes; i++) largest = std::max(largest, vector[i]);
  return largest;
}

// 2^x within 2e-7 (relative); 0 below 2^-126, infinity from 2^127.5, NaN stays. A minimax polynomial on [-1/2, 1/2].
inline Full exp2(Full x) {
  typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
  const Full low = Full{} - 126.0f, high = Full{} + 128.0f;
  const float shift = 0x1.8p23f + 127;  // adding it leaves the rounded exponent, biased, in the lowest bits
  Full clamped = x > low ? x : low;
  clamped = clamped < high ? clamped : high;
  const Full shifted = clamped + shift;
  const Full rest = x - (shifted - shift);
  Full power = 1.53533619e-4f * rest + 1.33988744e-3f;
  power = power * rest + 9.61843736e-3f;
  power = power * rest + 5.55033247e-2f;
  power = power * rest + 2.40226479e-1f;
  power = power * rest + 6.93147203e-1f;
  power = power * rest + 1.0f;
  const Full scale = (Full)((Integers)shifted << 23);
  return x < low ? Full{} : power * scale;
}

constexpr float kLog2E = 1.44269504f;

inline Full silu(Full x) { return x / (1.0f + exp2(x * -kLog2E)); }

inline Full gelu_tanh(Full x) {  // 0.5 x (1 + tanh u) = x / (1 + exp(-2u))
  const Full u = x * (0.797884561f + 0.0356774081f * x * x);
  return x / (1.0f + exp2(u * (-2 * kLog2E)));
}

// Phi(x), with log2(erfc(t) / 2) as a polynomial in t = |x| / sqrt(2): 5e-10 from exact before rounding.
inline Full normal_cdf(Full x) {
  const Full t = (x < 0.0f ? -x : x) * 0.707106781f;
  Full exponent = 1.52031283e-6f * t - 2.80402343e-5f;
  exponent = exponent * t + 2.26020907e-4f;
  exponent = exponent * t - 1.02143637e-3f;
  exponent = exponent * t + 2.51233744e-3f;
  exponent = exponent * t - 2.75909422e-4f;
  exponent = exponent * t - 2.76373495e-2f;
  exponent = exponent * t + 1.48287429e-1f;
  exponent = exponent * t + 9.18444909e-1f;
  exponent = exponent * t + 1.62790722f;
  exponent = exponent * t + 1.0f;
  const Full tail = exp2(-exponent);
  return x < 0.0f ? tail : 1.0f - tail;
}

inline Full gelu(Full x) { return x * normal_cdf(x); }

inline Full gelu_slope(Full x) { return normal_cdf(x) + x * 0.398942280f * exp2(x * x * (-0.5f * kLog2E)); }

inline Full silu_slope(Full x) {
  const Full sigmoid = 1.0f / (1.0f + exp2(x * -kLog2E));
  return sigmoid * (1.0f + x * (1.0f - sigmoid));
}

// Loops

int64_t elements(const int64_t* shape, int rank) {
  int64_t product = 1;
  for (int i = 0; i < rank; i++) product *= shape[i];
  return product;
}

// to[i] = function(from[i], other[i])
template <class Function>
inline void map_row(const float* from, const float* other, float* to, int64_t count, Function function) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, function(load<Full>(from + i), load<Full>(other + i)));
  if (i < count) {
    store_part(to + i, function(load_part(from + i, count - i), load_part(other + i, count - i)), count - i);
  }
}

template <class Function>
int map(void** params, int64_t count, Function function) {
  const float* from = (const float*)params[0];
  float* to = (float*)params[1];
  const int64_t chunk = 1 << 12, chunks = (count + chunk - 1) / chunk;
  parallel(chunks, chunk, [=](int64_t i) {
    const int64_t start = i * chunk;
    map_row(from + start, from + start, to + start, std::min(chunk, count - start), [=](Full x, Full) { return function(x); });
  });
  return 0;
}

// (input, gradient of the output) -> gradient of the input, for a function of one element with this slope
template <class Function>
int map_gradient(void** params, int64_t count, Function slope) {
  const float *from = (const float*)params[0], *gradient = (const float*)params[1];
  float* to = (float*)params[2];
  const int64_t chunk = 1 << 12, chunks = (count + chunk - 1) / chunk;
  parallel(chunks, chunk, [=](int64_t i) {
    const int64_t start = i * chunk;
    map_row(from + start, gradient + start, to + start, std::min(chunk, count - start), [=](Full x, Full dy) { return dy * slope(x); });
  });
  return 0;
}

// Mean and sum of squared deviations of a row, by chunks that stay in the nearest cache (Chan, Golub, LeVeque 1983).
struct Moments {
  double mean = 0, squares = 0;

  Moments(const float* row, int64_t length) {
    const int64_t chunk = 1 << 12;
    for (int64_t start = 0; start < length; start += chunk) add(row + start, std::min(chunk, length - start), start);
  }

  void add(const float* part, int64_t count, int64_t before) {
    Full total[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
      for (int k = 0; k < 4; k++) total[k] += load<Full>(part + i + k * kLanes);
    }
    for (; i + kLanes <= count; i += kLanes) total[0] += load<Full>(part + i);
    if (i < count) total[1] += load_part(part + i, count - i);
    const double part_mean = sum((total[0] + total[1]) + (total[2] + total[3])) / (double)count;
    const float center = (float)part_mean;
    Full spread[4] = {};
    for (i = 0; i + 4 * kLanes <= count; i += 4 * kLanes) {
      for (int k = 0; k < 4; k++) {
        const Full deviation = load<Full>(part + i + k * kLanes) - center;
        spread[k] += deviation * deviation;
      }
    }
    for (; i + kLanes <= count; i += kLanes) {
      const Full deviation = load<Full>(part + i) - center;
      spread[0] += deviation * deviation;
    }
    if (i < count) {
      const Full deviation = load_part(part + i, count - i, center) - center;
      spread[1] += deviation * deviation;
    }
    const double delta = part_mean - mean;
    mean += delta * count / (before + count);
    squares += sum((spread[0] + spread[1]) + (spread[2] + spread[3])) + delta * delta * before * count / (before + count);
  }
};

// Sums of a row `y` and of y times the distance of `x` from `center`, by chunks of which each is summed in float32.
struct Sums {
  double total = 0, product = 0;

  Sums(const float* x, const float* y, int64_t length, float center) {
    const int64_t chunk = 1 << 10;
    for (int64_t start = 0; start < length; start += chunk) {
      const int64_t count = std::min(chunk, length - start);
      Full part = {}, products = {};
      int64_t i = 0;
      for (; i + kLanes <= count; i += kLanes) {
        const Full values = load<Full>(y + start + i);
        part += values;
        products += values * (load<Full>(x + start + i) - center);
      }
      if (i < count) {
        const Full values = load_part(y + start + i, count - i);
        part += values;
        products += values * (load_part(x + start + i, count - i) - center);
      }
      total += sum(part);
      product += sum(products);
    }
  }
};

// Attention

constexpr int64_t kQueries = 8 * kRows, kKeys = 256;  // a block of queries against a block of keys

// c (kRows x N vectors, rows `c_step` apart) = factor c + a b: a has element (row, k) at row * ROW + k * STEP; b is packed, N vectors a k.
template <class V, int N, int64_t ROW, int64_t STEP, bool ACCUMULATE>
inline void multiply(const float* a, const float* b, int64_t depth, float* c, int64_t c_step, const float* factor) {
  V total[kRows][N];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      total[row][n] = ACCUMULATE ? load<V>(c + row * c_step + n * lanes<V>) * factor[row] : V{};
    }
  }
  for (int64_t k = 0; k < depth; k++) {
    V right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) right[n] = load<V>(b + (k * N + n) * lanes<V>);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; row++) {
      const float left = a[row * ROW + k * STEP];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) total[row][n] += left * right[n];
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) store(c + row * c_step + n * lanes<V>, total[row][n]);
  }
}

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// The width of the panel of columns at `column` of a matrix packed in panels of 1 to `widest` vectors, or half a vector at the end.
inline int64_t panel_width(int64_t column, int64_t columns, int64_t widest) {
  const int64_t left = round_up(columns - column, kLanes / 2);
  for (int64_t vectors = widest; vectors > 0; vectors--) {
    if (left >= vectors * kLanes && left != (vectors + 1) * kLanes) return vectors * kLanes;
  }
  return left >= kLanes ? kLanes : kLanes / 2;
}

struct FlashAttention {
  const float *query, *key, *value, *mask;
  float* output;
  int64_t batch, heads, key_heads, queries, keys, size;
  int64_t mask_steps[4];  // in the mask, from one (batch, head, query, key) to the next; 0 where it is broadcast
  float scale;
  bool causal;

  int64_t padded_keys() const { return round_up(keys, kLanes); }
  int64_t padded_size() const { return round_up(size, kLanes / 2); }

  // K^T of one head, in panels of two vectors of keys (the last may be one): a panel holds `size` rows.
  void pack_key(int64_t head, int64_t first, int64_t last, float* packed) const {
    for (int64_t start = first; start < last; start += 2 * kLanes) {
      const int64_t width = std::min<int64_t>(2 * kLanes, padded_keys() - start);
      float* panel = packed + start * size;
      for (int64_t k = 0; k < width; k++) {
        const float* row = key + (head * keys + start + k) * size;
        for (int64_t i = 0; i < size; i++) panel[i * width + k] = start + k < keys ? row[i] : 0.0f;
      }
    }
  }

  // V of one head, in panels of columns: a panel holds `keys` rows.
  void pack_value(int64_t head, int64_t first, int64_t last, float* packed) const {
    for (int64_t column = 0, width; column < size; column += width) {
      width = panel_width(column, size, 3);
      float* panel = packed + column * keys;
      const int64_t copied = std::min(width, size - column);
      for (int64_t k = first; k < last; k++) {
        const float* row = value + (head * keys + k) * size + column;
        for (int64_t i = 0; i < width; i++) panel[k * width + i] = i < copied ? row[i] : 0.0f;
      }
    }
  }

  // The queries from `first` on of one head, with an online softmax over blocks of keys (arXiv:2205.14135).
  void attend(int64_t sample, int64_t head, int64_t first, const float* keys_packed, const float* values_packed, float* scratch) const {
    const int64_t rows = std::min(kQueries, queries - first), width = padded_size();
    const int64_t visible = causal ? std::min(keys, first + rows) : keys;
    float* const left = scratch;                           // queries, in groups of kRows: (size, kRows)
    float* const result = left + kQueries * size;          // (kQueries, width)
    float* const scores = result + kQueries * width;       // (kRows, kKeys)
    float* const peaks = scores + kRows * kKeys;           // of the scores, times log2 e
    float* const totals = peaks + kQueries;
    const float* const from = query + ((sample * heads + head) * queries + first) * size;
    for (int64_t row = 0; row < kQueries; row++) {
      float* to = left + row / kRows * kRows * size + row % kRows;
      for (int64_t i = 0; i < size; i++) to[i * kRows] = row < rows ? from[row * size + i] * (scale * kLog2E) : 0.0f;
      peaks[row] = -INFINITY;
      totals[row] = 0;
    }
    std::memset(result, 0, kQueries * width * sizeof(float));
    for (int64_t start = 0; start < visible; start += kKeys) {
      const int64_t count = std::min(kKeys, visible - start);
      for (int64_t group = 0; group < rows; group += kRows) {
        for (int64_t k = 0; k < count; k += 2 * kLanes) {
          const float* panel = keys_packed + (start + k) * size;
          if (padded_keys() - start - k > kLanes) {
            multiply<Full, 2, 1, kRows, false>(left + group * size, panel, size, scores + k, kKeys, nullptr);
          } else {
            multiply<Full, 1, 1, kRows, false>(left + group * size, panel, size, scores + k, kKeys, nullptr);
          }
        }
        float factors[kRows];
        for (int64_t i = 0; i < kRows; i++) {
          const int64_t row = group + i, index = first + row;
          float* const line = scores + i * kKeys;
          if (mask && row < rows) add_mask(sample, head, index, start, count, line);
          const int64_t end = causal ? std::max<int64_t>(0, std::min(count, index + 1 - start)) : count;
          factors[i] = exponentials(line, end, count, peaks + row, totals + row);
        }
        for (int64_t column = 0, panel_columns; column < width; column += panel_columns) {
          panel_columns = panel_width(column, size, 3);
          const float* panel = values_packed + column * keys + start * panel_columns;
          float* to = result + group * width + column;
          if (panel_columns == 3 * kLanes) {
            multiply<Full, 3, kKeys, 1, true>(scores, panel, count, to, width, factors);
          } else if (panel_columns == 2 * kLanes) {
            multiply<Full, 2, kKeys, 1, true>(scores, panel, count, to, width, factors);
          } else if (panel_columns == kLanes) {
            multiply<Full, 1, kKeys, 1, true>(scores, panel, count, to, width, factors);
          } else {
            multiply<Half, 1, kKeys, 1, true>(scores, panel, count, to, width, factors);
          }
        }
      }
    }
    float* to = output + ((sample * heads + head) * queries + first) * size;
    for (int64_t row = 0; row < rows; row++) {
      const float total = totals[row] == 0 ? 1.0f : totals[row];  // no key was visible: the result is 0
      for (int64_t i = 0; i < size; i++) to[row * size + i] = result[row * width + i] / total;
    }
  }

  void add_mask(int64_t sample, int64_t head, int64_t index, int64_t start, int64_t count, float* line) const {
    const float* row = mask + sample * mask_steps[0] + head * mask_steps[1] + index * mask_steps[2] + start * mask_steps[3];
    if (mask_steps[3]) {
      for (int64_t k = 0; k < count; k++) line[k] += row[k] * kLog2E;
    } else {
      for (int64_t k = 0; k < count; k++) line[k] += row[0] * kLog2E;
    }
  }

  // scores -> 2^(scores - peak) for the first `end`, 0 up to `count`. Returns what earlier results must be multiplied by.
  static float exponentials(float* line, int64_t end, int64_t count, float* peak, float* total) {
    for (int64_t k = end; k < round_up(count, kLanes); k++) line[k] = -INFINITY;
    Full largest = Full{} - INFINITY;
    for (int64_t k = 0; k < count; k += kLanes) {
      const Full scores = load<Full>(line + k);
      largest = largest > scores ? largest : scores;
    }
    const float before = *peak;
    *peak = std::max(before, max(largest));
    const float subtracted = *peak == -INFINITY ? 0.0f : *peak;
    Full added = {};
    for (int64_t k = 0; k < count; k += kLanes) {
      const Full weights = exp2(load<Full>(line + k) - subtracted);
      store(line + k, weights);
      added += weights;
    }
    const float factor = std::exp2(before - subtracted);
    *total = *total * factor + sum(added);
    return factor;
  }

  int run() const {
    const int64_t groups = heads / key_heads, blocks = (queries + kQueries - 1) / kQueries;
    const int64_t head_floats = round_up(padded_keys() * size, kLanes) + round_up(keys * padded_size(), kLanes);
    const int64_t key_floats = round_up(padded_keys() * size, kLanes);
    const int64_t scratch_floats = round_up(kQueries * (size + padded_size() + 2) + kRows * kKeys, kLanes);
    Pool& pool = Pool::get();
    const int64_t wave = std::min<int64_t>(pool.threads(), batch * key_heads);  // heads packed at a time
    const int64_t pack_keys = 4 * kKeys, pack_blocks = (keys + pack_keys - 1) / pack_keys;
    const std::unique_ptr<float, void (*)(void*)> memory(
        (float*)std::aligned_alloc(64, round_up((wave * head_floats + pool.threads() * scratch_floats) * sizeof(float), 64)), std::free);
    if (!memory) return 1;
    float* const packed = memory.get();
    float* const scratch = packed + wave * head_floats;
    for (int64_t base = 0; base < batch * key_heads; base += wave) {
      const int64_t count = std::min(wave, batch * key_heads - base);
      pool.run(count * pack_blocks, [=](int64_t task, int) {
        const int64_t slot = task / pack_blocks, start = task % pack_blocks * pack_keys, end = std::min(keys, start + pack_keys);
        float* const to = packed + slot * head_floats;
        pack_key(base + slot, start, end, to);
        pack_value(base + slot, start, end, to + key_floats);
      });
      pool.run(count * groups * blocks, [=](int64_t task, int thread) {
        const int64_t slot = task / (groups * blocks), group = task / blocks % groups, block = task % blocks;
        const int64_t sample = (base + slot) / key_heads, head = (base + slot) % key_heads * groups + group;
        const float* const from = packed + slot * head_floats;
        attend(sample, head, block * kQueries, from, from + key_floats, scratch + thread * scratch_floats);
      });
    }
    return 0;
  }
};

}  // namespace

KERNEL(Silu) { return map(params, elements(shapes[0], ranks[0]), silu); }

KERNEL(Gelu) { return map(params, elements(shapes[0], ranks[0]), gelu); }

KERNEL(GeluTanh) { return map(params, elements(shapes[0], ranks[0]), gelu_tanh); }

KERNEL(SiluGrad) { return map_gradient(params, elements(shapes[0], ranks[0]), silu_slope); }

KERNEL(GeluGrad) { return map_gradient(params, elements(shapes[0], ranks[0]), gelu_slope); }

// (input (..., 2C)) -> (..., C)
KERNEL(Geglu) {
  const float* input = (const float*)params[0];
  float* output = (float*)params[1];
  const int64_t columns = shapes[1][ranks[1] - 1], rows = elements(shapes[1], ranks[1]) / std::max<int64_t>(columns, 1);
  parallel(rows, columns, [=](int64_t row) {
    const float* from = input + row * 2 * columns;
    map_row(from, from + columns, output + row * columns, columns, [](Full hidden, Full gate) { return hidden * gelu(gate); });
  });
  return 0;
}

// (input (..., 2C), gradient (..., C)) -> (..., 2C)
KERNEL(GegluGrad) {
  const float *input = (const float*)params[0], *gradient = (const float*)params[1];
  float* output = (float*)params[2];
  const int64_t columns = shapes[1][ranks[1] - 1], rows = elements(shapes[1], ranks[1]) / std::max<int64_t>(columns, 1);
  parallel(rows, 2 * columns, [=](int64_t row) {
    const float *hidden = input + row * 2 * columns, *gate = hidden + columns, *dy = gradient + row * columns;
    float *to = output + row * 2 * columns, *to_gate = to + columns;
    map_row(gate, dy, to, columns, [](Full g, Full d) { return d * gelu(g); });
    map_row(gate, dy, to_gate, columns, [](Full g, Full d) { return d * gelu_slope(g); });
    map_row(hidden, to_gate, to_gate, columns, [](Full h, Full d) { return d * h; });
  });
  return 0;
}

// (input (N, C, ...), weight (C), bias (C), groups, eps)
KERNEL(GroupNorm) {
  const float *input = (const float*)params[0], *weight = (const float*)params[1], *bias = (const float*)params[2];
  const int64_t groups = (int64_t)*(const float*)params[3];
  const float eps = *(const float*)params[4];
  float* output = (float*)params[5];
  const int64_t samples = shapes[0][0], channels = shapes[0][1] / groups, area = elements(shapes[0] + 2, ranks[0] - 2);
  const int64_t length = channels * area;
  parallel(samples * groups, length, [=](int64_t i) {
    const Moments moments(input + i * length, length);
    const double deviation = 1 / std::sqrt(moments.squares / length + eps);
    for (int64_t c = 0; c < channels; c++) {
      const int64_t channel = i % groups * channels + c, start = i * length + c * area;
      const float scale = (float)(weight[channel] * deviation), shift = (float)(bias[channel] - moments.mean * weight[channel] * deviation);
      map_row(input + start, input + start, output + start, area, [=](Full x, Full) { return x * scale + shift; });
    }
  });
  return 0;
}

// (input (N, C, ...), weight (C), gradient (N, C, ...), groups, eps) -> (N, C, ...), and each sample's part of the weight's and of the
// bias's gradient, (2, N, C)
KERNEL(GroupNormGrad) {
  const float *input = (const float*)params[0], *weight = (const float*)params[1], *gradient = (const float*)params[2];
  const int64_t groups = (int64_t)*(const float*)params[3];
  const float eps = *(const float*)params[4];
  float *output = (float*)params[5], *parts = (float*)params[6];
  const int64_t samples = shapes[0][0], all = shapes[0][1], channels = all / groups, area = elements(shapes[0] + 2, ranks[0] - 2);
  const int64_t length = channels * area;
  parallel(samples * groups, 3 * length, [=](int64_t i) {
    const Moments moments(input + i * length, length);
    const double deviation = 1 / std::sqrt(moments.squares / length + eps);
    double along = 0, across = 0;  // sums of weight * dy and of weight * dy * normalised x
    for (int64_t c = 0; c < channels; c++) {
      const int64_t start = i * length + c * area, channel = i % groups * channels + c, place = i / groups * all + channel;
      const Sums sums(input + start, gradient + start, area, (float)moments.mean);
      parts[place] = (float)(sums.product * deviation);
      parts[samples * all + place] = (float)sums.total;
      along += weight[channel] * sums.total;
      across += weight[channel] * sums.product * deviation;
    }
    const float mean = (float)moments.mean, slope = (float)(across / length * deviation * deviation), shift = (float)(along / length * deviation);
    for (int64_t c = 0; c < channels; c++) {
      const int64_t start = i * length + c * area;
      const float scale = (float)(weight[i % groups * channels + c] * deviation);
      map_row(input + start, gradient + start, output + start, area, [=](Full x, Full dy) { return dy * scale - shift - (x - mean) * slope; });
    }
  });
  return 0;
}

// (input (..., C), weight (C), bias (C), eps); weight and bias may have several axes
KERNEL(LayerNorm) {
  const float *input = (const float*)params[0], *weight = (const float*)params[1], *bias = (const float*)params[2];
  const float eps = *(const float*)params[3];
  float* output = (float*)params[4];
  const int64_t length = elements(shapes[1], ranks[1]), rows = elements(shapes[0], ranks[0]) / length;
  parallel(rows, length, [=](int64_t row) {
    const float* from = input + row * length;
    float* to = output + row * length;
    const Moments moments(from, length);
    const float scale = (float)(1 / std::sqrt(moments.squares / length + eps)), mean = (float)moments.mean;
    map_row(from, weight, to, length, [=](Full x, Full w) { return (x - mean) * scale * w; });
    map_row(to, bias, to, length, [](Full x, Full b) { return x + b; });
  });
  return 0;
}

// (input (..., C), weight (C), gradient (..., C), eps) -> (..., C), and the weight's and bias's gradients, in `parts` sums of rows each,
// (2, parts, C)
KERNEL(LayerNormGrad) {
  const float *input = (const float*)params[0], *weight = (const float*)params[1], *gradient = (const float*)params[2];
  const float eps = *(const float*)params[3];
  float *output = (float*)params[4], *sums = (float*)params[5];
  const int64_t length = elements(shapes[1], ranks[1]), rows = elements(shapes[0], ranks[0]) / length, parts = shapes[5][1];
  parallel(parts, rows * length / parts, [=](int64_t part) {
    float *weights = sums + part * length, *biases = sums + (parts + part) * length;
    std::fill(weights, weights + length, 0.0f);
    std::fill(biases, biases + length, 0.0f);
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; row++) {
      const float *from = input + row * length, *dy = gradient + row * length;
      float* to = output + row * length;
      const Moments moments(from, length);
      const float scale = (float)(1 / std::sqrt(moments.squares / length + eps)), mean = (float)moments.mean;
      map_row(from, dy, to, length, [=](Full x, Full d) { return (x - mean) * scale * d; });
      map_row(to, weights, weights, length, [](Full d, Full w) { return w + d; });
      map_row(dy, biases, biases, length, [](Full d, Full b) { return b + d; });
      map_row(dy, weight, to, length, [](Full d, Full w) { return d * w; });
      const Sums along(from, to, length, mean);
      const float shift = (float)(along.total / length), slope = (float)(along.product / length * scale * scale);
      map_row(from, to, to, length, [=](Full x, Full d) { return (d - shift - (x - mean) * slope) * scale; });
    }
  });
  return 0;
}

// (input (N, C, H, W)) -> (N, C, 2H, 2W): each pixel four times
KERNEL(DoubleNearest) {
  const float* input = (const float*)params[0];
  float* output = (float*)params[1];
  const int64_t columns = shapes[0][3], rows = elements(shapes[0], 3);
  parallel(rows, 4 * columns, [=](int64_t row) {
    const float* from = input + row * columns;
    float* to = output + row * columns * 4;
    for (int64_t i = 0; i < columns; i++) to[2 * i] = to[2 * i + 1] = from[i];
    std::memcpy(to + 2 * columns, to, 2 * columns * sizeof(float));
  });
  return 0;
}

// (query (B, N, S, D), key and value (B, M, T, D), scale, causal[, mask broadcastable to (B, N, S, T)]); M divides N
KERNEL(Attention) {
  FlashAttention call;
  call.query = (const float*)params[0];
  call.key = (const float*)params[1];
  call.value = (const float*)params[2];
  call.scale = *(const float*)params[3];
  call.causal = *(const float*)params[4] != 0;
  call.mask = count == 7 ? (const float*)params[5] : nullptr;
  call.output = (float*)params[count - 1];
  call.batch = shapes[0][0], call.heads = shapes[0][1], call.queries = shapes[0][2], call.size = shapes[0][3];
  call.key_heads = shapes[1][1], call.keys = shapes[1][2];
  int64_t step = 1;
  for (int axis = 3; call.mask && axis >= 0; axis--) {
    call.mask_steps[axis] = shapes[5][axis] == 1 ? 0 : step;
    step *= shapes[5][axis];
  }
  return call.run();
}
