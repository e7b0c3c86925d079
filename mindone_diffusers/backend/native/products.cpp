// Products of matrices: linear layers, 1x1 convolutions, and convolutions with a stride
//
// The weights are float32 or bfloat16; with the latter, on processors that multiply bfloat16, the other side is rounded to it as it is packed.
//
// Both sides are packed a block at a time into the layout that the innermost product reads (Goto & van de Geijn, doi:10.1145/1356052.1356053),
// the left one in groups of kRows rows, the right one in panels of columns. A thread packs what it needs itself: blocks are large enough.

#include <vector>

#include "common.h"

using namespace kernels;

namespace {

constexpr int64_t kPlaces = 320, kLeftRows = 512, kRightColumns = 1920;  // 640 KiB of the left side and a panel of the right one at a time

// Right sides. pack() writes the panel of the columns from `column` on, `width` of them, of the rows from `first` on: (places, width).

// Element (k, column) is at column * depth + k: the weights of a linear layer.
template <class Number>
struct Transposed {
  const Number* values;
  int64_t all_rows, columns;

  template <int TERMS>
  void pack(int64_t first, int64_t depth, int64_t column, int64_t width, float* to) const {
    pack_panel<TERMS>(values + column * all_rows + first, all_rows, std::min(width, columns - column), depth, width, to);
  }
};

// The pixels of an image (channels, height, width) that meet the weight (channel, y, x) for each pixel of the output; 0 beyond the border.
struct Patches {
  const float* image;
  int64_t height, width, kernel, stride, padding, out_width, columns;

  template <int TERMS>
  void pack(int64_t first, int64_t depth, int64_t column, int64_t wide, float* to) const {
    pack_rows<TERMS>(*this, first, depth, column, wide, to);
  }

  void row(int64_t k, int64_t column, int64_t wide, float* to) const {
    const int64_t dy = k / kernel % kernel - padding, dx = k % kernel - padding;
    const float* const plane = image + k / (kernel * kernel) * height * width;
    for (int64_t i = 0; i < wide;) {
      const int64_t y = (column + i) / out_width * stride + dy, start = (column + i) % out_width;
      const int64_t count = std::min(wide - i, out_width - start);  // in one row; past the last one it does not matter what they are
      // The first and the last of them + 1 that lie within the row.
      const int64_t from = y < 0 || y >= height ? count : std::clamp<int64_t>(pieces(-dx - start * stride, stride), 0, count);
      const int64_t end = std::clamp<int64_t>(pieces(width - dx - start * stride, stride), from, count);
      const float* line = plane + y * width + start * stride + dx;
      std::fill(to + i, to + i + from, 0.0f);
      for (int64_t n = from; n < end; n++) to[i + n] = line[n * stride];
      std::fill(to + i + end, to + i + count, 0.0f);
      i += count;
    }
  }
};

template <class Left, int TERMS>
struct Product {
  const Left* left;          // (rows, depth)
  const float* bias;         // for each row, or for each column, or none
  float* output;             // (rows, columns)
  int64_t rows, depth, columns;
  bool bias_of_rows;

  // Sets some columns of a row to the bias.
  void start(int64_t row, int64_t column, int64_t count, float* to) const {
    if (bias && !bias_of_rows) {
      std::memcpy(to, bias + column, count * sizeof(float));
    } else {
      std::fill(to, to + count, bias ? bias[row] : 0.0f);
    }
  }

  // Some rows and columns of the products with the right sides [from, end).
  template <class Right>
  void block(const Right* rights, int64_t from, int64_t end, int64_t row, int64_t row_end, int64_t column, int64_t column_end,
             float* memory) const {
    const int64_t part = round_up(piece(depth, kPlaces * TERMS), TERMS);
    float *const groups = memory, *const panel = memory + kLeftRows * kPlaces;
    for (int64_t first = 0; first < depth; first += part) {
      const int64_t count = std::min(part, depth - first), places = pieces(count, TERMS);
      pack_groups<TERMS>(left + row * depth + first, depth, row_end - row, count, groups);
      for (int64_t which = from; which < end; which++) {
        for (int64_t at = column, width; at < column_end; at += width) {
          width = panel_width(at, column_end, 3);
          rights[which].template pack<TERMS>(first, count, at, width, panel);
          float* to = output + (which * rows + row) * columns + at;
          for (int64_t i = row; i < row_end; i += kRows, to += kRows * columns) {
            tile(groups + (i - row) * places, panel, width, places, i, std::min<int64_t>(kRows, row_end - i), at, first == 0, to);
          }
        }
      }
    }
  }

