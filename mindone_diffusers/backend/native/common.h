// What the kernels share: MindSpore's signature, threads, vectors, and the innermost product.
//
// They are float32 operators for `mindspore.ops.Custom` (func_type="aot"), of which some take weights in bfloat16. See operators.py for what
// each computes. `params`, `ranks`, `shapes` and `dtypes` list the inputs and then the output; Python numbers arrive as tensors of rank 0.
// Tensors are contiguous. A kernel returns 0, or 1 when it could not get its memory.

#pragma once

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
#include <type_traits>
#include <utility>

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define BFLOAT16_PRODUCTS 1
#else
#define BFLOAT16_PRODUCTS 0
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

#define KERNEL(name)                                                                                          \
  EXPORT int name([[maybe_unused]] int count, void** params, [[maybe_unused]] int* ranks, int64_t** shapes, \
                  [[maybe_unused]] const char** dtypes, void*, void*)

namespace kernels {

inline int64_t pieces(int64_t length, int64_t largest) { return (length + largest - 1) / largest; }

// The length of pieces of about the same length, none of them above `largest`.
inline int64_t piece(int64_t length, int64_t largest) { return pieces(length, pieces(length, largest)); }

inline int64_t round_up(int64_t value, int64_t unit) { return pieces(value, unit) * unit; }

inline int64_t elements(const int64_t* shape, int rank) {
  int64_t product = 1;
  for (int i = 0; i < rank; i++) product *= shape[i];
  return product;
}

// Threads
//
// Not OpenMP: its threads spin for milliseconds after a loop, on the cores that MindSpore's own threads want for the next operator.

// How many they are. Not OMP_NUM_THREADS as it stands in the environment: importing MindSpore sets that to 1.
inline int& thread_count() {
  static int count = 1;
  return count;
}

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
  Pool() {
    try {
      for (; threads_ < thread_count(); threads_++) std::thread(&Pool::serve, this, threads_).detach();
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

// Memory of the calling thread, kept for the next call; null if there is none.
inline float* scratch(int64_t count, int which) {
  thread_local std::unique_ptr<float, decltype(&std::free)> memory[3] = {{nullptr, std::free}, {nullptr, std::free}, {nullptr, std::free}};
  thread_local int64_t sizes[3] = {};
  if (sizes[which] < count) {
    memory[which].reset((float*)std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64));
    sizes[which] = memory[which] ? count : 0;
  }
  return memory[which].get();
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

// The first half of a float32.
struct bfloat16 {
  uint16_t bits;
};

template <class V>
inline Full load(const bfloat16* from) {
  typedef uint16_t Shorts __attribute__((vector_size(2 * kLanes)));
  typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
  Shorts bits;
  std::memcpy(&bits, from, sizeof(Shorts));
  return (Full)(__builtin_convertvector(bits, Words) << 16);
}

// function(values), a pointer to what they are by `dtype`: float or bfloat16.
template <class Function>
inline int by_dtype(const void* values, const char* dtype, Function function) {
  return std::strcmp(dtype, "bfloat16") == 0 ? function((const bfloat16*)values) : function((const float*)values);
}

template <class V>
inline void store(float* to, V vector) {
  std::memcpy(to, &vector, sizeof(V));
}

using Indices = std::make_integer_sequence<int, kLanes>;

// The numbers of two vectors from FIRST on by turns, as many as one vector holds.
template <int FIRST, int... I>
inline Full zip(Full a, Full b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, FIRST + I / 2 + I % 2 * kLanes...);
}

template <class V>
inline V broadcast(float number) {
  return number - V{};
}

// Every second number of two vectors from FIRST on.
template <int FIRST, int... I>
inline Full unzip(Full a, Full b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, FIRST + 2 * I...);
}

// kLanes rows of a matrix -> its kLanes columns
inline void transpose(Full (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    Full mixed[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; i++) {
      mixed[2 * i] = zip<0>(rows[i], rows[i + kLanes / 2], Indices{});
      mixed[2 * i + 1] = zip<kLanes / 2>(rows[i], rows[i + kLanes / 2], Indices{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) rows[i] = mixed[i];
  }
}

inline Full load_part(const float* from, int64_t count, float filler = 0) {
  float buffer[kLanes];
  for (int i = 0; i < kLanes; i++) buffer[i] = i < count ? from[i] : filler;
  return load<Full>(buffer);
}

inline Full load_part(const bfloat16* from, int64_t count) {
  bfloat16 buffer[kLanes] = {};
  std::copy(from, from + count, buffer);
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

// Products add up float32 terms, or bfloat16 ones by twos: then a pair of neighbours, rounded, is in the place of a float in whatever is packed,
// and the sums are float32. kTerms: how many terms are in a place, where one side has these numbers.
template <class Number>
constexpr int kTerms = BFLOAT16_PRODUCTS && std::is_same_v<Number, bfloat16> ? 2 : 1;

Full add_pairs(Full sum, Full left, Full right);
Half add_pairs(Half sum, Half left, Half right);
Full to_pairs(Full first, Full second);
Full interleave_pairs(Full first, Full second);  // one number of the first and one of the second by turns

#if BFLOAT16_PRODUCTS
inline Full add_pairs(Full sum, Full left, Full right) { return (Full)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right); }

inline Half add_pairs(Half sum, Half left, Half right) { return (Half)_mm256_dpbf16_ps((__m256)sum, (__m256bh)left, (__m256bh)right); }

inline Full to_pairs(Full first, Full second) { return (Full)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }

inline Full interleave_pairs(Full first, Full second) {
  typedef uint16_t Shorts __attribute__((vector_size(64)));
  const Shorts numbers = (Shorts)to_pairs(first, second);
  return (Full)__builtin_shufflevector(numbers, numbers, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                       13, 29, 14, 30, 15, 31);
}
#endif

// The next kLanes places, `count` terms of which are there.
template <int TERMS>
inline Full load_terms(const float* from, int64_t count) {
  if constexpr (TERMS == 1) {
    return count >= kLanes ? load<Full>(from) : load_part(from, count);
  } else {
    const Full first = load_terms<1>(from, count);
    return to_pairs(first, count > kLanes ? load_terms<1>(from + kLanes, count - kLanes) : Full{});
  }
}

template <int TERMS>
inline Full load_terms(const bfloat16* from, int64_t count) {
  if constexpr (TERMS == 1) {
    return count >= kLanes ? load<Full>(from) : load_part(from, count);
  } else {
    Full pairs = {};
    std::memcpy(&pairs, from, count >= 2 * kLanes ? sizeof(Full) : count * sizeof(bfloat16));
    return pairs;
  }
}

// c (kRows x N vectors, rows `c_step` apart) = factor c + a b, without `factor` c + a b: a has place (row, k) at row * ROW + k * STEP; b is
// packed, N vectors a k; `depth` counts places.
template <int TERMS, class V, int N, int64_t ROW, int64_t STEP, bool ACCUMULATE>
inline void multiply(const float* a, const float* b, int64_t depth, float* c, int64_t c_step, const float* factor) {
  V total[kRows][N];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) total[row][n] = V{};
  }
  for (int64_t k = 0; k < depth; k++) {
    V right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) right[n] = load<V>(b + (k * N + n) * lanes<V>);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; row++) {
      const float left = a[row * ROW + k * STEP];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) {
        if constexpr (TERMS == 1) {
          total[row][n] += left * right[n];
        } else {
          total[row][n] = add_pairs(total[row][n], broadcast<V>(left), right[n]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      float* to = c + row * c_step + n * lanes<V>;
      store(to, ACCUMULATE ? load<V>(to) * (factor ? factor[row] : 1.0f) + total[row][n] : total[row][n]);
    }
  }
}

// The same for a b that is one panel of a matrix.
template <int TERMS, int64_t ROW, int64_t STEP, bool ACCUMULATE>
inline void multiply_panel(const float* a, const float* b, int64_t width, int64_t depth, float* c, int64_t c_step,
                           const float* factor = nullptr) {
  if (width == 3 * kLanes) {
    multiply<TERMS, Full, 3, ROW, STEP, ACCUMULATE>(a, b, depth, c, c_step, factor);
  } else if (width == 2 * kLanes) {
    multiply<TERMS, Full, 2, ROW, STEP, ACCUMULATE>(a, b, depth, c, c_step, factor);
  } else if (width == kLanes) {
    multiply<TERMS, Full, 1, ROW, STEP, ACCUMULATE>(a, b, depth, c, c_step, factor);
  } else {
    multiply<TERMS, Half, 1, ROW, STEP, ACCUMULATE>(a, b, depth, c, c_step, factor);
  }
}

// The width of the panel of columns at `column` of a matrix packed in panels of 1 to `widest` vectors, or half a vector at the end.
inline int64_t panel_width(int64_t column, int64_t columns, int64_t widest) {
  const int64_t left = round_up(columns - column, kLanes / 2);
  for (int64_t vectors = widest; vectors > 0; vectors--) {
    if (left >= vectors * kLanes && left != (vectors + 1) * kLanes) return vectors * kLanes;
  }
  return left >= kLanes ? kLanes : kLanes / 2;
}

// The `depth` first numbers of `count` rows, `step` apart, at most kLanes places of each -> vectors of the rows' first, second, ... places. What
// lies `ahead` in the rows is fetched: the processor does not notice so many rows by itself.
template <int TERMS, class Number>
inline void load_columns(const Number* from, int64_t step, int64_t count, int64_t depth, int64_t ahead, Full (&columns)[kLanes]) {
  for (int64_t row = 0; row < kLanes; row++, from += step) {
    if (row < count) __builtin_prefetch(from + ahead);
    columns[row] = row >= count ? Full{} : load_terms<TERMS>(from, depth);
  }
  transpose(columns);
}

// (count, depth), rows `step` apart -> a panel (places, width) whose columns they are, width >= count
template <int TERMS, class Number>
inline void pack_panel(const Number* from, int64_t step, int64_t count, int64_t depth, int64_t width, float* to) {
  const int64_t places = pieces(depth, TERMS);
  for (int64_t column = 0; column < width; column += kLanes) {
    for (int64_t k = 0; k < places; k += kLanes) {
      Full columns[kLanes];
      load_columns<TERMS>(from + column * step + k * TERMS, step, count - column, depth - k * TERMS, 4 * kLanes * TERMS, columns);
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, places - k); i++) {
        float* line = to + (k + i) * width + column;
        if (width - column >= kLanes) {
          store(line, columns[i]);
        } else {
          std::memcpy(line, &columns[i], sizeof(Half));
        }
      }
    }
  }
}

