// The products of matrices in panels of PANEL columns, as many rows at a time as the registers
// hold. What is summed over comes in units: a number in fp32, or two in bf16 next to each other.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

constexpr int PANEL = 2 * LANES;
constexpr int MOST_ROWS = LANES == 16 ? 12 : 6;  // sums of two vectors a row fit the registers

typedef uint32_t Pair;  // in bf16, the first number in the lower half
template <class Unit>
constexpr int PER_UNIT = 1;
template <>
constexpr int PER_UNIT<Pair> = 2;

INLINE Bits load(const Pair* from) { return (Bits)load(reinterpret_cast<const float*>(from)); }

// Pairs of the numbers of two vectors.
INLINE void put_pairs(Pair* to, Vector first, Vector second) {
  const Bits lower = __builtin_convertvector(to_bf16(first), Bits);
  const Bits upper = __builtin_convertvector(to_bf16(second), Bits);
  store(reinterpret_cast<float*>(to), (Vector)(lower | upper << 16));
}

// A vector's numbers one after the other.
INLINE void put_along(float* to, Vector values) { store(to, values); }
INLINE void put_along(Pair* to, Vector values) { store(reinterpret_cast<Bf16*>(to), values); }

INLINE Vector multiply_add(float unit, Vector units, Vector sum) { return sum + unit * units; }
INLINE Vector multiply_add(Pair unit, Bits units, Vector sum) {
#ifdef __AVX512BF16__
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(Bits{} + unit), (__m512bh)units);
#else
  const Bits other = Bits{} + unit, upper = Bits{} + 0xffff0000;
  sum += (Vector)(other << 16) * (Vector)(units << 16);
  return sum + (Vector)(other & upper) * (Vector)(units & upper);
#endif
}

// sums[r][..] += values[r * row_step] * panel[..] for R rows and the two vectors of a panel.
template <int R, class Unit>
INLINE void multiply_add(const Unit* values, int row_step, const Unit* panel,
                         Vector (&sums)[R][2]) {
  const auto first = load(panel), second = load(panel + LANES);
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    sums[r][0] = multiply_add(values[r * row_step], first, sums[r][0]);
    sums[r][1] = multiply_add(values[r * row_step], second, sums[r][1]);
  }
}

template <int R>
INLINE void store_rows(const Vector (&sums)[R][2], float* to) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    store(to + r * PANEL, sums[r][0]);
    store(to + r * PANEL + LANES, sums[r][1]);
  }
}

// At one point, for one panel of outputs: (tiles, C), its panels `panel_step` units apart, times
// (C, PANEL), R tiles at a time.
template <int R, class Unit>
void multiply_tiles(const Unit* tiles, long panel_step, const Unit* filters, long channels,
                    int count, float* to) {
  constexpr int ROW = PANEL / PER_UNIT<Unit>;
  for (; count >= R; count -= R, tiles += R * ROW, to += R * PANEL) {
    Vector sums[R][2] = {};
    const Unit *values = tiles, *panel = filters;
    for (long left = channels / PER_UNIT<Unit>; left > 0; left -= ROW, values += panel_step)
      for (int c = 0; c < std::min<long>(left, ROW); c++, panel += PANEL)
        multiply_add<R>(values + c, ROW, panel, sums);
    store_rows<R>(sums, to);
  }
  if constexpr (R > 1) {
    if (count) multiply_tiles<R / 2>(tiles, panel_step, filters, channels, count, to);
  }
}

// At one point, for R channels of the inputs and a panel of gradients: sums (R, PANEL) += the
// transpose of (tiles, R) times (tiles, PANEL), for `count` units of tiles.
template <int R, class Unit>
void multiply_channels(const Unit* inputs, const Unit* gradients, int count, float* sums) {
  Vector rows[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    rows[r][0] = load(sums + r * PANEL);
    rows[r][1] = load(sums + r * PANEL + LANES);
  }
  for (int i = 0; i < count; i++)
    multiply_add<R>(inputs + i * PANEL, 1, gradients + i * PANEL, rows);
  store_rows<R>(rows, sums);
}

// The same for a panel of the inputs, in three parts that fit the registers.
template <class Unit>
void multiply_panels(const Unit* inputs, const Unit* gradients, int count, float* sums) {
  constexpr int A = (PANEL + 2) / 3, B = (PANEL + 1) / 3, C = PANEL / 3;
  static_assert(A <= MOST_ROWS && A + B + C == PANEL);
  multiply_channels<A>(inputs, gradients, count, sums);
  multiply_channels<B>(inputs + A, gradients, count, sums + A * PANEL);
  multiply_channels<C>(inputs + A + B, gradients, count, sums + (A + B) * PANEL);
}

}  // namespace
