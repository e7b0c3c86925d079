// Arithmetic of schedulers on float32 arrays, in one pass where NumPy makes one for every operation. arrays.py calls it through ctypes.
//
// The arrays come as the objects they are: to read an array's address in Python takes as long as adding some thousand of its numbers.
// A function returns 1, or 0 where NumPy has to do: for other dtypes than the result's, other shapes, or arrays that are not in C order.

#include "common.h"

// Products are rounded before they are added, as PyTorch's and NumPy's: some samplers magnify the last bit of an early step.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

namespace {

// The head of NumPy's array object: CPython's (two words), then PyArrayObject_fields, which NumPy's ABI fixes.
struct Array {
  intptr_t references;
  void* type;
  float* data;
  int rank;
  intptr_t* shape;
  intptr_t* strides;
  void* base;
  void* dtype;
  int flags;

  bool like(const Array& other) const {
    constexpr int C_ORDER = 0x1, ALIGNED = 0x100;
    return type == other.type && dtype == other.dtype && rank == other.rank && (flags & C_ORDER) && (flags & ALIGNED) &&
           !std::memcmp(shape, other.shape, rank * sizeof(intptr_t));
  }

  int64_t size() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank; axis++) product *= shape[axis];
    return product;
  }
};

// (weights[0] * terms[0] + weights[1] * terms[1] + ...) / divisor
template <int COUNT>
int weighted_sum(Array* result, double divisor, const double (&weights)[COUNT], Array* const (&terms)[COUNT]) {
  float weight[COUNT];
  const float* term[COUNT];
  for (int i = 0; i < COUNT; i++) {
    if (!terms[i]->like(*result)) return 0;
    weight[i] = (float)weights[i];
    term[i] = terms[i]->data;
  }
  const auto sum = [&](int64_t place) {
    float value = weight[0] * term[0][place];
    for (int i = 1; i < COUNT; i++) value += weight[i] * term[i][place];
    return value;
  };
  float* __restrict to = result->data;
  const int64_t size = result->size();
  const float by = (float)divisor;
  if (by == 1) {
    for (int64_t place = 0; place < size; place++) to[place] = sum(place);
  } else {
    for (int64_t place = 0; place < size; place++) to[place] = sum(place) / by;
  }
  return 1;
}

}  // namespace

EXPORT int weighted_sum_1(Array* result, double divisor, double a, Array* x) { return weighted_sum<1>(result, divisor, {a}, {x}); }

EXPORT int weighted_sum_2(Array* result, double divisor, double a, Array* x, double b, Array* y) {
  return weighted_sum<2>(result, divisor, {a, b}, {x, y});
}

EXPORT int weighted_sum_3(Array* result, double divisor, double a, Array* x, double b, Array* y, double c, Array* z) {
  return weighted_sum<3>(result, divisor, {a, b, c}, {x, y, z});
}

EXPORT int weighted_sum_4(Array* result, double divisor, double a, Array* x, double b, Array* y, double c, Array* z, double d, Array* w) {
  return weighted_sum<4>(result, divisor, {a, b, c, d}, {x, y, z, w});
}

EXPORT int weighted_sum_5(
    Array* result, double divisor, double a, Array* x, double b, Array* y, double c, Array* z, double d, Array* w, double e, Array* v) {
  return weighted_sum<5>(result, divisor, {a, b, c, d, e}, {x, y, z, w, v});
}

// NaN stays NaN.
EXPORT int clip(Array* result, Array* values, double lowest, double highest) {
  if (!values->like(*result)) return 0;
  const float low = (float)lowest, high = (float)highest;
  const float* from = values->data;
  float* __restrict to = result->data;
  const int64_t size = result->size();
  for (int64_t i = 0; i < size; i++) {
    const float value = from[i] < low ? low : from[i];
    to[i] = value > high ? high : value;
  }
  return 1;
}
