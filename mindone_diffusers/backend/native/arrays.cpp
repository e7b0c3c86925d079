// Arithmetic of schedulers on float32 arrays, in one pass where NumPy makes one for every operation.
//
// The functions write into the array they are given first, and return it; or None, where NumPy has to do: for other arrays than in C order
// and of the result's shape and dtype, or factors that are no numbers.

#include "common.h"
#include "objects.h"

namespace {

using namespace kernels;
using namespace objects;

// e^x within 2e-7 (relative) for x <= 0 by Cephes' polynomial; 0 where that is below 2^-126
Full exp(Full x) {
  typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
  const float shift = 0x1.8p23f + 127;  // adding it leaves the rounded exponent, biased, in the lowest bits
  const Full clamped = x < -88.0f ? Full{} - 88.0f : x, shifted = clamped * kLog2E + shift, whole = shifted - shift;
  const Full rest = clamped - whole * 0.693359375f - whole * -2.12194440e-4f;
  Full power = 1.9875691500e-4f * rest + 1.3981999507e-3f;
  power = power * rest + 8.3334519073e-3f;
  power = power * rest + 4.1665795894e-2f;
  power = power * rest + 1.6666665459e-1f;
  power = power * rest + 5.0000001201e-1f;
  power = power * (rest * rest) + rest + 1.0f;
  const Full scale = (Full)((Integers)shifted << 23);
  return x < -87.33654f ? Full{} : power * scale;
}

// softmax(result, logits), over the last axis
Object* softmax(Object*, Object* const* arguments, intptr_t) {
  Array* const result = (Array*)arguments[0];
  if (!result->is_like(arguments[1]) || result->rank == 0) return none();
  const int64_t width = result->shape[result->rank - 1], size = result->size();
  const float* from = ((Array*)arguments[1])->numbers<float>();
  float* to = result->numbers<float>();
  for (const float* const end = from + size; from < end; from += width, to += width) {
    const auto part = [&](int64_t i) { return load_part(from + i, width - i, -INFINITY); };
    const int64_t whole = width / kLanes * kLanes;
    Full peaks = Full{} - INFINITY;
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Full values = load<Full>(from + i);
      peaks = values > peaks ? values : peaks;
    }
    if (whole < width) {
      const Full values = part(whole);
      peaks = values > peaks ? values : peaks;
    }
    const float peak = max(peaks);
    double total = 0;
    for (int64_t start = 0; start < whole; start += 64 * kLanes) {  // float32 for short sums only
      Full sums = {};
      for (int64_t i = start; i < std::min(whole, start + 64 * kLanes); i += kLanes) {
        const Full powers = exp(load<Full>(from + i) - peak);
        store(to + i, powers);
        sums += powers;
      }
      total += sum(sums);
    }
    if (whole < width) {
      const Full powers = exp(part(whole) - peak);
      store_part(to + whole, powers, width - whole);
      total += sum(powers);
    }
    for (int64_t i = 0; i < width; i++) to[i] /= (float)total;
  }
  return same(result);
}

// Products are rounded before they are added, as PyTorch's and NumPy's: some samplers magnify the last bit of an early step.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

// (weights[0] * terms[0] + weights[1] * terms[1] + ...) / divisor
template <int COUNT>
Object* sum_of(Array* result, float divisor, Object* const* arguments) {
  float weight[COUNT];
  const float* term[COUNT];
  for (int i = 0; i < COUNT; i++) {
    if (!result->is_like(arguments[2 * i + 1]) || !read(arguments[2 * i], weight[i])) return none();
    term[i] = ((Array*)arguments[2 * i + 1])->numbers<float>();
  }
  const auto sum = [&](int64_t place) {
    float value = weight[0] * term[0][place];
    for (int i = 1; i < COUNT; i++) value += weight[i] * term[i][place];
    return value;
  };
  float* __restrict to = result->numbers<float>();
  const int64_t size = result->size();
  if (divisor == 1) {
    for (int64_t place = 0; place < size; place++) to[place] = sum(place);
  } else {
    for (int64_t place = 0; place < size; place++) to[place] = sum(place) / divisor;
  }
  return same(result);
}