  // The part of `count` places in a tile of the output, up to kRows x `width` large.
  void tile(const float* a, const float* b, int64_t width, int64_t count, int64_t row, int64_t height, int64_t column, bool first,
            float* to) const {
    const int64_t there = std::min(width, columns - column);
    float edge[kRows * 3 * kLanes];
    const bool whole = height == kRows && there == width;
    float* const sums = whole ? to : edge;
    const int64_t step = whole ? columns : width;
    for (int64_t r = 0; r < height; r++) {
      if (first) {
        start(row + r, column, there, sums + r * step);
      } else if (!whole) {
        std::memcpy(edge + r * width, to + r * columns, there * sizeof(float));
      }
    }
    multiply_panel<TERMS, 1, kRows, true>(a, b, width, count, sums, step);
    for (int64_t r = 0; r < height && !whole; r++) std::memcpy(to + r * columns, edge + r * width, there * sizeof(float));
  }
};

// The products of one left side with several right ones, one after the other in `output`.
template <class Left, int TERMS, class Right>
int run(const Product<Left, TERMS>& product, const std::vector<Right>& rights) {
  Pool& pool = Pool::get();
  const int64_t count = rights.size(), together = std::clamp<int64_t>(kRightColumns / product.columns, 1, count);
  const int64_t groups = pieces(count, together), columns = round_up(piece(product.columns, kRightColumns), 3 * kLanes);
  int64_t rows = round_up(piece(product.rows, kLeftRows), kRows);
  while (groups * pieces(product.columns, columns) * pieces(product.rows, rows) < pool.threads() && rows > 4 * kRows) {
    rows = round_up(rows / 2, kRows);
  }
  const int64_t row_pieces = pieces(product.rows, rows), column_pieces = pieces(product.columns, columns);
  const int64_t size = kPlaces * (kLeftRows + 3 * kLanes);
  float* const memory = scratch(pool.threads() * size, 0);
  if (!memory) return 1;
  pool.run(groups * column_pieces * row_pieces, [=, &product, &rights](int64_t task, int thread) {
    const int64_t from = task / (row_pieces * column_pieces) * together, row = task % row_pieces * rows;
    const int64_t column = task / row_pieces % column_pieces * columns;
    product.block(rights.data(), from, std::min(count, from + together), row, std::min(product.rows, row + rows), column,
                  std::min(product.columns, column + columns), memory + thread * size);
  });
  return 0;
}

// A convolution: the product of the weights with each image.
template <class Right>
int convolve(void** params, const char** dtypes, int64_t outputs, int64_t depth, int64_t pixels, const std::vector<Right>& images) {
  return by_dtype(params[1], dtypes[1], [&](auto* weight) {
    using Number = std::remove_cv_t<std::remove_pointer_t<decltype(weight)>>;
    const Product<Number, kTerms<Number>> product = {weight, (const float*)params[2], (float*)params[5], outputs, depth, pixels, true};
    return run(product, images);
  });
}

}  // namespace

// (input (..., C), weight (O, C) in float32 or bfloat16[, bias (O,)]) -> (..., O)
KERNEL(Linear) {
  const int64_t depth = shapes[1][1], outputs = shapes[1][0], rows = elements(shapes[0], ranks[0] - 1);
  const float *input = (const float*)params[0], *bias = count == 4 ? (const float*)params[2] : nullptr;
  float* output = (float*)params[count - 1];
  return by_dtype(params[1], dtypes[1], [=](auto* weight) {
    using Number = std::remove_cv_t<std::remove_pointer_t<decltype(weight)>>;
    const Product<float, kTerms<Number>> product = {input, bias, output, rows, depth, outputs, false};
    return run(product, std::vector{Transposed<Number>{weight, depth, outputs}});
  });
}

// (input (N, C, H, W), weight (O, C, 1, 1) in float32 or bfloat16, bias (O,), stride 1, padding 0) -> (N, O, H, W)
KERNEL(PointwiseConv) {
  const int64_t batch = shapes[0][0], channels = shapes[0][1], pixels = shapes[0][2] * shapes[0][3], outputs = shapes[1][0];
  std::vector<Plain> images;
  for (int64_t i = 0; i < batch; i++) images.push_back({(const float*)params[0] + i * channels * pixels, pixels});
  return convolve(params, dtypes, outputs, channels, pixels, images);
}

// (input (N, C, H, W), weight (O, C, K, K) in float32 or bfloat16, bias (O,), stride, padding) -> (N, O, h, w)
KERNEL(PatchConv) {
  const int64_t batch = shapes[0][0], channels = shapes[0][1], height = shapes[0][2], width = shapes[0][3];
  const int64_t outputs = shapes[1][0], kernel = shapes[1][2], out_width = shapes[5][3], pixels = shapes[5][2] * out_width;
  const int64_t stride = (int64_t) * (const float*)params[3], padding = (int64_t) * (const float*)params[4];
  std::vector<Patches> images;
  for (int64_t i = 0; i < batch; i++) {
    images.push_back({(const float*)params[0] + i * channels * height * width, height, width, kernel, stride, padding, out_width, pixels});
  }
  return convolve(params, dtypes, outputs, channels * kernel * kernel, pixels, images);
}
