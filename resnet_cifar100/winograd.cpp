// Winograd's algorithm in fp32 for maps in channels_last (N,H,W,C): see winograd.py.
//
// A map is cut into tiles of TILE x TILE output pixels, each of which depends on SIDE x SIDE input
// pixels, SIDE = TILE + FILTER - 1. Both are transformed to SIDE x SIDE points, at each of which the
// convolution is a product of matrices: of (tiles, C) with (C, K) for the outputs, of (C, tiles)
// with (tiles, K) for the gradient of the filters. A thread takes a block of tiles all the way, so
// that its points stay in the caches.
//
// What belongs to tiles is stored in panels of PANEL channels, (channels / PANEL, points, tiles,
// PANEL), which the inner loops of the products read one after another.

#include <omp.h>

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12;  // sums of two vectors a row fit the registers
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int LANES = 8, ROWS = 6;
#else
#error "the processor has no AVX2"
#endif

#define INLINE [[gnu::always_inline]] inline

namespace {

constexpr int PANEL = 2 * LANES;
constexpr int BLOCK = 48;                 // tiles
constexpr int SLAB = BLOCK * PANEL + 16;  // floats from point to point, no multiple of 4 KiB

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE const Vector* vectors(const float* at) { return reinterpret_cast<const Vector*>(at); }
INLINE Vector* vectors(float* at) { return reinterpret_cast<Vector*>(at); }
INLINE Vector load(const float* from) { return *vectors(from); }
INLINE void store(float* to, Vector values) { *vectors(to) = values; }

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
// SIDE points, of which the last is infinity.
constexpr float AT[] = {0, 1, -1, 2, -2};

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
  static constexpr long PANEL_SIZE = POINTS * SLAB;  // floats from panel to panel
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

// y = matrix times x.
template <class Of>
struct Forth {
  static constexpr int FROM = Of::MATRIX.COLUMNS, TO = Of::MATRIX.ROWS;

  INLINE static void apply(const Vector* x, int step, Vector* y, int out_step) {
    unroll<TO>([&](auto i) __attribute__((always_inline)) {
      if constexpr (Of::MATRIX.is_pair(i)) {
        Vector even = row_times<Of, i, 0, 2>(x, step), odd = row_times<Of, i, 1, 2>(x, step);
        y[i * out_step] = even + odd;
        y[(i + 1) * out_step] = even - odd;
      } else if constexpr (i == 0 || !Of::MATRIX.is_pair(i - 1)) {
        y[i * out_step] = row_times<Of, i, 0, 1>(x, step);
      }
    });
  }
};

// y = transpose of matrix times x.
template <class Of>
struct Back {
  static constexpr int FROM = Of::MATRIX.ROWS, TO = Of::MATRIX.COLUMNS;

  INLINE static void apply(const Vector* x, int step, Vector* y, int out_step) {
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
    unroll<TO>([&](auto j) __attribute__((always_inline)) { y[j * out_step] = sums[j]; });
  }
};

// Both dimensions: (FROM, FROM) values to (TO, TO), each `step` and `out_step` apart.
template <class Transform>
INLINE void transform(const Vector* from, int step, Vector* to, int out_step) {
  constexpr int FROM = Transform::FROM, TO = Transform::TO;
  Vector columns[TO * FROM];
  for (int j = 0; j < FROM; j++)
    Transform::apply(from + j * step, FROM * step, columns + j, FROM);
  for (int i = 0; i < TO; i++)
    Transform::apply(columns + FROM * i, 1, to + TO * i * out_step, out_step);
}

// One map of a batch. Rows and columns may lie outside of it.
struct Map {
  long height, width, channels;

  long panels() const { return (channels + PANEL - 1) / PANEL; }
  long at(long image, long row, long column) const {
    return ((image * height + row) * width + column) * channels;
  }
  bool has(long row, long column) const {
    return row >= 0 && row < height && column >= 0 && column < width;
  }
};

// Tiles of a batch of output maps, numbered row by row and image by image.
template <int TILE>
struct Tiles {
  long down, across, count;

  Tiles(long images, const Map& outputs)
      : down((outputs.height + TILE - 1) / TILE),
        across((outputs.width + TILE - 1) / TILE),
        count(images * down * across) {}

