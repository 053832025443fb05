// The gradient of a convolution's filters in bf16, by the matrix tiles (AMX) of a processor: see
// tiles.py.
//
// A tile instruction adds to 16 x 16 sums in fp32 the products of (16, 32) with (32, 16) numbers in
// bf16. Summed over are pixels: the maps of a batch are laid one behind the other as one long row
// of places, with zeros between their rows and images for the padding, so that the pixel that a
// filter's tap sees is always as many places away. Of a block of places the inputs are transposed
// to (channels, places), the gradients of the outputs stored in pairs of places, as the instruction
// takes them: both stay in the caches for all pairs of channels and all taps.

#include <omp.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__linux__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int SIDE = 32;           // channels of both kinds in four tiles of sums
constexpr int SUMS = SIDE * SIDE;  // floats in them
constexpr int TILE = 256;          // floats in one
constexpr int BLOCK = 256;         // places
constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;  // of Linux

typedef Bf16 Row __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint32_t PairRow __attribute__((vector_size(64), aligned(2), may_alias));

// Shuffles of two vectors that mix their lower or upper halves: a0 b0 a1 b1 ...
template <class V, int... I>
constexpr V mixed(int first, std::integer_sequence<int, I...>) {
  constexpr int COUNT = sizeof...(I);
  return V{Bf16(first + I / 2 + (I % 2 ? COUNT : 0))...};
}
using Of16 = std::make_integer_sequence<int, 16>;
using Of32 = std::make_integer_sequence<int, 32>;
constexpr Row LOWER = mixed<Row>(0, Of32()), UPPER = mixed<Row>(16, Of32());
constexpr PairRow LOWER_PAIRS = mixed<PairRow>(0, Of16()), UPPER_PAIRS = mixed<PairRow>(8, Of16());

INLINE Row load_row(const Bf16* from) { return *reinterpret_cast<const Row*>(from); }
INLINE void store_row(Bf16* to, Row row) { *reinterpret_cast<Row*>(to) = row; }

// 16 x 16 pairs, after 4 rounds.
template <int ROUNDS>
INLINE void transpose(PairRow (&rows)[16]) {
  PairRow mixed[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + 8], LOWER_PAIRS);
    mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 8], UPPER_PAIRS);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) rows[i] = mixed[i];
  if constexpr (ROUNDS > 1) transpose<ROUNDS - 1>(rows);
}

// The maps of a batch, which begin `margin` rows and columns into their places, (rows, columns).
struct Maps {
  const Bf16* pixels;
  long images, height, width, channels, rows, columns, margin;
};

// The pixels at one place after the other.
class Walk {
 public:
  Walk(const Maps& maps, const Bf16* zeros, long place)
      : maps_(maps),
        zeros_(zeros),
        image_(place / (maps.rows * maps.columns)),
        row_(place / maps.columns % maps.rows - maps.margin),
        column_(place % maps.columns - maps.margin) {}

  const Bf16* next() {
    const bool is_inside = row_ >= 0 && row_ < maps_.height && column_ >= 0 &&
                           column_ < maps_.width && image_ < maps_.images;
    const long pixel = (image_ * maps_.height + row_) * maps_.width + column_;
    if (++column_ == maps_.columns - maps_.margin) {
      column_ = -maps_.margin;
      if (++row_ == maps_.rows - maps_.margin) {
        row_ = -maps_.margin;
        image_++;
      }
    }
    return is_inside ? maps_.pixels + pixel * maps_.channels : zeros_;
  }

 private:
  const Maps& maps_;
  const Bf16* zeros_;
  long image_, row_, column_;
};

// `count` places from a walk on, as (channels, places): channels `step` apart.
void transpose_places(Walk walk, long channels, long count, long step, Bf16* to) {
  for (long place = 0; place < count; place += SIDE) {
    const Bf16* from[SIDE];
    for (auto& pixel : from) pixel = walk.next();
    for (long channel = 0; channel < channels; channel += SIDE) {
      PairRow lower[16], upper[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) {
        const Row first = load_row(from[2 * i] + channel),
                  second = load_row(from[2 * i + 1] + channel);
        lower[i] = (PairRow)__builtin_shuffle(first, second, LOWER);
        upper[i] = (PairRow)__builtin_shuffle(first, second, UPPER);
      }
      transpose<4>(lower);
      transpose<4>(upper);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) {
        store_row(to + (channel + i) * step + place, (Row)lower[i]);
        store_row(to + (channel + 16 + i) * step + place, (Row)upper[i]);
      }
    }
  }
}

