// The highest of 2x2 pixels, for maps in channels_last in fp32 or bf16: see pool.py.

#include <algorithm>

#include "vectors.h"

namespace {

typedef decltype(Vector{} < Vector{}) Mask;

struct Pooling {
  long images, height, width, channels;

  // body(place, pooled) for every vector of every pooled pixel: where it lies in its own map, and
  // where the first of its four pixels lies in theirs.
  template <class Body>
  void each_vector(Body body) const {
    const long down = height / 2, across = width / 2;
#pragma omp parallel for schedule(static)
    for (long row = 0; row < images * down; row++)
      for (long column = 0; column < across; column++) {
        const long pixel = (row / down * height + row % down * 2) * width + column * 2;
        const long pooled = row * across + column;
        for (long channel = 0; channel < channels; channel += LANES)
          body(pixel * channels + channel, pooled * channels + channel);
      }
  }

  // From the first of four pixels to each of them, row by row.
  long step(int pixel) const { return (pixel / 2 * width + pixel % 2) * channels; }
};

// The four pixels from `first` on, and the highest of them; what is not a number is the highest.
template <class T>
INLINE Vector highest(const Pooling& pooling, const T* first, Vector (&pixels)[4]) {
  for (int i = 0; i < 4; i++) pixels[i] = load(first + pooling.step(i));
  Vector found = pixels[0];
  for (int i = 1; i < 4; i++)
    found = (pixels[i] > found) | (pixels[i] != pixels[i]) ? pixels[i] : found;
  return found;
}

template <class T>
void forward(const Pooling& pooling, const void* inputs, void* outputs) {
  const T* from = static_cast<const T*>(inputs);
  T* to = static_cast<T*>(outputs);
  pooling.each_vector([&](long place, long pooled) {
    Vector pixels[4];
    store(to + pooled, highest(pooling, from + place, pixels));
  });
}

// The first of the highest pixels gets the gradient, the others zero, as do those that no 2x2
// holds.
template <class T>
void backward(const Pooling& pooling, const void* inputs, const void* gradients, void* of_inputs) {
  const T* from = static_cast<const T*>(inputs);
  T* to = static_cast<T*>(of_inputs);
  pooling.each_vector([&](long place, long pooled) {
    Vector pixels[4];
    const Vector found = highest(pooling, from + place, pixels);
    const Vector gradient = load(static_cast<const T*>(gradients) + pooled);
    Mask is_open = Vector{} == Vector{};
    for (int i = 0; i < 4; i++) {
      const Mask is_it = is_open & ~(pixels[i] < found);
      store(to + place + pooling.step(i), is_it ? gradient : Vector{});
      is_open &= ~is_it;
    }
  });
  const long row = pooling.width * pooling.channels, column = pooling.channels;
  const bool is_odd = pooling.width % 2;
#pragma omp parallel for schedule(static)
  for (long y = 0; y < pooling.images * pooling.height; y++) {
    const bool is_left_over = pooling.height % 2 && y % pooling.height == pooling.height - 1;
    T* end = to + (y + 1) * row;
    std::fill(is_left_over ? end - row : end - (is_odd ? column : 0), end, T(0));
  }
}

}  // namespace

// outputs (N,H/2,W/2,C), halves rounded down, from inputs (N,H,W,C).
extern "C" void pool_forward(const void* inputs, void* outputs, int images, int height, int width,
                             int channels, int is_bf16) {
  const Pooling pooling{images, height, width, channels};
  (is_bf16 ? forward<Bf16> : forward<float>)(pooling, inputs, outputs);
}

// The gradient of inputs from that of the outputs.
extern "C" void pool_backward(const void* inputs, const void* gradients, void* of_inputs,
                              int images, int height, int width, int channels, int is_bf16) {
  const Pooling pooling{images, height, width, channels};
  (is_bf16 ? backward<Bf16> : backward<float>)(pooling, inputs, gradients, of_inputs);
}
