// Winograd's algorithm for maps in channels_last (N,H,W,C), fp32 or bf16: see winograd.py.
//
// A map is cut into tiles of TILE x TILE output pixels, each of which depends on SIDE x SIDE input
// pixels, SIDE = TILE + FILTER - 1. Both are transformed to SIDE x SIDE points, at each of which
// the convolution is a product of matrices: of (tiles, C) with (C, K) for the outputs, of (C,
// tiles) with (tiles, K) for the gradient of the filters. A thread takes a block of tiles all the
// way, so that its points stay in the caches; but not where the sums of a gradient would not.
//
// What belongs to tiles is stored in panels of PANEL channels, (channels / PANEL, points, tiles,
// PANEL), which the inner loops of the products read one after another. Points of maps in bf16 are
// bf16 too, in pairs of what is summed over; transforms and sums are in fp32.

#include <omp.h>

#include <algorithm>

#include "points.h"

namespace {

constexpr int BLOCK = 48;                // tiles that a thread takes at a time
constexpr long MOST_OWN_SUMS = 1 << 18;  // floats: a megabyte, as the cache of a core holds

// Tiles in a block: at most BLOCK, and such that all threads have about as many blocks.
long block_size(long tiles, long threads) {
  long blocks = (tiles + threads * BLOCK - 1) / (threads * BLOCK) * threads;
  return (tiles + blocks - 1) / blocks;
}

template <class S, class Pixel>
void convolve(const Pixel* inputs, const float* filters, Pixel* outputs, long images,
              const Map& from, const Map& to, int padding, bool are_turned) {
  using Unit = UnitOf<Pixel>;
  const Tiles<S::TILE> tiles(images, to);
  const long in = from.channels, out = to.channels, in_units = in / PER_UNIT<Unit>;
  const long rows = to.panels() * in_units;
  const long block = block_size(tiles.count, omp_get_max_threads());
  Buffer<Unit> filter_points = allocate<Unit>(S::POINTS * rows * PANEL);
#pragma omp parallel
  {
    Buffer<Unit> in_points = allocate<Unit>(from.panels() * PANEL_SIZE<S, Unit>);
    Buffer<float> out_points = allocate<float>(to.panels() * PANEL_SIZE<S, float>);
#pragma omp for schedule(static)
    for (long row = 0; row < rows; row++)
      filters_to_points<S>(filters, are_turned, row, rows, in, out, filter_points.get());
#pragma omp for schedule(static)
    for (long first = 0; first < tiles.count; first += block) {
      const int count = std::min(block, tiles.count - first);
      tiles_to_points<S, Forth<typename S::Inputs>, Over::CHANNELS>(
          inputs, from, tiles, first, count, padding, in_points.get());
      for (long point = 0; point < S::POINTS; point++)
        for (long panel = 0; panel < to.panels(); panel++)
          multiply_tiles<MOST_ROWS>(
              in_points.get() + point * SLAB<Unit>, PANEL_SIZE<S, Unit>,
              filter_points.get() + (point * rows + panel * in_units) * PANEL, in, count,
              out_points.get() + panel * PANEL_SIZE<S, float> + point * SLAB<float>);
      points_to_tiles<S>(out_points.get(), to, tiles, first, count, outputs);
    }
  }
}

// What the gradient of filters is summed from, and the sums: SUMS for each pair of panels of a
// point.
template <class S, class Pixel>
struct Gradient {
  using Unit = UnitOf<Pixel>;
  static constexpr int SUMS = PANEL * PANEL;
  const Pixel *inputs, *gradients;
  Map from, to;
  Tiles<S::TILE> tiles;
  int padding;

  long pairs() const { return from.panels() * to.panels(); }
  long size() const { return S::POINTS * pairs() * SUMS; }

  // The points of both sides; `first` of `count` tiles becomes the one at `place`, an even number.
  void take(long first, int count, int place, Unit* in_points, Unit* out_points) const {
    const long skipped = place / PER_UNIT<Unit> * PANEL;
    tiles_to_points<S, Forth<typename S::Inputs>, Over::TILES>(inputs, from, tiles, first, count,
                                                               padding, in_points + skipped);
    tiles_to_points<S, Forth<typename S::Outputs>, Over::TILES>(gradients, to, tiles, first, count,
                                                                0, out_points + skipped);
  }

  // Adds the products of `count` tiles to one of the sums.
  void add(long index, int count, const Unit* in_points, const Unit* out_points,
           float* sums) const {
    const long point = index / pairs(), pair = index % pairs();
    const long in = pair / to.panels(), out = pair % to.panels();
    multiply_panels(in_points + in * PANEL_SIZE<S, Unit> + point * SLAB<Unit>,
                    out_points + out * PANEL_SIZE<S, Unit> + point * SLAB<Unit>,
                    (count + PER_UNIT<Unit> - 1) / PER_UNIT<Unit>, sums + index * SUMS);
  }