  long image(long tile) const { return tile / (down * across); }
  long top(long tile) const { return TILE * (tile / across % down); }
  long left(long tile) const { return TILE * (tile % across); }
};

// The points of `count` tiles from `first` on: of each, FROM x FROM pixels are taken, from `margin`
// pixels above and left of it; there is zero outside of the map.
template <class S, class Transform>
void tiles_to_points(const float* pixels, const Map& map, const Tiles<S::TILE>& tiles, long first,
                     int count, int margin, float* points) {
  constexpr int FROM = Transform::FROM;
  for (long channel = 0; channel < map.channels; channel += LANES) {
    float* to = points + channel / PANEL * S::PANEL_SIZE + channel % PANEL;
    for (int i = 0; i < count; i++, to += PANEL) {
      long top = tiles.top(first + i) - margin, left = tiles.left(first + i) - margin;
      long corner = map.at(tiles.image(first + i), top, left) + channel;
      Vector from[FROM * FROM];
      auto take = [&](auto has) {
        for (int row = 0; row < FROM; row++)
          for (int column = 0; column < FROM; column++) {
            long place = corner + (row * map.width + column) * map.channels;
            bool is_inside = has(top + row, left + column);
            from[FROM * row + column] = is_inside ? load(pixels + place) : Vector{};
          }
      };
      if (map.has(top, left) && map.has(top + FROM - 1, left + FROM - 1))
        take([](long, long) { return true; });
      else
        take([&](long row, long column) { return map.has(row, column); });
      transform<Transform>(from, 1, vectors(to), SLAB / LANES);
    }
  }
}

template <class S>
void points_to_tiles(const float* points, const Map& map, const Tiles<S::TILE>& tiles, long first,
                     int count, float* pixels) {
  constexpr long TILE = S::TILE;
  for (long channel = 0; channel < map.channels; channel += LANES) {
    const float* from = points + channel / PANEL * S::PANEL_SIZE + channel % PANEL;
    for (int i = 0; i < count; i++, from += PANEL) {
      long top = tiles.top(first + i), left = tiles.left(first + i);
      Vector to[TILE * TILE];
      transform<Back<typename S::Outputs>>(vectors(from), SLAB / LANES, to, 1);
      long rows = std::min(TILE, map.height - top), columns = std::min(TILE, map.width - left);
      float* corner = pixels + map.at(tiles.image(first + i), top, left) + channel;
      for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++)
          store(corner + (row * map.width + column) * map.channels, to[TILE * row + column]);
    }
  }
}

// The filters (FILTER, FILTER, C, K) at all points: (points, K / PANEL, C, PANEL), zero beyond K.
// `row` is one of the K / PANEL * C rows of a point.
template <class S>
void filters_to_points(const float* filters, long row, long in, long out, float* points) {
  constexpr int TAPS = S::FILTER * S::FILTER;
  long rows = (out + PANEL - 1) / PANEL * in;
  for (int half = 0; half < PANEL; half += LANES) {
    long column = row / in * PANEL + half;
    Vector taps[TAPS];
    for (int tap = 0; tap < TAPS; tap++) {
      const float* from = filters + (tap * in + row % in) * out + column;
      taps[tap] = column < out ? load(from) : Vector{};
    }
    Vector* to = vectors(points + row * PANEL + half);
    transform<Forth<typename S::Filters>>(taps, 1, to, 2 * rows);
  }
}

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

