// Attention

#include "common.h"

using namespace kernels;

namespace {

constexpr int64_t kQueries = 8 * kRows, kKeys = 256;  // a block of queries against a block of keys

// Of bfloat16's pairs, queries, keys, values and the softmax's results are rounded; scores and sums are float32.
template <int TERMS>
struct FlashAttention {
  const float *query, *key, *value, *mask;
  float* output;
  int64_t batch, heads, key_heads, queries, keys, size, value_size;
  int64_t mask_steps[4];  // in the mask, from one (batch, head, query, key) to the next; 0 where it is broadcast
  float scale;
  bool causal;

  int64_t padded_keys() const { return round_up(keys, kLanes); }
  int64_t places() const { return pieces(size, TERMS); }  // of a query or key
  int64_t width() const { return round_up(value_size, kLanes / 2); }  // of the values and results

  // K^T of one head, in panels of two vectors of keys (the last may be one): a panel holds `places` rows.
  void pack_key(int64_t head, int64_t first, int64_t last, float* packed) const {
    for (int64_t start = first; start < last; start += 2 * kLanes) {
      const int64_t width = std::min<int64_t>(2 * kLanes, padded_keys() - start);
      pack_panel<TERMS>(key + (head * keys + start) * size, size, std::min(width, keys - start), size, width, packed + start * places());
    }
  }

  // V of one head, in panels of columns: a panel holds the places of `keys` rows.
  void pack_value(int64_t head, int64_t first, int64_t last, float* packed) const {
    const Plain rows = {value + head * keys * value_size, value_size};
    for (int64_t column = 0, width; column < value_size; column += width) {
      width = panel_width(column, value_size, 3);
      rows.pack<TERMS>(first, last - first, column, width, packed + column * pieces(keys, TERMS) + first / TERMS * width);
    }
  }

  // The queries from `first` on of one head, with an online softmax over blocks of keys (arXiv:2205.14135).
  void attend(int64_t sample, int64_t head, int64_t first, const float* keys_packed, const float* values_packed, float* scratch) const {
    const int64_t rows = std::min(kQueries, queries - first), width = this->width();
    const int64_t visible = causal ? std::min(keys, first + rows) : keys;
    float* const scaled = scratch;                         // queries: (kQueries, size)
    float* const left = scaled + kQueries * size;          // the same in groups of kRows: (places, kRows)
    float* const result = left + kQueries * places();      // (kQueries, width)
    float* const scores = result + kQueries * width;       // (kRows, kKeys)
    float* const peaks = scores + kRows * kKeys;           // of the scores, times log2 e
    float* const totals = peaks + kQueries;
    const float* const from = query + ((sample * heads + head) * queries + first) * size;
    for (int64_t i = 0; i < rows * size; i++) scaled[i] = from[i] * (scale * kLog2E);
    std::fill(scaled + rows * size, scaled + kQueries * size, 0.0f);
    pack_groups<TERMS>(scaled, size, kQueries, size, left);
    std::fill(peaks, peaks + kQueries, -INFINITY);
    std::fill(totals, totals + kQueries, 0.0f);
    std::memset(result, 0, kQueries * width * sizeof(float));
    for (int64_t start = 0; start < visible; start += kKeys) {
      const int64_t count = std::min(kKeys, visible - start);
      for (int64_t group = 0; group < rows; group += kRows) {
        for (int64_t k = 0; k < count; k += 2 * kLanes) {
          const float* panel = keys_packed + (start + k) * places();
          const int64_t panel_keys = std::min<int64_t>(2 * kLanes, padded_keys() - start - k);
          multiply_panel<TERMS, 1, kRows, false>(left + group * places(), panel, panel_keys, places(), scores + k, kKeys);
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
          const float* panel = values_packed + column * pieces(keys, TERMS) + start / TERMS * panel_columns;
          float* to = result + group * width + column;
          multiply_panel<TERMS, kKeys, 1, true>(scores, panel, panel_columns, pieces(count, TERMS), to, width, factors);
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

  // scores -> 2^(scores - peak) for the first `end`, 0 up to `count`, by places. Returns what earlier results must be multiplied by.
  static float exponentials(float* line, int64_t end, int64_t count, float* peak, float* total) {
    for (int64_t k = end; k < round_up(count, TERMS * kLanes); k++) line[k] = -INFINITY;
    Full largest = Full{} - INFINITY;
    for (int64_t k = 0; k < count; k += kLanes) {
      const Full scores = load<Full>(line + k);
      largest = largest > scores ? largest : scores;
    }
    const float before = *peak;
    *peak = std::max(before, max(largest));
    const float subtracted = *peak == -INFINITY ? 0.0f : *peak;
    Full added = {};
    for (int64_t k = 0; k < count; k += TERMS * kLanes) {
      Full weights[TERMS];
      for (int i = 0; i < TERMS; i++) {
        weights[i] = exp2(load<Full>(line + k + i * kLanes) - subtracted);
        added += weights[i];
      }
      store(line + k / TERMS, TERMS == 1 ? weights[0] : to_pairs(weights[0], weights[TERMS - 1]));
    }
    const float factor = std::exp2(before - subtracted);
    *total = *total * factor + sum(added);
    return factor;
  }

  int run() const {
    const int64_t groups = heads / key_heads, blocks = (queries + kQueries - 1) / kQueries;
    const int64_t key_floats = round_up(padded_keys() * places(), kLanes);
    const int64_t head_floats = key_floats + round_up(pieces(keys, TERMS) * width(), kLanes);
    const int64_t scratch_floats = round_up(kQueries * (size + places() + width() + 2) + kRows * kKeys, kLanes);
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

template <int TERMS>
int attention(int count, void** params, int64_t** shapes) {
  FlashAttention<TERMS> call;
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

}  // namespace

// (query (B, N, S, D), key (B, M, T, D), value (B, M, T, E), scale, causal[, mask broadcastable to (B, N, S, T)]) -> (B, N, S, E);
// M divides N
KERNEL(Attention) { return attention<1>(count, params, shapes); }

// The same, whose products may round to bfloat16.
KERNEL(AttentionOfBfloat16) { return attention<kTerms<bfloat16>>(count, params, shapes); }
