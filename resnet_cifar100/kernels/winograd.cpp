// Winograd's algorithm for maps in channels_last (N,H,W,C), fp32 or bf16: see winograd.py.
//
// A map is cut into tiles of TILE x TILE output pixels, each of which depends on SIDE x SIDE input
// pixels, SIDE = TILE + FILTER - 1. Both are transformed to SIDE x SIDE points, at each of which
// the convolution is a product of matrices: of (tiles, C) with (C, K) for the outputs, of (C,
// tiles) with (tiles, K) for the gradient of the filters. A thread takes a block of tiles all the
// way, so that its points stay in the caches.
//
// What belongs to tiles is stored in panels of PANEL channels, (channels / PANEL, points, tiles,
// PANEL), which the inner loops of the products read one after another. Points of maps in bf16 are
// bf16 too, in pairs of what is summed over; transforms and sums are in fp32.

#include <omp.h>

#include <algorithm>
#include <type_traits>

#include "products.h"
#include "transforms.h"

namespace {

constexpr int BLOCK = 48;  // tiles
template <class Unit>      // units from point to point, no multiple of 4 KiB
constexpr int SLAB = BLOCK* PANEL / PER_UNIT<Unit> + 16;
template <class S, class Unit>
constexpr long PANEL_SIZE = S::POINTS* SLAB<Unit>;  // units from panel to panel

template <class Pixel>
using UnitOf = std::conditional_t<std::is_same_v<Pixel, float>, float, Pair>;

// What the products sum over, and thus what is in a unit.
enum class Over { CHANNELS, TILES };

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
template <class S, class Transform, Over OVER, class Pixel, class Unit>
void tiles_to_points(const Pixel* pixels, const Map& map, const Tiles<S::TILE>& tiles, long first,
                     int count, int margin, Unit* points) {
  constexpr int FROM = Transform::FROM, PER = PER_UNIT<Unit>;
  for (long channel = 0; channel < map.channels; channel += LANES) {
    Unit* panel = points + channel / PANEL * PANEL_SIZE<S, Unit>;
    for (int i = 0; i < count; i++) {
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
      if constexpr (OVER == Over::CHANNELS) {
        Unit* to = panel + (i * PANEL + channel % PANEL) / PER;
        transform<Transform>(
            from, 1, [&](int point, Vector values) { put_along(to + point * SLAB<Unit>, values); });
      } else {
        Unit* to = panel + i / PER * PANEL + channel % PANEL;
        transform<Transform>(from, 1, [&](int point, Vector values) {
          put_apart(to + point * SLAB<Unit>, values, i % PER);
        });
      }
    }
  }
}

template <class S, class Pixel>
void points_to_tiles(const float* points, const Map& map, const Tiles<S::TILE>& tiles, long first,
                     int count, Pixel* pixels) {
  constexpr long TILE = S::TILE;
  for (long channel = 0; channel < map.channels; channel += LANES) {
    const float* from = points + channel / PANEL * PANEL_SIZE<S, float> + channel % PANEL;
    for (int i = 0; i < count; i++, from += PANEL) {
      long top = tiles.top(first + i), left = tiles.left(first + i);
      Vector to[TILE * TILE];
      transform<Back<typename S::Outputs>>(vectors(from), SLAB<float> / LANES,
                                           [&](int pixel, Vector values) { to[pixel] = values; });
      long rows = std::min(TILE, map.height - top), columns = std::min(TILE, map.width - left);
      Pixel* corner = pixels + map.at(tiles.image(first + i), top, left) + channel;
      for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++)
          store(corner + (row * map.width + column) * map.channels, to[TILE * row + column]);
    }
  }
}