  // Within a parallel region: each thread adds to its own sums, over its own tiles.
  void sum_apart(float* own) const {
    Buffer<Unit> in_points = allocate_points<S, Unit>(from);
    Buffer<Unit> out_points = allocate_points<S, Unit>(to);
    const long block = block_size(tiles.count, omp_get_num_threads());
    std::fill(own, own + size(), 0.f);
#pragma omp for schedule(static)
    for (long first = 0; first < tiles.count; first += block) {
      const int count = std::min(block, tiles.count - first);
      take(first, count, 0, in_points.get(), out_points.get());
      for (long index = 0; index < S::POINTS * pairs(); index++)
        add(index, count, in_points.get(), out_points.get(), own);
    }
  }

  // Within a parallel region: threads share the tiles, then the sums.
  void sum_together(float* sums, Unit* in_points, Unit* out_points) const {
    constexpr int PIECE = 8;  // tiles
    for (long first = 0; first < tiles.count; first += MOST_TILES) {
      const int count = std::min<long>(MOST_TILES, tiles.count - first);
#pragma omp for schedule(static)
      for (int place = 0; place < count; place += PIECE)
        take(first + place, std::min(PIECE, count - place), place, in_points, out_points);
#pragma omp for schedule(static)
      for (long index = 0; index < S::POINTS * pairs(); index++) {
        float* sum = sums + index * SUMS;
        if (first == 0) std::fill(sum, sum + SUMS, 0.f);
        add(index, count, in_points, out_points, sums);
      }
    }
  }

  // Within a parallel region: the filters from the sums of all threads, added in order.
  void finish(const float* sums, long threads, float* filters) const {
    const long in = from.channels, out = to.channels;
#pragma omp for schedule(static)
    for (long channel = 0; channel < in; channel++)
      for (long column = 0; column < out; column += LANES) {
        const long pair = channel / PANEL * to.panels() + column / PANEL;
        Vector points[S::POINTS], taps[S::FILTER * S::FILTER];
        for (long point = 0; point < S::POINTS; point++) {
          const float* sum =
              sums + (point * pairs() + pair) * SUMS + channel % PANEL * PANEL + column % PANEL;
          points[point] = load(sum);
          for (long thread = 1; thread < threads; thread++)
            points[point] += load(sum + thread * size());
        }
        transform<Back<typename S::Filters>>(points, 1,
                                             [&](int tap, Vector values) { taps[tap] = values; });
        for (long tap = 0; tap < S::FILTER * S::FILTER; tap++)
          store_some(filters + (tap * in + channel) * out + column, taps[tap], out - column);
      }
  }
};

template <class S, class Pixel>
void weight_gradient(const Pixel* inputs, const Pixel* gradients, float* filters, long images,
                     const Map& from, const Map& to, int padding) {
  using Unit = UnitOf<Pixel>;
  const Gradient<S, Pixel> gradient{inputs, gradients, from, to, Tiles<S::TILE>(images, to),
                                    padding};
  const bool is_apart = gradient.size() <= MOST_OWN_SUMS;
  long most = omp_get_max_threads();
  // Where a thread would have few tiles, its own sums would cost more than it saves.
  if (is_apart) most = std::min(most, (gradient.tiles.count + 15) / 16);
  Buffer<float> sums = allocate<float>((is_apart ? most : 1) * gradient.size());
  Buffer<Unit> in_points = is_apart ? nullptr : allocate_points<S, Unit>(from);
  Buffer<Unit> out_points = is_apart ? nullptr : allocate_points<S, Unit>(to);
#pragma omp parallel num_threads(most)
  {
    if (is_apart)
      gradient.sum_apart(sums.get() + omp_get_thread_num() * gradient.size());
    else
      gradient.sum_together(sums.get(), in_points.get(), out_points.get());
    gradient.finish(sums.get(), is_apart ? omp_get_num_threads() : 1, filters);
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
  return 1;
#else
  return 0;
#endif
}

// outputs (N,H',W',K) = inputs (N,H,W,C) with filters (filter,filter,C,K), in tiles of 3 or 4.
// Pixels have so many bytes: 4 in fp32, 2 in bf16. Filters are in fp32; turned ones begin with
// their last tap.
extern "C" void winograd_convolve(const void* inputs, const float* filters, void* outputs,
                                  int images, int height, int width, int in, int out, int padding,
                                  int tile, int filter, int bytes, int are_turned) {
  const Map from{height, width, in}, to = outputs_of(from, out, filter, padding);
  with_scheme(tile, filter, bytes, [&](auto scheme, auto pixel) {
    using Pixel = decltype(pixel);
    convolve<decltype(scheme)>(static_cast<const Pixel*>(inputs), filters,
                               static_cast<Pixel*>(outputs), images, from, to, padding, are_turned);
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