// One number of each of kLanes rows from `row` on, a multiple of kLanes, to their places in groups of kRows rows; groups are `step` apart.
inline void store_grouped(const Full& numbers, int64_t row, int64_t step, float* to) {
  constexpr int kPiece = std::min(kLanes, kRows);
  for (int piece = 0; piece < kLanes; piece += kPiece) {
    std::memcpy(to + (row + piece) / kRows * step + (row + piece) % kRows, (const float*)&numbers + piece, kPiece * sizeof(float));
  }
}

// (count, depth), rows `step` apart -> groups of kRows rows, each (places, kRows)
template <int TERMS, class Number>
inline void pack_groups(const Number* from, int64_t step, int64_t count, int64_t depth, float* to) {
  const int64_t places = pieces(depth, TERMS);
  for (int64_t row = 0; row < count; row += kLanes) {
    for (int64_t k = 0; k < places; k += kLanes) {
      Full columns[kLanes];
      load_columns<TERMS>(from + row * step + k * TERMS, step, count - row, depth - k * TERMS, 4 * kLanes * TERMS, columns);
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, places - k); i++) {
        store_grouped(columns[i], row, places * kRows, to + (k + i) * kRows);
      }
    }
  }
}

// The panel (places, width) of rows, `depth` of them from `first` on, that right.row(row, column, width, to) gives from `column` on.
template <int TERMS, class Right>
void pack_rows(const Right& right, int64_t first, int64_t depth, int64_t column, int64_t width, float* to) {
  if constexpr (TERMS == 1) {
    for (int64_t k = 0; k < depth; k++) right.row(first + k, column, width, to + k * width);
  } else {
    float rows[2][3 * kLanes] = {};
    for (int64_t k = 0; k < depth; k += 2, to += width) {
      right.row(first + k, column, width, rows[0]);
      if (k + 1 < depth) {
        right.row(first + k + 1, column, width, rows[1]);
      } else {
        std::memset(rows[1], 0, sizeof(rows[1]));
      }
      for (int64_t i = 0; i < width; i += kLanes) {
        const Full pairs = interleave_pairs(load<Full>(rows[0] + i), load<Full>(rows[1] + i));
        std::memcpy(to + i, &pairs, width - i >= kLanes ? sizeof(Full) : sizeof(Half));
      }
    }
  }
}

// A right side in memory: element (k, column) is at k * columns + column.
struct Plain {
  const float* values;
  int64_t columns;

  template <int TERMS>
  void pack(int64_t first, int64_t depth, int64_t column, int64_t width, float* to) const {
    pack_rows<TERMS>(*this, first, depth, column, width, to);
  }

  void row(int64_t k, int64_t column, int64_t width, float* to) const {
    const int64_t count = std::min(width, columns - column);
    const float* from = values + k * columns + column;
    if (count == width) {
      for (int64_t i = 0; i < width; i += kLanes / 2) store(to + i, load<Half>(from + i));
    } else {
      std::memset(to, 0, width * sizeof(float));
      std::memcpy(to, from, count * sizeof(float));
    }
  }
};

}  // namespace kernels