// BLOCK places from a walk on, as (channels / SIDE, places / 2, SIDE, 2).
void pair_places(Walk walk, long channels, Bf16* to) {
  for (long place = 0; place < BLOCK; place += 2) {
    const Bf16 *first = walk.next(), *second = walk.next();
    for (long channel = 0; channel < channels; channel += SIDE) {
      const Row a = load_row(first + channel), b = load_row(second + channel);
      Bf16* pairs = to + channel * BLOCK + place * SIDE;
      store_row(pairs, __builtin_shuffle(a, b, LOWER));
      store_row(pairs + SIDE, __builtin_shuffle(a, b, UPPER));
    }
  }
}

// Adds to the sums of SIDE x SIDE channels, in four tiles, the products over a block of places.
void add_products(const Bf16* inputs, long step, const Bf16* gradients, float* sums) {
  asm volatile("" ::: "memory");
  _tile_loadd(0, sums, 64);
  _tile_loadd(1, sums + TILE, 64);
  _tile_loadd(2, sums + 2 * TILE, 64);
  _tile_loadd(3, sums + 3 * TILE, 64);
  for (int place = 0; place < BLOCK; place += SIDE) {
    _tile_loadd(4, inputs + place, 2 * step);
    _tile_loadd(5, inputs + place + 16 * step, 2 * step);
    _tile_loadd(6, gradients + place * SIDE, 128);
    _tile_loadd(7, gradients + place * SIDE + SIDE, 128);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + TILE, 64);
  _tile_stored(2, sums + 2 * TILE, 64);
  _tile_stored(3, sums + 3 * TILE, 64);
}

struct Shape {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

}  // namespace

// Whether the processor has them and the system lets this process use them.
extern "C" int has_tiles() {
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// filters (filter,filter,C,K) = their gradient in fp32, from inputs (N,H,W,C) and the gradient of
// the outputs (N,H',W',K) in bf16; C and K are multiples of SIDE.
extern "C" void tiles_weight_gradient(const Bf16* inputs, const Bf16* gradients, float* filters,
                                      int images, int height, int width, int in, int out,
                                      int padding, int filter) {
  const long rows = height + padding, columns = width + padding, taps = filter * filter;
  const long growth = 2 * padding - filter + 1;
  const Maps from{inputs, images, height, width, in, rows, columns, padding};
  const Maps to{gradients, images, height + growth, width + growth, out, rows, columns, 0};
  // The last tap of a block's last place, rounded up to an odd number of rows of the cache.
  const long step = ((BLOCK + (filter - 1) * (columns + 1) + SIDE - 1) / SIDE | 1) * SIDE;
  const long size = taps * in * out;
  const std::vector<Bf16> zeros(std::max(in, out));
  const long places = images * rows * columns;
  // Where a thread would have few blocks, its own sums would cost more than it saves.
  const long most = std::min<long>(omp_get_max_threads(), (places + 4 * BLOCK - 1) / (4 * BLOCK));
  Buffer<float> sums = allocate<float>(most * size);
#pragma omp parallel num_threads(most)
  {
    const Shape shape;
    asm volatile("" ::: "memory");  // the intrinsics do not say all that they read
    _tile_loadconfig(&shape);
    const long threads = omp_get_num_threads();
    float* own = sums.get() + omp_get_thread_num() * size;
    std::fill(own, own + size, 0.f);
    Buffer<Bf16> transposed = allocate<Bf16>(in * step), paired = allocate<Bf16>(out * BLOCK);
#pragma omp for schedule(static)
    for (long place = 0; place < places; place += BLOCK) {
      transpose_places(Walk(from, zeros.data(), place), in, step, step, transposed.get());
      pair_places(Walk(to, zeros.data(), place), out, paired.get());
      float* sum = own;
      for (long c = 0; c < in; c += SIDE)
        for (long k = 0; k < out; k += SIDE)
          for (long tap = 0; tap < taps; tap++, sum += SUMS)
            add_products(transposed.get() + c * step + tap / filter * columns + tap % filter, step,
                         paired.get() + k * BLOCK, sum);
    }
    _tile_release();
    // The sums of all threads, from (C / SIDE, K / SIDE, taps, 2, 2, 16, 16).
#pragma omp for schedule(static)
    for (long c = 0; c < in; c++)
      for (long k = 0; k < out; k++)
        for (long tap = 0; tap < taps; tap++) {
          const long group = (c / SIDE * (out / SIDE) + k / SIDE) * taps + tap;
          const long tile = c % SIDE / 16 * 2 + k % SIDE / 16;
          const float* sum = sums.get() + group * SUMS + tile * TILE + c % 16 * 16 + k % 16;
          float total = *sum;
          for (long thread = 1; thread < threads; thread++) total += sum[thread * size];
          filters[(tap * in + c) * out + k] = total;
        }
  }
}

#else

extern "C" int has_tiles() { return 0; }

#endif
