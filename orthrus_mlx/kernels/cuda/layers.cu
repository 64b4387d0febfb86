// Takes up to 32 rows of one block through layers, all of them in one launch: between two steps of a layer
// every thread block waits for every other, with the weights of the step to come already on their way.
//
// `arrays_at` [LAYERS, FIELDS] and `stored_at` [LAYERS, 2]: each layer's four weights with their scales and biases, and
// four norms; its keys and values [G, capacity, D], into which the block's rows are written. `meeting`: what the blocks
// wait on, at rest between launches; the blocks must all be on the device at a time, and no other launch that uses it.

constexpr int PER_WEIGHT = BITS == 0 ? 1 : 3;
enum Weight { QKV, OUT, GATE_UP, DOWN };
enum Norm { BEFORE, QUERY_NORM, KEY_NORM, BETWEEN };

constexpr int H = G * REPEATS, PROJECTED = (H + 2 * G) * D;
constexpr int PARTIALS = HIDDEN / 16;
const int L = h_shape[0], layers = static_cast<int>(settings[3]), lane = threadIdx.x % 32, warp = threadIdx.x / 32;

__shared__ float factors[ROWS];
Workspace& workspace = *static_cast<Workspace*>(launch_memory());
static_assert(sizeof(Team[2]) <= WORKSPACE);
Team* teams = static_cast<Team*>(launch_memory());

Attended<T> all;
all.queries = queries;
all.paths = paths;
all.P = paths_shape[0];
all.S = paths_shape[1];
all.L = L;
all.capacity = stored_keys_0_shape[2];
all.prefix = offset[0];
all.chunks = chunks_for(all.prefix + all.S);
all.scale = settings[1];
all.causal = settings[2] != 0;
all.sums = chunk_sums;
all.peaks = chunk_peaks;
all.masses = chunk_masses;
all.y = attended;

Meeting meet{const_cast<unsigned*>(meeting)};

// Square sums of 16 columns are kept by the step that writes a row and added in order by the step that reads it.
auto keep_squares = [&](int tile, int n, int m, float value) {
  float square = __fmul_rn(value, value);
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) {
    square += __shfl_xor_sync(0xffffffffu, square, distance);
  }
  if (n == 0 && m < L) {
    squares[m * PARTIALS + tile] = square;
  }
};
// What `product` calls with a unit's totals, for what takes those of a tile of 16 rows.
auto each_tile = [](auto put) {
  return [=](int unit, int n, int m, const auto& totals) {
    constexpr int PANELS = sizeof(totals) / sizeof(float);
#pragma unroll
    for (int p = 0; p < PANELS; p++) {
      put(PANELS * unit + p, n, m, totals[p]);
    }
  };
};
auto find_factors = [&](auto partial) {
  for (int m = warp; m < ROWS; m += WARPS) {
    float square = 0;
    if (m < L) {
      for (int i = lane; i < PARTIALS; i += 32) {
        square += partial(m, i);
      }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      square += __shfl_xor_sync(0xffffffffu, square, distance);
    }
    if (lane == 0) {
      factors[m] = rsqrtf(square / HIDDEN + settings[0]);
    }
  }
  __syncthreads();
};
auto kept = [&](int m, int i) { return squares[m * PARTIALS + i]; };
auto given = [&](int m, int i) {
  float square = 0;
  for (int c = 0; c < 16; c++) {
    const float value = static_cast<float>(h[m * HIDDEN + 16 * i + c]);
    square = fmaf(value, value, square);
  }
  return square;
};

for (int layer = 0; layer < layers; layer++) {
  const void* const* at = arrays_at + layer * FIELDS;
  auto norm = [&](Norm which) { return static_cast<const T*>(at[4 * PER_WEIGHT + which]); };
  auto matrix = [&](Weight which) {
    const void* const* parts = at + which * PER_WEIGHT;
    const bool dense = BITS == 0;
    return Matrix<T>{
        parts[0], dense ? nullptr : static_cast<const T*>(parts[PER_WEIGHT / 2]),
        dense ? nullptr : static_cast<const T*>(parts[PER_WEIGHT - 1])};
  };
  const T* residual = layer == 0 ? h : y;
  T* keys = const_cast<T*>(stored_at[2 * layer]);
  T* values = const_cast<T*>(stored_at[2 * layer + 1]);

  product<T, QKV_PANELS, BITS, GROUP, true>(
      matrix(QKV), HIDDEN, PROJECTED / (16 * QKV_PANELS), 16 * QKV_PANELS, 16, L, norm(BEFORE), factors, workspace,
      [&] {
        if (layer == 0) {
          find_factors(given);
        } else {
          meet.wait();
          find_factors(kept);
        }
        return residual;
      },
      each_tile([&](int tile, int n, int m, float total) {
        if (m < L) {
          qkv[(long long)m * PROJECTED + 16 * tile + n] = static_cast<T>(total);
        }
      }));
  meet.arrive();
  all.keys = keys;
  all.values = values;
  Units<T, REPEATS, G, D> units(all);
  units.prefetch_cache();
  meet.wait();

  rotate<T, H, G, D>(
      qkv, norm(QUERY_NORM), norm(KEY_NORM), frequencies, settings[0], depths, all.prefix, L, all.capacity, queries,
      keys, values);
  meet.arrive();
  Keys<T, D> first_keys;
  units.read_keys(first_keys);
  meet.wait();

  attend_all(units, first_keys, teams);
  if (all.chunks > 1) {
    meet.arrive();
    meet.wait();
    merge<T, REPEATS, G, D>(all);
  }
  meet.arrive();

  auto add = [&](const T* before) {
    return each_tile([&, before](int tile, int n, int m, float total) {
      const long long place = (long long)m * HIDDEN + 16 * tile + n;
      const T sum = static_cast<T>(m < L ? total + static_cast<float>(before[place]) : 0.0f);
      if (m < L) {
        y[place] = sum;
      }
      keep_squares(tile, n, m, static_cast<float>(sum));
    });
  };
  constexpr int OUT_ROWS = 16 * OUT_PANELS;
  product<T, OUT_PANELS, BITS, GROUP, false>(
      matrix(OUT), H * D, HIDDEN / OUT_ROWS, OUT_ROWS, 16, L, static_cast<const T*>(nullptr), factors, workspace,
      [&]() -> const T* {
        meet.wait();
        return attended;
      },
      add(residual));
  meet.arrive();

  product<T, 2, BITS, GROUP, true>(
      matrix(GATE_UP), HIDDEN, INNER / 16, 16, INNER, L, norm(BETWEEN), factors, workspace,
      [&]() -> const T* {
        meet.wait();
        find_factors(kept);
        return y;
      },
      [&](int unit, int n, int m, const float (&totals)[2]) {
        if (m < L) {
          const float gate = static_cast<float>(static_cast<T>(totals[0] / __fadd_rn(1.0f, expf(-totals[0]))));
          inner[(long long)m * INNER + 16 * unit + n] = static_cast<T>(gate * totals[1]);
        }
      });
  meet.arrive();

  product<T, OUT_PANELS, BITS, GROUP, false>(
      matrix(DOWN), INNER, HIDDEN / OUT_ROWS, OUT_ROWS, 16, L, static_cast<const T*>(nullptr), factors, workspace,
      [&]() -> const T* {
        meet.wait();
        return inner;
      },
      add(y));
  if (layer + 1 < layers) {
    meet.arrive();
  }
}
if (blockIdx.x == 0 && threadIdx.x == 0) {
  done[0] = 1;
}