// weighted_sum(result, divisor, a, x, b, y, ...): (a * x + b * y + ...) / divisor, of one to five arrays
Object* weighted_sum(Object*, Object* const* arguments, intptr_t count) {
  Array* const result = (Array*)arguments[0];
  float divisor;
  if (!read(arguments[1], divisor)) return none();
  switch (count) {
    case 4: return sum_of<1>(result, divisor, arguments + 2);
    case 6: return sum_of<2>(result, divisor, arguments + 2);
    case 8: return sum_of<3>(result, divisor, arguments + 2);
    case 10: return sum_of<4>(result, divisor, arguments + 2);
    case 12: return sum_of<5>(result, divisor, arguments + 2);
    default: return none();
  }
}

// clip(result, values, lowest, highest); NaN stays NaN.
Object* clip(Object*, Object* const* arguments, intptr_t) {
  Array* const result = (Array*)arguments[0];
  float low, high;
  if (!result->is_like(arguments[1]) || !read(arguments[2], low) || !read(arguments[3], high)) return none();
  const float* from = ((Array*)arguments[1])->numbers<float>();
  float* __restrict to = result->numbers<float>();
  const int64_t size = result->size();
  for (int64_t i = 0; i < size; i++) {
    const float value = from[i] < low ? low : from[i];
    to[i] = value > high ? high : value;
  }
  return same(result);
}

// NumPy's own functions, by their places in the table that its ABI fixes.
void** numpy_api = nullptr;

Object* array_at(void* data, int rank, const intptr_t* shape, Object* owner) {
  constexpr int NEW = 93, SET_BASE = 282, FLOAT32 = 11, IN_C_ORDER_ALIGNED_AND_WRITEABLE = 0x501;
  const auto make = (Object * (*)(void*, int, const intptr_t*, int, const intptr_t*, void*, int, int, Object*)) numpy_api[NEW];
  Object* const array = make(numpy_api[2], rank, shape, FLOAT32, nullptr, data, 0, IN_C_ORDER_ALIGNED_AND_WRITEABLE, nullptr);
  if (array) ((int (*)(Object*, Object*))numpy_api[SET_BASE])(array, owner);
  return array;
}

// shared_array(tensor, float32): the array that a tensor keeps in `_shared_array`, if that still has its memory; or a new one that shares the
// memory of a MindSpore tensor of this dtype, in C order. It keeps another tensor of the memory: `tensor` may be given another.
Object* shared_array(Object*, Object* const* arguments, intptr_t) {
  static Object* const names[] = {
      PyUnicode_InternFromString("data_ptr"), PyUnicode_InternFromString("__dict__"), PyUnicode_InternFromString("_shared_array"),
      PyUnicode_InternFromString("dtype"), PyUnicode_InternFromString("is_contiguous"), PyUnicode_InternFromString("shape"),
      PyUnicode_InternFromString("data")};
  Object* const tensor = arguments[0];
  const Owned address{PyObject_CallMethodObjArgs(tensor, names[0], nullptr)}, attributes{PyObject_GetAttr(tensor, names[1])};
  if (!address || !attributes) return nullptr;
  void* const data = PyLong_AsVoidPtr(address);
  Object* const kept = PyDict_GetItem(attributes, names[2]);
  if (kept && ((Array*)kept)->data == data) return same(kept);
  const Owned dtype{PyObject_GetAttr(tensor, names[3])}, contiguous{PyObject_CallMethodObjArgs(tensor, names[4], nullptr)};
  const Owned sizes{PyObject_GetAttr(tensor, names[5])};
  if (!dtype || !contiguous || !sizes) return nullptr;
  constexpr int MOST = 16;
  const int rank = (int)PyTuple_Size(sizes);
  if (!data || dtype != arguments[1] || !PyObject_IsTrue(contiguous) || rank > MOST) return none();
  intptr_t shape[MOST];
  for (int axis = 0; axis < rank; axis++) shape[axis] = PyLong_AsSsize_t(PyTuple_GetItem(sizes, axis));
  return array_at(data, rank, shape, PyObject_GetAttr(tensor, names[6]));
}

Method methods[] = {
    {"shared_array", shared_array, FASTCALL, nullptr},
    {"weighted_sum", weighted_sum, FASTCALL, nullptr},
    {"clip", clip, FASTCALL, nullptr},
    {"softmax", softmax, FASTCALL, nullptr},
};

}  // namespace

EXPORT void add_array_functions(Object* dictionary, Object* api) {
  numpy_api = (void**)PyCapsule_GetPointer(api, nullptr);
  add(dictionary, methods);
}
