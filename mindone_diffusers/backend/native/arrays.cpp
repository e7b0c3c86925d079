// Arithmetic of schedulers on float32 arrays, in one pass where NumPy makes one for every operation.
//
// To a latent, a call costs as much as the arithmetic, so these are functions of Python's own kind: they take the array objects as they are.
// They return the result they are given, filled, or None where NumPy has to do: for other dtypes than the result's, other shapes, arrays that
// are not in C order, or factors that are no numbers.

#include "common.h"

// Products are rounded before they are added, as PyTorch's and NumPy's: some samplers magnify the last bit of an early step.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

// What is used of CPython's stable ABI; a machine may have no headers of Python's.
struct Object {
  intptr_t references;
  void* type;
};

struct Method {
  const char* name;
  Object* (*function)(Object* module, Object* const* arguments, intptr_t count);
  int flags;
  const char* documentation;
};

extern "C" {
Object* PyCFunction_NewEx(Method*, Object* self, Object* module);
Object* Py_BuildValue(const char* format, ...);
double PyFloat_AsDouble(Object*);
Object* PyErr_Occurred();
void PyErr_Clear();
}

namespace {

// The head of NumPy's array object: CPython's, then PyArrayObject_fields, which NumPy's ABI fixes.
struct Array : Object {
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

// Whether an object is a number, which is put into `number`.
bool read(Object* object, float& number) {
  number = (float)PyFloat_AsDouble(object);
  if (number != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

Object* none() { return Py_BuildValue(""); }

// (weights[0] * terms[0] + weights[1] * terms[1] + ...) / divisor
template <int COUNT>
Object* sum_of(Array* result, float divisor, Object* const* arguments) {
  float weight[COUNT];
  const float* term[COUNT];
  for (int i = 0; i < COUNT; i++) {
    const Array* array = (Array*)arguments[2 * i + 1];
    if (!array->like(*result) || !read(arguments[2 * i], weight[i])) return none();
    term[i] = array->data;
  }
  const auto sum = [&](int64_t place) {
    float value = weight[0] * term[0][place];
    for (int i = 1; i < COUNT; i++) value += weight[i] * term[i][place];
    return value;
  };
  float* __restrict to = result->data;
  const int64_t size = result->size();
  if (divisor == 1) {
    for (int64_t place = 0; place < size; place++) to[place] = sum(place);
  } else {
    for (int64_t place = 0; place < size; place++) to[place] = sum(place) / divisor;
  }
  return Py_BuildValue("O", result);
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
  Array *const result = (Array*)arguments[0], *const values = (Array*)arguments[1];
  float low, high;
  if (!values->like(*result) || !read(arguments[2], low) || !read(arguments[3], high)) return none();
  const float* from = values->data;
  float* __restrict to = result->data;
  const int64_t size = result->size();
  for (int64_t i = 0; i < size; i++) {
    const float value = from[i] < low ? low : from[i];
    to[i] = value > high ? high : value;
  }
  return Py_BuildValue("O", result);
}

constexpr int FASTCALL = 0x80;
Method methods[] = {{"weighted_sum", weighted_sum, FASTCALL, nullptr}, {"clip", clip, FASTCALL, nullptr}};

}  // namespace

// A dictionary of the functions.
EXPORT Object* array_functions() {
  return Py_BuildValue("{sNsN}", methods[0].name, PyCFunction_NewEx(&methods[0], nullptr, nullptr), methods[1].name,
                       PyCFunction_NewEx(&methods[1], nullptr, nullptr));
}