// At one point, for one panel of outputs: (tiles, C) times (C, PANEL), R tiles at a time.
template <class S, int R>
void multiply_tiles(const float* tiles, const float* filters, long channels, int count, float* to) {
  for (; count >= R; count -= R, tiles += R * PANEL, to += R * PANEL) {
    Vector sums[R][2] = {};
    const float *values = tiles, *panel = filters;
    for (long left = channels; left > 0; left -= PANEL, values += S::PANEL_SIZE)
      for (int c = 0; c < std::min<long>(left, PANEL); c++, panel += PANEL)
        multiply_add<R>(values + c, PANEL, panel, sums);
    store_rows<R>(sums, to);
  }
  if constexpr (R > 1) {
    if (count) multiply_tiles<S, R / 2>(tiles, filters, channels, count, to);
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
  static_assert(A <= ROWS && A + B + C == PANEL);
  multiply_channels<A>(inputs, gradients, count, sums);
  multiply_channels<B>(inputs + A, gradients, count, sums + A * PANEL);
  multiply_channels<C>(inputs + A + B, gradients, count, sums + (A + B) * PANEL);
}

struct Free {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer allocate(long count) { return Buffer(new (std::align_val_t(64)) float[count]); }

// Tiles in a block: at most BLOCK, and such that all threads have the same number of blocks.
long block_size(long tiles, long threads) {
  long blocks = (tiles + threads * BLOCK - 1) / (threads * BLOCK) * threads;
  return (tiles + blocks - 1) / blocks;
}

template <class S>
void convolve(const float* inputs, const float* filters, float* outputs, long images,
              const Map& from, const Map& to, int padding) {
  const Tiles<S::TILE> tiles(images, to);
  const long in = from.channels, out = to.channels, rows = to.panels() * in;
  const long block = block_size(tiles.count, omp_get_max_threads());
  Buffer filter_points = allocate(S::POINTS * rows * PANEL);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (long row = 0; row < rows; row++)
      filters_to_points<S>(filters, row, in, out, filter_points.get());
    Buffer in_points = allocate(from.panels() * S::PANEL_SIZE);
    Buffer out_points = allocate(to.panels() * S::PANEL_SIZE);
#pragma omp for schedule(static)
    for (long first = 0; first < tiles.count; first += block) {
      int count = std::min(block, tiles.count - first);
      tiles_to_points<S, Forth<typename S::Inputs>>(inputs, from, tiles, first, count, padding,
                                                    in_points.get());
      for (long point = 0; point < S::POINTS; point++)
        for (long panel = 0; panel < to.panels(); panel++)
          multiply_tiles<S, ROWS>(
              in_points.get() + point * SLAB,
              filter_points.get() + (point * rows + panel * in) * PANEL, in, count,
              out_points.get() + panel * S::PANEL_SIZE + point * SLAB);
      points_to_tiles<S>(out_points.get(), to, tiles, first, count, outputs);
    }
  }
}

// Each thread sums over its own tiles; their sums are added in order.
template <class S>
void weight_gradient(const float* inputs, const float* gradients, float* filters, long images,
                     const Map& from, const Map& to, int padding) {
  const Tiles<S::TILE> tiles(images, to);
  const long in = from.channels, out = to.channels;
  const long pairs = from.panels() * to.panels(), size = S::POINTS * pairs * PANEL * PANEL;
  const long most = omp_get_max_threads(), block = block_size(tiles.count, most);
  Buffer sums = allocate(most * size);
#pragma omp parallel
  {
    const long threads = omp_get_num_threads();
    float* own = sums.get() + omp_get_thread_num() * size;
    std::fill(own, own + size, 0.f);
    Buffer in_points = allocate(from.panels() * S::PANEL_SIZE);
    Buffer out_points = allocate(to.panels() * S::PANEL_SIZE);
#pragma omp for schedule(static)
    for (long first = 0; first < tiles.count; first += block) {
      int count = std::min(block, tiles.count - first);
      tiles_to_points<S, Forth<typename S::Inputs>>(inputs, from, tiles, first, count, padding,
                                                    in_points.get());
      tiles_to_points<S, Forth<typename S::Outputs>>(gradients, to, tiles, first, count, 0,
                                                     out_points.get());
      for (long point = 0; point < S::POINTS; point++)
        for (long pair = 0; pair < pairs; pair++)
          multiply_panels(
              in_points.get() + pair / to.panels() * S::PANEL_SIZE + point * SLAB,
              out_points.get() + pair % to.panels() * S::PANEL_SIZE + point * SLAB, count,
              own + (point * pairs + pair) * PANEL * PANEL);
    }
#pragma omp for schedule(static)
    for (long channel = 0; channel < in; channel++)
      for (long column = 0; column < out; column += LANES) {
        long pair = channel / PANEL * to.panels() + column / PANEL;
        Vector points[S::POINTS], taps[S::FILTER * S::FILTER];
        for (long point = 0; point < S::POINTS; point++) {
          const float* sum = sums.get() + (point * pairs + pair) * PANEL * PANEL +
                             channel % PANEL * PANEL + column % PANEL;
          points[point] = load(sum);
          for (long thread = 1; thread < threads; thread++)
            points[point] += load(sum + thread * size);
        }
        transform<Back<typename S::Filters>>(points, 1, taps, 1);
        for (long tap = 0; tap < S::FILTER * S::FILTER; tap++)
          store(filters + (tap * in + channel) * out + column, taps[tap]);
      }
  }
}

template <class Body>
void with_scheme(int tile, int filter, Body body) {
  if (filter == 3)
    tile == 4 ? body(Scheme<4, 3>()) : body(Scheme<3, 3>());
  else
    tile == 4 ? body(Scheme<4, 2>()) : body(Scheme<3, 2>());
}

Map outputs_of(const Map& inputs, int channels, int filter, int padding) {
  const int growth = 2 * padding - filter + 1;
  return {inputs.height + growth, inputs.width + growth, channels};
}

}  // namespace

extern "C" int lanes() { return LANES; }

// outputs (N,H',W',K) = inputs (N,H,W,C) with filters (filter,filter,C,K), in tiles of 3 or 4.
extern "C" void convolve(const float* inputs, const float* filters, float* outputs, int images,
                         int height, int width, int in, int out, int padding, int tile,
                         int filter) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, [&](auto scheme) {
    convolve<decltype(scheme)>(inputs, filters, outputs, images, from, to, padding);
  });
}

// filters (filter,filter,C,K) = their gradient, from that of the outputs (N,H',W',K).
extern "C" void weight_gradient(const float* inputs, const float* gradients, float* filters,
                                int images, int height, int width, int in, int out, int padding,
                                int tile, int filter) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, [&](auto scheme) {
    weight_gradient<decltype(scheme)>(inputs, gradients, filters, images, from, to, padding);
  });
}
