// Activations, normalisation and resampling

#include "common.h"

using namespace kernels;

namespace {

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

}  // namespace

// How many threads the kernels use, to be said before the first of them runs.
EXPORT void set_threads(int count) { thread_count() = count; }

KERNEL(Silu) { return map(params, elements(shapes[0], ranks[0]), silu); }

KERNEL(Gelu) { return map(params, elements(shapes[0], ranks[0]), gelu); }

KERNEL(GeluTanh) { return map(params, elements(shapes[0], ranks[0]), gelu_tanh); }

KERNEL(SiluGrad) { return map_gradient(params, elements(shapes[0], ranks[0]), silu_slope); }

KERNEL(GeluGrad) { return map_gradient(params, elements(shapes[0], ranks[0]), gelu_slope); }

// (input, key (1) of 64 bits, p, scale) -> as input: `cpu.kept_elements` times the scale. The gradient is the same of the gradient.
KERNEL(Dropout) {
  const float* input = (const float*)params[0];
  const uint64_t key = *(const uint64_t*)params[1], least = (uint64_t)((double)*(const float*)params[2] * 4294967296.0);
  const float scale = *(const float*)params[3];
  float* output = (float*)params[4];
  const uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
  const int64_t size = elements(shapes[0], ranks[0]), length = 16384;
  parallel(pieces(size, length), length, [=](int64_t part) {
    const int64_t start = part * length, end = std::min(size, start + length);
    for (int64_t i = start; i < end; i++) {
      uint32_t bits = (uint32_t)i + low;
      bits = (bits ^ (bits >> 16)) * 0x7feb352du ^ high;
      bits = (bits ^ (bits >> 15)) * 0x846ca68bu;
      output[i] = (bits ^ (bits >> 16)) >= least ? input[i] * scale : 0.0f;
    }
  });
  return 0;
}

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
