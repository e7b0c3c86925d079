// Random numbers, for NumPy arrays
//
// Called through ctypes, with plain arguments, on the caller's thread. See arrays.py.

#include "common.h"

namespace {

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

}  // namespace

// Standard normal numbers by Box and Muller's formula, 8 cosines and 8 sines of each 16 words; `length` is a multiple of 16.
EXPORT void standard_normal(MersenneTwister* generator, float* output, int64_t length) {
  constexpr int64_t PART = 1024;
  uint32_t words[PART], first[PART / 2], second[PART / 2];
  float cosines[PART / 2], sines[PART / 2];
  for (int64_t start = 0; start < length; start += PART) {
    const int64_t count = std::min(PART, length - start);
    generator->draw(words, count);
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
  }
}
