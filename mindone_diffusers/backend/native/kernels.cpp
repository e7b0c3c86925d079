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
  int64_t batch, heads, key_heads, queries, keys, size, value_size;
  int64_t mask_steps[4];  // in the mask, from one (batch, head, query, key) to the next; 0 where it is broadcast
  float scale;
  bool causal;

  int64_t padded_keys() const { return round_up(keys, kLanes); }
  int64_t width() const { return round_up(value_size, kLanes / 2); }  // of the values and results

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
    for (int64_t column = 0, width; column < value_size; column += width) {
      width = panel_width(column, value_size, 3);
      float* panel = packed + column * keys;
      const int64_t copied = std::min(width, value_size - column);
      for (int64_t k = first; k < last; k++) {
        const float* row = value + (head * keys + k) * value_size + column;
        for (int64_t i = 0; i < width; i++) panel[k * width + i] = i < copied ? row[i] : 0.0f;
      }
    }
  }

  // The queries from `first` on of one head, with an online softmax over blocks of keys (arXiv:2205.14135).
  void attend(int64_t sample, int64_t head, int64_t first, const float* keys_packed, const float* values_packed, float* scratch) const {
    const int64_t rows = std::min(kQueries, queries - first), width = this->width();
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
          panel_columns = panel_width(column, value_size, 3);
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
    float* to = output + ((sample * heads + head) * queries + first) * value_size;
    for (int64_t row = 0; row < rows; row++) {
      const float total = totals[row] == 0 ? 1.0f : totals[row];  // no key was visible: the result is 0
      for (int64_t i = 0; i < value_size; i++) to[row * value_size + i] = result[row * width + i] / total;
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
    const int64_t head_floats = round_up(padded_keys() * size, kLanes) + round_up(keys * width(), kLanes);
    const int64_t key_floats = round_up(padded_keys() * size, kLanes);
    const int64_t scratch_floats = round_up(kQueries * (size + width() + 2) + kRows * kKeys, kLanes);
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

// Convolutions, 1x1 and 3x3 with a border of zeros, of few channels and large images
//
// Images are copied into planes with a border, where every tap of an output is at a constant distance: vectors run over whole planes, and
// what they compute between the outputs is left out. A stride's gradient has zeros between its numbers there.

namespace {

struct Plane {
  int64_t row, size;  // numbers in a row, and in a plane with room for a vector's end

  Plane(int64_t height, int64_t width) : row(width), size(height * width + 5 * kLanes) {}

  int64_t vectors(int64_t height, int64_t width, int64_t step) const {  // from the first to the last of so many outputs
    return ((height - 1) * step * row + (width - 1) * step + kLanes) / kLanes;
  }

  // Copies images (height x width) to planes; image (y, x) goes to plane (start + y * step, start + x * step).
  void copy(const float* from, float* to, int64_t count, int64_t height, int64_t width, int64_t start, int64_t step) const {
    parallel(count, size, [=, *this](int64_t i) {
      float* plane = to + i * size;
      std::memset(plane, 0, size * sizeof(float));
      for (int64_t y = 0; y < height; y++) {
        const float* line = from + (i * height + y) * width;
        float* out = plane + (start + y * step) * row + start;
        if (step == 1) {
          std::memcpy(out, line, width * sizeof(float));
        } else {
          for (int64_t x = 0; x < width; x++) out[x * step] = line[x];
        }
      }
    });
  }
};

// Memory of the calling thread, kept for the next call; null if there is none.
float* scratch(int64_t count, int which) {
  thread_local std::unique_ptr<float, decltype(&std::free)> memory[3] = {{nullptr, std::free}, {nullptr, std::free}, {nullptr, std::free}};
  thread_local int64_t sizes[3] = {};
  if (sizes[which] < count) {
    memory[which].reset((float*)std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64));
    sizes[which] = memory[which] ? count : 0;
  }
  return memory[which].get();
}

// kRows outputs, N vectors of pixels, K x K taps
template <int K, int N>
inline void convolve_tile(const float* x, Plane plane, int64_t channels, const float* weight, const float* bias, float* to) {
  Full total[kRows][N];
  for (int r = 0; r < kRows; r++) {
    for (int n = 0; n < N; n++) total[r][n] = Full{} + bias[r];
  }
  for (int64_t c = 0; c < channels; c++, x += plane.size) {
    for (int tap = 0; tap < K * K; tap++, weight += kRows) {
      const float* from = x + tap / K * plane.row + tap % K;
      Full pixels[N];
      for (int n = 0; n < N; n++) pixels[n] = load<Full>(from + n * kLanes);
      for (int r = 0; r < kRows; r++) {
        for (int n = 0; n < N; n++) total[r][n] += weight[r] * pixels[n];
      }
    }
  }
  for (int r = 0; r < kRows; r++) {
    for (int n = 0; n < N; n++) store(to + r * plane.size + n * kLanes, total[r][n]);
  }
}

// Weights (outputs, channels, taps), packed for tiles: element (o, c, tap) is at o * o_step + c * c_step + tap, from the last tap if `turned`.
struct Weights {
  const float *values, *bias;
  int64_t outputs, channels, o_step, c_step;
  bool turned;
};

// out (batch, outputs, height, width): every `step`-th number of what the planes give.
template <int K>
int convolve(const float* planes, Plane plane, Weights w, float* out, int64_t batch, int64_t height, int64_t width, int64_t step) {
  const int64_t blocks = (w.outputs + kRows - 1) / kRows, packed = (w.channels * K * K + 1) * kRows;
  float* weights = scratch(blocks * packed, 1);
  if (!weights) return 1;
  for (int64_t o = 0; o < blocks * kRows; o++) {
    float* to = weights + o / kRows * packed + o % kRows;
    to[0] = o < w.outputs && w.bias ? w.bias[o] : 0.0f;
    for (int64_t i = 0; i < w.channels * K * K; i++) {
      const int64_t tap = w.turned ? K * K - 1 - i % (K * K) : i % (K * K);
      to[(i + 1) * kRows] = o < w.outputs ? w.values[o * w.o_step + i / (K * K) * w.c_step + tap] : 0.0f;
    }
  }
  std::atomic<bool> failed = false;
  parallel(batch * blocks, plane.size * w.channels, [=, &failed](int64_t i) {
    const int64_t image = i / blocks, block = i % blocks, vectors = plane.vectors(height, width, step);
    const float *from = planes + image * w.channels * plane.size, *weight = weights + block * packed;
    float* rows = scratch(kRows * plane.size, 2);
    if (!rows) {
      failed = true;
      return;
    }
    int64_t v = 0;
    for (; v + 3 <= vectors; v += 3) {
      convolve_tile<K, 3>(from + v * kLanes, plane, w.channels, weight + kRows, weight, rows + v * kLanes);
    }
    for (; v < vectors; v++) convolve_tile<K, 1>(from + v * kLanes, plane, w.channels, weight + kRows, weight, rows + v * kLanes);
    for (int64_t r = 0; r < std::min<int64_t>(kRows, w.outputs - block * kRows); r++) {
      float* to = out + (image * w.outputs + block * kRows + r) * height * width;
      for (int64_t y = 0; y < height; y++, to += width) {
        const float* line = rows + r * plane.size + y * step * plane.row;
        if (step == 1) {
          std::memcpy(to, line, width * sizeof(float));
        } else {
          for (int64_t x = 0; x < width; x++) to[x] = line[x * step];
        }
      }
    }
  });
  return failed;
}

constexpr int kPairs = kRows / 4;  // outputs at a time, times K x K taps

// The part that some images have in the gradient of `count` outputs' weights for one channel; images are `x_step` and `dy_step` apart.
template <int K>
inline void correlate(const float* x, int64_t x_step, const float* dy, int64_t dy_step, int64_t images, Plane plane, int64_t vectors,
                      int count, float* to, int64_t o_step) {
  Full total[kPairs][K * K] = {};
  for (int64_t image = 0; image < images; image++, x += x_step, dy += dy_step) {
    for (int64_t v = 0; v < vectors; v++) {
      Full slopes[kPairs];
      for (int r = 0; r < kPairs; r++) slopes[r] = load<Full>(dy + std::min(r, count - 1) * plane.size + v * kLanes);
      for (int tap = 0; tap < K * K; tap++) {
        const Full pixels = load<Full>(x + v * kLanes + tap / K * plane.row + tap % K);
        for (int r = 0; r < kPairs; r++) total[r][tap] += slopes[r] * pixels;
      }
    }
  }
  for (int r = 0; r < count; r++) {
    for (int tap = 0; tap < K * K; tap++) to[r * o_step + tap] = sum(total[r][tap]);
  }
}

// Gradients of weights (O, C, K, K) and bias (O,), from planes of the input and of the output's gradient. Images are added up in parts, and
// these in order, whatever runs first.
template <int K>
int weight_gradient(const float* x, const float* dy, Plane plane, int64_t vectors, int64_t batch, int64_t channels, int64_t outputs,
                    float* weight, float* bias) {
  const int64_t size = outputs * channels * K * K, parts = std::min<int64_t>(batch, 4), pairs = (outputs + kPairs - 1) / kPairs;
  float* sums = scratch(parts * (size + outputs), 2);
  if (!sums) return 1;
  parallel(parts * pairs, batch / parts * kPairs * channels * plane.size, [=](int64_t i) {
    const int64_t part = i / pairs, o = i % pairs * kPairs, first = part * batch / parts, images = (part + 1) * batch / parts - first;
    const int count = (int)std::min<int64_t>(kPairs, outputs - o);
    float *weights = sums + part * (size + outputs), *biases = weights + size;
    const float* slopes = dy + (first * outputs + o) * plane.size;
    for (int64_t c = 0; c < channels; c++) {
      const float* pixels = x + (first * channels + c) * plane.size;
      correlate<K>(pixels, channels * plane.size, slopes, outputs * plane.size, images, plane, vectors, count,
                   weights + (o * channels + c) * K * K, channels * K * K);
    }
    for (int r = 0; r < count; r++) {
      Full total = {};
      for (int64_t image = 0; image < images; image++) {
        const float* line = slopes + (image * outputs + r) * plane.size;
        for (int64_t v = 0; v < vectors; v++) total += load<Full>(line + v * kLanes);
      }
      biases[o + r] = sum(total);
    }
  });
  for (int64_t i = 0; i < size + outputs; i++) {
    float total = 0;
    for (int64_t part = 0; part < parts; part++) total += sums[part * (size + outputs) + i];
    (i < size ? weight[i] : bias[i - size]) = total;
  }
  return 0;
}

}  // namespace

// (input (N, C, H, W), weight (O, C, K, K), bias (O,), stride, padding) -> (N, O, h, w)
KERNEL(Conv) {
  const int64_t batch = shapes[0][0], channels = shapes[0][1], height = shapes[0][2], width = shapes[0][3], kernel = shapes[1][2];
  const int64_t stride = (int64_t) * (const float*)params[3], padding = (int64_t) * (const float*)params[4];
  const Plane plane(height + 2 * padding, width + 2 * padding);
  float* x = scratch(batch * channels * plane.size, 0);
  if (!x) return 1;
  plane.copy((const float*)params[0], x, batch * channels, height, width, padding, 1);
  const Weights w = {(const float*)params[1], (const float*)params[2], shapes[1][0], channels, channels * kernel * kernel, kernel * kernel, false};
  return (kernel == 1 ? convolve<1> : convolve<3>)(x, plane, w, (float*)params[5], batch, shapes[5][2], shapes[5][3], stride);
}

// (gradient of the output (N, O, h, w), weight (O, C, K, K), input, stride, padding) -> gradient of the input (N, C, H, W)
KERNEL(ConvInputGrad) {
  const int64_t batch = shapes[0][0], outputs = shapes[0][1], channels = shapes[1][1], kernel = shapes[1][2];
  const int64_t stride = (int64_t) * (const float*)params[3], padding = (int64_t) * (const float*)params[4];
  const int64_t height = shapes[5][2], width = shapes[5][3];
  const Plane plane(height + kernel - 1, width + kernel - 1);
  float* dy = scratch(batch * outputs * plane.size, 0);
  if (!dy) return 1;
  plane.copy((const float*)params[0], dy, batch * outputs, shapes[0][2], shapes[0][3], kernel - 1 - padding, stride);
  const Weights w = {(const float*)params[1], nullptr, channels, outputs, kernel * kernel, channels * kernel * kernel, true};
  return (kernel == 1 ? convolve<1> : convolve<3>)(dy, plane, w, (float*)params[5], batch, height, width, 1);
}

// (input (N, C, H, W), gradient of the output (N, O, h, w), weight (O, C, K, K), stride, padding) -> gradients of weight (O, C, K, K) and bias (O,)
KERNEL(ConvWeightGrad) {
  const int64_t batch = shapes[0][0], channels = shapes[0][1], height = shapes[0][2], width = shapes[0][3], outputs = shapes[1][1];
  const int64_t stride = (int64_t) * (const float*)params[3], padding = (int64_t) * (const float*)params[4], kernel = shapes[2][2];
  const Plane plane(height + 2 * padding, width + 2 * padding);
  float *x = scratch(batch * channels * plane.size, 0), *dy = scratch(batch * outputs * plane.size, 1);
  if (!x || !dy) return 1;
  plane.copy((const float*)params[0], x, batch * channels, height, width, padding, 1);
  plane.copy((const float*)params[1], dy, batch * outputs, shapes[1][2], shapes[1][3], 0, stride);
  const int64_t vectors = plane.vectors(shapes[1][2], shapes[1][3], stride);
  float *weight = (float*)params[5], *bias = (float*)params[6];
  return (kernel == 1 ? weight_gradient<1> : weight_gradient<3>)(x, dy, plane, vectors, batch, channels, outputs, weight, bias);
}

// (query (B, N, S, D), key (B, M, T, D), value (B, M, T, E), scale, causal[, mask broadcastable to (B, N, S, T)]) -> (B, N, S, E);
// M divides N
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
  call.key_heads = shapes[1][1], call.keys = shapes[1][2], call.value_size = shapes[2][3];
  int64_t step = 1;
  for (int axis = 3; call.mask && axis >= 0; axis--) {
    call.mask_steps[axis] = shapes[5][axis] == 1 ? 0 : step;
    step *= shapes[5][axis];
  }
  return call.run();
}