// The filters (FILTER, FILTER, C, K) at all points: (points, K / PANEL, C, PANEL) numbers, zero
// beyond K. `row` is one of the `rows`, K / PANEL * C / numbers in a unit, of a point.
template <class S, class Unit>
void filters_to_points(const float* filters, long row, long rows, long in, long out, Unit* points) {
  constexpr int TAPS = S::FILTER * S::FILTER, PER = PER_UNIT<Unit>;
  for (int half = 0; half < PANEL; half += LANES)
    for (int place = 0; place < PER; place++) {
      long column = row * PER / in * PANEL + half;
      Vector taps[TAPS];
      for (int tap = 0; tap < TAPS; tap++) {
        const float* from = filters + (tap * in + row * PER % in + place) * out + column;
        taps[tap] = column < out ? load(from) : Vector{};
      }
      transform<Forth<typename S::Filters>>(taps, 1, [&](int point, Vector values) {
        put_apart(points + (point * rows + row) * PANEL + half, values, place);
      });
    }
}

// Tiles in a block: at most BLOCK, and such that all threads have about as many blocks.
long block_size(long tiles, long threads) {
  long blocks = (tiles + threads * BLOCK - 1) / (threads * BLOCK) * threads;
  return (tiles + blocks - 1) / blocks;
}

// Within a parallel region: shares the blocks of tiles among its threads. `body` takes the first
// tile of a block, their number, their points of the inputs, and room for those of the outputs.
template <class S, Over OVER, class Out, class Pixel, class Body>
void each_block(const Pixel* inputs, const Map& from, const Map& to, const Tiles<S::TILE>& tiles,
                long block, int padding, Body body) {
  using Unit = UnitOf<Pixel>;
  Buffer<Unit> in_points = allocate<Unit>(from.panels() * PANEL_SIZE<S, Unit>);
  Buffer<Out> out_points = allocate<Out>(to.panels() * PANEL_SIZE<S, Out>);
#pragma omp for schedule(static)
  for (long first = 0; first < tiles.count; first += block) {
    int count = std::min(block, tiles.count - first);
    tiles_to_points<S, Forth<typename S::Inputs>, OVER>(inputs, from, tiles, first, count, padding,
                                                        in_points.get());
    body(first, count, in_points.get(), out_points.get());
  }
}

template <class S, class Pixel>
void convolve(const Pixel* inputs, const float* filters, Pixel* outputs, long images,
              const Map& from, const Map& to, int padding) {
  using Unit = UnitOf<Pixel>;
  const Tiles<S::TILE> tiles(images, to);
  const long in = from.channels, out = to.channels, in_units = in / PER_UNIT<Unit>;
  const long rows = to.panels() * in_units;
  const long block = block_size(tiles.count, omp_get_max_threads());
  Buffer<Unit> filter_points = allocate<Unit>(S::POINTS * rows * PANEL);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (long row = 0; row < rows; row++)
      filters_to_points<S>(filters, row, rows, in, out, filter_points.get());
    auto multiply = [&](long first, int count, const Unit* in_points, float* out_points) {
      for (long point = 0; point < S::POINTS; point++)
        for (long panel = 0; panel < to.panels(); panel++)
          multiply_tiles<MOST_ROWS>(
              in_points + point * SLAB<Unit>, PANEL_SIZE<S, Unit>,
              filter_points.get() + (point * rows + panel * in_units) * PANEL, in, count,
              out_points + panel * PANEL_SIZE<S, float> + point * SLAB<float>);
      points_to_tiles<S>(out_points, to, tiles, first, count, outputs);
    };
    each_block<S, Over::CHANNELS, float>(inputs, from, to, tiles, block, padding, multiply);
  }
}

