// The words of NumPy's MT19937 objects, given by their capsules, as the numbers that core/mt19937.py makes of them.
//
// The functions fill the array they are given first, in C order, and return it.

#include "common.h"
#include "objects.h"

namespace {

using namespace objects;

// Matsumoto & Nishimura's generator, laid out as NumPy's.
struct MersenneTwister {
  uint32_t key[624];
  int position;

  static uint32_t twist(uint32_t high, uint32_t low) {
    return (((high & 0x80000000u) | (low & 0x7fffffffu)) >> 1) ^ (-(low & 1u) & 0x9908b0dfu);
  }

  void refill() {
    for (int i = 0; i < 227; i++) key[i] = key[i + 397] ^ twist(key[i], key[i + 1]);
    for (int i = 227; i < 623; i++) key[i] = key[i - 227] ^ twist(key[i], key[i + 1]);
    key[623] = key[396] ^ twist(key[623], key[0]);
    position = 0;
  }

  void draw(uint32_t* words, int64_t count) {
    while (count > 0) {
      if (position == 624) refill();
      const int part = (int)std::min<int64_t>(count, 624 - position);
      for (int i = 0; i < part; i++) {
        uint32_t word = key[position + i];
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c5680u;
        word ^= (word << 15) & 0xefc60000u;
        words[i] = word ^ (word >> 18);
      }
      position += part, words += part, count -= part;
    }
  }
};

float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

template <int N>
float polynomial(float x, const float (&coefficients)[N]) {
  float result = coefficients[0];
  for (int i = 1; i < N; i++) result = std::fma(result, x, coefficients[i]);
  return result;
}

constexpr float LOG[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f, 1.4249322787e-1f,
                         -1.6668057665e-1f, 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
constexpr float COSINE[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
constexpr float SINE[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};

// Cephes' logf of a normal number, with the multiply-adds of core/mt19937.py.
float cephes_log(float x) {
  const uint32_t bits = as_bits(x);
  const float mantissa = as_float((bits & 0x007fffffu) | 0x3f000000u);
  const uint32_t low = -(uint32_t)(mantissa < 0.70710678118654752440f);  // all bits or none: branches would not be vectorized
  const float exponent = (float)((int32_t)(bits >> 23) - 126 + (int32_t)low);
  x = mantissa - 1.0f + as_float(as_bits(mantissa) & low);
  const float square = x * x;
  float tail = x * polynomial(x, LOG);
  tail = std::fma(tail, square, exponent * -2.12194440e-4f);
  return std::fma(exponent, 0.693359375f, x + std::fma(square, -0.5f, tail));
}

// Cephes' sinf and cosf of x >= 0, likewise.
void cephes_sincos(float x, float& sine, float& cosine) {
  const int32_t octant = ((int32_t)(x * 1.27323954473516268615f) + 1) & ~1;
  const float part = (float)octant;
  x = std::fma(part, -0.78515625f, x);
  x = std::fma(part, -2.4187564849853515625e-4f, x);
  x = std::fma(part, -3.77489497744594108e-8f, x);
  const float square = x * x;
  float even = square * polynomial(square, COSINE);
  even = std::fma(even, square, square * -0.5f) + 1.0f;
  const float odd = std::fma(square * polynomial(square, SINE), x, x);
  const uint32_t exchanged = -(uint32_t)(octant >> 1 & 1), difference = (as_bits(even) ^ as_bits(odd)) & exchanged;
  sine = as_float(as_bits(odd) ^ difference ^ (uint32_t)(octant & 4) << 29);  // 4 << 29 is the sign's bit
  cosine = as_float(as_bits(even) ^ difference ^ (uint32_t)(~(octant - 2) & 4) << 29);
}

// Where NumPy's MT19937 object has its generator: the first word of what its capsule points to.
MersenneTwister* words_of(Object* capsule) { return *(MersenneTwister**)PyCapsule_GetPointer(capsule, "BitGenerator"); }

// Calls function(words, first, count) for the words of `count` numbers from the `first` on, PART of them or fewer at a time.
template <int PART, int WORDS, class Function>
void in_parts(Object* capsule, int64_t length, Function function) {
  uint32_t words[PART * WORDS];
  MersenneTwister* const generator = words_of(capsule);
  for (int64_t first = 0; first < length; first += PART) {
    const int64_t count = std::min<int64_t>(PART, length - first);
    generator->draw(words, count * WORDS);
    function(words, first, count);
  }
}

// standard_normal(result, capsule): float32 by Box and Muller's formula, 8 cosines and 8 sines of each 16 words; a multiple of 16
Object* standard_normal(Object*, Object* const* arguments, intptr_t) {
  constexpr int PART = 1024;
  Array* const result = (Array*)arguments[0];
  float* const output = result->numbers<float>();
  in_parts<PART, 1>(arguments[1], result->size(), [&](const uint32_t* words, int64_t start, int64_t count) {
    uint32_t first[PART / 2], second[PART / 2];
    float cosines[PART / 2], sines[PART / 2];
    for (int64_t block = 0; block < count; block += 16) {
      std::memcpy(first + block / 2, words + block, 8 * sizeof(uint32_t));
      std::memcpy(second + block / 2, words + block + 8, 8 * sizeof(uint32_t));
    }
    for (int64_t i = 0; i < count / 2; i++) {
      const float u1 = (float)(int32_t)(first[i] & 0xffffffu) * 0x1p-24f, u2 = (float)(int32_t)(second[i] & 0xffffffu) * 0x1p-24f;
      const float radius = std::sqrt(-2.0f * cephes_log(1.0f - u1));
      float sine, cosine;
      cephes_sincos(6.28318530717958647693f * u2, sine, cosine);
      cosines[i] = radius * cosine;
      sines[i] = radius * sine;
    }
    for (int64_t block = 0; block < count; block += 16) {
      std::memcpy(output + start + block, cosines + block / 2, 8 * sizeof(float));
      std::memcpy(output + start + block + 8, sines + block / 2, 8 * sizeof(float));
    }
  });
  return same(result);
}

// uniform_float32(result, capsule): 24 bits of a word
Object* uniform_float32(Object*, Object* const* arguments, intptr_t) {
  Array* const result = (Array*)arguments[0];
  float* const output = result->numbers<float>();
  in_parts<1024, 1>(arguments[1], result->size(), [&](const uint32_t* words, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; i++) output[first + i] = (float)(int32_t)(words[i] & 0xffffffu) * 0x1p-24f;
  });
  return same(result);
}

// uniform_float64(result, capsule): 53 bits of two words
Object* uniform_float64(Object*, Object* const* arguments, intptr_t) {
  Array* const result = (Array*)arguments[0];
  double* const output = result->numbers<double>();
  in_parts<1024, 2>(arguments[1], result->size(), [&](const uint32_t* words, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
      output[first + i] = (double)(words[2 * i] & 0x1fffffu) * 0x1p-21 + (double)words[2 * i + 1] * 0x1p-53;  // exact
    }
  });
  return same(result);
}

// seed(capsule, number): Matsumoto's init_genrand
Object* seed(Object*, Object* const* arguments, intptr_t) {
  MersenneTwister* const generator = words_of(arguments[0]);
  uint32_t word = (uint32_t)PyLong_AsUnsignedLongMask(arguments[1]);
  for (int i = 0; i < 624; i++) {
    generator->key[i] = word;
    word = 1812433253u * (word ^ word >> 30) + (i + 1);
  }
  generator->position = 624;
  return none();
}

Method methods[] = {
    {"standard_normal", standard_normal, FASTCALL, nullptr},
    {"uniform_float32", uniform_float32, FASTCALL, nullptr},
    {"uniform_float64", uniform_float64, FASTCALL, nullptr},
    {"seed", seed, FASTCALL, nullptr},
};

}  // namespace

EXPORT void add_random_functions(Object* dictionary, Object*) { add(dictionary, methods); }
