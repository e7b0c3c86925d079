// Functions of Python's own kind, which take NumPy's arrays as the objects they are: a call costs 0.1 microseconds, through ctypes it would
// be ten times as much. What is declared here is of CPython's stable ABI and of NumPy's: a machine may have no headers of theirs.

#pragma once

#include <cstdint>
#include <cstring>

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
Object* PyDict_GetItem(Object* dictionary, Object* key);
Object* PyErr_Occurred();
Object* PyObject_CallMethodObjArgs(Object*, Object* name, ...);
Object* PyObject_GetAttr(Object*, Object* name);
Object* PyTuple_GetItem(Object*, intptr_t place);
Object* PyUnicode_InternFromString(const char*);
Object* Py_BuildValue(const char* format, ...);
double PyFloat_AsDouble(Object*);
int PyDict_SetItemString(Object* dictionary, const char* key, Object* value);
int PyObject_IsTrue(Object*);
intptr_t PyLong_AsSsize_t(Object*);
intptr_t PyTuple_Size(Object*);
unsigned long PyLong_AsUnsignedLongMask(Object*);
void* PyCapsule_GetPointer(Object*, const char* name);
void* PyLong_AsVoidPtr(Object*);
void PyErr_Clear();
void Py_DecRef(Object*);
}

namespace objects {

// The head of an array: CPython's, then PyArrayObject_fields.
struct Array : Object {
  void* data;
  int rank;
  intptr_t* shape;
  intptr_t* strides;
  void* base;
  void* dtype;
  int flags;

  template <class Number>
  Number* numbers() const {
    return (Number*)data;
  }

  // Whether an object is an array of the same shape and dtype, in C order.
  bool is_like(const Object* object) const {
    constexpr int C_ORDER = 0x1, ALIGNED = 0x100;
    if (object->type != type) return false;
    const Array& other = *(const Array*)object;
    return dtype == other.dtype && rank == other.rank && (other.flags & C_ORDER) && (other.flags & ALIGNED) &&
           !std::memcmp(shape, other.shape, rank * sizeof(intptr_t));
  }

  int64_t size() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank; axis++) product *= shape[axis];
    return product;
  }
};

// Whether an object is a number, which is put into `number`.
inline bool read(Object* object, float& number) {
  number = (float)PyFloat_AsDouble(object);
  if (number != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

inline Object* none() { return Py_BuildValue(""); }

inline Object* same(Object* object) { return Py_BuildValue("O", object); }

// A reference that is given back at the end of its scope; null after an exception.
struct Owned {
  Object* object;
  ~Owned() { Py_DecRef(object); }
  operator Object*() const { return object; }
};

// Puts functions into a dictionary by their names.
template <int COUNT>
void add(Object* dictionary, Method (&methods)[COUNT]) {
  for (Method& method : methods) PyDict_SetItemString(dictionary, method.name, PyCFunction_NewEx(&method, nullptr, nullptr));
}

constexpr int FASTCALL = 0x80;  // the calling convention of `Method`'s functions

}  // namespace objects
