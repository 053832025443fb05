// The transforms of Winograd's algorithm: see winograd.cpp.

#pragma once

#include <utility>

#include "vectors.h"

namespace {

template <class Body, int... I>
INLINE void unroll(Body body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>()), ...);
}

// body(0), body(1), ..., body(N - 1), each with a constant of the compiler.
template <int N, class Body>
INLINE void unroll(Body body) {
  unroll(body, std::make_integer_sequence<int, N>());
}

// The matrices of one dimension, after Lavin and Gray 2015, section 4: polynomials evaluated at
// SIDE points, of which the last is infinity. Their errors are half those of 0, 1, -1, 2, -2.
constexpr float AT[] = {0, 0.75, -0.75, 1.5, -1.5};

template <int R, int C>
struct Matrix {
  static constexpr int ROWS = R, COLUMNS = C;
  float values[R][C];

  // Whether row i + 1 is row i with the sign of every other column turned, as at -x and x.
  constexpr bool is_pair(int i) const {
    if (i + 1 >= R) return false;
    for (int j = 0; j < C; j++)
      if (values[i + 1][j] != (j % 2 ? -1 : 1) * values[i][j]) return false;
    return true;
  }
};

template <int SIDE, int COUNT>
constexpr Matrix<SIDE, COUNT> powers(bool is_scaled) {
  Matrix<SIDE, COUNT> matrix{};
  for (int i = 0; i < SIDE - 1; i++) {
    float value = 1;
    for (int j = 0; j < SIDE - 1; j++)
      if (is_scaled && j != i) value /= AT[i] - AT[j];
    for (int k = 0; k < COUNT; k++, value *= AT[i]) matrix.values[i][k] = value;
  }
  matrix.values[SIDE - 1][COUNT - 1] = 1;
  return matrix;
}

// Row i: the coefficients of the product of (x - AT[j]) over all j but i.
template <int SIDE>
constexpr Matrix<SIDE, SIDE> products() {
  Matrix<SIDE, SIDE> matrix{};
  for (int i = 0; i < SIDE; i++) {
    float(&row)[SIDE] = matrix.values[i];
    row[0] = 1;
    for (int j = 0; j < SIDE - 1; j++) {
      if (j == i) continue;
      for (int k = SIDE - 1; k >= 0; k--) row[k] = (k ? row[k - 1] : 0) - AT[j] * row[k];
    }
  }
  return matrix;
}

template <int TILE_, int FILTER_>
struct Scheme {
  static constexpr int TILE = TILE_, FILTER = FILTER_, SIDE = TILE + FILTER - 1;
  static constexpr int POINTS = SIDE * SIDE;
  struct Inputs {
    static constexpr auto MATRIX = products<SIDE>();
  };
  struct Filters {
    static constexpr auto MATRIX = powers<SIDE, FILTER>(true);
  };
  struct Outputs {
    static constexpr auto MATRIX = powers<SIDE, TILE>(false);
  };
};

// The part of row I times x in columns FIRST, FIRST + EVERY, ...; values of x are `step` apart.
template <class Of, int I, int FIRST, int EVERY>
INLINE Vector row_times(const Vector* x, int step) {
  Vector sum{};
  unroll<Of::MATRIX.COLUMNS>([&](auto j) __attribute__((always_inline)) {
    constexpr float value = Of::MATRIX.values[I][j];
    if constexpr (j % EVERY == FIRST && value != 0) sum += value * x[j * step];
  });
  return sum;
}

// y = matrix times x; put(i, y[i]).
template <class Of>
struct Forth {
  static constexpr int FROM = Of::MATRIX.COLUMNS, TO = Of::MATRIX.ROWS;

  template <class Put>
  INLINE static void apply(const Vector* x, int step, Put put) {
    unroll<TO>([&](auto i) __attribute__((always_inline)) {
      if constexpr (Of::MATRIX.is_pair(i)) {
        Vector even = row_times<Of, i, 0, 2>(x, step), odd = row_times<Of, i, 1, 2>(x, step);
        put(i, even + odd);
        put(i + 1, even - odd);
      } else if constexpr (i == 0 || !Of::MATRIX.is_pair(i - 1)) {
        put(i, row_times<Of, i, 0, 1>(x, step));
      }
    });
  }
};

// y = transpose of matrix times x; put(i, y[i]).
template <class Of>
struct Back {
  static constexpr int FROM = Of::MATRIX.ROWS, TO = Of::MATRIX.COLUMNS;

  template <class Put>
  INLINE static void apply(const Vector* x, int step, Put put) {
    Vector sums[TO] = {};
    unroll<FROM>([&](auto i) __attribute__((always_inline)) {
      if constexpr (i > 0 && Of::MATRIX.is_pair(i - 1)) return;
      Vector even = x[i * step], odd = even;
      if constexpr (Of::MATRIX.is_pair(i)) {
        odd = even - x[(i + 1) * step];
        even = even + x[(i + 1) * step];
      }
      unroll<TO>([&](auto j) __attribute__((always_inline)) {
        constexpr float value = Of::MATRIX.values[i][j];
        if constexpr (value != 0) sums[j] += value * (j % 2 ? odd : even);
      });
    });
    unroll<TO>([&](auto j) __attribute__((always_inline)) { put(j, sums[j]); });
  }
};

// Both dimensions: (FROM, FROM) values, each `step` apart, to (TO, TO), of which put takes one
// after the other: its place and value.
template <class Transform, class Put>
INLINE void transform(const Vector* from, int step, Put put) {
  constexpr int FROM = Transform::FROM, TO = Transform::TO;
  Vector columns[TO * FROM];
  for (int j = 0; j < FROM; j++)
    Transform::apply(from + j * step, FROM * step,
                     [&](int i, Vector y) { columns[FROM * i + j] = y; });
  for (int i = 0; i < TO; i++)
    Transform::apply(columns + FROM * i, 1, [&](int j, Vector y) { put(TO * i + j, y); });
}

}  // namespace
