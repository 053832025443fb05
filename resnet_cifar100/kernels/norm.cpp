// Batch normalisation and what follows it, for maps in channels_last in fp32 or bf16: see norm.py.
//
// A map is a matrix of (pixels of all images, channels). It is read twice forwards, for its mean
// and variance and for the outputs, and twice backwards, for the sums that every pixel needs and
// for its gradient. Threads take blocks of pixels; what they sum up is added in fp64 in the order
// of threads.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr long BLOCK = 128;  // pixels whose sums are kept in fp32

// e^x within three units of the last place, for x from -87 to 87; beyond, as there.
INLINE Vector exponential(Vector x) {
  x = x < -87.f ? Vector{} - 87.f : x;
  x = x > 87.f ? Vector{} + 87.f : x;
  const Vector halves = x * 1.44269504f;  // powers of two
  const Integers power =
      __builtin_convertvector(halves < 0.f ? halves - 0.5f : halves + 0.5f, Integers);
  const Vector whole = __builtin_convertvector(power, Vector);
  const Vector rest = x - whole * 0.693145752f - whole * 1.42860677e-6f;  // ln 2 in two parts
  Vector series = Vector{} + 1.f / 720;
  for (float factor : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f})
    series = series * rest + factor;
  return (Vector)((Integers)series + (power << 23));
}

// What follows the norm: its values, and the gradient of its inputs from that of its outputs. What
// is not a number stays so.
struct Identity {
  INLINE static Vector apply(Vector x) { return x; }
  INLINE static Vector gradient(Vector, Vector of_outputs) { return of_outputs; }
};

struct Relu {
  INLINE static Vector apply(Vector x) { return x <= 0.f ? Vector{} : x; }
  INLINE static Vector gradient(Vector x, Vector of_outputs) {
    return x <= 0.f ? Vector{} : of_outputs;
  }
};

struct Silu {
  INLINE static Vector apply(Vector x) { return x / (1.f + exponential(-x)); }
  INLINE static Vector gradient(Vector x, Vector of_outputs) {
    const Vector sigmoid = 1.f / (1.f + exponential(-x));
    return of_outputs * sigmoid * (1.f + x * (1.f - sigmoid));
  }
};

struct Norm {
  const float *weight, *bias;
  float eps;
  long pixels, channels;
};

// Each channel's outputs are inputs * scale + shift.
struct Affine {
  std::vector<float> scale, shift;
  std::vector<double> deviation;  // its inverse

  Affine(const Norm& norm, const float* mean, const float* variance)
      : scale(norm.channels), shift(norm.channels), deviation(norm.channels) {
    for (long c = 0; c < norm.channels; c++) {
      deviation[c] = 1 / std::sqrt(double(variance[c]) + norm.eps);
      scale[c] = norm.weight[c] * deviation[c];
      shift[c] = norm.bias[c] - mean[c] * (norm.weight[c] * deviation[c]);
    }
  }
};

struct Pair {
  Vector first, second;
};

template <int GROUP, class Origin, class Body>
INLINE void sum_group(const Norm& norm, long first, long count, long channel, Origin origin,
                      Body body, double* totals) {
  Vector sums[2][GROUP] = {}, from[GROUP];
  for (int i = 0; i < GROUP; i++) from[i] = origin(first * norm.channels + channel + i * LANES);
  for (long pixel = first; pixel < first + count; pixel++)
#pragma GCC unroll 4
    for (int i = 0; i < GROUP; i++) {
      const Pair terms = body(from[i], pixel * norm.channels, channel + i * LANES);
      sums[0][i] += terms.first;
      sums[1][i] += terms.second;
    }
  for (int i = 0; i < GROUP; i++)
    for (int lane = 0; lane < LANES; lane++) {
      const double zero = from[i][lane], sum = sums[0][i][lane];
      double* total = totals + channel + i * LANES + lane;
      total[0] += sum + count * zero;
      total[norm.channels] += sums[1][i][lane] + (2 * sum + count * zero) * zero;
    }
}

// The sums of two terms over all pixels, (2, channels). `body` takes an origin, the place of a
// pixel and a channel, and returns the terms of a vector of channels from there. The first term is
// counted from that origin, the second is its square, unless the origin is zero: so squares of a
// block do not cancel. `origin` takes the place of the block's first pixel.
template <class Origin, class Body>
std::vector<double> sum_pixels(const Norm& norm, Origin origin, Body body) {
  constexpr int GROUP = LANES / 4;  // vectors whose sums the registers hold
  const long size = 2 * norm.channels, most = omp_get_max_threads();
  std::vector<double> totals(most * size);
#pragma omp parallel
  {
    double* own = totals.data() + omp_get_thread_num() * size;
#pragma omp for schedule(static)
    for (long first = 0; first < norm.pixels; first += BLOCK) {
      const long count = std::min(BLOCK, norm.pixels - first);
      long channel = 0;
      for (; channel + GROUP * LANES <= norm.channels; channel += GROUP * LANES)
        sum_group<GROUP>(norm, first, count, channel, origin, body, own);
      for (; channel < norm.channels; channel += LANES)
        sum_group<1>(norm, first, count, channel, origin, body, own);
    }
  }
  for (long i = size; i < most * size; i++) totals[i % size] += totals[i];
  return totals;
}

