// Convolutions, 1x1 and 3x3 with a border of zeros, of few channels and large images
//
// Images are copied into planes with a border, where every tap of an output is at a constant distance: vectors run over whole planes, and
// what they compute between the outputs is left out. A stride's gradient has zeros between its numbers there.

#include "common.h"

using namespace kernels;

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
KERNEL(DirectConv) {
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
