// Vectors of the processor, and memory for them.

#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int LANES = 8;
#else
#error "the processor has no AVX2"
#endif

#define INLINE __attribute__((always_inline)) inline

namespace {

typedef uint16_t Bf16;  // the upper half of a float
typedef float Vector __attribute__((vector_size(4 * LANES), may_alias));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef Bf16 Half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));

INLINE const Vector* vectors(const float* at) { return reinterpret_cast<const Vector*>(at); }
INLINE Vector load(const float* from) { return *reinterpret_cast<const Anywhere*>(from); }
INLINE void store(float* to, Vector values) { *reinterpret_cast<Anywhere*>(to) = values; }

INLINE Vector load(const Bf16* from) {
  const Half upper = *reinterpret_cast<const Half*>(from);
  return (Vector)(__builtin_convertvector(upper, Bits) << 16);
}

// Rounds to the nearest, in a tie to the even one; what is not a number stays so.
INLINE Half to_bf16(Vector values) {
#ifdef __AVX512BF16__
  return (Half)_mm512_cvtneps_pbh((__m512)values);
#else
  Bits bits = (Bits)values;
  bits = values == values ? bits + 0x7fff + (bits >> 16 & 1) : Bits{} + 0x7fc00000;
  return __builtin_convertvector(bits >> 16, Half);
#endif
}

INLINE void store(Bf16* to, Vector values) { *reinterpret_cast<Half*>(to) = to_bf16(values); }

// Of channels in groups of LANES, the last group may be half as many: EIGHT, where LANES is more.
// `left` is how many there are from this group on; what is not loaded is zero.
constexpr int EIGHT = 8;

template <class T>
INLINE Vector load_some(const T* from, long left) {
  if (LANES == EIGHT || left >= LANES) return load(from);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  if constexpr (sizeof(T) == 4)
    return (Vector)_mm512_maskz_loadu_ps(0xff, from);
  else
    return (Vector)_mm512_slli_epi32(
        _mm512_maskz_cvtepu16_epi32(0xff,
                                    _mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)from))),
        16);
#endif
  T values[LANES] = {};
  std::memcpy(values, from, EIGHT * sizeof(T));
  return load(values);
}

template <class T>
INLINE void store_some(T* to, Vector values, long left) {
  if (LANES == EIGHT || left >= LANES) return store(to, values);
  T all[LANES];
  store(all, values);
  std::memcpy(to, all, EIGHT * sizeof(T));
}

struct Free {
  void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
template <class T>
using Buffer = std::unique_ptr<T[], Free>;

template <class T>
Buffer<T> allocate(long count) {
  return Buffer<T>(new (std::align_val_t(64)) T[count]);
}

}  // namespace