// body(place, channel) for every vector of every pixel.
template <class Body>
void each_pixel(const Norm& norm, Body body) {
#pragma omp parallel for schedule(static)
  for (long pixel = 0; pixel < norm.pixels; pixel++)
    for (long channel = 0; channel < norm.channels; channel += LANES)
      body(pixel * norm.channels, channel);
}

template <class T, class Activation>
void forward(const Norm& norm, const T* inputs, T* outputs, float* mean, float* variance) {
  const std::vector<double> sums = sum_pixels(
      norm, [&](long place) { return load(inputs + place); },
      [&](Vector origin, long place, long c) {
        const Vector x = load(inputs + place + c) - origin;
        return Pair{x, x * x};
      });
  for (long c = 0; c < norm.channels; c++) {
    const double center = sums[c] / norm.pixels;
    mean[c] = center;
    variance[c] = std::max(sums[norm.channels + c] / norm.pixels - center * center, 0.);
  }
  const Affine affine(norm, mean, variance);
  each_pixel(norm, [&](long place, long c) {
    const Vector x = load(inputs + place + c) * load(&affine.scale[c]) + load(&affine.shift[c]);
    store(outputs + place + c, Activation::apply(x));
  });
}

template <class T, class Activation>
void backward(const Norm& norm, const T* inputs, const T* gradients, const float* mean,
              const float* variance, T* of_inputs, float* of_weight, float* of_bias) {
  const Affine affine(norm, mean, variance);
  // The gradient of what enters the activation.
  auto inner = [&](Vector x, long place, long c) __attribute__((always_inline)) {
    const Vector normed = x * load(&affine.scale[c]) + load(&affine.shift[c]);
    return Activation::gradient(normed, load(gradients + place + c));
  };
  const std::vector<double> sums = sum_pixels(
      norm, [](long) { return Vector{}; },
      [&](Vector, long place, long c) {
        const Vector x = load(inputs + place + c), gradient = inner(x, place, c);
        return Pair{gradient, gradient * (x - load(mean + c))};
      });
  // Of inputs: scale * gradient + slope * x + shift, so that its mean, and that of its product with
  // the inputs, are zero.
  std::vector<float> slope(norm.channels), shift(norm.channels);
  for (long c = 0; c < norm.channels; c++) {
    of_bias[c] = sums[c];
    of_weight[c] = sums[norm.channels + c] * affine.deviation[c];
    const double scale = norm.weight[c] * affine.deviation[c] / norm.pixels;
    slope[c] = -scale * affine.deviation[c] * affine.deviation[c] * sums[norm.channels + c];
    shift[c] = -scale * sums[c] - double(slope[c]) * mean[c];
  }
  each_pixel(norm, [&](long place, long c) {
    const Vector x = load(inputs + place + c);
    store(of_inputs + place + c,
          load(&affine.scale[c]) * inner(x, place, c) + (load(&slope[c]) * x + load(&shift[c])));
  });
}

// body(number, activation) with a number of the precision of the maps.
template <class Body>
void with_kinds(int is_bf16, int activation, Body body) {
  auto with_activation = [&](auto number) {
    if (activation == 0) body(number, Identity());
    if (activation == 1) body(number, Relu());
    if (activation == 2) body(number, Silu());
  };
  is_bf16 ? with_activation(Bf16()) : with_activation(0.f);
}

}  // namespace

// outputs (pixels, channels) and the statistics of inputs; activation 0 is none, 1 ReLU, 2 SiLU.
extern "C" void norm_forward(const void* inputs, void* outputs, const float* weight,
                             const float* bias, float* mean, float* variance, float eps,
                             long pixels, long channels, int activation, int is_bf16) {
  const Norm norm{weight, bias, eps, pixels, channels};
  with_kinds(is_bf16, activation, [&](auto number, auto kind) {
    using T = decltype(number);
    forward<T, decltype(kind)>(norm, static_cast<const T*>(inputs), static_cast<T*>(outputs), mean,
                               variance);
  });
}

// The gradients of inputs, weight and bias from that of the outputs.
extern "C" void norm_backward(const void* inputs, const void* gradients, void* of_inputs,
                              const float* weight, const float* bias, const float* mean,
                              const float* variance, float* of_weight, float* of_bias, float eps,
                              long pixels, long channels, int activation, int is_bf16) {
  const Norm norm{weight, bias, eps, pixels, channels};
  with_kinds(is_bf16, activation, [&](auto number, auto kind) {
    using T = decltype(number);
    backward<T, decltype(kind)>(norm, static_cast<const T*>(inputs),
                                static_cast<const T*>(gradients), mean, variance,
                                static_cast<T*>(of_inputs), of_weight, of_bias);
  });
}
