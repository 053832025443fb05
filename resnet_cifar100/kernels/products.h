// The products of matrices in panels of PANEL columns, as many rows at a time as the registers
// hold.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

constexpr int PANEL = 2 * LANES;
constexpr int MOST_ROWS = LANES == 16 ? 12 : 6;  // sums of two vectors a row fit the registers

// sums[r][..] += values[r * row_step] * panel[..] for R rows and the two vectors of a panel.
template <int R>
INLINE void multiply_add(const float* values, int row_step, const float* panel,
                         Vector (&sums)[R][2]) {
  Vector first = load(panel), second = load(panel + LANES);
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    sums[r][0] += values[r * row_step] * first;
    sums[r][1] += values[r * row_step] * second;
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

// At one point, for one panel of outputs: (tiles, C), its panels `panel_step` apart, times
// (C, PANEL), R tiles at a time.
template <int R>
void multiply_tiles(const float* tiles, long panel_step, const float* filters, long channels,
                    int count, float* to) {
  for (; count >= R; count -= R, tiles += R * PANEL, to += R * PANEL) {
    Vector sums[R][2] = {};
    const float *values = tiles, *panel = filters;
    for (long left = channels; left > 0; left -= PANEL, values += panel_step)
      for (int c = 0; c < std::min<long>(left, PANEL); c++, panel += PANEL)
        multiply_add<R>(values + c, PANEL, panel, sums);
    store_rows<R>(sums, to);
  }
  if constexpr (R > 1) {
    if (count) multiply_tiles<R / 2>(tiles, panel_step, filters, channels, count, to);
  }
}

// At one point, for R channels of the inputs and a panel of gradients: sums (R, PANEL) += the
// transpose of (tiles, R) times (tiles, PANEL).
template <int R>
void multiply_channels(const float* inputs, const float* gradients, int count, float* sums) {
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
void multiply_panels(const float* inputs, const float* gradients, int count, float* sums) {
  constexpr int A = (PANEL + 2) / 3, B = (PANEL + 1) / 3, C = PANEL / 3;
  static_assert(A <= MOST_ROWS && A + B + C == PANEL);
  multiply_channels<A>(inputs, gradients, count, sums);
  multiply_channels<B>(inputs + A, gradients, count, sums + A * PANEL);
  multiply_channels<C>(inputs + A + B, gradients, count, sums + (A + B) * PANEL);
}

}  // namespace
