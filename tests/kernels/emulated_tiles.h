// Matrix tiles in plain C++, for processors that have none. Included before tiles.cpp.

#pragma once

#include <immintrin.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace emulated {

inline thread_local unsigned char tiles[8][16][64];

inline float number(int tile, int row, int column) {
  uint16_t half;
  std::memcpy(&half, &tiles[tile][row][2 * column], 2);
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline void load(int tile, const void* from, long step) {
  for (int row = 0; row < 16; row++)
    std::memcpy(tiles[tile][row], static_cast<const char*>(from) + row * step, 64);
}

inline void store(int tile, void* to, long step) {
  for (int row = 0; row < 16; row++)
    std::memcpy(static_cast<char*>(to) + row * step, tiles[tile][row], 64);
}

inline void multiply(int sums, int a, int b) {
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 16; column++) {
      float sum;
      std::memcpy(&sum, &tiles[sums][row][4 * column], 4);
      for (int k = 0; k < 32; k++)
        sum += number(a, row, k) * number(b, k / 2, 2 * column + k % 2);
      std::memcpy(&tiles[sums][row][4 * column], &sum, 4);
    }
}

}  // namespace emulated

#undef __AMX_BF16__
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define __AMX_BF16__ 1
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbf16ps emulated::multiply
#define _tile_loadconfig(shape) static_cast<void>(shape)
#define _tile_release()
#define syscall(...) 0
