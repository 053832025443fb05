// Images of bytes in channels_last, resized and normalised: see preprocess.py.

#include "vectors.h"

namespace {

constexpr int CHANNELS = 3;
constexpr int TAPS = 4;  // pixels of a row, or of a column, that a new one is a sum of

typedef uint8_t Byte;
typedef float Pixel __attribute__((vector_size(16), aligned(4), may_alias));  // and what follows

INLINE Pixel load_pixel(const float* from) { return *reinterpret_cast<const Pixel*>(from); }
INLINE Pixel pixel_of(const float* from) { return Pixel{from[0], from[1], from[2]}; }

// Of each new row or column: the first that it is a sum of, and TAPS shares from there on.
struct Taps {
  const int* first;
  const float* shares;
};

struct Resizing {
  int height, width, side;
  Taps down, across;
  Pixel scale, shift;

  int length() const { return width * CHANNELS; }

  INLINE void apply(const Byte* image, float* floats, float* rows, float* output) const {
    for (int i = 0; i < height * length(); i++) floats[i] = image[i];
    for (int y = 0; y < side; y++)
      add_rows(floats + down.first[y] * length(), down.shares + y * TAPS, rows + y * length());
    for (int x = 0; x < side; x++)
      add_columns(rows + across.first[x] * CHANNELS, across.shares + x * TAPS, output, x);
  }

  INLINE void add_rows(const float* rows, const float* shares, float* __restrict sums) const {
    for (int i = 0; i < length(); i++) {
      float sum = 0;
#pragma GCC unroll 4
      for (int tap = 0; tap < TAPS; tap++) sum += shares[tap] * rows[tap * length() + i];
      sums[i] = sum;
    }
  }

  // Column x of the output. A pixel is written with what follows, which is the next column, and
  // the last one alone.
  INLINE void add_columns(const float* columns, const float* shares, float* output, int x) const {
    Pixel spread[TAPS];
    for (int tap = 0; tap < TAPS; tap++) spread[tap] = Pixel{} + shares[tap];
    for (int y = 0; y < side; y++) {
      const float* pixels = columns + y * length();
      float* to = output + (y * side + x) * CHANNELS;
      Pixel sum{};
#pragma GCC unroll 4
      for (int tap = 0; tap < TAPS; tap++) sum += spread[tap] * load_pixel(pixels + tap * CHANNELS);
      sum = sum * scale + shift;
      if (x + 1 < side)
        *reinterpret_cast<Pixel*>(to) = sum;
      else
        for (int channel = 0; channel < CHANNELS; channel++) to[channel] = sum[channel];
    }
  }
};

}  // namespace

// outputs (N,S,S,3) of images (N,H,W,3), each pixel a sum of TAPS x TAPS, times scale plus shift.
extern "C" void resize_and_normalise(const Byte* images, float* outputs, long count, int height,
                                     int width, int side, const int* first_rows,
                                     const float* row_shares, const int* first_columns,
                                     const float* column_shares, const float* scale,
                                     const float* shift) {
  const Resizing resizing{height,
                          width,
                          side,
                          {first_rows, row_shares},
                          {first_columns, column_shares},
                          pixel_of(scale),
                          pixel_of(shift)};
  const long size = long(height) * resizing.length(), rows = long(side) * resizing.length();
#pragma omp parallel firstprivate(resizing)
  {
    // The last pixel of a row is read with the number behind it.
    const Buffer<float> floats = allocate<float>(size), sums = allocate<float>(rows + 1);
    sums[rows] = 0;
#pragma omp for schedule(static)
    for (long i = 0; i < count; i++)
      resizing.apply(images + i * size, floats.get(), sums.get(),
                     outputs + i * side * side * CHANNELS);
  }
}

// The same where H and W are S.
extern "C" void normalise(const Byte* images, float* outputs, long count, int height, int width,
                          const float* scale, const float* shift) {
  const int length = width * CHANNELS;
  const Buffer<float> scales = allocate<float>(length), shifts = allocate<float>(length);
  for (int i = 0; i < length; i++) {
    scales[i] = scale[i % CHANNELS];
    shifts[i] = shift[i % CHANNELS];
  }
#pragma omp parallel for schedule(static)
  for (long row = 0; row < count * height; row++) {
    const Byte* from = images + row * length;
    float* __restrict to = outputs + row * length;
    for (int i = 0; i < length; i++) to[i] = from[i] * scales[i] + shifts[i];
  }
}
