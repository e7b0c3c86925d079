// 3x3 convolutions with a border of one zero, by Winograd's algorithm (Lavin & Gray, arXiv:1509.09308)
//
// F(SIZE x SIZE, 3x3): tiles of the input, the weights and tiles of the output are transformed, and between the transforms there is a product
// of matrices for each of the (SIZE + 2)^2 positions in a tile: 2.25 times fewer multiplications with SIZE 2, 4 times fewer with SIZE 4. The
// weights are transformed a block at a time, into memory that stays in the cache, every time: nothing is kept between calls.

#include "common.h"

using namespace kernels;

namespace {

// One-dimensional transforms. SIZE 2 has the points 0, 1, -1 and infinity; SIZE 4 has 0, 5/8, -5/8, 3/2, -3/2 and infinity, which are exact in
// float32 and lose four times less precision than Lavin & Gray's 0, 1, -1, 2, -2 and infinity.
constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

template <int SIZE>
inline void transform_input(const Full* d, int step, Full* to) {
  if constexpr (SIZE == 2) {
    to[0] = d[0] - d[2 * step];
    to[1] = d[step] + d[2 * step];
    to[2] = d[2 * step] - d[step];
    to[3] = d[3 * step] - d[step];
  } else {
    const Full even_a = d[4 * step] - kB2 * d[2 * step], odd_a = kA * d[3 * step] - kA * kB2 * d[step];
    const Full even_b = d[4 * step] - kA2 * d[2 * step], odd_b = kB * d[3 * step] - kB * kA2 * d[step];
    to[0] = kA2 * kB2 * d[0] - (kA2 + kB2) * d[2 * step] + d[4 * step];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = kA2 * kB2 * d[step] - (kA2 + kB2) * d[3 * step] + d[5 * step];
  }
}

template <int SIZE>
inline void transform_weight(const Full* g, int step, Full* to) {
  if constexpr (SIZE == 2) {
    const Full even = 0.5f * (g[0] + g[2 * step]), odd = 0.5f * g[step];
    to[0] = g[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = g[2 * step];
  } else {
    constexpr float a = 1 / (2 * kA2 * (kA2 - kB2)), b = 1 / (2 * kB2 * (kB2 - kA2));
    const Full even_a = a * g[0] + (a * kA2) * g[2 * step], odd_a = (a * kA) * g[step];
    const Full even_b = b * g[0] + (b * kB2) * g[2 * step], odd_b = (b * kB) * g[step];
    to[0] = (1 / (kA2 * kB2)) * g[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = g[2 * step];
  }
}

template <int SIZE>
inline void transform_output(const Full* m, int step, Full* to) {
  if constexpr (SIZE == 2) {
    to[0] = m[0] + m[step] + m[2 * step];
    to[1] = m[step] - m[2 * step] + m[3 * step];
  } else {
    const Full even_a = m[step] + m[2 * step], odd_a = m[step] - m[2 * step];
    const Full even_b = m[3 * step] + m[4 * step], odd_b = m[3 * step] - m[4 * step];
    to[0] = m[0] + even_a + even_b;
    to[1] = kA * odd_a + kB * odd_b;
    to[2] = kA2 * even_a + kB2 * even_b;
    to[3] = kA * kA2 * odd_a + kB * kB2 * odd_b + m[5 * step];
  }
}

// Tiles are numbered through the images' rows of tiles. A run is a number of neighbours in one row, within one vector of tiles.
struct Run {
  int64_t image, y, x;  // of the tiles
  int lane, count;
};

template <int SIZE, class Number>
struct Winograd {
  static constexpr int kTile = SIZE + 2, kPositions = kTile * kTile;
  static constexpr int64_t kOutputs = 2 * kLanes, kChannels = 3456 / kPositions;  // a block of weights: (kPositions, 32, 96 or 216), 442 KB

  // Numbers that are used together must not lie powers of two apart, or they fall into the same lines of the cache.
  static constexpr int64_t kSums = kOutputs + 1, kWeights = kPositions * (kOutputs / kRows) * (kChannels * kRows + kLanes);
  static int64_t group_step(int64_t depth) { return depth * kRows + kLanes; }

  const float* input;
  const Number* weight;
  const float* bias;
  float* output;
  int64_t batch, channels, height, width, outputs;

  int64_t tile_rows() const { return (height + SIZE - 1) / SIZE; }
  int64_t tile_columns() const { return (width + SIZE - 1) / SIZE; }
  int64_t tiles() const { return batch * tile_rows() * tile_columns(); }

  // The runs in the vector of the tiles from `first` on; those from `end` on are left out.
  int runs(int64_t first, int64_t end, Run* to) const {
    int count = 0;
    for (int lane = 0; lane < kLanes && first + lane < end;) {
      const int64_t tile = first + lane, row = tile / tile_columns(), x = tile % tile_columns();
      const int length = (int)std::min(std::min<int64_t>(kLanes - lane, end - tile), tile_columns() - x);
      to[count++] = {row / tile_rows(), row % tile_rows(), x, lane, length};
      lane += length;
    }
    return count;
  }

  // Tiles [first, end) of one channel -> `to`, position after position, `step` apart, in panels (channels, width of the panel).
  void transform_channel(int64_t channel, int64_t first, int64_t end, float* to, int64_t step) const {
    for (int64_t start = 0, wide; first + start < end; start += wide) {
      wide = panel_width(start, end - first, 3);
      for (int64_t vector = 0; vector < wide; vector += kLanes) {
        Run parts[kLanes];
        const int count = runs(first + start + vector, end, parts);
        alignas(64) float pixels[kTile * kTile][2 * kLanes];  // (y, x) of each tile; a run is written as a whole vector
        for (int i = 0; i < count; i++) spread(parts[i], channel, pixels);
        Full tile[kPositions], rows[kPositions];
        for (int i = 0; i < kPositions; i++) tile[i] = load<Full>(pixels[i]);
        for (int x = 0; x < kTile; x++) transform_input<SIZE>(tile + x, kTile, rows + x * kTile);  // transposes, and the next one back
        for (int y = 0; y < kTile; y++) transform_input<SIZE>(rows + y, kTile, tile + y * kTile);
        float* panel = to + start * channels + channel * wide + vector;
        for (int i = 0; i < kPositions; i++) {
          if (wide - vector >= kLanes) {
            store(panel + i * step, tile[i]);
          } else {
            store_part(panel + i * step, tile[i], kLanes / 2);
          }
        }
      }
    }
  }

  // The pixels of a run's tiles: each tile's (y, x) to pixels[y * kTile + x][its lane].
  void spread(Run run, int64_t channel, float (*pixels)[2 * kLanes]) const {
    const float* image = input + (run.image * channels + channel) * height * width;
    for (int y = 0; y < kTile; y++) {
      const int64_t row = run.y * SIZE + y - 1, left = run.x * SIZE - 1, needed = run.count * SIZE + 2;
      alignas(64) float line[(SIZE + 1) * kLanes] = {};  // from `left` on
      if (row >= 0 && row < height) {
        const int64_t from = std::max<int64_t>(left, 0), to = std::min(left + needed, width);
        std::memcpy(line + (from - left), image + row * width + from, (to - from) * sizeof(float));
      }
      for (int x = 0; x < kTile; x += SIZE) {
        Full part[SIZE];
        for (int i = 0; i < SIZE; i++) part[i] = load<Full>(line + x + i * kLanes);
        deal(part);
        for (int i = 0; i < SIZE && x + i < kTile; i++) store(pixels[y * kTile + x + i] + run.lane, part[i]);
      }
    }
  }

  // SIZE vectors of neighbours -> the numbers 0, SIZE, 2 SIZE, ... and 1, SIZE + 1, ... and so on
  static void deal(Full (&part)[SIZE]) {
    if constexpr (SIZE == 2) {
      const Full even = unzip<0>(part[0], part[1], Indices{}), odd = unzip<1>(part[0], part[1], Indices{});
      part[0] = even, part[1] = odd;
    } else {
      const Full even = unzip<0>(part[0], part[1], Indices{}), odd = unzip<1>(part[0], part[1], Indices{});
      const Full more_even = unzip<0>(part[2], part[3], Indices{}), more_odd = unzip<1>(part[2], part[3], Indices{});
      part[0] = unzip<0>(even, more_even, Indices{}), part[2] = unzip<1>(even, more_even, Indices{});
      part[1] = unzip<0>(odd, more_odd, Indices{}), part[3] = unzip<1>(odd, more_odd, Indices{});
    }
  }

  // Weights of kOutputs outputs from `output` on and `count` channels from `first` on -> (position, group of kRows outputs, channel, kRows)
  void transform_weights(int64_t output, int64_t first, int64_t count, float* to) const {
    for (int64_t o = 0; o < std::min(kOutputs, outputs - output); o += kLanes) {
      const int64_t rows = std::min<int64_t>(kLanes, outputs - output - o);
      for (int64_t c = 0; c < count; c += kLanes) {
        const int64_t numbers = 9 * std::min<int64_t>(kLanes, count - c);
        const Number* from = weight + ((output + o) * channels + first + c) * 9;
        Full taps[9 * kLanes];
        for (int64_t i = 0; i < numbers; i += kLanes) {
          Full columns[kLanes];
          load_columns<1>(from + i, 9 * channels, rows, numbers - i, 9 * kLanes, columns);
          std::copy(columns, columns + kLanes, taps + i);
        }
        for (int64_t i = 0; 9 * i < numbers; i++) {
          Full half[3 * kTile], done[kPositions];
          for (int x = 0; x < 3; x++) transform_weight<SIZE>(taps + 9 * i + x, 3, half + x * kTile);
          for (int y = 0; y < kTile; y++) transform_weight<SIZE>(half + y, kTile, done + y * kTile);
          for (int position = 0; position < kPositions; position++) {
            float* groups = to + position * (kOutputs / kRows) * group_step(count) + (c + i) * kRows;
            store_grouped(done[position], o, group_step(count), groups);
          }
        }
      }
    }
  }

  // kOutputs outputs from `output` on of the tiles [first, end), which are `transformed` in the input.
  void block(int64_t output, int64_t first, int64_t end, const float* transformed, int64_t step, float* memory) const {
    const int64_t count = end - first, rows = std::min<int64_t>(kOutputs, outputs - output);
    float *const weights = memory, *const sums = memory + kWeights;
    for (int64_t channel = 0; channel < channels; channel += kChannels) {
      const int64_t depth = std::min(kChannels, channels - channel);
      transform_weights(output, channel, depth, weights);
      for (int64_t start = 0, wide; start < count; start += wide) {
        wide = panel_width(start, count, 3);
        for (int position = 0; position < kPositions; position++) {
          const float* tiles = transformed + position * step + start * channels + channel * wide;
          const float* group = weights + position * (kOutputs / kRows) * group_step(depth);
          float* sum = sums + (start * kPositions + position * wide) * kSums;
          for (int64_t row = 0; row < rows; row += kRows, group += group_step(depth), sum += kRows * wide) {
            if (channel == 0) {
              multiply_panel<1, 1, kRows, false>(group, tiles, wide, depth, sum, wide);
            } else {
              multiply_panel<1, 1, kRows, true>(group, tiles, wide, depth, sum, wide);
            }
          }
        }
      }
    }
    for (int64_t start = 0, wide; start < count; start += wide) {
      wide = panel_width(start, count, 3);
      for (int64_t vector = 0; vector < wide; vector += kLanes) {
        Run parts[kLanes];
        const int number = runs(first + start + vector, end, parts);
        for (int64_t row = 0; row < rows; row++) {
          const float* sum = sums + start * kPositions * kSums + row * wide + vector;
          Full tile[kPositions], half[SIZE * kTile], done[SIZE * SIZE];
          for (int i = 0; i < kPositions; i++, sum += wide * kSums) {
            tile[i] = wide - vector >= kLanes ? load<Full>(sum) : load_part(sum, kLanes / 2);
          }
          for (int x = 0; x < kTile; x++) transform_output<SIZE>(tile + x, kTile, half + x * SIZE);
          for (int y = 0; y < SIZE; y++) transform_output<SIZE>(half + y, SIZE, done + y * SIZE);
          write(done, parts, number, output + row);
        }
      }
    }
  }

  // A vector of tiles of one output to their places, with the bias.
  void write(const Full* done, const Run* parts, int count, int64_t channel) const {
    for (int y = 0; y < SIZE; y++) {
      Full line[SIZE];
      for (int x = 0; x < SIZE; x++) line[x] = done[y * SIZE + x] + bias[channel];
      gather(line);
      alignas(64) float values[SIZE * kLanes];
      for (int i = 0; i < SIZE; i++) store(values + i * kLanes, line[i]);
      for (int i = 0; i < count; i++) {
        const int64_t row = parts[i].y * SIZE + y, x = parts[i].x * SIZE;
        if (row >= height) continue;
        float* to = output + ((parts[i].image * outputs + channel) * height + row) * width + x;
        std::memcpy(to, values + parts[i].lane * SIZE, std::min<int64_t>(parts[i].count * SIZE, width - x) * sizeof(float));
      }
    }
  }

  // What deal() did, undone.
  static void gather(Full (&part)[SIZE]) {
    if constexpr (SIZE == 2) {
      const Full first = zip<0>(part[0], part[1], Indices{}), second = zip<kLanes / 2>(part[0], part[1], Indices{});
      part[0] = first, part[1] = second;
    } else {
      const Full a = zip<0>(part[0], part[2], Indices{}), b = zip<kLanes / 2>(part[0], part[2], Indices{});
      const Full c = zip<0>(part[1], part[3], Indices{}), d = zip<kLanes / 2>(part[1], part[3], Indices{});
      part[0] = zip<0>(a, c, Indices{}), part[1] = zip<kLanes / 2>(a, c, Indices{});
      part[2] = zip<0>(b, d, Indices{}), part[3] = zip<kLanes / 2>(b, d, Indices{});
    }
  }

  int run() const {
    Pool& pool = Pool::get();
    constexpr int64_t kPanel = 3 * kLanes;
    const int64_t limit = std::max<int64_t>(1, (1 << 21) / (kPositions * channels * kPanel)) * kPanel;  // tiles at a time: 8 MB of them
    const int64_t count = round_up(piece(tiles(), limit), kPanel), step = count * channels + kLanes;
    const int64_t blocks = pieces(outputs, kOutputs), shares = std::clamp<int64_t>(2 * pool.threads() / blocks, 1, count / kPanel);
    const int64_t share = round_up(pieces(count, shares), kPanel), own = kWeights + kPositions * kSums * share;
    float* const transformed = scratch(kPositions * step + pool.threads() * own, 0);
    if (!transformed) return 1;
    for (int64_t base = 0; base < tiles(); base += count) {
      const int64_t parts = pieces(std::min(count, tiles() - base), share);
      const auto end = [=](int64_t part) { return std::min(std::min(tiles(), base + count), base + (part + 1) * share); };
      pool.run(channels * parts, [=](int64_t task, int) {
        const int64_t part = task % parts, first = base + part * share;
        transform_channel(task / parts, first, end(part), transformed + part * share * channels, step);
      });
      pool.run(blocks * parts, [=](int64_t task, int thread) {
        const int64_t part = task % parts, first = base + part * share;
        float* const memory = transformed + kPositions * step + thread * own;
        block(task / parts * kOutputs, first, end(part), transformed + part * share * channels, step, memory);
      });
    }
    return 0;
  }
};

// About what the products of a pair of channels take: a vector of tiles a position, and as much as another one for the transforms.
template <int SIZE, class Number>
int64_t cost(const Winograd<SIZE, Number>& call) {
  return Winograd<SIZE, Number>::kPositions * (round_up(call.tiles(), kLanes) + kLanes);
}

}  // namespace

// (input (N, C, H, W), weight (O, C, 3, 3) in float32 or bfloat16, bias (O,), stride 1, padding 1) -> (N, O, H, W)
KERNEL(WinogradConv) {
  return by_dtype(params[1], dtypes[1], [=](auto* weight) {
    using Number = std::remove_cv_t<std::remove_pointer_t<decltype(weight)>>;
    const float *input = (const float*)params[0], *bias = (const float*)params[2];
    float* output = (float*)params[5];
    const int64_t *in = shapes[0], outputs = shapes[1][0];
    const Winograd<2, Number> small = {input, weight, bias, output, in[0], in[1], in[2], in[3], outputs};
    const Winograd<4, Number> large = {input, weight, bias, output, in[0], in[1], in[2], in[3], outputs};
    return cost(small) < cost(large) ? small.run() : large.run();
  });
}
