// Winograd's algorithm in fp32 for maps in channels_last (N,H,W,C): see winograd.py.
//
// A map is cut into tiles of TILE x TILE output pixels, each of which depends on SIDE x SIDE input
// pixels, SIDE = TILE + FILTER - 1. Both are transformed to SIDE x SIDE points, at each of which
// the convolution is a product of matrices: of (tiles, C) with (C, K) for the outputs, of (C,
// tiles) with (tiles, K) for the gradient of the filters. A thread takes a block of tiles all the
// way, so that its points stay in the caches.
//
// What belongs to tiles is stored in panels of PANEL channels, (channels / PANEL, points, tiles,
// PANEL), which the inner loops of the products read one after another.

#include <omp.h>

#include <algorithm>

#include "products.h"
#include "transforms.h"

namespace {

constexpr int BLOCK = 48;                 // tiles
constexpr int SLAB = BLOCK * PANEL + 16;  // floats from point to point, no multiple of 4 KiB
template <class S>
constexpr long PANEL_SIZE = S::POINTS * SLAB;  // floats from panel to panel

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
    float* to = points + channel / PANEL * PANEL_SIZE<S> + channel % PANEL;
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
    const float* from = points + channel / PANEL * PANEL_SIZE<S> + channel % PANEL;
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
// `row` is one of the `rows`, K / PANEL * C, of a point.
template <class S>
void filters_to_points(const float* filters, long row, long rows, long in, long out,
                       float* points) {
  constexpr int TAPS = S::FILTER * S::FILTER;
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

// Tiles in a block: at most BLOCK, and such that all threads have about as many blocks.
long block_size(long tiles, long threads) {
  long blocks = (tiles + threads * BLOCK - 1) / (threads * BLOCK) * threads;
  return (tiles + blocks - 1) / blocks;
}

// Within a parallel region: shares the blocks of tiles among its threads. `body` takes the first
// tile of a block, their number, their points of the inputs, and room for those of the outputs.
template <class S, class Body>
void each_block(const float* inputs, const Map& from, const Map& to, const Tiles<S::TILE>& tiles,
                long block, int padding, Body body) {
  Buffer<float> in_points = allocate<float>(from.panels() * PANEL_SIZE<S>);
  Buffer<float> out_points = allocate<float>(to.panels() * PANEL_SIZE<S>);
#pragma omp for schedule(static)
  for (long first = 0; first < tiles.count; first += block) {
    int count = std::min(block, tiles.count - first);
    tiles_to_points<S, Forth<typename S::Inputs>>(inputs, from, tiles, first, count, padding,
                                                  in_points.get());
    body(first, count, in_points.get(), out_points.get());
  }
}

template <class S>
void convolve(const float* inputs, const float* filters, float* outputs, long images,
              const Map& from, const Map& to, int padding) {
  const Tiles<S::TILE> tiles(images, to);
  const long in = from.channels, out = to.channels, rows = to.panels() * in;
  const long block = block_size(tiles.count, omp_get_max_threads());
  Buffer<float> filter_points = allocate<float>(S::POINTS * rows * PANEL);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (long row = 0; row < rows; row++)
      filters_to_points<S>(filters, row, rows, in, out, filter_points.get());
    auto multiply = [&](long first, int count, const float* in_points, float* out_points) {
      for (long point = 0; point < S::POINTS; point++)
        for (long panel = 0; panel < to.panels(); panel++)
          multiply_tiles<MOST_ROWS>(in_points + point * SLAB, PANEL_SIZE<S>,
                                    filter_points.get() + (point * rows + panel * in) * PANEL, in,
                                    count, out_points + panel * PANEL_SIZE<S> + point * SLAB);
      points_to_tiles<S>(out_points, to, tiles, first, count, outputs);
    };
    each_block<S>(inputs, from, to, tiles, block, padding, multiply);
  }
}

// Each thread sums over its own tiles; their sums are added in order.
template <class S>
void weight_gradient(const float* inputs, const float* gradients, float* filters, long images,
                     const Map& from, const Map& to, int padding) {
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
    auto multiply = [&](long first, int count, const float* in_points, float* out_points) {
      tiles_to_points<S, Forth<typename S::Outputs>>(gradients, to, tiles, first, count, 0,
                                                     out_points);
      for (long point = 0; point < S::POINTS; point++)
        for (long pair = 0; pair < pairs; pair++)
          multiply_panels(in_points + pair / to.panels() * PANEL_SIZE<S> + point * SLAB,
                          out_points + pair % to.panels() * PANEL_SIZE<S> + point * SLAB, count,
                          own + (point * pairs + pair) * PANEL * PANEL);
    };
    each_block<S>(inputs, from, to, tiles, block, padding, multiply);
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
extern "C" void winograd_convolve(const float* inputs, const float* filters, float* outputs,
                                  int images, int height, int width, int in, int out, int padding,
                                  int tile, int filter) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, [&](auto scheme) {
    convolve<decltype(scheme)>(inputs, filters, outputs, images, from, to, padding);
  });
}

// filters (filter,filter,C,K) = their gradient, from that of the outputs (N,H',W',K).
extern "C" void winograd_weight_gradient(const float* inputs, const float* gradients,
                                         float* filters, int images, int height, int width, int in,
                                         int out, int padding, int tile, int filter) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, [&](auto scheme) {
    weight_gradient<decltype(scheme)>(inputs, gradients, filters, images, from, to, padding);
  });
}