// For NumPy arrays
//
// Called through ctypes, with plain arguments, on the caller's thread. See arrays.py.

namespace {

// Matsumoto & Nishimura's generator, laid out as NumPy's.
struct MersenneTwister {
  uint32_t key[624];
  int position;

  static uint32_t twist(uint32_t high, uint32_t low) {
    return (((high & 0x80000000u) | (low & 0x7fffffffu)) >> 1) ^ (-(low & 1u) & 0x9908b0dfu);
  }

  void refill() {
    for (int i = 0; i < 227; i++) key[i] = key[i + 397] ^ twist(key[i], key[i + 1]);
    for (int i = 227; i < 623; i++) key[i] = key[i - 227] ^ twist(key[i], key[i + 1]);
    key[623] = key[396] ^ twist(key[623], key[0]);
    position = 0;
  }

  void draw(uint32_t* words, int64_t count) {
    while (count > 0) {
      if (position == 624) refill();
      const int part = (int)std::min<int64_t>(count, 624 - position);
      for (int i = 0; i < part; i++) {
        uint32_t word = key[position + i];
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c5680u;
        word ^= (word << 15) & 0xefc60000u;
        words[i] = word ^ (word >> 18);
      }
      position += part, words += part, count -= part;
    }
  }
};

float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

template <int N>
float polynomial(float x, const float (&coefficients)[N]) {
  float result = coefficients[0];
  for (int i = 1; i < N; i++) result = std::fma(result, x, coefficients[i]);
  return result;
}

constexpr float LOG[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f, 1.4249322787e-1f,
                         -1.6668057665e-1f, 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
constexpr float COSINE[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
constexpr float SINE[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};

// Cephes' logf of a normal number, with the multiply-adds of core/mt19937.py.
float cephes_log(float x) {
  const uint32_t bits = as_bits(x);
  const float mantissa = as_float((bits & 0x007fffffu) | 0x3f000000u);
  const uint32_t low = -(uint32_t)(mantissa < 0.70710678118654752440f);  // all bits or none: branches would not be vectorized
  const float exponent = (float)((int32_t)(bits >> 23) - 126 + (int32_t)low);
  x = mantissa - 1.0f + as_float(as_bits(mantissa) & low);
  const float square = x * x;
  float tail = x * polynomial(x, LOG);
  tail = std::fma(tail, square, exponent * -2.12194440e-4f);
  return std::fma(exponent, 0.693359375f, x + std::fma(square, -0.5f, tail));
}

// Cephes' sinf and cosf of x >= 0, likewise.
void cephes_sincos(float x, float& sine, float& cosine) {
  const int32_t octant = ((int32_t)(x * 1.27323954473516268615f) + 1) & ~1;
  const float part = (float)octant;
  x = std::fma(part, -0.78515625f, x);
  x = std::fma(part, -2.4187564849853515625e-4f, x);
  x = std::fma(part, -3.77489497744594108e-8f, x);
  const float square = x * x;
  float even = square * polynomial(square, COSINE);
  even = std::fma(even, square, square * -0.5f) + 1.0f;
  const float odd = std::fma(square * polynomial(square, SINE), x, x);
  const uint32_t exchanged = -(uint32_t)(octant >> 1 & 1), difference = (as_bits(even) ^ as_bits(odd)) & exchanged;
  sine = as_float(as_bits(odd) ^ difference ^ (uint32_t)(octant & 4) << 29);  // 4 << 29 is the sign's bit
  cosine = as_float(as_bits(even) ^ difference ^ (uint32_t)(~(octant - 2) & 4) << 29);
}

}  // namespace

// Standard normal numbers by Box and Muller's formula, 8 cosines and 8 sines of each 16 words; `length` is a multiple of 16.
extern "C" void standard_normal(MersenneTwister* generator, float* output, int64_t length) {
  constexpr int64_t PART = 1024;
  uint32_t words[PART], first[PART / 2], second[PART / 2];
  float cosines[PART / 2], sines[PART / 2];
  for (int64_t start = 0; start < length; start += PART) {
    const int64_t count = std::min(PART, length - start);
    generator->draw(words, count);
    for (int64_t block = 0; block < count; block += 16) {
      std::memcpy(first + block / 2, words + block, 8 * sizeof(uint32_t));
      std::memcpy(second + block / 2, words + block + 8, 8 * sizeof(uint32_t));
    }
    for (int64_t i = 0; i < count / 2; i++) {
      const float u1 = (float)(int32_t)(first[i] & 0xffffffu) * 0x1p-24f, u2 = (float)(int32_t)(second[i] & 0xffffffu) * 0x1p-24f;
      const float radius = std::sqrt(-2.0f * cephes_log(1.0f - u1));
      float sine, cosine;
      cephes_sincos(6.28318530717958647693f * u2, sine, cosine);
      cosines[i] = radius * cosine;
      sines[i] = radius * sine;
    }
    for (int64_t block = 0; block < count; block += 16) {
      std::memcpy(output + start + block, cosines + block / 2, 8 * sizeof(float));
      std::memcpy(output + start + block + 8, sines + block / 2, 8 * sizeof(float));
    }
  }
}
