// Maps in tiles, and the points of Winograd's algorithm that they become: see winograd.cpp.

#pragma once

#include <algorithm>
#include <type_traits>

#include "products.h"
#include "transforms.h"

namespace {

constexpr int MOST_TILES = 192;  // whose points there is room for
template <class Unit>            // units from point to point, no multiple of 4 KiB
constexpr int SLAB = (PANEL * MOST_TILES) / PER_UNIT<Unit> + 16;
template <class S, class Unit>  // units from panel to panel
constexpr long PANEL_SIZE = long(S::POINTS) * SLAB<Unit>;

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

// Room for the points of a map. The products over tiles take whole panels: what the channels do not
// fill is zero.
template <class S, class Unit>
Buffer<Unit> allocate_points(const Map& map) {
  const long size = map.panels() * PANEL_SIZE<S, Unit>;
  Buffer<Unit> points = allocate<Unit>(size);
  if (map.channels % PANEL)
    std::fill(points.get() + size - PANEL_SIZE<S, Unit>, points.get() + size, Unit(0));
  return points;
}

// The points of `count` tiles from `first` on: of each, FROM x FROM pixels are taken, from `margin`
// pixels above and left of it; there is zero outside of the map.
template <class S, class Transform, Over OVER, class Pixel, class Unit>
void tiles_to_points(const Pixel* pixels, const Map& map, const Tiles<S::TILE>& tiles, long first,
                     int count, int margin, Unit* points) {
  constexpr int FROM = Transform::FROM, PER = PER_UNIT<Unit>;
  const int end = OVER == Over::TILES ? (count + PER - 1) / PER * PER : count;
  for (long channel = 0; channel < map.channels; channel += LANES) {
    const long channels_left = map.channels - channel;
    Unit* panel = points + channel / PANEL * PANEL_SIZE<S, Unit>;
    Vector kept[S::POINTS];  // of the first tile of a pair
    for (int i = 0; i < end; i++) {
      long top = tiles.top(first + i) - margin, left = tiles.left(first + i) - margin;
      long corner = map.at(tiles.image(first + i), top, left) + channel;
      Vector from[FROM * FROM];
      auto take = [&](auto has) {
        for (int row = 0; row < FROM; row++)
          for (int column = 0; column < FROM; column++) {
            long place = corner + (row * map.width + column) * map.channels;
            bool is_inside = has(top + row, left + column);
            from[FROM * row + column] =
                is_inside ? load_some(pixels + place, channels_left) : Vector{};
          }
      };
      if (i == count)  // to make a pair
        take([](long, long) { return false; });
      else if (map.has(top, left) && map.has(top + FROM - 1, left + FROM - 1))
        take([](long, long) { return true; });
      else
        take([&](long row, long column) { return map.has(row, column); });
      if constexpr (OVER == Over::CHANNELS) {
        Unit* to = panel + (i * PANEL + channel % PANEL) / PER;
        transform<Transform>(
            from, 1, [&](int point, Vector values) { put_along(to + point * SLAB<Unit>, values); });
      } else if (i % PER + 1 < PER) {
        transform<Transform>(from, 1, [&](int point, Vector values) { kept[point] = values; });
      } else {
        Unit* to = panel + i / PER * PANEL + channel % PANEL;
        transform<Transform>(from, 1, [&](int point, Vector values) {
          if constexpr (PER == 1)
            store(to + point * SLAB<Unit>, values);
          else
            put_pairs(to + point * SLAB<Unit>, kept[point], values);
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
          store_some(corner + (row * map.width + column) * map.channels, to[TILE * row + column],
                     map.channels - channel);
    }
  }
}

// The filters (FILTER, FILTER, C, K), from their last tap to the first if turned, at all points:
// (points, K / PANEL, C, PANEL) numbers, zero beyond K. `row` is one of the `rows`, K / PANEL * C /
// numbers in a unit, of a point.
template <class S, class Unit>
void filters_to_points(const float* filters, bool are_turned, long row, long rows, long in,
                       long out, Unit* points) {
  constexpr int TAPS = S::FILTER * S::FILTER, PER = PER_UNIT<Unit>;
  for (int half = 0; half < PANEL; half += LANES) {
    Vector kept[S::POINTS];  // of the first row of a pair
    for (int place = 0; place < PER; place++) {
      long column = row * PER / in * PANEL + half;
      Vector taps[TAPS];
      for (int tap = 0; tap < TAPS; tap++) {
        const long from_tap = are_turned ? TAPS - 1 - tap : tap;
        const float* from = filters + (from_tap * in + row * PER % in + place) * out + column;
        taps[tap] = column < out ? load_some(from, out - column) : Vector{};
      }
      transform<Forth<typename S::Filters>>(taps, 1, [&](int point, Vector values) {
        Unit* to = points + (point * rows + row) * PANEL + half;
        if constexpr (PER == 1)
          store(to, values);
        else if (place == 0)
          kept[point] = values;
        else
          put_pairs(to, kept[point], values);
      });
    }
  }
}

}  // namespace