// Each thread sums over its own tiles; their sums are added in order.
template <class S, class Pixel>
void weight_gradient(const Pixel* inputs, const Pixel* gradients, float* filters, long images,
                     const Map& from, const Map& to, int padding) {
  using Unit = UnitOf<Pixel>;
  const Tiles<S::TILE> tiles(images, to);
  const long in = from.channels, out = to.channels;
  const long pairs = from.panels() * to.panels(), size = S::POINTS * pairs * PANEL * PANEL;
  // Where a thread would have few tiles, its own sums would cost more than it saves.
  const long most = std::min<long>(omp_get_max_threads(), (tiles.count + 15) / 16);
  const long block = block_size(tiles.count, most);
  Buffer<float> sums = allocate<float>(most * size);
#pragma omp parallel num_threads(most)
  {
    const long threads = omp_get_num_threads();
    float* own = sums.get() + omp_get_thread_num() * size;
    std::fill(own, own + size, 0.f);
    auto multiply = [&](long first, int count, const Unit* in_points, Unit* out_points) {
      tiles_to_points<S, Forth<typename S::Outputs>, Over::TILES>(gradients, to, tiles, first,
                                                                  count, 0, out_points);
      const int units = (count + PER_UNIT<Unit> - 1) / PER_UNIT<Unit>;
      for (long point = 0; point < S::POINTS; point++)
        for (long pair = 0; pair < pairs; pair++) {
          const long panel = pair / to.panels(), other = pair % to.panels();
          multiply_panels(in_points + panel * PANEL_SIZE<S, Unit> + point * SLAB<Unit>,
                          out_points + other * PANEL_SIZE<S, Unit> + point * SLAB<Unit>, units,
                          own + (point * pairs + pair) * PANEL * PANEL);
        }
    };
    each_block<S, Over::TILES, Unit>(inputs, from, to, tiles, block, padding, multiply);
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
        transform<Back<typename S::Filters>>(points, 1,
                                             [&](int tap, Vector values) { taps[tap] = values; });
        for (long tap = 0; tap < S::FILTER * S::FILTER; tap++)
          store(filters + (tap * in + channel) * out + column, taps[tap]);
      }
  }
}

// body(scheme, type of pixel)
template <class Body>
void with_scheme(int tile, int filter, int bytes, Body body) {
  auto with = [&](auto scheme) { bytes == 4 ? body(scheme, float()) : body(scheme, Bf16()); };
  if (filter == 3)
    tile == 4 ? with(Scheme<4, 3>()) : with(Scheme<3, 3>());
  else
    tile == 4 ? with(Scheme<4, 2>()) : with(Scheme<3, 2>());
}

Map outputs_of(const Map& inputs, int channels, int filter, int padding) {
  const int growth = 2 * padding - filter + 1;
  return {inputs.height + growth, inputs.width + growth, channels};
}

}  // namespace

extern "C" int lanes() { return LANES; }

// Whether the processor multiplies pairs of numbers in bf16.
extern "C" int has_pairs() {
#ifdef __AVX512BF16__
  return LANES == 16;
#else
  return 0;
#endif
}

// outputs (N,H',W',K) = inputs (N,H,W,C) with filters (filter,filter,C,K), in tiles of 3 or 4.
// Pixels have so many bytes: 4 in fp32, 2 in bf16. Filters are in fp32.
extern "C" void winograd_convolve(const void* inputs, const float* filters, void* outputs,
                                  int images, int height, int width, int in, int out, int padding,
                                  int tile, int filter, int bytes) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, bytes, [&](auto scheme, auto pixel) {
    using Pixel = decltype(pixel);
    convolve<decltype(scheme)>(static_cast<const Pixel*>(inputs), filters,
                               static_cast<Pixel*>(outputs), images, from, to, padding);
  });
}

// filters (filter,filter,C,K) = their gradient, from that of the outputs (N,H',W',K).
extern "C" void winograd_weight_gradient(const void* inputs, const void* gradients, float* filters,
                                         int images, int height, int width, int in, int out,
                                         int padding, int tile, int filter, int bytes) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, bytes, [&](auto scheme, auto pixel) {
    using Pixel = decltype(pixel);
    weight_gradient<decltype(scheme)>(static_cast<const Pixel*>(inputs),
                                      static_cast<const Pixel*>(gradients), filters, images, from,
                                      to, padding);
  });
}
